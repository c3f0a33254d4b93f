//! Frames that are for others, and strangers that pretend to be a client or a backend.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use lb_common::tcp::flag;
use lb_common::wire::eth::Mac;
use lb_tests::bench::packet::Ends;
use lb_tests::frame::{Segment, seen, tcp, udp};
use lb_tests::http::Client;
use lb_tests::netns::Netns;
use lb_tests::scene::{Farm, Scene};
use lb_tests::topology::{Arms, Family};
use lb_tests::traffic::udp_flows;
use lb_tests::wire::{NOTHING, Wire};

const LIMIT: Duration = Duration::from_secs(5);

const BROADCAST: Mac = [0xff; 6];
/// 224.0.0.1's (RFC 1112, section 6.4) and ff02::1's (RFC 2464, section 7).
const MULTICAST: [Mac; 2] = [[0x01, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]];
/// Nobody's. A bridge that does not know an address sends its frames everywhere.
const NOBODY: Mac = [2, 0, 0, 0, 0, 99];

const SYN: Segment = Segment { flags: flag::SYN, sequence: 1000, acknowledgment: 0 };

fn scene() -> Scene {
    let keys = "ports = [80]\nprotocol = [\"tcp\", \"udp\"]";
    let farm = Farm { check_port: Some(80), ..Farm::new("web", keys) };
    Scene::new(Arms::Two, 1, "native", (&[80], &[80]), |topology| farm.text(topology)).unwrap()
}

/// The address of a client that has no socket.
fn stranger(family: Family, port: u16) -> SocketAddr {
    match family {
        Family::V4 => (Ipv4Addr::new(10, 1, 0, 200), port).into(),
        Family::V6 => SocketAddr::new("fd00:1::200".parse().unwrap(), port),
    }
}

fn foreign() -> impl Iterator<Item = Mac> {
    [BROADCAST, NOBODY].into_iter().chain(MULTICAST)
}

/// A real client's exchange with the farm by TCP and by UDP. Whatever was sent before it by the client's link has been dealt
/// with when it is over.
fn exchange(scene: &Scene, family: Family) {
    let target = scene.topology.target(family, 80);
    let ask = || Client::connect(target, None, LIMIT)?.get("/", false);
    assert_eq!(scene.topology.client.enter(ask).unwrap().unwrap().name, "b1");
    let sources = scene.topology.sources(family);
    let tally = udp_flows(&scene.topology.client, target, &sources, 1, 1).unwrap();
    assert_eq!((tally.of("b1"), tally.failures), (1, vec![]));
}

#[test]
fn frames_for_others_are_not_served() {
    let scene = scene();
    let wire = Wire::open(&scene.topology.client, "eth0", Some((Ipv4Addr::new(10, 1, 0, 200), 32))).unwrap();
    let from = |family| format!("farm=web&client={}", stranger(family, 0).ip());
    for family in [Family::V4, Family::V6] {
        let (before, dst) = (scene.servers[0].datagrams(), scene.topology.target(family, 80));
        for (port, to) in (5000..).zip(foreign()) {
            let (macs, ends) = ((to, wire.mac()), Ends { src: stranger(family, port), dst });
            wire.send(&tcp(macs, ends, SYN).unwrap()).unwrap();
            wire.send(&udp(macs, ends, b"who is there?").unwrap()).unwrap();
        }
        exchange(&scene, family);
        assert_eq!(scene.daemon.connections(&from(family)).unwrap(), Vec::<serde_json::Value>::new());
        assert_eq!(scene.servers[0].datagrams() - before, 1, "{family:?}: the real client's datagram alone");
    }
    let answer = wire.receive(Duration::ZERO).unwrap();
    assert!(answer.is_none(), "{:?}", answer.as_deref().map(seen));
    // The same from the same stranger is served where it is for the balancer.
    let (macs, dst) =
        ((scene.topology.front_mac().unwrap(), wire.mac()), scene.topology.target(Family::V4, 80));
    wire.send(&tcp(macs, Ends { src: stranger(Family::V4, 6000), dst }, SYN).unwrap()).unwrap();
    let answer = seen(&wire.receive(LIMIT).unwrap().expect("an answer")).unwrap();
    assert_eq!((answer.ends.dst.port(), answer.macs), (6000, (macs.1, macs.0)), "{answer:?}");
}

/// Connects as a client whose address and port a stranger has used for a SYN just before.
fn assert_client_is_answered(scene: &Scene, stranger: &Stranger<'_>) {
    for family in [Family::V4, Family::V6] {
        let source = SocketAddr::new(scene.topology.sources(family)[0], 40_000);
        let target = scene.topology.target(family, 80);
        stranger.send(Ends { src: source, dst: target });
        let ask = || Client::connect(target, Some(source), LIMIT)?.get("/", false);
        let answer = scene.topology.client.enter(ask).unwrap();
        assert_eq!(answer.expect("an answer to the client itself").name, "b1");
    }
}

/// Who sends a SYN in another's name.
struct Stranger<'a> {
    host: &'a Netns,
    mac: Mac,
    /// The balancer's interface on that side, and an address there.
    gate: (Mac, &'a str),
}

impl Stranger<'_> {
    /// When this returns, the SYN has been dealt with: the ping went the same way after it.
    fn send(&self, ends: Ends) {
        let wire = Wire::open(self.host, "eth0", NOTHING).unwrap();
        wire.send(&tcp((self.gate.0, self.mac), ends, SYN).unwrap()).unwrap();
        self.host.run("ping", &["-n", "-c1", "-W2", self.gate.1]).unwrap();
    }
}

#[test]
fn a_strangers_syn_from_another_interface_does_not_capture_the_clients_answers() {
    let scene = scene();
    let host = &scene.topology.backends[0].netns;
    let mac = Wire::open(host, "eth0", NOTHING).unwrap().mac();
    let gate = Wire::open(&scene.topology.balancer, "back", NOTHING).unwrap().mac();
    assert_client_is_answered(&scene, &Stranger { host, mac, gate: (gate, "10.2.0.1") });
}

#[test]
fn a_strangers_syn_from_another_hardware_address_does_not_capture_the_clients_answers() {
    let scene = scene();
    let gate = (scene.topology.front_mac().unwrap(), "10.1.0.1");
    assert_client_is_answered(&scene, &Stranger { host: &scene.topology.client, mac: NOBODY, gate });
}

#[test]
fn answers_that_do_not_come_from_the_backends_side_reach_no_client() {
    let scene = scene();
    let wire = Wire::open(&scene.topology.client, "eth0", NOTHING).unwrap();
    let front = scene.topology.front_mac().unwrap();
    for family in [Family::V4, Family::V6] {
        let target = scene.topology.target(family, 80);
        let socket = scene.topology.client.enter(|| {
            let socket = UdpSocket::bind(SocketAddr::new(scene.topology.sources(family)[0], 0)).unwrap();
            socket.connect(target).unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            socket
        });
        let socket = socket.unwrap();
        let exchange = |question: &str| {
            socket.send(question.as_bytes()).unwrap();
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        assert_eq!(exchange("first"), "b1 first");
        let listed = scene.daemon.connections("farm=web").unwrap();
        let client = socket.local_addr().unwrap().to_string();
        let own = listed.iter().find(|it| it["client"] == client.as_str()).expect("the client's");
        let ends = Ends {
            src: own["backend_address"].as_str().unwrap().parse().unwrap(),
            dst: own["source"].as_str().unwrap().parse().unwrap(),
        };
        wire.send(&udp((front, wire.mac()), ends, b"a lie").unwrap()).unwrap();
        assert_eq!(exchange("second"), "b1 second", "{family:?}");
    }
}
