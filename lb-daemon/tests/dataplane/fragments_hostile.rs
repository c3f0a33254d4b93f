//! Fragments that come too early, overlap, hide what decides, or are too many.

use std::net::SocketAddr;
use std::time::Duration;

use lb_core::config::model::Mode;

use crate::ends::*;
use crate::fragments::*;
use crate::packet::*;
use crate::rig::*;

fn head(frame: &[u8]) -> (&[u8], &[u8]) {
    frame.split_at(if frame[12] == 8 { 34 } else { 54 })
}

#[test]
fn fragments_before_the_first_wait_nowhere() {
    for [client, vip] in [V4, V6] {
        let mut rig = Rig::with(vec![web(Mode::Nat)]);
        let pieces = fragments(&frame(client, vip, L4::Udp, &[1; 1200]), 9, 512);
        for early in [2, 1] {
            let got = rig.send(&pieces[early]);
            assert_eq!((got.verdict, got.action), ("fragment", XDP_DROP));
            assert_eq!(got.frame, pieces[early]);
        }
        assert_eq!(rig.connections(), 0);
        assert_eq!(rig.verdict(&pieces[0]), "opened");
        assert_eq!(rig.verdict(&pieces[2]), "forwarded");
        assert_eq!(rig.count("fragment"), 2);
        let others = fragments(&frame(client, vip, L4::Udp, &[1; 1200]), 10, 512);
        assert_eq!(rig.verdict(&others[1]), "fragment", "of another datagram");
    }
}

#[test]
fn fragments_that_hide_or_change_what_decides_are_dropped() {
    for [client, vip] in [V4, V6] {
        let mut rig = Rig::with(vec![web(Mode::Nat)]);
        let tcp = Tcp::open(&mut rig, client, vip).unwrap();
        let whole = tcp.way.by_client(segment(ACK, tcp.client_next, tcp.backend_next), &[1; 1004]);
        let datagram = frame(client, vip, L4::Udp, &[1; 1000]);
        let mut long = whole.clone();
        let offset = long.len() - 1004 - 8;
        long[offset] = 0xf0;
        let part = |whole: &[u8], id, offset: usize, more, length: usize| {
            let (head, payload) = head(whole);
            fragment(head, id, offset, more, &payload[offset.min(8)..][..length])
        };
        let table = [
            ("fragment_malformed", part(&whole, 1, 0, true, 8), "ports alone (RFC 1858)"),
            ("fragment_malformed", part(&whole, 1, 0, true, 16), "not the whole header"),
            ("fragment_malformed", part(&long, 1, 0, true, 24), "not all options"),
            ("fragment_malformed", part(&whole, 1, 8, false, 100), "flags that come second (RFC 3128)"),
            ("fragment_malformed", part(&whole, 1, 16, true, 104), "the checksum that comes second"),
            ("fragment_malformed", part(&whole, 1, 0, true, 100), "not a multiple of 8"),
            ("fragment_malformed", part(&datagram, 1, 0, true, 0), "nothing"),
            ("fragment_malformed", part(&datagram, 1, 1000, false, 0), "nothing at the end"),
            ("fragment_malformed", part(&datagram, 1, 65_528, false, 8), "more than a packet holds"),
            (
                "bad_transport_header",
                part(&datagram, 1, 0, true, 1008),
                "a datagram that ends before more follows",
            ),
        ];
        for (verdict, sent, what) in table {
            let got = rig.send(&sent);
            assert_eq!((got.verdict, got.action), (verdict, XDP_DROP), "{what}");
            assert_eq!(got.frame, sent);
            assert_eq!(rig.verdict(&part(&datagram, 1, 512, false, 8)), "fragment", "{what}: not remembered");
        }
        assert_eq!(rig.connections(), 1);
    }
}

#[test]
fn fragments_that_overlap_the_first_are_dropped() {
    for [client, vip] in [V4, V6] {
        let mut rig = Rig::with(vec![web(Mode::Nat)]);
        let whole = frame(client, vip, L4::Udp, &[1; 1200]);
        let (head, payload) = head(&whole);
        assert_eq!(rig.verdict(&fragment(head, 5, 0, true, &payload[..512])), "opened");
        for offset in [8, 256, 504] {
            let got = rig.send(&fragment(head, 5, offset, true, &payload[..512]));
            assert_eq!((got.verdict, got.action), ("fragment_overlaps", XDP_DROP));
        }
        assert_eq!(rig.verdict(&fragment(head, 5, 512, false, &payload[512..])), "forwarded");
    }
}

/// Somebody forges the client's address to lead the rest of its datagram to another server.
#[test]
fn another_flow_does_not_take_a_datagrams_place() {
    for [client, vip] in [V4, V6] {
        let mut rig = Rig::with(vec![web(Mode::Nat)]);
        let pieces = fragments(&frame(client, vip, L4::Udp, &[1; 1200]), 9, 512);
        assert_eq!(rig.verdict(&pieces[0]), "opened");
        let forged = fragments(&frame(&client.replace("40000", "666"), vip, L4::Udp, &[2; 1200]), 9, 512);
        let got = rig.send(&forged[0]);
        assert_eq!((got.verdict, got.action), ("fragment_overlaps", XDP_DROP));
        let first = rig.send(&pieces[0]);
        let later = rig.send(&pieces[1]);
        assert_eq!(later.verdict, "forwarded");
        let addresses = if vip == V4[1] { 26..34 } else { 22..54 };
        assert_eq!(first.frame[addresses.clone()], later.frame[addresses]);
        // Numbers come again: after a second it may be theirs.
        rig.pass(Duration::from_secs(2));
        assert_eq!(rig.send(&forged[0]).action, XDP_TX);
        assert_eq!(rig.verdict(&forged[1]), "forwarded");
    }
}

#[test]
fn a_backends_fragments_come_by_its_interface() {
    let network = crate::network::Network::enter();
    let mut rig = Rig::new(4096);
    rig.put_behind(network.inside, "10.0.0.11");
    rig.put_behind(network.inside, "2001:db8:1::11");
    rig.own(network.outside);
    rig.configure(&[web(Mode::Nat)], |_| true);
    for [client, vip] in [V4, V6] {
        let opened = rig.send_by(network.outside, &frame(client, vip, L4::Udp, b"question"));
        let seen = read(&opened.frame);
        let answer = frame(&seen.dst.to_string(), &seen.src.to_string(), L4::Udp, &[1; 1200]);
        let pieces = fragments(&answer, 9, 512);
        assert_eq!(rig.send_by(network.inside, &pieces[0]).verdict, "forwarded");
        assert_eq!(rig.send_by(network.outside, &pieces[1]).verdict, "wrong_interface");
        assert_eq!(rig.send_by(network.inside, &pieces[1]).verdict, "forwarded");
    }
}

#[test]
fn of_fragments_without_a_hop_left_the_first_alone_is_answered() {
    let mut rig = Rig::with(vec![web(Mode::Nat)]);
    let [client, vip] = V4;
    let pieces = fragments(&frame(client, vip, L4::Udp, &[1; 1200]), 9, 512);
    assert_eq!(rig.verdict(&pieces[0]), "opened");
    for (at, action) in [(0, XDP_TX), (1, XDP_DROP)] {
        let mut last = pieces[at].clone();
        last[22] = 1;
        last[24..26].fill(0);
        let sum = lb_common::checksum::checksum(&[&last[14..34]]);
        last[24..26].copy_from_slice(&sum);
        let got = rig.send(&last);
        assert_eq!((got.verdict, got.action), ("ttl_expired", action));
    }
}

/// A flood of first fragments from forged addresses, each of which opens a connection, fills the memory many times over.
#[test]
fn a_flood_of_first_fragments_leaves_established_connections_theirs() {
    for [client, vip] in [V4, V6] {
        let mut rig = Rig::new(1 << 16);
        rig.configure(&[web(Mode::Dnat)], |_| true);
        let vip: SocketAddr = vip.parse().unwrap();
        let flows: Vec<Udp> = (0..50)
            .map(|at| {
                let client = client.replace("40000", &format!("{}", 20_000 + at));
                let flow = Udp::open(&mut rig, &client, &vip.to_string()).unwrap();
                flow.answers(&mut rig).unwrap();
                flow.asks(&mut rig).unwrap();
                flow
            })
            .collect();
        let pieces: Vec<Vec<Vec<u8>>> = (0..)
            .zip(&flows)
            .map(|(id, flow)| fragments(&flow.0.by_client(L4::Udp, &[1; 1200]), id, 512))
            .collect();
        for pieces in &pieces {
            assert_eq!(rig.verdict(&pieces[0]), "forwarded");
        }
        let mut forged =
            fragments(&frame("198.51.100.7:1", "192.0.2.10:80", L4::UdpWithoutChecksum, &[1; 100]), 1, 64);
        if vip.is_ipv6() {
            forged = fragments(&frame("[2001:db8:7::7]:1", "[2001:db8::10]:80", L4::Udp, &[1; 100]), 1, 64);
        }
        for number in 0..100_000u32 {
            let piece = &mut forged[0];
            if vip.is_ipv6() {
                piece[34..38].copy_from_slice(&number.to_be_bytes());
            } else {
                piece[26..30].copy_from_slice(&(0x0a40_0000 + number).to_be_bytes());
                piece[24..26].fill(0);
                let sum = lb_common::checksum::checksum(&[&piece[14..34]]);
                piece[24..26].copy_from_slice(&sum);
            }
            rig.run(piece);
        }
        assert!(rig.count("opened") > 10_000, "they are believed");
        for pieces in &pieces {
            assert_eq!(rig.verdict(&pieces[1]), "forwarded");
            assert_eq!(rig.verdict(&pieces[2]), "forwarded");
        }
        // And whoever is established goes on to send such.
        for (id, flow) in (1000..).zip(&flows) {
            let pieces = fragments(&flow.0.by_client(L4::Udp, &[1; 1200]), id, 512);
            for piece in &pieces {
                assert_eq!(rig.verdict(piece), "forwarded");
            }
        }
    }
}
