//! Source ports towards a backend: how many can be had, which, and who may take whose.

use std::collections::HashSet;
use std::net::SocketAddr;

use lb_core::config::model::{Farm, Mode};

use crate::ends::*;
use crate::packet::*;
use crate::rig::*;

const VIP: &str = "192.0.2.10:80";
/// The ports that a connection can have towards a backend: those that are not privileged.
const ALL: usize = 65536 - 1024;

fn web() -> Farm {
    farm("web", &["192.0.2.10"], port(80), Mode::Nat, &[("10.0.0.11", 1)])
}

fn rig() -> Rig {
    let mut rig = Rig::new(131_072);
    rig.configure(&[web()], |_| true);
    rig
}

/// Another client for each number, from this port.
fn client(number: usize, port: u16) -> SocketAddr {
    let [_, b, c, d] = (number as u32).to_be_bytes();
    SocketAddr::from(([100, b, c, d], port))
}

/// A handshake from its first part to its last. The port that it was given, if it was.
fn establish(rig: &mut Rig, client: SocketAddr) -> Option<u16> {
    let vip = VIP.parse().unwrap();
    let (action, out) = rig.run(&frame_between(client, vip, segment(SYN, CLIENT_ISN, 0), b""));
    if action != XDP_TX {
        return None;
    }
    let Read { src, dst, .. } = read(&out);
    if dst == client {
        // Refused, and told so.
        return None;
    }
    let (action, _) = rig.run(&frame_between(dst, src, segment(SYN | ACK, BACKEND_ISN, CLIENT_ISN + 1), b""));
    assert_eq!(action, XDP_TX, "{client} has its answer");
    let (action, _) =
        rig.run(&frame_between(client, vip, segment(ACK, CLIENT_ISN + 1, BACKEND_ISN + 1), b""));
    assert_eq!(action, XDP_TX, "{client} establishes");
    Some(src.port())
}

/// Fills ports from 32768 upward, as clients do that choose theirs in turn, up to `share` of all, in thousandths.
fn fill(rig: &mut Rig, taken: &mut HashSet<u16>, clients: &mut usize, share: usize) {
    let upward = (32768..=65535u16).chain(1024..32768);
    for port in upward {
        if taken.len() >= ALL * share / 1000 {
            return;
        }
        if taken.contains(&port) {
            continue;
        }
        *clients += 1;
        assert_eq!(establish(rig, client(*clients, port)), Some(port), "the client's own where it is free");
        taken.insert(port);
    }
}

/// Of clients whose own port is taken already, how many were refused; each that was not has a port of its own.
fn refused(rig: &mut Rig, taken: &mut HashSet<u16>, clients: &mut usize, attempts: usize) -> usize {
    let mut refused = 0;
    for i in 0..attempts {
        *clients += 1;
        match establish(rig, client(*clients, 32768 + (i * 37 % 20_000) as u16)) {
            Some(port) => assert!(taken.insert(port), "port {port} twice"),
            None => refused += 1,
        }
    }
    refused
}

#[test]
fn at_three_quarters_of_the_ports_nobody_is_refused_and_at_95_percent_hardly_anybody() {
    let mut rig = rig();
    let (mut taken, mut clients) = (HashSet::new(), 0);
    fill(&mut rig, &mut taken, &mut clients, 735);
    assert_eq!(refused(&mut rig, &mut taken, &mut clients, 1000), 0, "of 1000 around 75 %");
    fill(&mut rig, &mut taken, &mut clients, 942);
    let refused = refused(&mut rig, &mut taken, &mut clients, 1000);
    assert!(refused < 50, "{refused} of 1000 around 95 %");
}

#[test]
fn ports_run_out_when_each_has_an_established_connection_and_come_back_with_time() {
    let mut rig = rig();
    let (mut taken, mut clients) = (HashSet::new(), 0);
    fill(&mut rig, &mut taken, &mut clients, 1000);
    assert_eq!(taken.len(), ALL);
    let before = rig.count("ports_exhausted");
    assert_eq!(refused(&mut rig, &mut taken, &mut clients, 100), 100);
    assert_eq!(rig.count("ports_exhausted") - before, 100);
    assert_eq!(rig.connections(), ALL as u64, "a refused one leaves nothing behind");
    rig.later(std::time::Duration::from_secs(3 * 3600));
    assert_eq!(rig.connections(), 0);
    taken.clear();
    assert_eq!(refused(&mut rig, &mut taken, &mut clients, 100), 0);
}

#[test]
fn a_newcomer_takes_the_port_of_one_whom_nobody_has_answered() {
    let mut rig = rig();
    let vip = VIP.parse().unwrap();
    for number in 0..150_000 {
        let flooder = client(number, 1024 + (number % ALL) as u16);
        rig.run(&frame_between(flooder, vip, segment(SYN, 1, 0), b""));
    }
    for number in 0..100 {
        let honest = SocketAddr::from(([198, 51, 100, number], 40_000));
        assert!(establish(&mut rig, honest).is_some(), "client {number}");
    }
    assert_eq!(rig.count("ports_exhausted"), 0);
}

/// RFC 6056: who sees what port he gets himself cannot tell which another gets.
#[test]
fn ports_are_not_the_same_on_two_installations_nor_in_a_row() {
    let given: Vec<Vec<u16>> = (0..2)
        .map(|_| {
            let mut rig = rig();
            assert_eq!(establish(&mut rig, client(0, 40_000)), Some(40_000));
            (1..=100).map(|number| establish(&mut rig, client(number, 40_000)).unwrap()).collect()
        })
        .collect();
    let same = given[0].iter().zip(&given[1]).filter(|(one, other)| one == other).count();
    assert!(same < 10, "{same} of 100 are the same");
    let near = |ports: &[u16]| ports.windows(2).filter(|two| two[0].abs_diff(two[1]) < 64).count();
    assert!(near(&given[0]) < 10, "{} of 100 next to the one before", near(&given[0]));
}

/// Who knows the hash could send all that he opens to one backend.
#[test]
fn flows_are_spread_in_another_way_on_another_installation() {
    let names: Vec<String> = (1..=8).map(|i| format!("10.0.0.{i}")).collect();
    let backends: Vec<(&str, u16)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let farm = farm("web", &["192.0.2.10"], port(80), Mode::Nat, &backends);
    let chosen: Vec<Vec<String>> = (0..2)
        .map(|_| {
            let mut rig = Rig::with(vec![farm.clone()]);
            let syn =
                |number| Tcp::syn(&mut rig, &client(number, 40_000).to_string(), VIP).unwrap().way.backend;
            (0..200).map(syn).collect()
        })
        .collect();
    let same = chosen[0].iter().zip(&chosen[1]).filter(|(one, other)| one == other).count();
    assert!(same < 60, "{same} of 200 have the same of 8 backends");
}
