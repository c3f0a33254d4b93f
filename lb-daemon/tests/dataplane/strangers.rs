//! Segments and datagrams that belong to no connection: who is told so, who is not, and how often.

use std::time::Duration;

use lb_core::config::model::{Farm, Mode, Ports};
use lb_core::state::ConnectionFilter;

use crate::ends::*;
use crate::packet::*;
use crate::rig::*;

/// Client, VIP, backend.
const FAMILIES: [[&str; 3]; 2] = [
    ["198.51.100.7:40000", "192.0.2.10:80", "10.0.0.11:80"],
    ["[2001:db8:7::7]:40000", "[2001:db8::10]:80", "[2001:db8:1::11]:80"],
];

fn web() -> Farm {
    let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), Mode::Nat, &[]);
    web.backends = vec![backend(&["10.0.0.11", "2001:db8:1::11"], None, 1)];
    web
}

/// Expects `sent` to be answered to its sender with a reset of these numbers.
fn is_reset(rig: &mut Rig, sent: &[u8], expected: (u32, u32, u8)) {
    let got = rig.send(sent);
    let about = numbers(sent);
    assert_eq!((got.verdict, got.action), ("refused", XDP_TX), "{about:?}");
    let (there, back) = (read(sent), read(&got.frame));
    assert_eq!((back.src, back.dst), (there.dst, there.src), "{about:?}");
    assert_eq!(back.macs, (there.macs.1, there.macs.0), "{about:?}");
    assert_eq!(numbers(&got.frame), expected, "{about:?}");
    assert_eq!(got.frame.len(), if there.src.is_ipv4() { 54 } else { 74 }, "{about:?}");
}

/// RFC 9293, section 3.10.7.1.
#[test]
fn a_segment_of_no_connection_is_answered_with_the_reset_that_its_sender_accepts() {
    for [client, vip, server] in FAMILIES {
        let mut rig = Rig::with(vec![web()]);
        let back = vip.replace(":80", ":40000");
        for (from, to) in [(client, vip), (server, back.as_str())] {
            let mut expect = |flags, seq, ack, payload: &[u8], reset| {
                is_reset(&mut rig, &frame(from, to, segment(flags, seq, ack), payload), reset);
            };
            expect(ACK, 1000, 77, b"", (77, 0, RST));
            expect(ACK, 1000, 77, b"data", (77, 0, RST));
            expect(ACK | 0x08, 1000, u32::MAX, b"data", (u32::MAX, 0, RST));
            expect(FIN | ACK, 1000, 0, b"", (0, 0, RST));
            expect(FIN, 1000, 77, b"data", (0, 1005, RST | ACK));
            expect(0, u32::MAX, 77, b"data", (0, 3, RST | ACK));
            expect(SYN | ACK, 1000, 77, b"", (77, 0, RST));
            expect(SYN | FIN, 1000, 77, b"", (0, 1002, RST | ACK));
        }
        for flags in [RST, RST | ACK, 0xff] {
            for (from, to) in [(client, vip), (server, back.as_str())] {
                let got = rig.send(&frame(from, to, segment(flags, 1000, 77), b""));
                assert_eq!((got.verdict, got.action), ("no_connection", XDP_DROP), "a reset is not answered");
            }
        }
        assert_eq!(rig.connections(), 0);
    }
}

#[test]
fn both_ends_of_a_connection_that_was_forgotten_are_told_when_they_speak() {
    for [client, vip, _] in FAMILIES {
        let mut rig = Rig::with(vec![web()]);
        let mut tcp = Tcp::open(&mut rig, client, vip).unwrap();
        tcp.talks(&mut rig).unwrap();
        rig.later(Duration::from_secs(3 * 3600));
        assert_eq!(rig.connections(), 0);
        let (mine, theirs) = (tcp.client_next, tcp.backend_next);
        is_reset(&mut rig, &tcp.way.by_client(segment(ACK, mine, theirs), b"late"), (theirs, 0, RST));
        is_reset(&mut rig, &tcp.way.by_backend(segment(ACK, theirs, mine), b"late"), (mine, 0, RST));
        assert!(Tcp::open(&mut rig, client, vip).is_ok(), "and may open again");
    }
}

#[test]
fn segments_of_a_half_open_connection_that_was_cut_are_answered_with_a_reset() {
    let [client, vip, _] = FAMILIES[0];
    let mut rig = Rig::with(vec![web()]);
    let mut tcp = Tcp::syn(&mut rig, client, vip).unwrap();
    tcp.syn_ack(&mut rig).unwrap();
    assert_eq!(rig.reader.cut(&ConnectionFilter::default()), 1);
    let (mine, theirs) = (tcp.client_next, tcp.backend_next);
    is_reset(&mut rig, &tcp.way.by_client(segment(ACK, mine, theirs), b""), (theirs, 0, RST));
}

#[test]
fn a_datagram_of_a_backend_that_belongs_to_no_connection_never_reaches_the_host() {
    for [_, vip, server] in FAMILIES {
        for mode in [Mode::Nat, Mode::Dnat] {
            let mut rig = Rig::with(vec![Farm { mode, ..web() }]);
            for port in [":40000", ":1", ":53"] {
                let sent = frame(server, &vip.replace(":80", port), L4::Udp, b"late answer");
                let got = rig.send(&sent);
                assert_eq!(
                    (got.verdict, got.action),
                    ("no_connection", XDP_DROP),
                    "{server} {mode:?} {port}"
                );
            }
            assert_eq!(rig.connections(), 0);
        }
    }
}

/// It would be sent to a backend, which would answer it, and so on for ever.
#[test]
fn a_late_answer_of_a_farm_on_all_ports_opens_nothing() {
    for [client, vip, _] in FAMILIES {
        let mut rig = Rig::with(vec![Farm { ports: Ports::All, ..web() }]);
        let udp = Udp::open(&mut rig, client, vip).unwrap();
        udp.answers(&mut rig).unwrap();
        rig.later(Duration::from_secs(300));
        assert_eq!(rig.connections(), 0);
        let late = udp.0.by_backend(L4::Udp, b"late answer");
        let got = rig.send(&late);
        assert_eq!((got.verdict, got.action), ("no_connection", XDP_DROP));
        assert_eq!(rig.connections(), 0);
    }
}

/// Sends `sent` often, in no time, and expects few to be answered; and that answers go on when time does.
fn is_limited(rig: &mut Rig, sent: &[u8], what: &str) {
    const OFTEN: u64 = 100_000;
    for round in 0..2 {
        let before = ["refused", "refusal_limited"].map(|verdict| rig.count(verdict));
        for _ in 0..OFTEN {
            rig.run(sent);
        }
        let after = ["refused", "refusal_limited"].map(|verdict| rig.count(verdict));
        let [refused, limited] = [after[0] - before[0], after[1] - before[1]];
        assert_eq!(refused + limited, OFTEN, "{what}, round {round}: {refused} refused, {limited} beyond");
        assert!((1..=OFTEN / 10).contains(&refused), "{what}, round {round}: {refused} of {OFTEN}");
        rig.later(Duration::from_secs(10));
    }
}

#[test]
fn resets_for_unknown_segments_are_limited() {
    for [client, vip, server] in FAMILIES {
        let mut rig = Rig::with(vec![web()]);
        is_limited(&mut rig, &frame(client, vip, segment(ACK, 1000, 77), b""), "a client's segment");
        let late = frame(server, &vip.replace(":80", ":40000"), segment(ACK, 1000, 77), b"");
        is_limited(&mut rig, &late, "a backend's segment");
    }
}

#[test]
fn refusals_of_a_farm_that_is_down_are_limited() {
    for [client, vip, _] in FAMILIES {
        for l4 in [segment(SYN, 999, 0), L4::Udp] {
            let mut rig = Rig::new(4096);
            rig.configure(&[web()], |_| false);
            is_limited(&mut rig, &frame(client, vip, l4, b""), "a farm that is down");
        }
    }
}

#[test]
fn refusals_are_given_again_within_a_second_of_a_flood() {
    let [client, vip, _] = FAMILIES[0];
    let mut rig = Rig::new(4096);
    rig.configure(&[web()], |_| false);
    for _ in 0..100_000 {
        rig.run(&frame(client, vip, segment(SYN, 999, 0), b""));
    }
    rig.later(Duration::from_secs(1));
    assert_eq!(rig.verdict(&frame("198.51.100.8:40000", vip, segment(SYN, 999, 0), b"")), "refused");
}
