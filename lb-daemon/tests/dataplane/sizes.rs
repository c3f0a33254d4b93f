//! Packets that are too large for the link that they are to leave by, between interfaces that carry different sizes.

use std::net::IpAddr;

use lb_core::config::model::{Farm, Mode, Scheduler};
use lb_core::desired::Path;
use lb_core::state::BackendStatus;

use crate::icmp;
use crate::modes::{V4, V6};
use crate::network::Network;
use crate::packet::*;
use crate::rig::*;
use crate::tunnels::assert_error_from;

const BACKEND: [&str; 2] = ["10.0.0.11", "2001:db8:1::11"];
const OWN: [&str; 2] = ["10.250.0.1", "fd00:250::1"];
const NARROW: u16 = 1300;
const WIDE: u16 = 1500;

/// A balancer with one link towards clients and one towards the backend.
struct Scene {
    network: Network,
    rig: Rig,
    mode: Mode,
}

impl Scene {
    fn new(mode: Mode, outside: u16, inside: u16) -> Self {
        Self::with_paths(mode, outside, inside, true)
    }

    /// `known`: whether our own addresses are.
    fn with_paths(mode: Mode, outside: u16, inside: u16, known: bool) -> Self {
        let network = Network::enter();
        let mut rig = Rig::new(4096);
        BACKEND.iter().for_each(|address| rig.put_behind(network.inside, address));
        rig.own_of_size(network.outside, outside);
        rig.own_of_size(network.inside, inside);
        let path = |at: usize| {
            let source: IpAddr = OWN[at].parse().unwrap();
            (BACKEND[at].parse().unwrap(), Path { source, mtu: inside.into() })
        };
        if known {
            rig.paths = [path(0), path(1)].into();
        }
        let mut scene = Self { network, rig, mode };
        scene.set(&scene.web());
        scene
    }

    fn web(&self) -> Farm {
        let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), self.mode, &[]);
        web.backends = vec![backend(&BACKEND, None, 1)];
        web
    }

    fn set(&mut self, farm: &Farm) {
        self.rig.set(std::slice::from_ref(farm), |_| BackendStatus::Up);
    }

    fn by_client(&mut self, sent: &[u8]) -> Outcome {
        self.rig.send_by(self.network.outside, sent)
    }

    fn by_backend(&mut self, sent: &[u8]) -> Outcome {
        self.rig.send_by(self.network.inside, sent)
    }

    /// Opens a connection: what its backend takes for its client and for itself.
    fn open(&mut self, (client, vip): (&str, &str)) -> (String, String) {
        let got = self.by_client(&frame(client, vip, segment(SYN, 999, 0), b""));
        assert_eq!(got.verdict, "opened");
        let (source, own) = (read(&got.frame).src.to_string(), read(&got.frame).dst.to_string());
        let answer = sent_by(BACKEND_MAC, frame(&own, &source, segment(SYN | ACK, 4999, 1000), b""));
        assert_eq!(self.by_backend(&answer).verdict, "forwarded");
        assert_eq!(self.by_client(&frame(client, vip, segment(ACK, 1000, 5000), b"")).verdict, "forwarded");
        (source, own)
    }
}

/// A segment in a packet of so many bytes.
fn sized(src: &str, dst: &str, l4: L4, size: u16) -> Vec<u8> {
    let header = if src.starts_with('[') { 40 } else { 20 };
    let transport = if matches!(l4, L4::Tcp { .. }) { 20 } else { 8 };
    frame(src, dst, l4, &vec![7; usize::from(size) - header - transport])
}

fn without_df(mut sent: Vec<u8>) -> Vec<u8> {
    if sent[12..14] == [0x08, 0x00] {
        sent[20] = 0;
        sent[24..26].fill(0);
        let sum = lb_common::checksum::checksum(&[&sent[14..34]]);
        sent[24..26].copy_from_slice(&sum);
    }
    sent
}

#[test]
fn what_the_backends_link_does_not_carry_is_answered_by_the_vip_with_how_much_it_does() {
    for mode in [Mode::Nat, Mode::Dnat, Mode::Dsr] {
        let mut scene = Scene::new(mode, WIDE, NARROW);
        for (client, vip) in [V4, V6] {
            scene.open((client, vip));
            let data = segment(ACK, 1000, 5000);
            let got = scene.by_client(&sized(client, vip, data, NARROW));
            assert_eq!((got.verdict, got.action), ("forwarded", XDP_REDIRECT), "{mode:?}");
            for size in [NARROW + 1, WIDE] {
                let whole = sized(client, vip, data, size);
                for sent in [whole.clone(), without_df(whole)] {
                    let got = scene.by_client(&sent);
                    assert_eq!((got.verdict, got.action), ("too_big", XDP_TX), "{mode:?} {size}");
                    let from = read(&sent).dst.ip();
                    assert_error_from(from, &got.frame, &sent, icmp::too_big(&sent).0, NARROW);
                }
            }
            let got = scene.by_client(&sized(client, vip, data, NARROW));
            assert_eq!((got.verdict, got.action), ("forwarded", XDP_REDIRECT), "it goes on");
        }
    }
}

#[test]
fn what_the_clients_link_does_not_carry_is_answered_by_the_vip_or_in_our_own_name() {
    for mode in [Mode::Nat, Mode::Dnat, Mode::Dsr] {
        let mut scene = Scene::new(mode, NARROW, WIDE);
        for ((client, vip), own) in [V4, V6].into_iter().zip(OWN) {
            let (source, backend) = scene.open((client, vip));
            let data = |size| {
                let l4 = segment(ACK, 5000, 1000);
                sent_by(BACKEND_MAC, sized(&backend, &source, l4, size))
            };
            let got = scene.by_backend(&data(NARROW));
            assert_eq!((got.verdict, got.action), ("forwarded", XDP_REDIRECT), "{mode:?}");
            let sent = data(NARROW + 1);
            let got = scene.by_backend(&sent);
            assert_eq!((got.verdict, got.action), ("too_big", XDP_TX), "{mode:?}");
            let from = if mode == Mode::Nat { read(&sent).dst.ip() } else { own.parse().unwrap() };
            assert_error_from(from, &got.frame, &sent, icmp::too_big(&sent).0, NARROW);
        }
    }
}

#[test]
fn nobody_is_told_in_a_name_that_is_not_known() {
    let mut scene = Scene::with_paths(Mode::Dnat, NARROW, WIDE, false);
    for (client, vip) in [V4, V6] {
        let (source, backend) = scene.open((client, vip));
        let sent = sent_by(BACKEND_MAC, sized(&backend, &source, segment(ACK, 5000, 1000), WIDE));
        let got = scene.by_backend(&sent);
        assert_eq!((got.verdict, got.action), ("too_big", XDP_DROP));
    }
}

#[test]
fn a_datagram_that_does_not_fit_opens_nothing_whoever_chooses_its_backend() {
    for mode in [Mode::Nat, Mode::Dsr] {
        let mut scene = Scene::new(mode, WIDE, NARROW);
        for scheduler in [Scheduler::Maglev, Scheduler::WeightedRoundRobin] {
            scene.set(&Farm { scheduler, ..scene.web() });
            for (client, vip) in [V4, V6] {
                for size in [NARROW + 1, WIDE] {
                    let got = scene.by_client(&sized(client, vip, L4::Udp, size));
                    assert_eq!((got.verdict, got.action), ("too_big", XDP_TX), "{mode:?} {scheduler:?}");
                }
                assert_eq!(scene.rig.connections(), 0);
            }
        }
        for (client, vip) in [V4, V6] {
            assert_eq!(scene.by_client(&sized(client, vip, L4::Udp, NARROW)).verdict, "opened");
        }
    }
}

#[test]
fn large_packets_go_on_where_every_link_carries_them_or_nothing_is_known() {
    for (outside, inside) in [(WIDE, WIDE), (0, 0), (9000, 9000), (WIDE, 0)] {
        let mut scene = Scene::new(Mode::Nat, outside, inside);
        for (client, vip) in [V4, V6] {
            let (source, backend) = scene.open((client, vip));
            let got = scene.by_client(&sized(client, vip, segment(ACK, 1000, 5000), WIDE));
            assert_eq!((got.verdict, got.action), ("forwarded", XDP_REDIRECT));
            let sent = sent_by(BACKEND_MAC, sized(&backend, &source, segment(ACK, 5000, 1000), WIDE));
            let got = scene.by_backend(&sent);
            assert_eq!((got.verdict, got.action), ("forwarded", XDP_REDIRECT));
        }
    }
}

#[test]
fn what_leaves_by_the_link_that_it_came_by_fits() {
    let mut rig = Rig::new(4096);
    rig.own_of_size(LOOPBACK, NARROW);
    let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), Mode::Nat, &[]);
    web.backends = vec![backend(&BACKEND, None, 1)];
    rig.set(&[web], |_| BackendStatus::Up);
    for (client, vip) in [V4, V6] {
        let got = rig.send(&sized(client, vip, L4::Udp, WIDE));
        assert_eq!((got.verdict, got.action), ("opened", XDP_TX));
    }
}
