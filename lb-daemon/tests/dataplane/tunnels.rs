//! Modes in which packets reach their backend within other packets, `ipip` and `gue`.

use std::net::IpAddr;
use std::time::Duration;

use lb_common::abi::NextHop;
use lb_common::checksum::checksum;
use lb_core::config::model::{Farm, Mode};
use lb_core::desired::Path;
use lb_core::state::BackendStatus;
use lb_daemon::handle::DataplaneReader as _;

use crate::icmp;
use crate::modes::{V4, V6, handed};
use crate::packet::*;
use crate::rig::*;

const MODES: [Mode; 2] = [Mode::Ipip, Mode::Gue];
const PORT: u16 = 6081;
const MTU: u32 = 1500;

/// This host's own address towards a backend, and the backend's.
const ENDS: [[&str; 2]; 2] = [["10.250.0.1", "10.0.0.1"], ["fd00:250::1", "2001:db8:1::1"]];

/// A farm of VIPs of both families, and its backend with these addresses.
fn web(mode: Mode, addresses: &[&str]) -> Farm {
    let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), mode, &[]);
    web.gue_port = PORT;
    web.backends = vec![backend(addresses, None, 1)];
    web
}

fn set(rig: &mut Rig, farm: &Farm, mtu: u32) {
    let path = |[source, to]: [&str; 2]| {
        (to.parse::<IpAddr>().unwrap(), Path { source: source.parse().unwrap(), mtu })
    };
    rig.paths = ENDS.into_iter().map(path).collect();
    rig.set(std::slice::from_ref(farm), |_| BackendStatus::Up);
}

fn rig(farm: &Farm, mtu: u32) -> Rig {
    let mut rig = Rig::new(4096);
    set(&mut rig, farm, mtu);
    rig
}

/// Both modes, and every pair of families, each without connections, and with another backend than before.
fn each(mut check: impl FnMut(&mut Rig, Mode, Pair)) {
    let mut rig = Rig::new(4096);
    for mode in MODES {
        for pair in PAIRS {
            set(&mut rig, &web(mode, pair.0), MTU);
            rig.reader.cut(&Default::default());
            assert_eq!(rig.connections(), 0);
            check(&mut rig, mode, pair);
        }
    }
}

/// Every pair of families: the backend's addresses, which of [`ENDS`] packets of IPv4 go to, and those of IPv6.
type Pair = (&'static [&'static str], usize, usize);
const PAIRS: [Pair; 3] = [(&[ENDS[0][1]], 0, 0), (&[ENDS[1][1]], 1, 1), (&[ENDS[0][1], ENDS[1][1]], 0, 1)];

/// Where the tunnel of a packet leads, of those two.
fn end(sent: &[u8], (_, v4, v6): Pair) -> usize {
    if is_v4(sent) { v4 } else { v6 }
}

fn is_v4(frame: &[u8]) -> bool {
    frame[12..14] == [0x08, 0x00]
}

/// Bytes between the frame's head and the packet.
fn overhead(mode: Mode, end: usize) -> usize {
    [20, 40][end] + if mode == Mode::Gue { 12 } else { 0 }
}

/// What shows the flow outside: the source port or the flow label; nothing where there is no place for it.
fn flow(frame: &[u8], mode: Mode, end: usize) -> u16 {
    let at = match (mode, end) {
        (Mode::Gue, _) => 14 + [20, 40][end],
        (_, 1) => 16,
        _ => return 0,
    };
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// The frame that the next station gets of `sent`, by its description alone. What only a hash can tell is taken from `got`.
fn wrapped(sent: &[u8], got: &[u8], mode: Mode, end: usize) -> Vec<u8> {
    let v4 = is_v4(sent);
    let inner = &handed(sent, BACKEND_MAC)[14..];
    let length = if v4 {
        usize::from(u16::from_be_bytes([sent[16], sent[17]]))
    } else {
        40 + usize::from(u16::from_be_bytes([sent[18], sent[19]]))
    };
    let (packet, trailer) = inner.split_at(length);
    let protocol = if v4 { 4 } else { 41 };
    let mut body = Vec::new();
    if mode == Mode::Gue {
        let source = flow(got, mode, end);
        assert!(source >= 49152, "of those that are nobody's");
        body.extend(source.to_be_bytes());
        body.extend(PORT.to_be_bytes());
        body.extend((12 + length as u16).to_be_bytes());
        body.extend([0, 0, 0, protocol, 0, 0]);
    }
    body.extend(packet);
    let [source, to] = ENDS[end].map(|address| address.parse().unwrap());
    let outer_protocol = if mode == Mode::Gue { 17 } else { protocol };
    let mut frame = ip(source, to, outer_protocol, &body);
    frame[..6].copy_from_slice(&BACKEND_MAC);
    frame[6..12].copy_from_slice(&BALANCER_MAC);
    let class = if v4 { sent[15] } else { sent[14] << 4 | sent[15] >> 4 };
    if end == 0 {
        frame[15] = class;
        // As the packet has it; of IPv6 what every way must carry may be taken apart.
        let whole = if v4 { sent[20] & 0x40 != 0 } else { length > 1280 };
        frame[20] = if whole { 0x40 } else { 0 };
        frame[18..20].copy_from_slice(&got[18..20]);
        frame[24..26].fill(0);
        let sum = checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum);
    } else {
        frame[14] = 0x60 | class >> 4;
        frame[15] = class << 4;
        frame[16..18].copy_from_slice(&got[16..18]);
    }
    frame.extend(trailer);
    frame
}

/// Sends a packet that must be wrapped as described; the frame.
fn wraps(rig: &mut Rig, sent: &[u8], mode: Mode, end: usize, verdict: &str) -> Vec<u8> {
    let got = rig.send(sent);
    assert_eq!((got.verdict, got.action), (verdict, XDP_TX));
    assert_eq!(got.frame, wrapped(sent, &got.frame, mode, end));
    got.frame
}

#[test]
fn packets_of_every_pair_of_families_are_wrapped_whole_and_the_connection_follows_its_client() {
    each(|rig, mode, pair| {
        for (client, vip) in [V4, V6] {
            let steps = [
                ("opened", segment(SYN, 999, 0), &b""[..], "unanswered"),
                ("forwarded", segment(ACK, 1000, 5001), b"", "one-sided"),
                ("forwarded", segment(ACK, 1000, 5001), b"odd", "one-sided"),
                ("forwarded", segment(ACK, 1003, 5001), &[7; 1200], "one-sided"),
                ("forwarded", segment(FIN | ACK, 2203, 5001), b"", "one-sided"),
                ("forwarded", segment(RST, 2204, 0), b"", "closed"),
            ];
            for (verdict, l4, payload, state) in steps {
                let sent = frame(client, vip, l4, payload);
                wraps(rig, &sent, mode, end(&sent, pair), verdict);
                let (listed, _) = rig.reader.connections(&Default::default(), 9).unwrap();
                let own = listed.iter().find(|it| it.source.to_string() == client).unwrap();
                assert_eq!(own.state, state);
            }
            let other = client.replace("40000", "40001");
            for verdict in ["opened", "forwarded"] {
                let sent = frame(&other, vip, L4::UdpWithoutChecksum, &[1; 999]);
                wraps(rig, &sent, mode, end(&sent, pair), verdict);
            }
            // Of no connection that is known.
            let third = frame(&client.replace("40000", "40002"), vip, segment(ACK, 7, 8), b"x");
            wraps(rig, &third, mode, end(&third, pair), "by_table");
        }
        let id = *rig.observed.backends.keys().next_back().unwrap();
        let traffic = rig.reader.traffic(id).unwrap();
        assert_eq!((traffic.opened, traffic.packets_in, traffic.packets_out), (4, 18, 0));
    });
}

/// With another TTL or hop limit, class, DF and identification, as far as its IP has such.
fn changed(mut frame: Vec<u8>, ttl: u8, class: u8, flags: u8, id: u8) -> Vec<u8> {
    if is_v4(&frame) {
        (frame[15], frame[20], frame[22]) = (class, flags, ttl);
        (frame[18], frame[19]) = (id, id);
        frame[24..26].fill(0);
        let sum = checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum);
    } else {
        (frame[14], frame[15], frame[21]) = (0x60 | class >> 4, class << 4 | id & 15, ttl);
    }
    frame
}

#[test]
fn the_outer_header_takes_over_class_and_df_and_its_ttl_is_its_own() {
    each(|rig, mode, pair| {
        for (client, vip) in [V4, V6] {
            let syn = frame(client, vip, tcp(SYN), b"");
            wraps(rig, &syn, mode, end(&syn, pair), "opened");
            let sent = frame(client, vip, segment(ACK, 1001, 1), &[5; 1230]);
            for (ttl, class, flags) in [(2, 0xb8, 0x40), (255, 3, 0), (64, 0xff, 0), (128, 1, 0x40)] {
                let sent = changed(sent.clone(), ttl, class, flags, ttl);
                let got = wraps(rig, &sent, mode, end(&sent, pair), "forwarded");
                let at = if end(&sent, pair) == 0 { 22 } else { 21 };
                assert_eq!(got[at], 64);
            }
            let last = changed(sent, 1, 0, 0x40, 0);
            let got = rig.send(&last);
            assert_eq!((got.verdict, got.action), ("ttl_expired", XDP_TX), "its sender is told");
        }
    });
}

#[test]
fn a_flow_looks_the_same_outside_for_as_long_as_it_lasts_and_flows_differ() {
    for (mode, pair) in [(Mode::Gue, PAIRS[0]), (Mode::Gue, PAIRS[1]), (Mode::Ipip, PAIRS[1])] {
        let mut rig = rig(&web(mode, pair.0), MTU);
        for (client, vip) in [V4, V6] {
            let mut seen = std::collections::BTreeSet::new();
            for port in 40000..40064 {
                let client = client.replace("40000", &port.to_string());
                let mut shows = |l4, verdict| {
                    let sent = frame(&client, vip, l4, b"");
                    flow(&wraps(&mut rig, &sent, mode, end(&sent, pair), verdict), mode, end(&sent, pair))
                };
                let first = shows(tcp(SYN), "opened");
                assert_eq!(shows(segment(ACK, 1001, 1), "forwarded"), first);
                seen.insert(first);
            }
            assert!(seen.len() > 56, "{mode:?}: {} of 64", seen.len());
        }
    }
}

#[test]
fn what_does_not_fit_into_the_tunnel_is_answered_with_how_much_does() {
    each(|rig, mode, pair| {
        for (client, vip) in [V4, V6] {
            let head = |size: usize| {
                let header = if client == V4.0 { 20 } else { 40 };
                frame(client, vip, segment(ACK, 1001, 1), &vec![9; size - header - 20])
            };
            let syn = frame(client, vip, tcp(SYN), b"");
            let end = end(&syn, pair);
            wraps(rig, &syn, mode, end, "opened");
            let fits = MTU as usize - overhead(mode, end);
            wraps(rig, &head(fits), mode, end, "forwarded");
            for size in [fits + 1, 1500] {
                let sent = head(size);
                let got = rig.send(&sent);
                assert_eq!((got.verdict, got.action), ("too_big", XDP_TX), "{size}");
                let about = icmp::too_big(&sent).0;
                assert_error(&got.frame, &sent, about, fits as u16);
            }
            assert_eq!(rig.connections(), if client == V4.0 { 1 } else { 2 });
        }
    });
}

/// An answer to `sent`, of this type and code, that tells this size.
fn assert_error(got: &[u8], sent: &[u8], about: [u8; 2], mtu: u16) {
    assert_error_from(read(sent).dst.ip(), got, sent, about, mtu);
}

/// The same of another one than the packet was for.
pub fn assert_error_from(from: IpAddr, got: &[u8], sent: &[u8], [kind, code]: [u8; 2], mtu: u16) {
    let header = icmp::header(sent);
    let (src, dst, message) = icmp::read_error(got);
    assert_eq!((src, dst), (from, read(sent).src.ip()));
    assert_eq!((&got[..6], &got[6..12]), (&sent[6..12], &sent[..6]));
    assert_eq!((&message[..2], &message[4..8]), (&[kind, code][..], &u32::from(mtu).to_be_bytes()[..]));
    assert_eq!(message[8..], sent[14..14 + header + 8], "the head of what did not fit, as it came");
}

#[test]
fn nobody_of_ipv6_is_told_to_send_less_than_every_way_must_carry() {
    let farm = web(Mode::Gue, PAIRS[1].0);
    let mut rig = rig(&farm, 1300);
    let sent = frame(V6.0, V6.1, tcp(SYN), &[1; 1300]);
    let got = rig.send(&sent);
    assert_eq!(got.verdict, "too_big");
    assert_error(&got.frame, &sent, [2, 0], 1280);
}

#[test]
fn a_flood_of_what_does_not_fit_is_answered_within_limits_and_takes_nothing_from_refusals() {
    let mut rig = rig(&web(Mode::Ipip, PAIRS[2].0), MTU);
    rig.datapath.maps.control.set_refusals(50);
    for (client, vip) in [V4, V6] {
        rig.pass(Duration::from_millis(100));
        let sent = frame(client, vip, L4::UdpWithoutChecksum, &[0; 1472]);
        let answers: Vec<u32> = (0..1000).map(|_| rig.run(&sent).0).collect();
        let answered = answers.iter().filter(|action| **action == XDP_TX).count();
        // Test runs may go from one CPU to another.
        assert!((50..=200).contains(&answered), "{answered}");
        assert!(answers[answered.max(900)..].iter().all(|action| *action == XDP_DROP));
        let last = changed(frame(client, vip, L4::Udp, b""), 1, 0, 0x40, 0);
        assert_eq!(rig.send(&last).action, XDP_TX, "others are told what they are to be told");
        rig.pass(Duration::from_millis(100));
        assert_eq!(rig.send(&sent).action, XDP_TX, "and so is he, a while later");
    }
}

#[test]
fn a_packet_whose_tunnel_has_no_known_way_is_dropped_and_counted() {
    let mut rig = Rig::new(4096);
    for (mode, pair) in MODES.into_iter().flat_map(|mode| PAIRS.map(|pair| (mode, pair))) {
        let farm = web(mode, pair.0);
        let sent = [V4, V6].map(|(client, vip)| frame(client, vip, tcp(SYN), b""));
        rig.paths.clear();
        rig.set(std::slice::from_ref(&farm), |_| BackendStatus::Up);
        rig.reader.cut(&Default::default());
        for sent in &sent {
            let got = rig.send(sent);
            assert_eq!((got.verdict, got.action), ("not_wrapped", XDP_DROP));
        }
        set(&mut rig, &farm, MTU);
        sent.iter().for_each(|sent| drop(wraps(&mut rig, sent, mode, end(sent, pair), "forwarded")));
        let hops = ENDS.map(|[_, to]| (to.parse().unwrap(), NextHop::default()));
        rig.set_with(std::slice::from_ref(&farm), |_| BackendStatus::Up, &hops.into());
        sent.iter().for_each(|sent| assert_eq!(rig.verdict(sent), "no_next_hop"));
        // What is not known any more stays as it was.
        rig.paths.clear();
        rig.set(std::slice::from_ref(&farm), |_| BackendStatus::Up);
        sent.iter().for_each(|sent| drop(wraps(&mut rig, sent, mode, end(sent, pair), "forwarded")));
    }
}

#[test]
fn packets_that_lie_about_their_length_do_not_get_further_and_trailers_do_not_count() {
    each(|rig, mode, pair| {
        for (client, vip) in [V4, V6] {
            let sent = frame(client, vip, L4::UdpWithoutChecksum, b"12");
            let mut short = sent.clone();
            short.extend([0xee; 20]);
            wraps(rig, &short, mode, end(&sent, pair), "opened");
            let at = if client == V4.0 { 17 } else { 19 };
            for more in [3, 200] {
                let mut lies = sent.clone();
                lies[at] += more;
                assert_eq!(rig.verdict(&lies), "bad_ip_header", "{more}");
            }
        }
    });
}

#[test]
fn errors_about_what_a_backend_has_sent_reach_it_through_the_tunnel() {
    each(|rig, mode, pair| {
        for ((client, vip), router) in [(V4, "203.0.113.1"), (V6, "2001:db8:99::1")] {
            let syn = frame(client, vip, segment(SYN, 999, 0), b"");
            wraps(rig, &syn, mode, end(&syn, pair), "opened");
            let ack = frame(client, vip, segment(ACK, 1000, 5001), b"");
            wraps(rig, &ack, mode, end(&ack, pair), "forwarded");
            let about = frame(vip, client, segment(ACK, 5001, 1000), &[7; 2000]);
            let to = vip.parse::<std::net::SocketAddr>().unwrap().ip();
            let told = |quoted| icmp::error(router.parse().unwrap(), to, &about, quoted);
            wraps(rig, &told(8), mode, end(&syn, pair), "icmp_translated");
            // Of an error that does not fit nobody is told (RFC 1122, section 3.2.2).
            let got = rig.send(&told(1460));
            assert_eq!((got.verdict, got.action), ("too_big", XDP_DROP));
        }
    });
}

#[test]
fn answers_whose_way_leads_by_the_balancer_go_on_to_the_client_as_they_are() {
    for mode in MODES {
        let mut rig = rig(&web(mode, PAIRS[0].0), MTU);
        for (client, vip) in [V4, V6] {
            let syn = frame(client, vip, segment(SYN, 999, 0), b"");
            wraps(&mut rig, &syn, mode, 0, "opened");
            let sent = sent_by(BACKEND_MAC, frame(vip, client, segment(SYN | ACK, 5000, 1000), &[3; 1400]));
            let got = rig.send(&sent);
            assert_eq!((got.verdict, got.action), ("forwarded", XDP_TX));
            assert_eq!(got.frame, handed(&sent, CLIENT_MAC));
        }
    }
}

#[test]
fn what_comes_in_a_tunnel_is_not_taken_out_here() {
    let mut rig = rig(&web(Mode::Ipip, PAIRS[2].0), MTU);
    for (client, vip) in [V4, V6] {
        let inner = frame(client, vip, tcp(SYN), b"")[14..].to_vec();
        let number = if client == V4.0 { 4 } else { 41 };
        for [source, to] in ENDS {
            let (source, to): (IpAddr, IpAddr) = (source.parse().unwrap(), to.parse().unwrap());
            for (source, to) in [(to, source), (source, to)] {
                let sent = ip(source, to, number, &inner);
                let got = rig.send(&sent);
                assert_eq!((got.verdict, got.action, &got.frame), ("not_for_vip", XDP_PASS, &sent));
            }
        }
        let [source, vip] = [client, vip].map(|it| it.parse::<std::net::SocketAddr>().unwrap().ip());
        let sent = ip(source, vip, number, &inner);
        let got = rig.send(&sent);
        assert_eq!((got.verdict, got.action, &got.frame), ("host_protocol", XDP_PASS, &sent));
        assert_eq!(rig.connections(), 0);
    }
}
