//! ICMP errors about connections: each end hears what becomes of its packets, as if it had sent them to where they went.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_common::checksum::checksum;
use lb_core::config::model::{Farm, Mode};
use lb_core::state::ConnectionFilter;

use crate::ends::*;
use crate::packet::*;
use crate::rig::*;

/// Client, VIP, a router.
pub const FAMILIES: [[&str; 3]; 2] = [
    ["198.51.100.7:40000", "192.0.2.10:80", "203.0.113.1"],
    ["[2001:db8:7::7]:40000", "[2001:db8::10]:80", "2001:db8:99::1"],
];

pub fn web(mode: Mode) -> Farm {
    let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), mode, &[]);
    web.backends = vec![backend(&["10.0.0.11", "2001:db8:1::11"], Some(8080), 1)];
    web
}

pub fn address(text: &str) -> IpAddr {
    text.parse::<SocketAddr>().unwrap().ip()
}

pub fn header(frame: &[u8]) -> usize {
    if frame[12..14] == [0x08, 0x00] { 20 } else { 40 }
}

/// "Fragmentation needed" or "packet too big": type, code, and the MTU as they have it.
pub fn too_big(frame: &[u8]) -> ([u8; 2], [u8; 4]) {
    if header(frame) == 20 { ([3, 4], [0, 0, 5, 20]) } else { ([2, 0], [0, 0, 5, 20]) }
}

/// An error about `about` from `src` to `dst`, with this much of it quoted.
pub fn error(src: IpAddr, dst: IpAddr, about: &[u8], quoted: usize) -> Vec<u8> {
    let ([kind, code], rest) = too_big(about);
    let quote = &about[14..about.len().min(14 + header(about) + quoted)];
    icmp(src, dst, &[&[kind, code, 0, 0], &rest[..], quote].concat())
}

/// A message whose checksum is made right.
pub fn icmp(src: IpAddr, dst: IpAddr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let number = if src.is_ipv4() { 1 } else { 58 };
    let pseudo = if src.is_ipv4() { vec![] } else { pseudo_header(src, dst, number, message.len()) };
    let sum = checksum(&[&pseudo, &message]);
    message[2..4].copy_from_slice(&sum);
    ip(src, dst, number, &message)
}

/// Source, destination and message of a frame whose checksums were found right, and those of the quoted IP header.
pub fn read_error(frame: &[u8]) -> (IpAddr, IpAddr, Vec<u8>) {
    let header = header(frame);
    let message = &frame[14 + header..];
    let (src, dst) = ends(&frame[14..]);
    if header == 20 {
        assert_eq!((checksum(&[&frame[14..34]]), checksum(&[&message[8..28]])), ([0, 0], [0, 0]));
        assert_eq!(checksum(&[message]), [0, 0], "ICMP");
    } else {
        assert_eq!(checksum(&[&pseudo_header(src, dst, 58, message.len()), message]), [0, 0], "ICMPv6");
    }
    (src, dst, message.to_vec())
}

/// Addresses of an IP packet.
fn ends(packet: &[u8]) -> (IpAddr, IpAddr) {
    if packet[0] >> 4 == 4 {
        let at = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
        (at(12), at(16))
    } else {
        let at = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
        (at(8), at(24))
    }
}

/// Expects what `message` quotes to be the head of `sent`, after a hop.
pub fn quotes(message: &[u8], sent: &[u8], quoted: usize) {
    let mut wanted = sent[14..sent.len().min(14 + header(sent) + quoted)].to_vec();
    let mut got = message[8..].to_vec();
    // Time to live, and the sum over it, which was found right.
    let changed = if header(sent) == 20 { [8, 10, 11] } else { [7, 7, 7] };
    for packet in [&mut wanted, &mut got] {
        changed.iter().for_each(|&at| packet[at] = 0);
    }
    assert_eq!(got, wanted);
}

/// An established connection, and one by datagrams.
pub fn open(rig: &mut Rig, client: &str, vip: &str) -> [(Way, L4, L4); 3] {
    let mut tcp = Tcp::open(rig, client, vip).unwrap();
    tcp.talks(rig).unwrap();
    let (mine, theirs) = (tcp.client_next, tcp.backend_next);
    let udp = |rig: &mut Rig, port: &str, l4| {
        let client = client.replace("40000", port);
        let way = Way::open(rig, &client, vip, l4, b"question").unwrap();
        way.down(rig, l4, b"answer").unwrap();
        (way, l4, l4)
    };
    let (summed, unsummed) = (udp(rig, "40001", L4::Udp), udp(rig, "40002", L4::UdpWithoutChecksum));
    // By the client, by the backend.
    [(tcp.way, segment(ACK, mine, theirs), segment(ACK, theirs, mine)), summed, unsummed]
}

const QUOTED: [usize; 4] = [8, 16, 20, 1500];

#[test]
fn an_error_about_a_backends_packet_reaches_the_backend() {
    for [client, vip, router] in FAMILIES {
        for mode in [Mode::Nat, Mode::Dnat] {
            let mut rig = Rig::with(vec![web(mode)]);
            for (way, _, l4) in open(&mut rig, client, vip) {
                let sent = way.by_backend(l4, &[7; 1000]);
                let about = rig.send(&sent).frame;
                for from in [router.parse().unwrap(), address(client)] {
                    for quoted in QUOTED {
                        let got = rig.send(&error(from, address(vip), &about, quoted));
                        let what = format!("{mode:?} {l4:?} {from} {quoted}");
                        assert_eq!((got.verdict, got.action), ("icmp_translated", XDP_TX), "{what}");
                        let (src, dst, message) = read_error(&got.frame);
                        let source = if mode == Mode::Nat { address(vip) } else { from };
                        assert_eq!((src, dst), (source, address(&way.backend)), "{what}");
                        assert_eq!([&message[..2], &message[4..8]].concat(), flat(too_big(&sent)));
                        quotes(&message, &sent, quoted);
                        assert_eq!(got.frame[..12], [BACKEND_MAC, BALANCER_MAC].concat(), "{what}");
                        assert_eq!(got.frame[if src.is_ipv4() { 22 } else { 21 }], 63, "{what}");
                    }
                }
            }
        }
    }
}

fn flat((a, b): ([u8; 2], [u8; 4])) -> Vec<u8> {
    [&a[..], &b[..]].concat()
}

#[test]
fn an_error_about_a_clients_packet_reaches_the_client_and_comes_from_the_vip() {
    for [client, vip, router] in FAMILIES {
        for mode in [Mode::Nat, Mode::Dnat] {
            let mut rig = Rig::with(vec![web(mode)]);
            for (way, l4, _) in open(&mut rig, client, vip) {
                let sent = way.by_client(l4, &[7; 1000]);
                let about = rig.send(&sent).frame;
                for from in [router.parse().unwrap(), address(&way.backend)] {
                    for quoted in QUOTED {
                        let told = sent_by(BACKEND_MAC, error(from, address(&way.source), &about, quoted));
                        let got = rig.send(&told);
                        let what = format!("{mode:?} {l4:?} {from} {quoted}");
                        assert_eq!((got.verdict, got.action), ("icmp_translated", XDP_TX), "{what}");
                        let (src, dst, message) = read_error(&got.frame);
                        assert_eq!((src, dst), (address(vip), address(client)), "{what}");
                        assert_eq!([&message[..2], &message[4..8]].concat(), flat(too_big(&sent)));
                        quotes(&message, &sent, quoted);
                        assert_eq!(got.frame[..12], [CLIENT_MAC, BALANCER_MAC].concat(), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn ip_options_in_what_is_quoted_do_not_matter() {
    let [client, vip, router] = FAMILIES[0];
    let mut rig = Rig::with(vec![web(Mode::Nat)]);
    for (way, _, l4) in open(&mut rig, client, vip) {
        let plain = way.by_backend(l4, b"answer");
        let mut sent = plain[..34].to_vec();
        sent.extend([1; 40]);
        sent.extend(&plain[34..]);
        (sent[14], sent[17]) = (0x4f, sent[17] + 40);
        sent[24..26].fill(0);
        let sum = checksum(&[&sent[14..74]]);
        sent[24..26].copy_from_slice(&sum);
        let about = rig.send(&sent).frame;
        let quote = &about[14..14 + 68];
        let got = rig.send(&icmp(
            router.parse().unwrap(),
            address(vip),
            &[&[11, 0, 0, 0, 0, 0, 0, 0], quote].concat(),
        ));
        assert_eq!(got.verdict, "icmp_translated");
        let message = &got.frame[34..];
        assert_eq!((checksum(&[message]), checksum(&[&message[8..68]])), ([0, 0], [0, 0]));
        assert_eq!(message[20..28], sent[26..34], "addresses");
        assert_eq!(message[68..72], sent[74..78], "ports");
    }
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    for [client, vip, router] in FAMILIES {
        let mut rig = Rig::with(vec![web(Mode::Nat)]);
        for (way, _, l4) in open(&mut rig, client, vip) {
            let about = rig.send(&way.by_backend(l4, b"answer")).frame;
            let right = error(router.parse().unwrap(), address(vip), &about, 8);
            let at = 14 + header(&right) + 2;
            let (good, mut wrong) = (rig.send(&right).frame, right);
            wrong[at] ^= 0x40;
            let got = rig.send(&wrong);
            assert_eq!(got.verdict, "icmp_translated");
            let sum = |frame: &[u8]| u16::from_be_bytes([frame[at], frame[at + 1]]);
            assert_ne!(sum(&got.frame), sum(&good));
            assert_eq!(got.frame[at + 2..], good[at + 2..]);
        }
    }
}

#[test]
fn errors_keep_no_connection_alive_and_end_none() {
    for [client, vip, router] in FAMILIES {
        let mut rig = Rig::with(vec![web(Mode::Nat)]);
        let mut tcp = Tcp::open(&mut rig, client, vip).unwrap();
        tcp.talks(&mut rig).unwrap();
        let (router, host) = (router.parse().unwrap(), address(vip));
        let about = rig.send(&tcp.way.by_backend(segment(ACK, tcp.backend_next, 0), b"")).frame;
        // "Protocol unreachable", "port unreachable", "time exceeded".
        let kinds = if host.is_ipv4() { [[3, 2], [3, 3], [11, 0]] } else { [[1, 3], [1, 4], [3, 0]] };
        let told = kinds.map(|[kind, code]| {
            icmp(
                router,
                host,
                &[&[kind, code, 0, 0, 0, 0, 0, 0], &about[14..14 + header(&about) + 8]].concat(),
            )
        });
        for _ in 0..3 {
            rig.later(Duration::from_secs(40 * 60));
            for told in &told {
                assert_eq!(rig.verdict(told), "icmp_translated");
            }
        }
        assert_eq!((rig.connections(), tcp.talks(&mut rig)), (1, Ok(())), "none is ended");
        for _ in 0..4 {
            rig.pass(Duration::from_secs(40 * 60));
            told.iter().for_each(|told| drop(rig.send(told)));
        }
        assert_eq!(rig.verdict(&told[0]), "icmp_unknown", "it was idle");
        rig.sweep();
        assert_eq!(rig.connections(), 0);
    }
}

#[test]
fn errors_about_a_connection_that_was_cut_are_the_hosts() {
    for [client, vip, router] in FAMILIES {
        let mut rig = Rig::with(vec![web(Mode::Nat)]);
        let [(way, _, l4), ..] = open(&mut rig, client, vip);
        let about = rig.send(&way.by_backend(l4, b"answer")).frame;
        let told = error(router.parse().unwrap(), address(vip), &about, 8);
        assert_eq!(rig.verdict(&told), "icmp_translated");
        assert_eq!(rig.reader.cut(&ConnectionFilter::default()), 3);
        assert_eq!(rig.verdict(&told), "icmp_unknown");
    }
}

#[test]
fn an_error_about_a_clients_packet_is_believed_by_the_backends_interface_alone() {
    const INSIDE: u32 = 7;
    for [client, vip, router] in FAMILIES {
        let mut rig = Rig::new(4096);
        for backend in ["10.0.0.11", "2001:db8:1::11"] {
            rig.put_behind(INSIDE, backend);
        }
        rig.configure(&[web(Mode::Nat)], |_| true);
        let syn = frame(client, vip, segment(SYN, CLIENT_ISN, 0), b"");
        let about = rig.send(&syn).frame;
        let told = error(router.parse().unwrap(), address(vip), &about, 8);
        let got = rig.send(&told);
        assert_eq!((got.verdict, got.action), ("wrong_interface", XDP_DROP));
    }
}

/// The same packet with so many hops left.
fn with_ttl(mut frame: Vec<u8>, ttl: u8) -> Vec<u8> {
    if header(&frame) == 20 {
        frame[22] = ttl;
        frame[24..26].fill(0);
        let sum = checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum);
    } else {
        frame[21] = ttl;
    }
    frame
}

#[test]
fn a_packet_without_a_hop_left_is_answered_by_the_vip() {
    for [client, vip, _] in FAMILIES {
        for mode in [Mode::Nat, Mode::Dnat] {
            let mut rig = Rig::with(vec![web(mode)]);
            let syn = frame(&client.replace("40000", "50000"), vip, segment(SYN, CLIENT_ISN, 0), b"");
            let datagram = frame(&client.replace("40000", "33434"), vip, L4::Udp, &[7; 100]);
            let mut asked = vec![syn, datagram];
            asked.extend(open(&mut rig, client, vip).map(|(way, l4, _)| way.by_client(l4, b"more")));
            for (asked, ttl) in asked.into_iter().flat_map(|asked| [(asked.clone(), 1), (asked, 0)]) {
                let asked = with_ttl(asked, ttl);
                let got = rig.send(&asked);
                assert_eq!((got.verdict, got.action), ("ttl_expired", XDP_TX), "{mode:?}");
                let (src, dst, message) = read_error(&got.frame);
                assert_eq!((src, dst), (address(vip), address(client)));
                assert_eq!(message[..2], if src.is_ipv4() { [11, 0] } else { [3, 0] });
                assert_eq!(message[4..8], [0; 4]);
                assert_eq!(message[8..], asked[14..14 + header(&asked) + 8], "the head of what has expired");
                assert_eq!(got.frame[..12], [CLIENT_MAC, BALANCER_MAC].concat());
            }
            assert_eq!(rig.connections(), 3, "none was opened");
        }
    }
}

#[test]
fn answers_to_packets_without_a_hop_left_are_limited() {
    for [client, vip, _] in FAMILIES {
        let mut rig = Rig::with(vec![web(Mode::Nat)]);
        let asked = with_ttl(frame(client, vip, tcp(SYN), b""), 1);
        let answered = (0..1000).filter(|_| rig.run(&asked).0 == XDP_TX).count();
        assert_eq!(answered, 100);
        rig.later(Duration::from_secs(1));
        assert_eq!(rig.send(&asked).action, XDP_TX);
    }
}

#[test]
fn an_error_without_a_hop_left_is_dropped_and_never_answered() {
    for [client, vip, router] in FAMILIES {
        let mut rig = Rig::with(vec![web(Mode::Nat)]);
        let [(way, _, l4), ..] = open(&mut rig, client, vip);
        let about = rig.send(&way.by_backend(l4, b"answer")).frame;
        let told = with_ttl(error(router.parse().unwrap(), address(vip), &about, 8), 1);
        let got = rig.send(&told);
        assert_eq!((got.verdict, got.action), ("ttl_expired", XDP_DROP));
    }
}
