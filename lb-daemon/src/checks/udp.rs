//! The UDP probe: a datagram, and what comes of it.
//!
//! The socket is connected, so datagrams from elsewhere do not reach it and ICMP errors do. Where no answer is
//! expected, silence passes: it shows that the port is not known to be closed, and no more than that.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use lb_core::config::model::Check;
use lb_core::health::Outcome;
use tokio::net::UdpSocket;

use super::Untried;
use super::probe::{Progress, Trouble, connect_udp, contains, just_before, quoted, took, words};
use crate::clock;

/// An ICMP error that is not there by now is not expected any more.
const SILENCE: Duration = Duration::from_secs(1);

/// The largest datagram.
const DATAGRAM_MAX: usize = 65_535;

pub(super) async fn probe(
    address: SocketAddr,
    check: &Check,
    send: &[u8],
    expect: Option<&[u8]>,
) -> Result<Outcome, Untried> {
    let progress = Progress::default();
    let silence = SILENCE.min(just_before(just_before(check.timeout)));
    progress.judge(check.timeout, run(address, send, expect, silence, &progress)).await
}

async fn run(
    address: SocketAddr,
    send: &[u8],
    expect: Option<&[u8]>,
    silence: Duration,
    progress: &Progress,
) -> Result<String, Trouble> {
    let started = clock::now();
    let socket = connect_udp(address).await?;
    socket.send(send).await.map_err(refused)?;
    let mut buffer = vec![0; DATAGRAM_MAX];
    let Some(expect) = expect else {
        return match tokio::time::timeout(silence, receive(&socket, &mut buffer)).await {
            Ok(answer) => answer.map(|_| format!("answered in {}", took(started))),
            Err(_) => Ok("no answer, no refusal".to_owned()),
        };
    };
    loop {
        let answer = receive(&socket, &mut buffer).await?;
        if contains(answer, expect) {
            return Ok(format!("answered in {}", took(started)));
        }
        // The one that is expected may come yet.
        progress.at_timeout(format!("answer {} lacks {}", quoted(answer), quoted(expect)));
    }
}

async fn receive<'a>(socket: &UdpSocket, buffer: &'a mut [u8]) -> Result<&'a [u8], Trouble> {
    let length = socket.recv(buffer).await.map_err(refused)?;
    Ok(&buffer[..length])
}

/// UDP has no connections that could be refused.
pub(super) fn refused(error: io::Error) -> Trouble {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Trouble::failed("port unreachable"),
        Some(_) | None => match words(&error) {
            Ok(words) => Trouble::Failed(words),
            Err(untried) => Trouble::Untried(untried),
        },
    }
}

#[cfg(test)]
mod tests {
    use lb_core::config::model::CheckKind;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(400);

    async fn probed(address: SocketAddr, expect: Option<&str>) -> Outcome {
        let expect = expect.map(|text| text.as_bytes().to_vec());
        let kind = CheckKind::Udp { send: b"ping".to_vec(), expect: expect.clone() };
        let check = Check { kind, timeout: TIMEOUT, ..Check::tcp() };
        let probe = probe(address, &check, b"ping", expect.as_deref());
        tokio::time::timeout(TIMEOUT * 10, probe).await.expect("the probe ends in time").unwrap()
    }

    /// A server that sends each of `answers` to whoever sends it `ping`.
    async fn server(answers: &'static [&str]) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                assert_eq!(&buffer[..length], b"ping");
                for answer in answers {
                    socket.send_to(answer.as_bytes(), client).await.unwrap();
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn an_answer_passes_if_it_has_what_is_expected() {
        let table: [(&'static [&str], _, Result<&str, &str>); 6] = [
            (&["a pong b"], Some("pong"), Ok("answered in ")),
            (&["first", "pong"], Some("pong"), Ok("answered in ")),
            (&["anything"], None, Ok("answered in ")),
            (&[], None, Ok("no answer, no refusal")),
            (&["nonsense\n"], Some("pong"), Err(r#"answer "nonsense" lacks "pong""#)),
            (&[], Some("pong"), Err("no answer within 400ms")),
        ];
        for (answers, expect, result) in table {
            let outcome = probed(server(answers).await, expect).await;
            assert_eq!(outcome.passed, result.is_ok(), "{answers:?}: {outcome:?}");
            let (Ok(words) | Err(words)) = result;
            assert!(outcome.reason.starts_with(words), "{answers:?}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_down_at_once_whatever_is_expected() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let address = UdpSocket::bind(host).await.unwrap().local_addr().unwrap();
            for expect in [None, Some("pong")] {
                assert_eq!(probed(address, expect).await, Outcome::failed("port unreachable"));
            }
        }
    }

    #[tokio::test]
    async fn an_answer_from_elsewhere_does_not_count() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let elsewhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        tokio::spawn(async move {
            let (_, client) = socket.recv_from(&mut [0; 64]).await.unwrap();
            elsewhere.send_to(b"pong", client).await.unwrap();
            std::future::pending::<()>().await;
        });
        assert_eq!(probed(address, Some("pong")).await, Outcome::failed("no answer within 400ms"));
    }
}
