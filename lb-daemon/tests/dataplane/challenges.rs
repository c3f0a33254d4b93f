//! In a flood of SYNs from forged sources, newcomers are asked whether they are there before anything is remembered of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use lb_common::challenge::VOUCHES_FOR;
use lb_core::config::model::{Farm, Mode};

use crate::ends::*;
use crate::packet::*;
use crate::rig::*;

/// Farms of both families: the one is flooded, the other is not.
fn farms() -> [Farm; 2] {
    ["10", "20"].map(|number| {
        let vips = [format!("192.0.2.{number}"), format!("2001:db8::{number}")];
        let mut farm = farm(&format!("web{number}"), &[&vips[0], &vips[1]], port(80), Mode::Nat, &[]);
        farm.backends = vec![backend(&["10.0.0.11", "2001:db8:1::11"], None, 1)];
        farm
    })
}

const CLIENTS: [(&str, &str); 2] =
    [("198.51.100.7:40000", "192.0.2.10:80"), ("[2001:db8:7::7]:40000", "[2001:db8::10]:80")];

/// A rig whose first farm is flooded in both families: more than 1,024 connections of each table are half-open.
fn flooded() -> Rig {
    let mut rig = Rig::new(4096);
    rig.configure(&farms(), |_| true);
    for number in 0..1100u16 {
        let v4 = SocketAddr::from((Ipv4Addr::from(0x6400_0000 | u32::from(number)), 1024));
        for (source, to) in
            [(v4, CLIENTS[0].1), (format!("[2001:db8:f::{number:x}]:1024").parse().unwrap(), CLIENTS[1].1)]
        {
            rig.run(&frame_between(source, to.parse().unwrap(), segment(SYN, 1, 0), b""));
        }
    }
    rig.later(Duration::from_millis(100));
    rig
}

#[test]
fn a_newcomer_to_a_flooded_farm_is_asked_and_then_served() {
    let mut rig = flooded();
    for ((client, vip), size) in CLIENTS.into_iter().zip([54, 74]) {
        let before = rig.connections();
        let syn = frame(client, vip, segment(SYN, 0x0001_0005, 0), b"early data");
        let got = rig.send(&syn);
        assert_eq!((got.verdict, got.action, got.frame.len()), ("challenged", XDP_TX, size), "{client}");
        let asked = read(&got.frame);
        assert_eq!((asked.src.to_string(), asked.dst.to_string()), (vip.to_owned(), client.to_owned()));
        assert_eq!(asked.macs, (CLIENT_MAC, BALANCER_MAC));
        let (_, number, flags) = numbers(&got.frame);
        assert_eq!(flags, SYN | ACK);
        // Not what the client waits for, but near enough for what tracks connections in between.
        assert!(0x0001_0005u32.wrapping_sub(number) <= 65_535, "{number:#x}");
        assert_eq!(rig.connections(), before, "nothing is remembered");
        assert_eq!(rig.verdict(&syn), "challenged", "a repeated SYN is no answer");
        assert_eq!(rig.verdict(&frame(client, vip, segment(RST, number, 0), b"")), "challenge_met");
        let mut tcp = Tcp::syn(&mut rig, client, vip).unwrap();
        tcp.syn_ack(&mut rig).and_then(|()| tcp.talks(&mut rig)).unwrap();
    }
}

#[test]
fn who_is_connected_and_who_wants_another_farm_is_not_asked() {
    let mut rig = Rig::new(4096);
    rig.configure(&farms(), |_| true);
    let mut old = Tcp::syn(&mut rig, CLIENTS[0].0, CLIENTS[0].1).unwrap();
    old.syn_ack(&mut rig).and_then(|()| old.talks(&mut rig)).unwrap();
    let mut under_way = Tcp::syn(&mut rig, "198.51.100.8:40000", CLIENTS[0].1).unwrap();
    let flood = |rig: &mut Rig| {
        for number in 0..1100u32 {
            let source = SocketAddr::from((Ipv4Addr::from(0x6400_0000 | number), 1024));
            rig.run(&frame_between(source, CLIENTS[0].1.parse().unwrap(), segment(SYN, 1, 0), b""));
        }
        rig.later(Duration::from_millis(100));
    };
    flood(&mut rig);
    old.talks(&mut rig).unwrap();
    under_way.syn_ack(&mut rig).and_then(|()| under_way.talks(&mut rig)).unwrap();
    assert_eq!(rig.verdict(&frame("198.51.100.9:40000", "192.0.2.20:80", tcp(SYN), b"")), "opened");
    assert_eq!(rig.verdict(&frame("198.51.100.9:40000", CLIENTS[0].1, tcp(SYN), b"")), "challenged");
}

#[test]
fn a_guess_vouches_for_nobody_and_an_answer_for_one_source_alone() {
    let mut rig = flooded();
    let (client, vip) = CLIENTS[0];
    let got = rig.send(&frame(client, vip, segment(SYN, 1_000_000, 0), b""));
    let (_, number, _) = numbers(&got.frame);
    for (from, wrong) in [
        (client, number ^ 1),
        (client, number ^ 0x8000),
        ("198.51.100.8:40000", number),
        ("198.51.100.7:40001", number),
    ] {
        assert_eq!(
            rig.verdict(&frame(from, vip, segment(RST, wrong, 0), b"")),
            "no_connection",
            "{from} {wrong:#x}"
        );
    }
    assert_eq!(rig.verdict(&frame(client, vip, segment(SYN, 1_000_000, 0), b"")), "challenged");
    assert_eq!(rig.verdict(&frame(client, vip, segment(RST, number, 0), b"")), "challenge_met");
    assert_eq!(rig.verdict(&frame("198.51.100.8:40000", vip, tcp(SYN), b"")), "challenged");
    assert_eq!(
        rig.verdict(&frame("198.51.100.7:40001", vip, tcp(SYN), b"")),
        "opened",
        "another port of the same"
    );
}

#[test]
fn an_answer_vouches_for_so_many_connections_and_so_long() {
    let mut rig = flooded();
    let vip = CLIENTS[0].1;
    Tcp::syn(&mut rig, "198.51.100.7:1024", vip).unwrap();
    for port in 1..VOUCHES_FOR {
        let syn = frame(&format!("198.51.100.7:{}", 1024 + port), vip, tcp(SYN), b"");
        assert_eq!(rig.verdict(&syn), "opened", "{port}");
    }
    assert_eq!(rig.verdict(&frame("198.51.100.7:60000", vip, tcp(SYN), b"")), "challenged");
    // An answer that comes too late is none.
    let got = rig.send(&frame("198.51.100.8:40000", vip, segment(SYN, 9, 0), b""));
    rig.pass(Duration::from_secs(26));
    let late = segment(RST, numbers(&got.frame).1, 0);
    assert_eq!(rig.verdict(&frame("198.51.100.8:40000", vip, late, b"")), "no_connection");
}

#[test]
fn an_answer_that_is_sent_again_vouches_for_no_more() {
    let mut rig = flooded();
    let vip = CLIENTS[0].1;
    let got = rig.send(&frame("198.51.100.7:1024", vip, segment(SYN, 9, 0), b""));
    let answer = frame("198.51.100.7:1024", vip, segment(RST, numbers(&got.frame).1, 0), b"");
    assert_eq!(rig.verdict(&answer), "challenge_met");
    let mut opened = 0;
    for port in 2000..2000 + 4 * VOUCHES_FOR {
        opened +=
            u32::from(rig.verdict(&frame(&format!("198.51.100.7:{port}"), vip, tcp(SYN), b"")) == "opened");
        rig.send(&answer);
    }
    assert_eq!(opened, VOUCHES_FOR);
}

/// Whoever forges SYNs in a client's name uses up what its source may open, but not what its flow may.
#[test]
fn forged_syns_in_a_clients_name_do_not_keep_it_out() {
    let mut rig = flooded();
    let (client, vip) = CLIENTS[0];
    let syn = frame(client, vip, segment(SYN, 1_000_000, 0), b"");
    let (_, number, _) = numbers(&rig.send(&syn).frame);
    assert_eq!(rig.verdict(&frame(client, vip, segment(RST, number, 0), b"")), "challenge_met");
    let forged = |port: u32| frame(&format!("198.51.100.7:{}", 1024 + port), vip, tcp(SYN), b"");
    let opened = (0..2 * VOUCHES_FOR).filter(|port| rig.verdict(&forged(*port)) == "opened").count();
    assert_eq!(opened, VOUCHES_FOR as usize);
    assert_eq!(rig.verdict(&syn), "opened");
}

#[test]
fn newcomers_are_no_longer_asked_when_the_flood_is_over() {
    let mut rig = flooded();
    assert_eq!(rig.verdict(&frame(CLIENTS[0].0, CLIENTS[0].1, tcp(SYN), b"")), "challenged");
    // Unanswered connections are forgotten; a slice of the sweep stands for a while.
    rig.later(Duration::from_secs(61));
    rig.later(Duration::from_secs(1));
    assert_eq!(rig.verdict(&frame(CLIENTS[0].0, CLIENTS[0].1, tcp(SYN), b"")), "opened");
}
