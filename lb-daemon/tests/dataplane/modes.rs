//! Modes in which a backend gets packets as they are and answers its client itself.

use std::net::IpAddr;
use std::time::Duration;

use lb_common::abi::NextHop;
use lb_common::checksum::checksum;
use lb_core::config::model::{Farm, Mode, OnDown};
use lb_core::desired::NextHops;
use lb_core::state::BackendStatus;
use lb_daemon::handle::DataplaneReader as _;

use crate::packet::*;
use crate::rig::*;

pub const V4: (&str, &str) = ("198.51.100.7:40000", "192.0.2.10:80");
pub const V6: (&str, &str) = ("[2001:db8:7::7]:40000", "[2001:db8::10]:80");

/// Backends are `n` of these, each a neighbour with a hardware address of its own.
fn addresses(n: u8) -> [String; 2] {
    [format!("10.0.0.{n}"), format!("2001:db8:1::{n}")]
}

pub fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, n]
}

pub fn dsr(backends: u8) -> Farm {
    let mut farm = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), Mode::Dsr, &[]);
    farm.backends = (1..=backends)
        .map(|n| {
            let [v4, v6] = addresses(n);
            backend(&[&v4, &v6], None, 1)
        })
        .collect();
    farm
}

fn hops(farms: &[Farm]) -> NextHops {
    let addresses = farms.iter().flat_map(|farm| &farm.backends).flat_map(|backend| backend.address.iter());
    let hop = |address: IpAddr| {
        let number = match address {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => v6.octets()[15],
        };
        (address, NextHop { ifindex: LOOPBACK, destination: mac(number), source: BALANCER_MAC })
    };
    addresses.map(hop).collect()
}

fn set(rig: &mut Rig, farms: &[Farm], status: impl Fn(&str) -> BackendStatus) {
    rig.set_with(farms, status, &hops(farms));
}

pub fn rig(farms: &[Farm]) -> Rig {
    let mut rig = Rig::new(4096);
    set(&mut rig, farms, |_| BackendStatus::Up);
    rig
}

/// The same rig without connections.
pub fn start(rig: &mut Rig, farms: &[Farm]) {
    set(rig, farms, |_| BackendStatus::Up);
    rig.reader.cut(&Default::default());
    assert_eq!(rig.connections(), 0);
}

/// The frame as the next station gets it: its addresses, one hop less, and nothing else.
pub fn handed(sent: &[u8], to: [u8; 6]) -> Vec<u8> {
    let mut frame = sent.to_vec();
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&BALANCER_MAC);
    if frame[12..14] == [0x08, 0x00] {
        frame[22] -= 1;
        frame[24..26].copy_from_slice(&[0, 0]);
        let sum = checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum);
    } else {
        frame[21] -= 1;
    }
    frame
}

/// Sends a client's packet, which must reach a backend as it is; which one.
pub fn reaches(rig: &mut Rig, sent: &[u8], verdict: &str) -> u8 {
    let got = rig.send(sent);
    assert_eq!((got.verdict, got.action), (verdict, XDP_TX));
    let number = got.frame[5];
    assert_eq!(got.frame, handed(sent, mac(number)));
    read(&got.frame);
    number
}

fn state(rig: &Rig) -> &'static str {
    let (listed, total) = rig.reader.connections(&Default::default(), 1).unwrap();
    assert_eq!(total, 1);
    listed[0].state
}

pub fn open(rig: &mut Rig, (client, vip): (&str, &str)) -> u8 {
    let number = reaches(rig, &frame(client, vip, segment(SYN, 999, 0), b""), "opened");
    assert_eq!(reaches(rig, &frame(client, vip, segment(ACK, 1000, 5001), b""), "forwarded"), number);
    number
}

#[test]
fn a_client_of_dsr_is_handed_to_one_backend_as_it_is() {
    let mut rig = rig(&[dsr(5)]);
    for (client, vip) in [V4, V6] {
        start(&mut rig, &[dsr(5)]);
        let steps = [
            ("opened", segment(SYN, 999, 0), "", "unanswered"),
            ("forwarded", segment(SYN, 999, 0), "", "unanswered"),
            ("forwarded", segment(ACK, 1000, 5001), "", "one-sided"),
            ("forwarded", segment(ACK, 1000, 5001), "GET / HTTP/1.0\r\n", "one-sided"),
            ("forwarded", segment(SYN, 77, 0), "", "one-sided"),
            ("forwarded", segment(FIN | ACK, 1016, 5001), "", "one-sided"),
            ("forwarded", segment(ACK, 1017, 5002), "", "one-sided"),
            ("forwarded", segment(RST, 1017, 0), "", "closed"),
            ("opened", segment(SYN, 99, 0), "", "unanswered"),
        ];
        let mut first = None;
        for (verdict, l4, payload, after) in steps {
            let number = reaches(&mut rig, &frame(client, vip, l4, payload.as_bytes()), verdict);
            assert_eq!(*first.get_or_insert(number), number);
            assert_eq!(state(&rig), after, "{l4:?}");
        }
        let (listed, _) = rig.reader.connections(&Default::default(), 1).unwrap();
        let [v4, v6] = addresses(first.unwrap());
        let own = if client == V4.0 { format!("{v4}:80") } else { format!("[{v6}]:80") };
        assert_eq!((listed[0].backend.to_string(), listed[0].source.to_string()), (own, client.to_owned()));
    }
}

#[test]
fn datagrams_of_dsr_keep_their_backend() {
    let mut rig = rig(&[dsr(5)]);
    for (client, vip) in [V4, V6] {
        for l4 in [L4::Udp, L4::UdpWithoutChecksum] {
            let sent = frame(client, vip, l4, b"odd");
            let first = reaches(&mut rig, &sent, "opened");
            for _ in 0..3 {
                rig.pass(Duration::from_secs(1));
                assert_eq!(reaches(&mut rig, &sent, "forwarded"), first);
            }
            assert_eq!(state(&rig), "one-sided");
            rig.later(Duration::from_secs(121));
            assert_eq!(rig.connections(), 0);
        }
    }
}

#[test]
fn answers_whose_way_leads_by_the_balancer_go_on_to_the_client_and_prove_nothing() {
    let mut rig = rig(&[dsr(1)]);
    for (client, vip) in [V4, V6] {
        start(&mut rig, &[dsr(1)]);
        reaches(&mut rig, &frame(client, vip, segment(SYN, 999, 0), b""), "opened");
        for l4 in [segment(SYN | ACK, 5000, 1000), segment(ACK, 5001, 1000), segment(RST, 5001, 0)] {
            let sent = sent_by(mac(1), frame(vip, client, l4, b""));
            let got = rig.send(&sent);
            assert_eq!((got.verdict, got.action), ("forwarded", XDP_TX));
            assert_eq!(got.frame, handed(&sent, CLIENT_MAC));
            assert_eq!(state(&rig), "unanswered");
        }
        // Of no connection, it is as if there were no balancer.
        let other = frame(vip, &client.replace("40000", "40001"), tcp(ACK), b"");
        assert_eq!(rig.verdict(&other), "not_for_vip");
    }
}

#[test]
fn a_segment_that_no_line_knows_goes_to_whom_the_table_names() {
    let mut rig = rig(&[dsr(5)]);
    for (client, vip) in [V4, V6] {
        start(&mut rig, &[dsr(5)]);
        for port in 40000..40040 {
            let client = client.replace("40000", &port.to_string());
            let known = open(&mut rig, (&client, vip));
            rig.reader.cut(&Default::default());
            assert_eq!(rig.connections(), 0);
            for l4 in [segment(ACK, 1000, 5001), segment(FIN | ACK, 1000, 5001), segment(RST, 1000, 0)] {
                let number = reaches(&mut rig, &frame(&client, vip, l4, b""), "by_table");
                assert_eq!(number, known, "the same as ever");
            }
            assert_eq!(rig.connections(), 0, "it costs nothing");
        }
        set(&mut rig, &[dsr(5)], |_| BackendStatus::Down);
        assert_eq!(rig.verdict(&frame(client, vip, tcp(ACK), b"")), "refused", "nobody is there");
    }
}

#[test]
fn connections_of_dsr_age_by_what_their_client_has_said() {
    // What it says last, and how long that is remembered.
    let table = [
        (segment(SYN, 999, 0), 10),
        (segment(ACK, 1000, 5001), 7440),
        (segment(FIN | ACK, 1000, 5001), 240),
        (segment(RST, 1000, 0), 10),
    ];
    let mut rig = rig(&[dsr(2)]);
    for (client, vip) in [V4, V6] {
        for (last, seconds) in table {
            start(&mut rig, &[dsr(2)]);
            reaches(&mut rig, &frame(client, vip, segment(SYN, 999, 0), b""), "opened");
            reaches(&mut rig, &frame(client, vip, last, b""), "forwarded");
            rig.later(Duration::from_secs(seconds - 1));
            assert_eq!(rig.connections(), 1, "{last:?}");
            rig.later(Duration::from_secs(2));
            assert_eq!(rig.connections(), 0, "{last:?}");
        }
    }
}

#[test]
fn clients_of_dsr_move_when_their_backend_is_down_and_not_before() {
    let mut web = dsr(2);
    web.on_down = OnDown::Cut;
    let mut rig = rig(&[web.clone()]);
    for (client, vip) in [V4, V6] {
        start(&mut rig, &[web.clone()]);
        let (syn, ack) = (segment(SYN, 99, 0), segment(ACK, 1000, 5001));
        let first = open(&mut rig, (client, vip));
        let name = addresses(first)[0].clone();
        let but = |status| move |it: &str| if it == name { status } else { BackendStatus::Up };
        set(&mut rig, &[web.clone()], but.clone()(BackendStatus::Draining));
        assert_eq!(reaches(&mut rig, &frame(client, vip, ack, b"x"), "forwarded"), first);
        // A new client may have this port by now, or a stranger says so: the backend knows.
        for _ in 0..2 {
            assert_eq!(reaches(&mut rig, &frame(client, vip, syn, b""), "forwarded"), first);
        }
        assert_eq!(reaches(&mut rig, &frame(client, vip, ack, b"x"), "forwarded"), first);
        let fin = segment(FIN | ACK, 1001, 5001);
        assert_eq!(reaches(&mut rig, &frame(client, vip, fin, b""), "forwarded"), first);
        assert_ne!(reaches(&mut rig, &frame(client, vip, syn, b""), "opened"), first);

        set(&mut rig, &[web.clone()], |_| BackendStatus::Up);
        rig.reader.cut(&Default::default());
        assert_eq!(open(&mut rig, (client, vip)), first);
        set(&mut rig, &[web.clone()], but(BackendStatus::Down));
        assert_eq!(reaches(&mut rig, &frame(client, vip, ack, b"x"), "forwarded"), first, "until it is cut");
        rig.reader.cut(&Default::default());
        assert_ne!(reaches(&mut rig, &frame(client, vip, ack, b"x"), "by_table"), first, "who resets it");
    }
}

#[test]
fn connections_keep_the_mode_that_they_were_opened_in() {
    let nat = Farm { mode: Mode::Nat, ..dsr(1) };
    let mut rig = rig(&[dsr(1)]);
    for (client, vip) in [V4, V6] {
        start(&mut rig, &[dsr(1)]);
        open(&mut rig, (client, vip));
        set(&mut rig, std::slice::from_ref(&nat), |_| BackendStatus::Up);
        reaches(&mut rig, &frame(client, vip, segment(ACK, 1000, 5001), b"x"), "forwarded");
        let other = client.replace("40000", "40001");
        let got = rig.send(&frame(&other, vip, tcp(SYN), b""));
        let (source, server) = (read(&got.frame).src, read(&got.frame).dst);
        assert_eq!((got.verdict, source.ip()), ("opened", vip_of(vip)), "translated");
        rig.run(&frame(&server.to_string(), &source.to_string(), segment(SYN | ACK, 7, 1001), b""));
        let ack = frame(&other, vip, segment(ACK, 1001, 8), b"");
        assert_eq!(rig.verdict(&ack), "forwarded");
        set(&mut rig, &[dsr(1)], |_| BackendStatus::Up);
        reaches(&mut rig, &frame(client, vip, segment(ACK, 1000, 5001), b"x"), "forwarded");
        assert_eq!(read(&rig.send(&ack).frame).src.ip(), vip_of(vip));
    }
}

pub fn vip_of(vip: &str) -> IpAddr {
    vip.parse::<std::net::SocketAddr>().unwrap().ip()
}

#[test]
fn packets_without_a_hop_left_or_without_a_way_are_dropped() {
    let mut rig = rig(&[dsr(1)]);
    for (client, vip) in [V4, V6] {
        start(&mut rig, &[dsr(1)]);
        let at = if client == V4.0 { 22 } else { 21 };
        let mut last = frame(client, vip, tcp(SYN), b"");
        last[at] = 1;
        if client == V4.0 {
            last[24..26].copy_from_slice(&[0, 0]);
            let sum = checksum(&[&last[14..34]]);
            last[24..26].copy_from_slice(&sum);
        }
        assert_eq!(rig.verdict(&last), "ttl_expired");
        open(&mut rig, (client, vip));
        let tcp_at = if client == V4.0 { 34 } else { 54 };
        last[tcp_at + 13] = ACK;
        assert_eq!(rig.verdict(&last), "ttl_expired");
        let gone = [NextHop::default(); 1];
        let gone = dsr(1).backends[0].address.iter().map(|address| (address, gone[0])).collect();
        rig.set_with(&[dsr(1)], |_| BackendStatus::Up, &gone);
        assert_eq!(rig.verdict(&frame(client, vip, segment(ACK, 1000, 5001), b"")), "no_next_hop");
    }
}

#[test]
fn forged_pairs_of_segments_crowd_nobody_but_their_like() {
    let nat = farm("mail", &["192.0.2.11"], port(25), Mode::Nat, &[("10.0.0.9", 1)]);
    let farms = [dsr(2), nat];
    let mut rig = Rig::new(1024);
    set(&mut rig, &farms, |_| BackendStatus::Up);
    let establish = |rig: &mut Rig, port: u16| {
        let client = format!("198.51.100.7:{port}");
        assert_eq!(rig.verdict(&frame(&client, "192.0.2.11:25", segment(SYN, 1, 0), b"")), "opened");
        rig.send(&frame("10.0.0.9:25", &format!("192.0.2.11:{port}"), segment(SYN | ACK, 7, 2), b""));
        assert_eq!(rig.verdict(&frame(&client, "192.0.2.11:25", segment(ACK, 2, 8), b"")), "forwarded");
    };
    (10_000..10_300).for_each(|port| establish(&mut rig, port));
    for i in 0..6_000u32 {
        let flooder = format!("10.{}.{}.{}:1234", 1 + (i >> 16), (i >> 8) & 255, i & 255);
        rig.run(&frame(&flooder, "192.0.2.10:80", segment(SYN, 1, 0), b""));
        rig.run(&frame(&flooder, "192.0.2.10:80", segment(ACK, 2, 12345), b""));
        if i % 300 == 0 {
            rig.later(Duration::from_millis(100));
        }
    }
    rig.sweep();
    for port in 10_000..10_300 {
        let client = format!("198.51.100.7:{port}");
        let got = rig.verdict(&frame(&client, "192.0.2.11:25", segment(ACK, 2, 8), b"x"));
        assert_eq!(got, "forwarded", "{client}");
    }
    (20_000..20_300).for_each(|port| establish(&mut rig, port));
}

#[test]
fn a_full_table_of_others_refuses_newcomers_to_dsr() {
    let nat = farm("mail", &["192.0.2.11"], port(25), Mode::Nat, &[("10.0.0.9", 1)]);
    let mut rig = Rig::new(1024);
    set(&mut rig, &[dsr(2), nat], |_| BackendStatus::Up);
    let mut full = 0;
    for i in 0..4000u32 {
        let client = format!("10.1.{}.{}:1234", i >> 8, i & 255);
        let got = rig.send(&frame(&client, "192.0.2.11:25", segment(SYN, 1, 0), b""));
        if got.verdict != "opened" {
            full += 1;
            continue;
        }
        let source = read(&got.frame).src.to_string();
        rig.run(&frame("10.0.0.9:25", &source, segment(SYN | ACK, 7, 2), b""));
        rig.run(&frame(&client, "192.0.2.11:25", segment(ACK, 2, 8), b""));
    }
    assert!(full > 0);
    // Others were told until now.
    rig.pass(Duration::from_millis(100));
    let refused = (40_000..40_090u16)
        .filter(|port| {
            let client = format!("198.51.100.7:{port}");
            let got = rig.send(&frame(&client, "192.0.2.10:80", segment(SYN, 1, 0), b""));
            got.verdict == "table_full" && numbers(&got.frame) == (0, 2, RST | ACK)
        })
        .count();
    assert!(refused > 50, "{refused} of 90 are told");
}

#[test]
fn a_flood_of_syns_to_dsr_is_challenged_and_who_is_there_gets_in() {
    let mut rig = Rig::new(16_384);
    set(&mut rig, &[dsr(2)], |_| BackendStatus::Up);
    for i in 0..6000u32 {
        let flooder = format!("10.{}.{}.{}:1234", 1 + (i >> 16), (i >> 8) & 255, i & 255);
        rig.run(&frame(&flooder, "192.0.2.10:80", segment(SYN, 1, 0), b""));
    }
    rig.sweep();
    let (client, vip) = V4;
    let syn = frame(client, vip, segment(SYN, 999, 0), b"");
    let asked = rig.send(&syn);
    assert_eq!(asked.verdict, "challenged");
    let (_, number, _) = numbers(&asked.frame);
    assert_eq!(rig.verdict(&frame(client, vip, segment(RST, number, 0), b"")), "challenge_met");
    reaches(&mut rig, &syn, "opened");
    reaches(&mut rig, &frame(client, vip, segment(ACK, 1000, 5001), b""), "forwarded");
    let stranger = frame("198.51.100.8:1", vip, segment(RST, 5, 0), b"");
    assert_eq!(rig.verdict(&stranger), "no_connection", "a guess");
}
