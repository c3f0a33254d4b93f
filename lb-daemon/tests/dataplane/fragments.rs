//! Datagrams in fragments: the first decides, and the others follow it.

use std::time::Duration;

use lb_common::checksum::checksum;
use lb_core::config::model::{Farm, Mode};

use crate::ends::*;
use crate::icmp;
use crate::modes;
use crate::packet::*;
use crate::rig::*;

pub const V4: [&str; 2] = ["198.51.100.7:40000", "192.0.2.10:80"];
pub const V6: [&str; 2] = ["[2001:db8:7::7]:40000", "[2001:db8::10]:80"];

/// A frame in fragments of `size` bytes of what was divided, a multiple of 8.
pub fn fragments(frame: &[u8], id: u32, size: usize) -> Vec<Vec<u8>> {
    let v4 = frame[12] == 8;
    let (head, payload) = frame.split_at(if v4 { 34 } else { 54 });
    let parts = payload.chunks(size).enumerate();
    parts.map(|(at, part)| fragment(head, id, at * size, (at + 1) * size < payload.len(), part)).collect()
}

/// One of them, with any lies.
pub fn fragment(head: &[u8], id: u32, offset: usize, more: bool, part: &[u8]) -> Vec<u8> {
    let mut frame = head.to_vec();
    if head[12] == 8 {
        let word = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
        frame[16..18].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
        frame[18..20].copy_from_slice(&(id as u16).to_be_bytes());
        frame[20..22].copy_from_slice(&word.to_be_bytes());
        frame[24..26].fill(0);
        let sum = checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum);
    } else {
        let word = offset as u16 | u16::from(more);
        frame[18..20].copy_from_slice(&(8 + part.len() as u16).to_be_bytes());
        frame.extend([frame[20], 0]);
        frame[20] = 44;
        frame.extend(word.to_be_bytes());
        frame.extend(id.to_be_bytes());
    }
    frame.extend(part);
    frame
}

/// The whole that fragments make, whose id must be `id`, and which must all have the same head.
pub fn reassembled(fragments: &[Vec<u8>], id: u32) -> Vec<u8> {
    let v4 = fragments[0][12] == 8;
    let mut parts = Vec::new();
    for frame in fragments {
        let (named, word, from, same) = if v4 {
            assert_eq!(checksum(&[&frame[14..34]]), [0, 0], "IPv4 header checksum");
            (
                u32::from(u16::from_be_bytes([frame[18], frame[19]])),
                [frame[20], frame[21]],
                34,
                &frame[26..34],
            )
        } else {
            let id = u32::from_be_bytes(frame[58..62].try_into().unwrap());
            (id, [frame[56], frame[57]], 62, &frame[20..54])
        };
        assert_eq!(named, id);
        assert_eq!(frame[..12], fragments[0][..12], "the same way");
        assert_eq!(same, if v4 { &fragments[0][26..34] } else { &fragments[0][20..54] });
        let word = u16::from_be_bytes(word);
        let offset = if v4 { usize::from(word & 0x1fff) * 8 } else { usize::from(word & !7) };
        parts.push((offset, &frame[from..]));
    }
    parts.sort_unstable();
    let mut whole = fragments[0][..if v4 { 34 } else { 54 }].to_vec();
    for (offset, part) in parts {
        assert_eq!(offset, whole.len() - if v4 { 34 } else { 54 }, "nothing is missing");
        whole.extend(part);
    }
    let length = (whole.len() - 14) as u16;
    if v4 {
        whole[16..18].copy_from_slice(&length.to_be_bytes());
        whole[20..22].fill(0);
        whole[24..26].fill(0);
        let sum = checksum(&[&whole[14..34]]);
        whole[24..26].copy_from_slice(&sum);
    } else {
        whole[18..20].copy_from_slice(&(length - 40).to_be_bytes());
        whole[20] = fragments[0][54];
    }
    whole
}

pub fn web(mode: Mode) -> Farm {
    let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), mode, &[]);
    web.backends = vec![backend(&["10.0.0.11", "2001:db8:1::11"], Some(8080), 1)];
    web
}

/// Sends a frame in fragments, of which the first is to get this verdict; what they make at the other end.
fn sent(rig: &mut Rig, frame: &[u8], id: u32, verdict: &str) -> Read {
    let pieces = fragments(frame, id, 512);
    assert!(pieces.len() > 2);
    let mut out = Vec::new();
    // The first, the last, and those between.
    let last = pieces.len() - 1;
    for at in [0, last].into_iter().chain(1..last) {
        let got = rig.send(&pieces[at]);
        let expected = if at == 0 { verdict } else { "forwarded" };
        assert_eq!((got.verdict, got.action), (expected, XDP_TX), "{at} of {last}");
        out.push(got.frame);
    }
    read(&reassembled(&out, id))
}

#[test]
fn the_fragments_of_a_datagram_go_where_the_first_one_goes_both_ways() {
    for mode in [Mode::Nat, Mode::Dnat] {
        for [client, vip] in [V4, V6] {
            for l4 in [L4::Udp, L4::UdpWithoutChecksum] {
                let mut rig = Rig::with(vec![web(mode)]);
                let payload: Vec<u8> = (0..1701).map(|at| at as u8).collect();
                let up = sent(&mut rig, &frame(client, vip, l4, &payload), 7, "opened");
                let server = if vip == V4[1] { "10.0.0.11:8080" } else { "[2001:db8:1::11]:8080" };
                assert_eq!((up.dst.to_string().as_str(), up.ttl), (server, 63));
                assert_eq!(up.summed, l4 == L4::Udp);
                let answer = frame(server, &up.src.to_string(), l4, &payload);
                let down = sent(&mut rig, &answer, 7, "forwarded");
                assert_eq!((down.src.to_string().as_str(), down.dst.to_string().as_str()), (vip, client));
                assert_eq!(down.ttl, 63);
                for id in 8..40 {
                    let again = sent(&mut rig, &frame(client, vip, l4, &payload), id, "forwarded");
                    assert_eq!(again.src, up.src);
                }
                assert_eq!(rig.states(), ["established"]);
            }
        }
    }
}

#[test]
fn segments_in_fragments_are_segments_of_their_connection() {
    for mode in [Mode::Nat, Mode::Dnat] {
        for [client, vip] in [V4, V6] {
            let mut rig = Rig::with(vec![web(mode)]);
            let mut tcp = Tcp::open(&mut rig, client, vip).unwrap();
            let payload = [7; 1500];
            let up = segment(ACK, tcp.client_next, tcp.backend_next);
            let read = sent(&mut rig, &tcp.way.by_client(up, &payload), 3, "forwarded");
            assert_eq!(read.dst.to_string(), tcp.way.backend);
            tcp.client_next += 1500;
            let down = segment(ACK, tcp.backend_next, tcp.client_next);
            let read = sent(&mut rig, &tcp.way.by_backend(down, &payload), 3, "forwarded");
            assert_eq!(read.dst.to_string(), client);
            tcp.backend_next += 1500;
            tcp.talks(&mut rig).unwrap();
        }
    }
}

#[test]
fn a_backend_of_dsr_gets_fragments_as_they_are() {
    let farms = [modes::dsr(5)];
    let mut rig = modes::rig(&farms);
    for (client, vip) in [modes::V4, modes::V6] {
        modes::start(&mut rig, &farms);
        let mut all = Vec::new();
        for id in 1..5 {
            for (at, piece) in fragments(&frame(client, vip, L4::Udp, &[9; 1000]), id, 256).iter().enumerate()
            {
                let verdict = if at == 0 && id == 1 { "opened" } else { "forwarded" };
                let got = rig.send(piece);
                assert_eq!((got.verdict, got.action), (verdict, XDP_TX));
                assert_eq!(got.frame, modes::handed(piece, modes::mac(got.frame[5])));
                all.push(got.frame[5]);
            }
        }
        all.dedup();
        assert_eq!(all.len(), 1, "one backend");
    }
}

/// Fragments of different flows between the same hosts, and of the same number between different ones, do not meet.
#[test]
fn fragments_follow_the_first_one_of_their_own_datagram() {
    for [client, vip] in [V4, V6] {
        let mut rig = Rig::new(4096);
        let mut two = web(Mode::Nat);
        two.ports = lb_core::config::model::Ports::Ranges(vec![(80, 81)]);
        two.backends[0].port = None;
        rig.configure(&[two], |_| true);
        let flows = [
            (client.to_owned(), vip.to_owned(), 5),
            (client.replace("40000", "50000"), vip.to_owned(), 6),
            (client.to_owned(), vip.replace(":80", ":81"), 7),
            (client.replace("7:40000", "8:40000").replace("7]:40000", "8]:40000"), vip.to_owned(), 5),
        ];
        let pieces: Vec<Vec<Vec<u8>>> = flows
            .iter()
            .map(|(client, vip, id)| fragments(&frame(client, vip, L4::Udp, &[*id as u8; 900]), *id, 304))
            .collect();
        let mut out = vec![Vec::new(); flows.len()];
        for at in 0..3 {
            for (flow, pieces) in pieces.iter().enumerate() {
                let got = rig.send(&pieces[at]);
                assert_eq!(got.action, XDP_TX, "{}", got.verdict);
                out[flow].push(got.frame);
            }
        }
        let whole: Vec<Vec<u8>> =
            out.iter().zip(&flows).map(|(out, (.., id))| reassembled(out, *id)).collect();
        for (frame, (_, vip, id)) in whole.iter().zip(&flows) {
            assert_eq!(read(frame).dst.port(), if vip.ends_with("81") { 81 } else { 80 });
            assert!(frame.ends_with(&[*id as u8; 900]));
        }
    }
}

#[test]
fn a_datagram_is_remembered_for_half_a_minute() {
    for [client, vip] in [V4, V6] {
        let mut rig = Rig::with(vec![web(Mode::Nat)]);
        let pieces = fragments(&frame(client, vip, L4::Udp, &[1; 1000]), 9, 512);
        assert_eq!(rig.verdict(&pieces[0]), "opened");
        rig.pass(Duration::from_secs(29));
        assert_eq!(rig.verdict(&pieces[1]), "forwarded");
        rig.pass(Duration::from_secs(1));
        assert_eq!(rig.verdict(&pieces[1]), "fragment");
        assert_eq!(rig.verdict(&pieces[0]), "forwarded", "the connection lives");
        assert_eq!(rig.verdict(&pieces[1]), "forwarded");
    }
}

#[test]
fn fragments_of_a_connection_that_was_cut_go_nowhere() {
    for [client, vip] in [V4, V6] {
        let mut rig = Rig::with(vec![web(Mode::Nat)]);
        let tcp = Tcp::open(&mut rig, client, vip).unwrap();
        let l4 = segment(ACK, tcp.client_next, tcp.backend_next);
        let pieces = fragments(&tcp.way.by_client(l4, &[1; 1000]), 9, 512);
        assert_eq!(rig.verdict(&pieces[0]), "forwarded");
        rig.reader.cut(&Default::default());
        let got = rig.send(&pieces[1]);
        assert_eq!((got.verdict, got.action), ("fragment", XDP_DROP));
        assert_eq!(rig.verdict(&pieces[0]), "refused", "the first one is told");
    }
}

/// What is the host's, and what is for others, is left to it: the first fragment and the rest.
#[test]
fn fragments_for_the_host_reach_it_as_they_came() {
    for [client, vip] in [V4, V6] {
        let mut rig = Rig::with(vec![web(Mode::Nat)]);
        let elsewhere = if vip == V4[1] { "192.0.2.99:80" } else { "[2001:db8::99]:80" };
        let server = if vip == V4[1] { "10.0.0.11:8080" } else { "[2001:db8:1::11]:8080" };
        let protocol = if vip == V4[1] { 1 } else { 58 };
        let ports = |text: &str| text.parse::<std::net::SocketAddr>().unwrap().ip();
        for (verdict, whole) in [
            ("host_port", frame(client, &vip.replace(":80", ":53"), L4::Udp, &[1; 1000])),
            ("not_for_vip", frame(client, elsewhere, L4::Udp, &[1; 1000])),
            ("not_for_vip", frame(server, client, L4::Udp, &[1; 1000])),
            ("host_protocol", ip(ports(client), ports(vip), protocol, &[8; 1000])),
            ("host_protocol", ip(ports(client), ports(vip), 132, &[8; 1000])),
        ] {
            for piece in fragments(&whole, 77, 256) {
                let got = rig.send(&piece);
                assert_eq!((got.verdict, got.action), (verdict, XDP_PASS));
                assert_eq!(got.frame, piece);
            }
        }
        assert_eq!(rig.connections(), 0);
    }
}

/// Routers say of fragments, too, that they are too big. They quote the first one, or another one that has no ports.
#[test]
fn an_error_about_a_first_fragment_reaches_its_sender() {
    for [client, vip, router] in icmp::FAMILIES {
        for mode in [Mode::Nat, Mode::Dnat] {
            let mut rig = Rig::with(vec![web(mode)]);
            let flow = Udp::open(&mut rig, client, vip).unwrap();
            flow.answers(&mut rig).unwrap();
            let router = router.parse().unwrap();
            for by_backend in [false, true] {
                let whole = if by_backend {
                    flow.0.by_backend(L4::Udp, &[7; 1200])
                } else {
                    flow.0.by_client(L4::Udp, &[7; 1200])
                };
                let sent = fragments(&whole, 77, 512);
                let out: Vec<Vec<u8>> = sent.iter().map(|piece| rig.send(piece).frame).collect();
                let host = if by_backend { icmp::address(vip) } else { icmp::address(&flow.0.source) };
                for quoted in [16, 300] {
                    let got = rig.send(&icmp::error(router, host, &out[0], quoted));
                    assert_eq!((got.verdict, got.action), ("icmp_translated", XDP_TX), "{mode:?} {quoted}");
                    let (_, dst, message) = icmp::read_error(&got.frame);
                    let sender = if by_backend { &flow.0.backend } else { &flow.0.client };
                    assert_eq!(dst, icmp::address(sender));
                    icmp::quotes(&message, &sent[0], quoted);
                }
                let error = icmp::error(router, host, &out[1], 300);
                let got = rig.send(&error);
                let ours = mode == Mode::Nat || by_backend;
                assert_eq!(
                    (got.verdict, got.action),
                    (if ours { "icmp_unknown" } else { "not_for_vip" }, XDP_PASS)
                );
                assert_eq!(got.frame, error);
            }
        }
    }
}
