//! Who is told, and how, that nobody serves it: farms of which all are down, connections that were cut; and what handshakes
//! say of a backend.

use std::net::IpAddr;

use lb_common::checksum::checksum;
use lb_core::config::model::Mode;
use lb_core::health::passive::Pulse;
use lb_core::state::{BackendStatus, ConnectionFilter};

use crate::ends::*;
use crate::packet::*;
use crate::rig::*;

fn dual() -> lb_core::config::model::Farm {
    let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), Mode::Nat, &[]);
    web.backends = vec![backend(&["10.0.0.11", "2001:db8:1::11"], None, 1)];
    web
}

#[test]
fn a_client_of_a_farm_that_is_down_is_reset_at_once() {
    let mut rig = Rig::new(4096);
    rig.configure(&[dual()], |_| false);
    for (client, vip, size) in
        [("198.51.100.7:40000", "192.0.2.10:80", 54), ("[2001:db8:7::7]:40000", "[2001:db8::10]:80", 74)]
    {
        for payload in [&b""[..], b"early data"] {
            let got = rig.send(&frame(client, vip, segment(SYN, 999, 0), payload));
            assert_eq!((got.verdict, got.action, got.frame.len()), ("refused", XDP_TX, size));
            let back = read(&got.frame);
            assert_eq!((back.src.to_string(), back.dst.to_string()), (vip.to_owned(), client.to_owned()));
            assert_eq!(back.macs, (CLIENT_MAC, BALANCER_MAC));
            assert_eq!(numbers(&got.frame), (0, 1000 + payload.len() as u32, RST | ACK));
        }
    }
    assert_eq!(rig.connections(), 0);
    rig.configure(&[dual()], |_| true);
    let syn = frame("198.51.100.7:40000", "192.0.2.10:80", tcp(SYN), b"");
    assert_eq!(rig.verdict(&syn), "opened", "a farm that has recovered serves at once");
}

#[test]
fn the_reset_of_a_segment_with_ip_options_has_none() {
    let mut rig = Rig::new(4096);
    rig.configure(&[dual()], |_| false);
    let plain = frame("198.51.100.7:40000", "192.0.2.10:80", segment(SYN, 999, 0), b"");
    let mut sent = plain[..34].to_vec();
    sent.extend([1; 8]);
    sent.extend(&plain[34..]);
    (sent[14], sent[17]) = (0x47, sent[17] + 8);
    sent[24..26].fill(0);
    let sum = checksum(&[&sent[14..42]]);
    sent[24..26].copy_from_slice(&sum);
    let got = rig.send(&sent);
    assert_eq!((got.verdict, got.frame.len()), ("refused", 54));
    read(&got.frame);
    assert_eq!(numbers(&got.frame), (0, 1000, RST | ACK));
}

#[test]
fn a_datagram_for_a_farm_that_is_down_is_answered_port_unreachable() {
    let mut rig = Rig::new(4096);
    rig.configure(&[dual()], |_| false);
    for (client, vip) in
        [("198.51.100.7:5353", "192.0.2.10:80"), ("[2001:db8:7::7]:5353", "[2001:db8::10]:80")]
    {
        for payload in [&b""[..], &[7; 1000]] {
            let sent = frame(client, vip, L4::Udp, payload);
            let got = rig.send(&sent);
            assert_eq!((got.verdict, got.action), ("refused", XDP_TX));
            let v4 = sent[12..14] == [0x08, 0x00];
            let header = if v4 { 20 } else { 40 };
            let icmp = &got.frame[14 + header..];
            assert_eq!(icmp[..2], if v4 { [3, 3] } else { [1, 4] });
            assert_eq!(icmp[8..], sent[14..14 + header + 8], "the head of what is refused, and no more");
            let address = |text: &str| text.parse::<std::net::SocketAddr>().unwrap().ip();
            // Whole, down to the lengths and the IPv4 header's checksum.
            let answer = ip(address(vip), address(client), if v4 { 1 } else { 58 }, icmp);
            // But for IPv4's identification and what depends on it.
            let same = if v4 { vec![12..18, 22..24, 26..34] } else { vec![12..30, 30..54] };
            for range in same {
                assert_eq!(got.frame[range.clone()], answer[range.clone()], "{range:?}");
            }
            if v4 {
                assert_eq!(checksum(&[&got.frame[14..34]]), [0, 0]);
                assert_eq!(checksum(&[icmp]), [0, 0]);
            } else {
                let (IpAddr::V6(src), IpAddr::V6(dst)) = (address(vip), address(client)) else { panic!() };
                let length = (icmp.len() as u32).to_be_bytes();
                assert_eq!(checksum(&[&src.octets(), &dst.octets(), &length, &[0, 0, 0, 58], icmp]), [0, 0]);
            }
        }
    }
}

#[test]
fn both_ends_of_a_connection_that_was_cut_are_told_when_they_speak() {
    let mut rig = Rig::with(vec![dual()]);
    let (client, vip) = ("198.51.100.7:40000", "192.0.2.10:80");
    rig.send(&frame(client, vip, segment(SYN, 1, 0), b""));
    rig.send(&frame("10.0.0.11:80", "192.0.2.10:40000", segment(SYN | ACK, 7, 2), b""));
    assert_eq!(rig.verdict(&frame(client, vip, segment(ACK, 2, 8), b"")), "forwarded");
    assert_eq!(rig.reader.cut(&ConnectionFilter::default()), 1);
    assert_eq!((rig.connections(), rig.reader.cut(&ConnectionFilter::default())), (0, 0), "once");
    let told = rig.send(&frame(client, vip, segment(ACK, 2, 8), b"more"));
    assert_eq!((told.verdict, told.action), ("refused", XDP_TX));
    assert_eq!((read(&told.frame).dst.to_string(), numbers(&told.frame)), (client.to_owned(), (8, 0, RST)));
    let told = rig.send(&frame("10.0.0.11:80", "192.0.2.10:40000", segment(ACK, 8, 6), b"more"));
    assert_eq!((told.verdict, numbers(&told.frame)), ("refused", (6, 0, RST)));
    assert_eq!(read(&told.frame).dst.to_string(), "10.0.0.11:80");
    let reset = frame(client, vip, segment(RST, 2, 0), b"");
    assert_eq!(rig.verdict(&reset), "no_connection", "a reset is not answered");
    assert_eq!(rig.verdict(&frame(client, vip, segment(SYN, 100, 0), b"")), "opened", "and may try again");
}

#[test]
fn datagrams_of_a_conversation_that_was_cut_find_another_backend() {
    let two = [("10.0.0.11", 1), ("10.0.0.12", 1)];
    let web = farm("web", &["192.0.2.10"], port(80), Mode::Nat, &two);
    let mut rig = Rig::with(vec![web.clone()]);
    let (client, vip) = ("198.51.100.7:5000", "192.0.2.10:80");
    let first = Udp::open(&mut rig, client, vip).unwrap();
    first.answers(&mut rig).unwrap();
    let name = first.0.backend.trim_end_matches(":80").to_owned();
    rig.set(&[web], |backend| if backend == name { BackendStatus::Draining } else { BackendStatus::Up });
    assert_eq!(first.asks(&mut rig), Ok(()), "the conversation goes on");
    assert_eq!(rig.reader.cut(&ConnectionFilter::default()), 1);
    let second = Udp::open(&mut rig, client, vip).unwrap();
    assert_ne!(second.0.backend, first.0.backend);
}

#[test]
fn handshakes_and_their_answers_are_counted_once_each() {
    let mut rig = Rig::with(vec![dual()]);
    let id = *rig.observed.backends.keys().next().unwrap();
    let syn = |port: u16| frame(&format!("198.51.100.7:{port}"), "192.0.2.10:80", segment(SYN, 1, 0), b"");
    let answer =
        |port: u16, flags| frame("10.0.0.11:80", &format!("192.0.2.10:{port}"), segment(flags, 7, 2), b"");
    for port in [4000, 4000, 4001, 4002] {
        rig.send(&syn(port));
    }
    for sent in [answer(4000, SYN | ACK), answer(4000, SYN | ACK), answer(4001, RST | ACK)] {
        rig.send(&sent);
    }
    rig.send(&frame("198.51.100.7:4003", "192.0.2.10:80", L4::Udp, b""));
    let pulse = rig.reader.pulses(vec![id]).unwrap()[&id];
    assert_eq!(pulse, Pulse { handshakes: 3, answered: 1, reset: 1, ..pulse });
    assert!(pulse.heard.frames >= 3 && pulse.said.frames >= 2, "{pulse:?}");
    assert_eq!(rig.reader.traffic(id).unwrap().opened, 4);
}
