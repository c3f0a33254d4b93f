//! The TCP probe: a handshake, then an orderly close.
//!
//! The source address is the host's own, by routing. The close is a FIN: the server sees a client that came and left,
//! as it does every day. A reset would spare this host a socket in TIME_WAIT for a minute, but servers log it as
//! an error. Dropping the future closes the socket; the time-out is the caller's.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use lb_core::health::Outcome;
use tokio::net::TcpStream;

use super::Untried;
use crate::clock;

pub(super) async fn probe(address: SocketAddr) -> Result<Outcome, Untried> {
    let started = clock::now();
    match TcpStream::connect(address).await {
        Ok(stream) => {
            let took = clock::now().saturating_duration_since(started);
            drop(stream);
            Ok(Outcome::passed(format!("connected in {}", milliseconds(took))))
        }
        Err(error) => failure(&error),
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

/// What a failed connect says of the backend, if anything.
fn failure(error: &io::Error) -> Result<Outcome, Untried> {
    let words = match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "connection refused",
        Some(libc::ECONNRESET) => "connection reset",
        Some(libc::EHOSTUNREACH) => "no route to host",
        Some(libc::ENETUNREACH) => "network is unreachable",
        Some(libc::ETIMEDOUT) => "no answer",
        Some(libc::EACCES | libc::EPERM) => "forbidden by a route or a firewall of this host",
        // This host's trouble, not the backend's: taking all backends out would make it everybody's.
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL) => {
            return Err(Untried(error.to_string()));
        }
        Some(_) | None => return Ok(Outcome::failed(error.to_string())),
    };
    Ok(Outcome::failed(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_in_words_and_own_trouble_is_no_failure() {
        let table = [
            (libc::ECONNREFUSED, Some("connection refused")),
            (libc::EHOSTUNREACH, Some("no route to host")),
            (libc::ENETUNREACH, Some("network is unreachable")),
            (libc::EMFILE, None),
            (libc::EADDRNOTAVAIL, None),
        ];
        for (code, words) in table {
            let said = failure(&io::Error::from_raw_os_error(code)).ok();
            assert_eq!(said, words.map(Outcome::failed), "{code}");
        }
    }

    #[test]
    fn times_are_told_in_milliseconds() {
        assert_eq!(milliseconds(Duration::from_micros(412)), "0.4 ms");
        assert_eq!(milliseconds(Duration::from_millis(1250)), "1250.0 ms");
    }
}
