//! A VIP that is an address of the host's own, perhaps its only one: what the host itself says from there is its own business.

use std::net::SocketAddr;

use lb_core::config::model::{Farm, Mode, Ports};
use socket2::{Domain, Protocol, Socket, Type};

use crate::network::{self, Network};
use crate::packet::*;
use crate::rig::*;

const BACKEND: &str = "10.0.0.11:80";
const ELSEWHERE: &str = "203.0.113.5:443";
const ELSEWHERE_V6: &str = "[2001:db8:9::5]:443";

/// A network in which the VIPs are the host's.
fn host() -> Network {
    let network = Network::enter();
    for line in [
        "link set outside up",
        "link set inside up",
        "addr add 192.0.2.10/24 dev outside",
        "addr add 2001:db8::10/64 dev outside nodad",
        "route add default dev outside",
        "-6 route add default dev outside",
    ] {
        network::ip(line);
    }
    network
}

fn rig(ports: Ports) -> Rig {
    let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], Ports::All, Mode::Nat, &[]);
    web.backends = vec![backend(&["10.0.0.11", "2001:db8:1::11"], None, 1)];
    Rig::with(vec![Farm { ports, ..web }])
}

/// A socket that speaks from `vip` to `peer`, and the address that it has.
fn speaking(kind: Type, vip: &str, peer: &str) -> (Socket, String) {
    let (vip, peer): (SocketAddr, SocketAddr) = (vip.parse().unwrap(), peer.parse().unwrap());
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::for_address(vip), kind, Some(protocol)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&vip.into()).unwrap();
    // Nobody answers the SYN: it is on its way for as long as the test lasts.
    if let Err(error) = socket.connect(&peer.into()) {
        assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS), "{error}");
    }
    let name = socket.local_addr().unwrap().as_socket().unwrap().to_string();
    (socket, name)
}

#[test]
fn answers_to_the_hosts_own_connections_reach_the_host() {
    let _network = host();
    for ports in [port(80), Ports::All] {
        let mut rig = rig(ports.clone());
        for (vip, peer) in [
            ("192.0.2.10:0", BACKEND),
            ("192.0.2.10:0", ELSEWHERE),
            ("[2001:db8::10]:0", "[2001:db8:1::11]:80"),
            ("[2001:db8::10]:0", ELSEWHERE_V6),
        ] {
            for kind in [Type::STREAM, Type::DGRAM] {
                // A stranger's datagram to a farm of all ports is that farm's.
                if (kind, &ports) == (Type::DGRAM, &Ports::All) && [ELSEWHERE, ELSEWHERE_V6].contains(&peer) {
                    continue;
                }
                let (_socket, own) = speaking(kind, vip, peer);
                let answer = if kind == Type::STREAM { segment(SYN | ACK, 1, 1) } else { L4::Udp };
                let sent = frame(peer, &own, answer, b"");
                let got = rig.send(&sent);
                let what = format!("{ports:?} {peer} {kind:?}");
                assert_eq!((got.verdict, got.action), ("host_port", XDP_PASS), "{what}");
                assert_eq!(got.frame, sent, "{what}");
            }
        }
        assert_eq!(rig.connections(), 0);
    }
}

#[test]
fn a_backends_packet_to_a_port_where_the_host_has_no_socket_does_not_reach_it() {
    let _network = host();
    let mut rig = rig(port(80));
    let (_socket, own) = speaking(Type::STREAM, "192.0.2.10:0", BACKEND);
    for l4 in [segment(ACK, 1, 1), L4::Udp] {
        let other = if own.ends_with(":40000") { "192.0.2.10:40001" } else { "192.0.2.10:40000" };
        let got = rig.send(&frame(BACKEND, other, l4, b""));
        assert_ne!(got.action, XDP_PASS, "{l4:?}: {}", got.verdict);
    }
}
