//! What the probes share: how one ends, connected sockets, and the words for what went wrong.
//!
//! Each kind of probe is a future of its own that the runner spawns. Dropping it closes its sockets and frees what it
//! holds; no probe leaves a task behind.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lb_core::health::Outcome;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpStream, UdpSocket};

use super::Untried;
use crate::clock;

/// How much of what a server sent is quoted in a reason, in characters.
const QUOTED: usize = 60;

/// Why a probe ended without passing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// In words, without the step; the backend is to blame.
    Failed(String),
    Untried(Untried),
}

impl Trouble {
    pub(super) fn failed(words: impl Into<String>) -> Self {
        Self::Failed(words.into())
    }
    pub(super) fn untried(words: impl Into<String>) -> Self {
        Self::Untried(Untried(words.into()))
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match words(&error) {
            Ok(words) => Self::Failed(words),
            Err(untried) => Self::Untried(untried),
        }
    }
}

/// What a failed call on a socket says of the backend, if anything.
pub(super) fn words(error: &io::Error) -> Result<String, Untried> {
    let words = match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "connection refused",
        Some(libc::ECONNRESET) => "connection reset",
        Some(libc::EPIPE) => CLOSED,
        Some(libc::EHOSTUNREACH) => "no route to host",
        Some(libc::ENETUNREACH) => "network is unreachable",
        Some(libc::ETIMEDOUT) => "no answer",
        Some(libc::EACCES | libc::EPERM) => "forbidden by a route or a firewall of this host",
        // This host's trouble, not the backend's: taking all backends out would make it everybody's.
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL) => {
            return Err(Untried(error.to_string()));
        }
        None if error.kind() == io::ErrorKind::UnexpectedEof => CLOSED,
        Some(_) | None => return Ok(error.to_string()),
    };
    Ok(words.to_owned())
}

/// The server ended the connection in mid-conversation.
pub(super) const CLOSED: &str = "the server closed before it answered";

/// What a probe is at, to stand in front of the reason of a failure, that of the time-out included.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<At>);

#[derive(Debug, Default)]
struct At {
    /// As in `/owa/healthcheck.htm`; empty while there is nothing to name.
    step: String,
    /// What to say at the time-out, if it is not that nothing came.
    late: Option<String>,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, At> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names the step that begins.
    pub(super) fn step(&self, step: impl Into<String>) {
        *self.lock() = At { step: step.into(), late: None };
    }

    /// What to say if the time-out comes before the step ends.
    pub(super) fn at_timeout(&self, words: impl Into<String>) {
        self.lock().late = Some(words.into());
    }

    fn failed(&self, words: &str) -> Outcome {
        let step = &self.lock().step;
        Outcome::failed(if step.is_empty() { words.to_owned() } else { format!("{step}: {words}") })
    }

    /// Runs `work` to its end or to just before the `timeout` of the check, where the board would count the probe as
    /// failed too but could not say at which step.
    pub(super) async fn judge(
        &self,
        timeout: Duration,
        work: impl Future<Output = Result<String, Trouble>>,
    ) -> Result<Outcome, Untried> {
        match tokio::time::timeout(just_before(timeout), work).await {
            Ok(Ok(reason)) => Ok(Outcome::passed(reason)),
            Ok(Err(Trouble::Failed(words))) => Ok(self.failed(&words)),
            Ok(Err(Trouble::Untried(untried))) => Err(untried),
            Err(_) => {
                let late = self.lock().late.take();
                Ok(self.failed(&late.unwrap_or_else(|| format!("no answer within {timeout:?}"))))
            }
        }
    }
}

/// The moment at which a probe ends by itself.
pub(super) fn just_before(timeout: Duration) -> Duration {
    timeout - (timeout / 10).min(Duration::from_millis(20))
}

pub(super) async fn connect(address: SocketAddr) -> Result<TcpStream, Trouble> {
    let stream = TcpStream::connect(address).await?;
    // Requests are small and each waits for its answer.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A datagram socket that hears from `address` alone, ICMP errors included.
pub(super) async fn connect_udp(address: SocketAddr) -> Result<UdpSocket, Trouble> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    report_errors(&socket, address)?;
    socket.connect(address).await?;
    Ok(socket)
}

/// Has the kernel report every ICMP error, an unreachable host too, which it otherwise keeps to itself (`udp(7)`, `IP_RECVERR`).
pub(super) fn report_errors(socket: &impl std::os::fd::AsFd, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => setsockopt(socket, sockopt::Ipv4RecvErr, &true)?,
        SocketAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvErr, &true)?,
    }
    Ok(())
}

pub(super) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    // `windows` takes no 0.
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

/// Time since `started`, as in `0.4 ms`.
pub(super) fn took(started: std::time::Instant) -> String {
    milliseconds(clock::now().saturating_duration_since(started))
}

pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

/// The start of what a server sent, fit for a line of a log.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(QUOTED * 4)];
    let text = String::from_utf8_lossy(start);
    let text = text.trim_end();
    let shown: String = text.chars().take(QUOTED).collect();
    let more = if shown.len() < text.len() || start.len() < bytes.len() { "..." } else { "" };
    format!("{shown:?}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_in_words_and_own_trouble_is_no_failure() {
        let table = [
            (libc::ECONNREFUSED, Some("connection refused")),
            (libc::ECONNRESET, Some("connection reset")),
            (libc::EPIPE, Some(CLOSED)),
            (libc::EHOSTUNREACH, Some("no route to host")),
            (libc::ENETUNREACH, Some("network is unreachable")),
            (libc::EMFILE, None),
            (libc::EADDRNOTAVAIL, None),
        ];
        for (code, expected) in table {
            let said = words(&io::Error::from_raw_os_error(code)).ok();
            assert_eq!(said.as_deref(), expected, "{code}");
        }
        assert_eq!(words(&io::ErrorKind::UnexpectedEof.into()).unwrap(), CLOSED);
    }

    #[test]
    fn times_are_told_in_milliseconds() {
        assert_eq!(milliseconds(Duration::from_micros(412)), "0.4 ms");
        assert_eq!(milliseconds(Duration::from_millis(1250)), "1250.0 ms");
    }

    #[test]
    fn quotes_are_short_and_on_one_line() {
        assert_eq!(quoted(b"SSH-2.0-OpenSSH\r\n"), "\"SSH-2.0-OpenSSH\"");
        assert_eq!(quoted(b"a\nb\x1b[0m\xff"), "\"a\\nb\\u{1b}[0m\u{fffd}\"");
        let long = quoted(&[b'x'; 100_000]);
        assert_eq!(long, format!("\"{}\"...", "x".repeat(QUOTED)));
    }

    #[tokio::test]
    async fn the_time_out_names_the_step() {
        let progress = Progress::default();
        let timeout = Duration::from_millis(50);
        let work = async {
            progress.step("/a");
            std::future::pending().await
        };
        let outcome = progress.judge(timeout, work).await.unwrap();
        assert_eq!(outcome, Outcome::failed("/a: no answer within 50ms"));
        let work = async {
            progress.step("/b");
            progress.at_timeout("the answer lacks x");
            std::future::pending().await
        };
        let outcome = progress.judge(timeout, work).await.unwrap();
        assert_eq!(outcome, Outcome::failed("/b: the answer lacks x"));
    }
}
