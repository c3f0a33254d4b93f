//! How a TCP connection comes about, the unusual ways too.

use std::time::Duration;

use lb_core::config::model::{Farm, Mode};

use crate::ends::*;
use crate::packet::*;
use crate::rig::*;

const CLIENT: &str = "198.51.100.7:40000";
const VIP: &str = "192.0.2.10:80";
/// More than a half-open connection lasts, less than an established one.
const LONG: Duration = Duration::from_secs(1800);

fn web() -> Farm {
    farm("web", &["192.0.2.10"], port(80), Mode::Nat, &[("10.0.0.11", 1)])
}

/// A server with SYN cookies answers each SYN with another number, and the client takes the first that it gets.
#[test]
fn the_acknowledgment_of_the_first_syn_ack_establishes_and_so_does_that_of_the_last() {
    let numbers = [BACKEND_ISN, 0x9000_0000];
    for taken in numbers {
        let mut rig = Rig::with(vec![web()]);
        let mut tcp = Tcp::syn(&mut rig, CLIENT, VIP).unwrap();
        for number in numbers {
            tcp.way.up(&mut rig, segment(SYN, CLIENT_ISN, 0), b"").unwrap();
            tcp.backend_next = number;
            tcp.syn_ack(&mut rig).unwrap();
        }
        tcp.backend_next = taken.wrapping_add(1);
        assert_eq!(tcp.ack(&mut rig), Ok(()), "{taken:#x}");
        assert_eq!(tcp.talks(&mut rig), Ok(()), "{taken:#x}");
        rig.later(LONG);
        assert_eq!(tcp.talks(&mut rig), Ok(()), "{taken:#x} has established");
    }
}

#[test]
fn the_acknowledgment_of_a_number_that_the_backend_did_not_choose_does_not_establish() {
    let mut rig = Rig::with(vec![web()]);
    let mut tcp = Tcp::syn(&mut rig, CLIENT, VIP).unwrap();
    for number in [BACKEND_ISN, 0x9000_0000] {
        tcp.backend_next = number;
        tcp.syn_ack(&mut rig).unwrap();
    }
    for number in far_from(BACKEND_ISN).chain([0, 1, 0x9000_0000, u32::MAX]) {
        let forged = tcp.way.by_client(segment(ACK, CLIENT_ISN + 1, number), b"GET / HTTP/1.0\r\n\r\n");
        assert_ne!(rig.verdict(&forged), "forwarded", "{number:#x}");
    }
    assert_eq!(tcp.ack(&mut rig), Ok(()), "the right one still does");
    rig.later(LONG);
    assert_eq!(tcp.talks(&mut rig), Ok(()));
}

#[test]
fn a_first_segment_with_data_and_fin_establishes_and_is_answered_in_peace() {
    for flags in [ACK | FIN, ACK | FIN | 0x08] {
        let mut rig = Rig::with(vec![web()]);
        let mut tcp = Tcp::syn(&mut rig, CLIENT, VIP).unwrap();
        tcp.syn_ack(&mut rig).unwrap();
        let first = segment(flags, tcp.client_next, tcp.backend_next);
        assert_eq!(tcp.way.up(&mut rig, first, b"GET / HTTP/1.0\r\n\r\n"), Ok(()));
        tcp.client_next += 18 + 1;
        for wait in [15, 180] {
            rig.later(Duration::from_secs(wait));
            assert_eq!(tcp.answers(&mut rig), Ok(()), "after {wait} s");
        }
        tcp.backend_ends(&mut rig).unwrap();
        rig.later(Duration::from_secs(15));
        assert_eq!(rig.connections(), 0, "both have ended it");
    }
}

#[test]
fn a_handshake_that_is_refused_by_the_backend_is_over_and_may_be_tried_again() {
    let mut rig = Rig::with(vec![web()]);
    let tcp = Tcp::syn(&mut rig, CLIENT, VIP).unwrap();
    tcp.way.down(&mut rig, segment(RST | ACK, 0, tcp.client_next), b"").unwrap();
    assert!(Tcp::open(&mut rig, CLIENT, VIP).is_ok());
    assert_eq!(rig.connections(), 1);
}

/// An IPv4 header's checksum is not looked at when a packet is only forwarded: the next router does that. Where a packet
/// opens a connection or changes its state it is.
#[test]
fn a_syn_with_a_wrong_header_checksum_opens_nothing() {
    let mut rig = Rig::with(vec![web()]);
    for bit in 0..16 {
        let mut syn = frame(CLIENT, VIP, tcp(SYN), b"");
        syn[24 + bit / 8] ^= 1 << (bit % 8);
        let got = rig.send(&syn);
        assert_eq!((got.action, got.frame == syn), (XDP_DROP, true), "bit {bit}: {}", got.verdict);
        let mut datagram = frame(CLIENT, VIP, L4::Udp, b"");
        datagram[24 + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(rig.send(&datagram).action, XDP_DROP, "bit {bit}");
    }
    assert_eq!(rig.connections(), 0);
}

#[test]
fn segments_with_a_wrong_header_checksum_change_no_state() {
    let mut rig = Rig::with(vec![web()]);
    let broken = |rig: &mut Rig, mut frame: Vec<u8>| {
        frame[25] ^= 1;
        rig.send(&frame);
    };
    let mut unanswered = Tcp::syn(&mut rig, "198.51.100.8:40001", VIP).unwrap();
    let syn_ack = segment(SYN | ACK, BACKEND_ISN, unanswered.client_next);
    let forged = unanswered.way.by_backend(syn_ack, b"");
    broken(&mut rig, forged);
    unanswered.backend_next += 1;
    assert!(unanswered.ack(&mut rig).is_err(), "no SYN-ACK was seen");
    let mut tcp = Tcp::open(&mut rig, CLIENT, VIP).unwrap();
    tcp.talks(&mut rig).unwrap();
    for flags in [RST, FIN | ACK] {
        let forged = tcp.way.by_client(segment(flags, tcp.client_next, tcp.backend_next), b"");
        broken(&mut rig, forged);
        let forged = tcp.way.by_backend(segment(flags, tcp.backend_next, tcp.client_next), b"");
        broken(&mut rig, forged);
    }
    rig.later(LONG);
    assert_eq!(tcp.talks(&mut rig), Ok(()));
}

/// `::ffff:192.0.2.10` is IPv4's address in the maps' keys, and nobody's on a wire.
#[test]
fn an_ipv6_packet_to_the_mapped_form_of_a_vip_is_not_served() {
    let six = farm("six", &["2001:db8::10"], port(80), Mode::Dnat, &[("2001:db8:1::11", 1)]);
    let mut rig = Rig::with(vec![web(), six]);
    // The filter of addresses lets packets of a `dnat` backend in, and of one in so many others.
    for source in ["[2001:db8:7::7]:40000", "[2001:db8:1::11]:40000"] {
        for l4 in [tcp(SYN), tcp(ACK), L4::Udp] {
            let sent = frame(source, "[::ffff:192.0.2.10]:80", l4, b"");
            let got = rig.send(&sent);
            assert_eq!((got.verdict, got.action), ("not_for_vip", XDP_PASS), "{source} {l4:?}");
            assert_eq!(got.frame, sent, "untouched");
        }
    }
    assert_eq!(rig.connections(), 0);
}
