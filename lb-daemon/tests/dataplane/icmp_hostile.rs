//! ICMP messages that are not what they seem, or not about a connection: the host's are left to it, lies are dropped.

use std::net::IpAddr;

use lb_common::checksum::checksum;
use lb_core::config::model::Mode;

use crate::ends::*;
use crate::icmp::*;
use crate::packet::*;
use crate::rig::*;

/// What is not about a connection is the host's, whatever it is.
#[test]
fn errors_about_what_is_not_tracked_and_other_messages_reach_the_host_as_they_came() {
    for [client, vip, router] in FAMILIES {
        let mut rig = Rig::with(vec![web(Mode::Nat)]);
        let [(way, ..), ..] = open(&mut rig, client, vip);
        let (router, host) = (router.parse().unwrap(), address(vip));
        // As the host has sent them itself.
        let own = |l4| frame(&vip.replace(":80", ":50000"), client, l4, b"own");
        let ping = {
            let kind = if host.is_ipv4() { 8 } else { 128 };
            icmp(host, address(client), &[kind, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
        };
        let esp = ip(host, address(client), 50, &[0; 20]);
        let mut later = way.by_backend(segment(ACK, 0, 0), b"");
        if host.is_ipv4() {
            (later[20], later[21]) = (0x20, 0x05);
        } else {
            later[20] = 44;
        }
        for about in [own(tcp(SYN)), own(L4::Udp), ping, esp] {
            let sent = error(router, host, &about, 64);
            let got = rig.send(&sent);
            assert_eq!((got.verdict, got.action), ("icmp_unknown", XDP_PASS), "{vip}");
            assert_eq!(got.frame, sent);
        }
        let about = rig.send(&way.by_backend(segment(ACK, BACKEND_ISN, 0), b"")).frame;
        let quote = &about[14..];
        let others: &[u8] = if host.is_ipv4() { &[0, 4, 5, 13] } else { &[0, 5, 129, 135, 136, 137] };
        for &kind in others {
            let sent = icmp(router, host, &[&[kind, 0, 0, 0, 0, 0, 0, 0], quote].concat());
            let got = rig.send(&sent);
            assert_eq!((got.verdict, got.action), ("host_protocol", XDP_PASS), "{kind}");
            assert_eq!(got.frame, sent);
        }
    }
}

#[test]
fn errors_that_are_for_others_reach_the_host_as_they_came() {
    for [client, vip, router] in FAMILIES {
        for mode in [Mode::Nat, Mode::Dnat] {
            let mut rig = Rig::with(vec![web(mode)]);
            open(&mut rig, client, vip);
            let (router, elsewhere): (IpAddr, _) = (router.parse().unwrap(), address(client));
            // To a client: about connections of others, or of nobody, or a lie.
            let server = if router.is_ipv4() { "10.0.0.11:8080" } else { "[2001:db8:1::11]:8080" };
            let other = if router.is_ipv4() { "10.9.9.9:80" } else { "[2001:db8:9::9]:80" };
            let stranger = client.replace("40000", "50000");
            for about in [
                frame(client, other, tcp(ACK), b""),
                frame(&stranger, server, tcp(ACK), b""),
                frame(&stranger, server, L4::Udp, b""),
                frame(server, client, tcp(ACK), b""),
            ] {
                for quoted in [0, 7, 8, 100] {
                    let sent = error(router, elsewhere, &about, quoted);
                    let got = rig.send(&sent);
                    assert_eq!((got.verdict, got.action), ("not_for_vip", XDP_PASS), "{mode:?} {quoted}");
                    assert_eq!(got.frame, sent);
                }
            }
        }
    }
}

#[test]
fn messages_that_contradict_themselves_are_dropped() {
    for [client, vip, router] in FAMILIES {
        let mut rig = Rig::with(vec![web(Mode::Nat)]);
        let [(way, _, l4), ..] = open(&mut rig, client, vip);
        let about = rig.send(&way.by_backend(l4, b"answer")).frame;
        let (router, host) = (router.parse().unwrap(), address(vip));
        let whole = |quote: &[u8]| {
            let ([kind, code], rest) = too_big(&about);
            icmp(router, host, &[&[kind, code, 0, 0], &rest[..], quote].concat())
        };
        let right = &about[14..];
        let with = |at: usize, byte: u8| {
            let mut quote = right.to_vec();
            quote[at] = byte;
            quote
        };
        let mut lies = vec![vec![], right[..1].to_vec(), right[..header(&about)].to_vec()];
        lies.push(right[..header(&about) + 7].to_vec());
        // Another version, and the other one's.
        lies.extend([with(0, 0x05), with(0, if host.is_ipv4() { 0x60 } else { 0x45 })]);
        if host.is_ipv4() {
            // A header of no length, of 4 bytes less than there are, and of more than there is.
            lies.extend([with(0, 0x40), with(0, 0x44), [&[0x4f], &right[1..28]].concat()]);
        }
        // What its receiver has not sent.
        let other = if host.is_ipv4() { "192.0.2.11:80" } else { "[2001:db8::11]:80" };
        lies.push(frame(other, client, l4, b"")[14..].to_vec());
        for lie in lies {
            let got = rig.send(&whole(&lie));
            assert_eq!((got.verdict, got.action), ("icmp_malformed", XDP_DROP), "{lie:x?}");
        }
        // Its length is not asked: some stacks spoil it.
        for (at, byte) in [(2, 0), (3, 1), (4, 0), (5, 1)] {
            let mut told = with(at, byte);
            if host.is_ipv4() {
                told[10..12].fill(0);
                let sum = checksum(&[&told[..20]]);
                told[10..12].copy_from_slice(&sum);
            }
            assert_eq!(rig.verdict(&whole(&told)), "icmp_translated", "{at}");
        }
        // Cut short by its own header's length, or by the frame.
        let mut short = whole(right);
        short.truncate(14 + header(&about) + 8 + header(&about) + 7);
        assert_eq!(rig.send(&short).action, XDP_DROP);
        let mut shorter = whole(right);
        shorter.truncate(14 + header(&about) + 7);
        assert_eq!(rig.send(&shorter).action, XDP_DROP);
    }
}

/// RFC 5927, section 4.1.
#[test]
fn an_error_about_a_segment_that_cannot_be_on_its_way_is_dropped() {
    for [client, vip, router] in FAMILIES {
        let mut rig = Rig::with(vec![web(Mode::Nat)]);
        let mut tcp = Tcp::open(&mut rig, client, vip).unwrap();
        tcp.talks(&mut rig).unwrap();
        let router = router.parse().unwrap();
        let (mine, theirs) = (tcp.client_next, tcp.backend_next);
        let mut errors = |by_client: bool, seq: u32| {
            let (about, to) = match by_client {
                // As it leaves the balancer.
                true => {
                    (frame(&tcp.way.source, &tcp.way.backend, segment(ACK, seq, 0), b""), &tcp.way.source)
                }
                false => (frame(vip, client, segment(ACK, seq, 0), b""), &tcp.way.vip),
            };
            rig.verdict(&error(router, address(to), &about, 8))
        };
        for (by_client, next) in [(true, mine), (false, theirs)] {
            for seq in far_from(next) {
                assert_eq!(errors(by_client, seq), "icmp_implausible", "{by_client} {seq}");
            }
            assert_eq!(errors(by_client, next), "icmp_translated", "{by_client}");
            assert_eq!(errors(by_client, next + 1_000_000), "icmp_translated", "{by_client}");
            assert_eq!(errors(by_client, next - 1), "icmp_translated", "{by_client}");
        }
    }
}

#[test]
fn an_error_about_a_syn_that_nobody_has_answered_is_about_that_syn() {
    for [client, vip, router] in FAMILIES {
        let mut rig = Rig::with(vec![web(Mode::Nat)]);
        let syn = frame(client, vip, segment(SYN, CLIENT_ISN, 0), b"");
        let about = rig.send(&syn).frame;
        let (router, host) = (router.parse().unwrap(), address(vip));
        let got = rig.send(&sent_by(BACKEND_MAC, error(router, host, &about, 8)));
        assert_eq!(got.verdict, "icmp_translated");
        quotes(&read_error(&got.frame).2, &syn, 8);
        for seq in far_from(CLIENT_ISN) {
            let read = read(&about);
            let other = frame(&read.src.to_string(), &read.dst.to_string(), segment(SYN, seq, 0), b"");
            assert_eq!(rig.verdict(&error(router, host, &other, 8)), "icmp_implausible", "{seq}");
        }
    }
}
