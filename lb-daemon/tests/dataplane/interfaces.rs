//! By which interface and for whose address a frame comes, and by which it leaves.

use lb_core::config::model::{Farm, Mode};

use crate::ends::*;
use crate::network::Network;
use crate::packet::*;
use crate::rig::*;

const STRANGER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const CLIENT: &str = "198.51.100.7:40000";
const VIP: &str = "192.0.2.10:80";
const BACKEND: &str = "10.0.0.11:80";

fn web(mode: Mode) -> Farm {
    let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), mode, &[]);
    web.backends = vec![backend(&["10.0.0.11", "2001:db8:1::11"], None, 1)];
    web
}

#[test]
fn frames_for_other_stations_are_left_to_the_host_untouched() {
    let others = [
        [0xff; 6],
        [0x01, 0, 0x5e, 0, 0, 0x12],
        [0x33, 0x33, 0, 0, 0, 0x12],
        STRANGER_MAC,
        [2, 0, 0, 0, 0, 0],
        [3, 0, 0, 0, 0, 2],
        [0; 6],
    ];
    for mode in [Mode::Nat, Mode::Dnat] {
        let mut rig = Rig::with(vec![web(mode)]);
        let known = Tcp::open(&mut rig, "198.51.100.9:40000", VIP).unwrap();
        let asked = Udp::open(&mut rig, "198.51.100.9:40000", VIP).unwrap();
        let data = segment(ACK, known.client_next, known.backend_next);
        let frames = [
            frame(CLIENT, VIP, tcp(SYN), b""),
            frame("[2001:db8:7::7]:40000", "[2001:db8::10]:80", tcp(SYN), b""),
            frame(CLIENT, VIP, tcp(ACK), b""),
            frame(CLIENT, VIP, L4::Udp, b"question"),
            frame("[2001:db8:7::7]:40000", "[2001:db8::10]:80", L4::Udp, b"question"),
            known.way.by_client(data, b"data"),
            known.way.by_backend(segment(ACK, known.backend_next, known.client_next), b"data"),
            asked.0.by_client(L4::Udp, b"question"),
            asked.0.by_backend(L4::Udp, b"answer"),
        ];
        for mac in others {
            for (index, sent) in frames.iter().enumerate() {
                let sent = sent_to(mac, sent.clone());
                let got = rig.send(&sent);
                assert_eq!((got.verdict, got.action), ("other_host", XDP_PASS), "{mac:?}, frame {index}");
                assert_eq!(got.frame, sent, "{mac:?}, frame {index}");
            }
        }
        assert_eq!(rig.connections(), 2, "the two that there were");
    }
}

#[test]
fn what_is_not_for_a_vip_passes_whatever_station_it_is_for() {
    let mut rig = Rig::with(vec![web(Mode::Nat)]);
    for mac in [[0xff; 6], STRANGER_MAC, BALANCER_MAC] {
        let sent = sent_to(mac, frame(CLIENT, "192.0.2.99:80", tcp(SYN), b""));
        let got = rig.send(&sent);
        assert_eq!((got.action, got.frame), (XDP_PASS, sent));
    }
}

#[test]
fn packets_leave_by_the_interface_of_their_next_hop() {
    let network = Network::enter();
    let mut rig = Rig::new(4096);
    rig.own(network.outside);
    rig.put_behind(network.inside, "10.0.0.11");
    rig.configure(&[web(Mode::Nat)], |_| true);
    let got = rig.send_by(network.outside, &frame(CLIENT, VIP, segment(SYN, CLIENT_ISN, 0), b""));
    assert_eq!((got.verdict, got.action), ("opened", XDP_REDIRECT));
    assert_eq!(read(&got.frame).macs, (BACKEND_MAC, BALANCER_MAC));
    let answer = segment(SYN | ACK, BACKEND_ISN, CLIENT_ISN + 1);
    let got = rig.send_by(network.inside, &frame(BACKEND, "192.0.2.10:40000", answer, b""));
    assert_eq!((got.verdict, got.action), ("forwarded", XDP_REDIRECT));
    assert_eq!(read(&got.frame).macs, (CLIENT_MAC, BALANCER_MAC));
}

/// A station outside that speaks in the backend's name.
#[test]
fn packets_of_a_backend_are_taken_only_from_the_interface_towards_it() {
    let network = Network::enter();
    for mode in [Mode::Nat, Mode::Dnat] {
        let mut rig = Rig::new(4096);
        rig.put_behind(network.inside, "10.0.0.11");
        rig.own(network.outside);
        rig.configure(&[web(mode)], |_| true);
        let source = if mode == Mode::Nat { "192.0.2.10:40000" } else { CLIENT };
        for (l4, answer) in [
            (segment(SYN, CLIENT_ISN, 0), segment(SYN | ACK, BACKEND_ISN, CLIENT_ISN + 1)),
            (L4::Udp, L4::Udp),
        ] {
            assert_eq!(rig.verdict(&frame(CLIENT, VIP, l4, b"")), "opened");
            let answer = frame(BACKEND, source, answer, b"");
            for ifindex in [LOOPBACK, network.outside] {
                let got = rig.send_by(ifindex, &answer);
                assert_eq!((got.verdict, got.action), ("wrong_interface", XDP_DROP), "{mode:?} {l4:?}");
                assert_eq!(got.frame, answer, "{mode:?} {l4:?}");
            }
            assert_eq!(rig.send_by(network.inside, &answer).verdict, "forwarded", "{mode:?} {l4:?}");
        }
    }
}

#[test]
fn a_handshake_of_which_all_parts_come_from_the_clients_side_does_not_establish() {
    let network = Network::enter();
    let mut rig = Rig::new(4096);
    rig.put_behind(network.inside, "10.0.0.11");
    rig.configure(&[web(Mode::Nat)], |_| true);
    let syn_ack = segment(SYN | ACK, BACKEND_ISN, CLIENT_ISN + 1);
    rig.send(&frame(CLIENT, VIP, segment(SYN, CLIENT_ISN, 0), b""));
    rig.send(&frame(BACKEND, "192.0.2.10:40000", syn_ack, b""));
    let ack = frame(CLIENT, VIP, segment(ACK, CLIENT_ISN + 1, BACKEND_ISN + 1), b"");
    assert_ne!(rig.verdict(&ack), "forwarded");
    rig.later(std::time::Duration::from_secs(15));
    assert_eq!(rig.connections(), 0, "half open, and forgotten as such");
}

#[test]
fn a_connection_is_not_closed_in_the_backends_name_from_outside() {
    let network = Network::enter();
    let mut rig = Rig::new(4096);
    rig.put_behind(network.inside, "10.0.0.11");
    rig.configure(&[web(Mode::Nat)], |_| true);
    rig.send(&frame(CLIENT, VIP, segment(SYN, CLIENT_ISN, 0), b""));
    let theirs = |flags, seq| frame(BACKEND, "192.0.2.10:40000", segment(flags, seq, CLIENT_ISN + 1), b"");
    rig.send_by(network.inside, &theirs(SYN | ACK, BACKEND_ISN));
    let mine = frame(CLIENT, VIP, segment(ACK, CLIENT_ISN + 1, BACKEND_ISN + 1), b"");
    assert_eq!(rig.verdict(&mine), "forwarded");
    rig.send(&theirs(RST, BACKEND_ISN + 1));
    rig.send(&theirs(FIN | ACK, BACKEND_ISN + 1));
    rig.later(std::time::Duration::from_secs(1800));
    assert_eq!(rig.verdict(&mine), "forwarded");
}

/// The MAC that the backend's answer goes to.
fn answered_to(rig: &mut Rig, tcp: &Tcp, flags: u8) -> [u8; 6] {
    let theirs = segment(flags, tcp.backend_next, tcp.client_next);
    let got = rig.send(&tcp.way.by_backend(theirs, b""));
    assert_eq!(got.verdict, "forwarded");
    read(&got.frame).macs.0
}

#[test]
fn the_answer_goes_to_the_station_of_the_last_syn() {
    let mut rig = Rig::with(vec![web(Mode::Nat)]);
    for (client, vip) in [(CLIENT, VIP), ("[2001:db8:7::7]:40000", "[2001:db8::10]:80")] {
        let syn = frame(client, vip, segment(SYN, CLIENT_ISN, 0), b"");
        rig.send(&sent_by(STRANGER_MAC, syn.clone()));
        rig.send(&syn);
        let mut tcp = Tcp {
            way: Way {
                client: client.to_owned(),
                vip: vip.to_owned(),
                source: vip.replace(":80", ":40000"),
                backend: if client == CLIENT { BACKEND } else { "[2001:db8:1::11]:80" }.to_owned(),
            },
            client_next: CLIENT_ISN + 1,
            backend_next: BACKEND_ISN,
        };
        assert_eq!(answered_to(&mut rig, &tcp, SYN | ACK), CLIENT_MAC, "{client}");
        tcp.backend_next += 1;
        // Whoever completes the handshake has seen the answer: it is the client.
        rig.send(&sent_by(STRANGER_MAC, syn));
        tcp.ack(&mut rig).unwrap();
        assert_eq!(answered_to(&mut rig, &tcp, ACK), CLIENT_MAC, "{client}");
    }
}

#[test]
fn a_syn_by_another_interface_does_not_capture_the_answer_to_the_clients() {
    let network = Network::enter();
    let mut rig = Rig::with(vec![web(Mode::Nat)]);
    rig.own(network.outside);
    let syn = frame(CLIENT, VIP, segment(SYN, CLIENT_ISN, 0), b"");
    assert_eq!(rig.send_by(network.outside, &sent_by(STRANGER_MAC, syn.clone())).verdict, "opened");
    rig.send(&syn);
    let theirs = segment(SYN | ACK, BACKEND_ISN, CLIENT_ISN + 1);
    let got = rig.send(&frame(BACKEND, "192.0.2.10:40000", theirs, b""));
    assert_eq!(
        (got.verdict, got.action),
        ("forwarded", XDP_TX),
        "by the interface that the client is behind"
    );
    assert_eq!(read(&got.frame).macs.0, CLIENT_MAC);
}

#[test]
fn a_strangers_syn_does_not_capture_an_established_connection() {
    let mut rig = Rig::with(vec![web(Mode::Nat)]);
    let mut tcp = Tcp::open(&mut rig, CLIENT, VIP).unwrap();
    tcp.talks(&mut rig).unwrap();
    rig.send(&sent_by(STRANGER_MAC, frame(CLIENT, VIP, segment(SYN, 77, 0), b"")));
    assert_eq!(answered_to(&mut rig, &tcp, ACK), CLIENT_MAC);
}
