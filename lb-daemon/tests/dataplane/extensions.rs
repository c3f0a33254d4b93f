//! IPv6 packets with extension headers, and IPv4 packets with options, in the whole life of a connection and in all modes.

use lb_common::checksum::checksum;
use lb_core::config::model::Mode;

use crate::modes;
use crate::packet::*;
use crate::rig::*;

pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const DESTINATION: u8 = 60;

/// Options of that many times 8 bytes.
pub fn options(units: u8) -> Vec<u8> {
    let mut rest = vec![units - 1, 1, units * 8 - 4];
    rest.resize(usize::from(units) * 8 - 1, 0);
    rest
}

fn routing(left: u8) -> Vec<u8> {
    vec![0, 2, left, 0, 0, 0, 0]
}

/// The frame with these headers behind its IPv6 header: each a kind, and its bytes but for the first, which says what follows.
pub fn extended(frame: &[u8], headers: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut all = Vec::new();
    for (at, (_, rest)) in headers.iter().enumerate() {
        all.push(headers.get(at + 1).map_or(frame[20], |(kind, _)| *kind));
        all.extend(rest);
    }
    let mut made = [&frame[..54], &all, &frame[54..]].concat();
    if let Some((kind, _)) = headers.first() {
        made[20] = *kind;
    }
    let length = (made.len() - 54) as u16;
    made[18..20].copy_from_slice(&length.to_be_bytes());
    made
}

/// The frame with so many words of options behind its IPv4 header.
fn with_options(frame: &[u8], words: u8) -> Vec<u8> {
    let mut made = frame[..34].to_vec();
    made.extend(std::iter::repeat_n(1, usize::from(words) * 4));
    made.extend(&frame[34..]);
    made[14] = 0x45 + words;
    let total = (made.len() - 14) as u16;
    made[16..18].copy_from_slice(&total.to_be_bytes());
    made[24..26].fill(0);
    let sum = checksum(&[&made[14..34 + usize::from(words) * 4]]);
    made[24..26].copy_from_slice(&sum);
    made
}

/// Removes what stands between the fixed header and the transport header, which must be as it was in `sent`.
fn stripped(got: &[u8], sent: &[u8], plain: &[u8]) -> Vec<u8> {
    let extra = sent.len() - plain.len();
    let fixed = if plain[12] == 8 { 34 } else { 54 };
    assert_eq!(got[fixed..fixed + extra], sent[fixed..fixed + extra], "headers between are as they were");
    let mut frame = [&got[..fixed], &got[fixed + extra..]].concat();
    if fixed == 34 {
        assert_eq!(checksum(&[&got[14..34 + extra]]), [0, 0], "IPv4 header checksum");
        frame[14] = 0x45;
        let total = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[24..26].fill(0);
        let sum = checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum);
    } else {
        frame[20] = plain[20];
        let length = (frame.len() - 54) as u16;
        frame[18..20].copy_from_slice(&length.to_be_bytes());
    }
    frame
}

type Wrap = Box<dyn Fn(&[u8]) -> Vec<u8>>;

fn wraps(v6: bool) -> Vec<Wrap> {
    if !v6 {
        return vec![Box::new(|frame| with_options(frame, 1)), Box::new(|frame| with_options(frame, 10))];
    }
    let wrap = |headers: Vec<(u8, Vec<u8>)>| -> Wrap { Box::new(move |frame| extended(frame, &headers)) };
    vec![
        wrap(vec![(HOP_BY_HOP, options(1))]),
        wrap(vec![(DESTINATION, options(24))]),
        wrap(vec![(ROUTING, routing(0))]),
        // An atomic fragment (RFC 6946).
        wrap(vec![(44, vec![0, 0, 0, 1, 2, 3, 4])]),
        wrap(vec![
            (HOP_BY_HOP, options(1)),
            (DESTINATION, options(2)),
            (ROUTING, routing(0)),
            (44, vec![0, 0, 0, 1, 2, 3, 4]),
            (DESTINATION, options(1)),
        ]),
    ]
}

/// Sends a frame in this guise; what comes out without it.
fn send(rig: &mut Rig, wrap: &Wrap, plain: &[u8], verdict: &str) -> Read {
    let sent = wrap(plain);
    let got = rig.send(&sent);
    assert_eq!((got.verdict, got.action), (verdict, XDP_TX), "{sent:?}");
    read(&stripped(&got.frame, &sent, plain))
}

#[test]
fn headers_between_ip_and_transport_do_not_matter_in_a_connections_whole_life() {
    for mode in [Mode::Nat, Mode::Dnat] {
        let mut rig = Rig::new(4096);
        let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), mode, &[]);
        web.backends = vec![backend(&["10.0.0.11", "2001:db8:1::11"], Some(8080), 1)];
        rig.configure(&[web], |_| true);
        for (client, vip, server) in [
            ("198.51.100.7:40000", "192.0.2.10:80", "10.0.0.11:8080"),
            ("[2001:db8:7::7]:40000", "[2001:db8::10]:80", "[2001:db8:1::11]:8080"),
        ] {
            for wrap in wraps(vip.starts_with('[')) {
                let up = |rig: &mut Rig, l4, payload: &[u8], verdict: &str| {
                    let read = send(rig, &wrap, &frame(client, vip, l4, payload), verdict);
                    assert_eq!((read.dst.to_string().as_str(), read.ttl), (server, 63));
                    read.src.to_string()
                };
                let down = |rig: &mut Rig, source: &str, l4, payload: &[u8]| {
                    let read = send(rig, &wrap, &frame(server, source, l4, payload), "forwarded");
                    assert_eq!((read.src.to_string().as_str(), read.dst.to_string().as_str()), (vip, client));
                };
                let source = up(&mut rig, segment(SYN, 1000, 0), b"", "opened");
                down(&mut rig, &source, segment(SYN | ACK, 7000, 1001), b"");
                up(&mut rig, segment(ACK, 1001, 7001), b"", "forwarded");
                up(&mut rig, segment(ACK, 1001, 7001), b"question", "forwarded");
                down(&mut rig, &source, segment(ACK, 7001, 1009), b"answer");
                // One without them is of the same connection.
                let plain = rig.send(&frame(client, vip, segment(ACK, 1009, 7007), b""));
                assert_eq!(plain.verdict, "forwarded");
                assert_eq!(rig.states(), ["established"]);
                up(&mut rig, segment(FIN | ACK, 1009, 7007), b"", "forwarded");
                down(&mut rig, &source, segment(FIN | ACK, 7007, 1010), b"");
                assert_eq!(rig.states(), ["closed"]);
                for l4 in [L4::Udp, L4::UdpWithoutChecksum] {
                    rig.reader.cut(&Default::default());
                    rig.sweep();
                    let source = up(&mut rig, l4, b"odd", "opened");
                    down(&mut rig, &source, l4, b"answer");
                    up(&mut rig, l4, b"odd", "forwarded");
                }
                rig.reader.cut(&Default::default());
                rig.later(std::time::Duration::from_secs(600));
                assert_eq!(rig.connections(), 0);
            }
        }
    }
}

#[test]
fn a_backend_of_dsr_gets_them_as_they_are() {
    let farms = [modes::dsr(3)];
    let mut rig = modes::rig(&farms);
    for (client, vip) in [modes::V4, modes::V6] {
        for wrap in wraps(vip.starts_with('[')) {
            modes::start(&mut rig, &farms);
            for (verdict, l4) in [
                ("opened", segment(SYN, 999, 0)),
                ("forwarded", segment(ACK, 1000, 5001)),
                ("forwarded", segment(FIN | ACK, 1000, 5001)),
            ] {
                let sent = wrap(&frame(client, vip, l4, b""));
                let got = rig.send(&sent);
                assert_eq!((got.verdict, got.action), (verdict, XDP_TX));
                let mut expected = sent.clone();
                expected[..6].copy_from_slice(&modes::mac(got.frame[5]));
                expected[6..12].copy_from_slice(&BALANCER_MAC);
                if vip.starts_with('[') {
                    expected[21] -= 1;
                } else {
                    let length = usize::from(sent[14] & 15) * 4;
                    expected[22] -= 1;
                    expected[24..26].fill(0);
                    let sum = checksum(&[&expected[14..14 + length]]);
                    expected[24..26].copy_from_slice(&sum);
                }
                assert_eq!(got.frame, expected);
            }
        }
    }
}

#[test]
fn a_stranger_with_extension_headers_is_refused_without_them() {
    let mut rig =
        Rig::with(vec![farm("web", &["2001:db8::10"], port(80), Mode::Nat, &[("2001:db8:1::11", 1)])]);
    for wrap in wraps(true) {
        let sent = wrap(&frame("[2001:db8:7::7]:40000", "[2001:db8::10]:80", segment(ACK, 5, 77), b"abc"));
        let got = rig.send(&sent);
        assert_eq!((got.verdict, got.action), ("refused", XDP_TX));
        assert_eq!(numbers(&got.frame), (77, 0, RST));
        assert_eq!(read(&got.frame).dst.to_string(), "[2001:db8:7::7]:40000");
    }
}

/// Makes a packet to this address and port.
type Make<'a> = Box<dyn Fn(&str) -> Vec<u8> + 'a>;

#[test]
fn bombs_and_lies_of_headers_are_dropped_by_reason_and_what_is_not_for_a_vip_is_the_hosts() {
    let mut rig =
        Rig::with(vec![farm("web", &["2001:db8::10"], port(80), Mode::Nat, &[("2001:db8:1::11", 1)])]);
    let syn = |to: &str| frame("[2001:db8:7::7]:40000", to, tcp(SYN), b"");
    let many = |count| vec![(DESTINATION, options(1)); count];
    let cut_off = |frame: Vec<u8>, at: usize, value: u8| {
        let mut frame = frame;
        frame[at] = value;
        frame
    };
    let table: Vec<(&str, Make<'_>)> = vec![
        ("headers_too_many", Box::new(|to| extended(&syn(to), &many(6)))),
        ("headers_too_many", Box::new(|to| extended(&syn(to), &many(170)))),
        ("headers_too_many", Box::new(|to| extended(&syn(to), &[(HOP_BY_HOP, options(25))]))),
        ("extension_header", Box::new(|to| extended(&syn(to), &[(ROUTING, routing(1))]))),
        (
            "extension_header",
            Box::new(|to| extended(&syn(to), &[(DESTINATION, options(1)), (HOP_BY_HOP, options(1))])),
        ),
        (
            "extension_header",
            Box::new(|to| extended(&syn(to), &[(HOP_BY_HOP, options(1)), (51, options(2))])),
        ),
        ("bad_ip_header", Box::new(|to| cut_off(extended(&syn(to), &[(HOP_BY_HOP, options(1))]), 55, 9))),
        ("truncated_transport", Box::new(|to| extended(&syn(to)[..70], &[(HOP_BY_HOP, options(1))]))),
        (
            "bad_transport_header",
            Box::new(|to| cut_off(extended(&syn(to), &[(HOP_BY_HOP, options(1))]), 74, 0xf0)),
        ),
        (
            "bad_transport_header",
            Box::new(|to| {
                let datagram = frame("[2001:db8:7::7]:40000", to, L4::Udp, b"abc");
                cut_off(extended(&datagram, &[(DESTINATION, options(1))]), 67, 4)
            }),
        ),
    ];
    for (verdict, make) in table {
        let sent = make("[2001:db8::10]:80");
        let got = rig.send(&sent);
        assert_eq!((got.verdict, got.action), (verdict, XDP_DROP));
        assert_eq!(got.frame, sent);
        let sent = make("[2001:db8::99]:80");
        let got = rig.send(&sent);
        assert_eq!((got.verdict, got.action), ("not_for_vip", XDP_PASS));
        assert_eq!(got.frame, sent);
    }
    // A ping with options, an empty packet: the host's.
    let (client, vip) = ("2001:db8:7::7".parse().unwrap(), "2001:db8::10".parse().unwrap());
    for sent in [
        extended(&ip(client, vip, 58, &[128, 0, 0, 0, 0, 0, 0, 0]), &[(HOP_BY_HOP, options(1))]),
        extended(&ip(client, vip, 59, &[]), &[(DESTINATION, options(1))]),
    ] {
        let got = rig.send(&sent);
        assert_eq!((got.verdict, got.action), ("host_protocol", XDP_PASS));
        assert_eq!(got.frame, sent);
    }
    assert_eq!(rig.connections(), 0);
}

#[test]
fn a_packet_with_headers_between_cut_short_anywhere_is_never_forwarded() {
    let mut rig =
        Rig::with(vec![farm("web", &["2001:db8::10"], port(80), Mode::Nat, &[("2001:db8:1::11", 1)])]);
    for wrap in wraps(true) {
        for l4 in [tcp(SYN), L4::Udp] {
            let whole = wrap(&frame("[2001:db8:7::7]:40000", "[2001:db8::10]:80", l4, b""));
            for length in 14..whole.len() {
                let got = rig.send(&whole[..length]);
                assert!(got.action == XDP_PASS || got.action == XDP_DROP, "{length} bytes: {got:?}");
                assert_eq!(got.frame, whole[..length]);
            }
        }
    }
    assert_eq!(rig.connections(), 0);
}
