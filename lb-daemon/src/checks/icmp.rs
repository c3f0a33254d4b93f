//! The ICMP probe: one echo request, and the time until its reply.
//!
//! A raw socket for each probe, connected, so that the kernel hands it this backend's messages alone. One socket for
//! all, as ping libraries have it, would wake for every ICMP message that reaches the host. An echo is eight bytes of
//! header (RFC 792, RFC 4443 4.1); what tells this probe's reply from others' is its random payload.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use lb_common::checksum;
use lb_core::config::model::Check;
use lb_core::health::Outcome;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::Untried;
use super::probe::{Progress, Trouble, report_errors, took};
use crate::clock;

const ECHO_HEADER: usize = 8;
/// As large as that of the usual ping, so that what lets one through lets both through.
const PAYLOAD: usize = 56;

pub(super) async fn probe(address: SocketAddr, check: &Check) -> Result<Outcome, Untried> {
    Progress::default().judge(check.timeout, run(address)).await
}

async fn run(address: SocketAddr) -> Result<String, Trouble> {
    let socket = open(address).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Trouble::untried("an echo request needs CAP_NET_RAW"),
        Some(_) | None => error.into(),
    })?;
    let request = request(address);
    let started = clock::now();
    socket.send(&request).await?;
    let mut buffer = [0; 512];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if is_reply(address, &buffer[..length], &request) {
            return Ok(format!("echoed in {}", took(started)));
        }
    }
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let (domain, protocol) = match address {
        SocketAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        SocketAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW.nonblocking().cloexec(), Some(protocol))?;
    report_errors(&socket, address)?;
    socket.connect(&SocketAddr::new(address.ip(), 0).into())?;
    // To the runtime one socket that sends and receives datagrams is like another.
    UdpSocket::from_std(OwnedFd::from(socket).into())
}

/// An echo request. The kernel computes the checksum of ICMPv6 (RFC 3542, section 3.1).
fn request(address: SocketAddr) -> [u8; ECHO_HEADER + PAYLOAD] {
    let mut packet = [0; ECHO_HEADER + PAYLOAD];
    let random = RandomState::new();
    for (number, bytes) in packet.chunks_exact_mut(8).enumerate() {
        bytes.copy_from_slice(&random.hash_one(number).to_ne_bytes());
    }
    // The identifier stays random.
    let kind = if address.is_ipv4() { 8 } else { 128 };
    [packet[0], packet[1], packet[2], packet[3], packet[6], packet[7]] = [kind, 0, 0, 0, 0, 1];
    if address.is_ipv4() {
        let sum = checksum::checksum(&[&packet]);
        packet[2..4].copy_from_slice(&sum);
    }
    packet
}

/// Whether what arrived is the reply to `request`: the same but for type and checksum. IPv4 arrives with its header.
fn is_reply(address: SocketAddr, packet: &[u8], request: &[u8]) -> bool {
    let (kind, header) = match address {
        SocketAddr::V4(_) => (0, packet.first().map_or(0, |first| usize::from(first & 0xf) * 4)),
        SocketAddr::V6(_) => (129, 0),
    };
    packet.get(header..).is_some_and(|icmp| {
        icmp.len() == request.len() && icmp[..2] == [kind, 0] && icmp[4..] == request[4..]
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lb_core::config::model::CheckKind;

    use super::*;
    use crate::test_net::Host;

    async fn probed(address: &str, timeout: Duration) -> Outcome {
        let check = Check { kind: CheckKind::Icmp, timeout, ..Check::tcp() };
        let address = SocketAddr::new(address.parse().unwrap(), 443);
        tokio::time::timeout(timeout * 5, probe(address, &check)).await.expect("in time").unwrap()
    }

    #[test]
    fn a_host_that_echoes_passes_and_an_unreachable_one_is_down_at_once() {
        let host = Host::new();
        host.ip("route add unreachable 192.0.2.0/24");
        let timeout = Duration::from_secs(2);
        host.run_async(move || async move {
            for address in ["127.0.0.1", "::1"] {
                let outcome = probed(address, timeout).await;
                assert!(outcome.passed && outcome.reason.starts_with("echoed in "), "{outcome:?}");
            }
            let outcome = probed("192.0.2.1", timeout).await;
            assert_eq!(outcome, Outcome::failed("no route to host"));
            let outcome = probed("203.0.113.1", timeout).await;
            assert_eq!(outcome, Outcome::failed("network is unreachable"));
        });
    }

    #[test]
    fn a_host_that_is_silent_is_down_at_the_time_out() {
        let host = Host::new();
        let other = Host::new();
        host.cable("near", &other, "far");
        host.ip("address add 192.0.2.1/24 dev near");
        host.ip("neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev near");
        host.run_async(move || async move {
            let outcome = probed("192.0.2.2", Duration::from_millis(100)).await;
            assert_eq!(outcome, Outcome::failed("no answer within 100ms"));
        });
    }

    #[test]
    fn only_the_reply_to_the_very_request_counts() {
        let (v4, v6) = ("192.0.2.1:0".parse().unwrap(), "[2001:db8::1]:0".parse().unwrap());
        let request_v4 = request(v4);
        assert_eq!(checksum::checksum(&[&request_v4]), [0, 0]);
        let mut reply = request_v4.to_vec();
        reply[0] = 0;
        let with_header = |icmp: &[u8]| [&[0x45; 20], icmp].concat();
        assert!(is_reply(v4, &with_header(&reply), &request_v4));
        assert!(!is_reply(v4, &with_header(&request_v4), &request_v4), "one's own request on loopback");
        assert!(!is_reply(v4, &with_header(&reply), &request(v4)), "another probe's reply");
        let request_v6 = request(v6);
        let mut reply = request_v6;
        reply[0] = 129;
        assert!(is_reply(v6, &reply, &request_v6));
        for length in 0..reply.len() {
            assert!(!is_reply(v6, &reply[..length], &request_v6));
            assert!(!is_reply(v4, &[0x4f; 64][..length], &request_v4));
        }
    }
}
