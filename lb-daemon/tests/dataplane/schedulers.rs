//! How many new connections each backend gets, and which.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lb_core::config::model::{Backend, Farm, Mode, Ports, Scheduler};
use lb_core::desired::NextHops;
use lb_core::state::BackendStatus;

use crate::packet::*;
use crate::rig::*;

const SERVERS: [&str; 4] = ["10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14"];
const SERVERS_V6: [&str; 4] = ["fd00::11", "fd00::12", "fd00::13", "fd00::14"];

/// A farm of both families with as many backends as there are weights.
fn web(scheduler: Scheduler, weights: &[u16]) -> Farm {
    let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), Mode::Dnat, &[]);
    web.backends = (0..).zip(weights).map(|(at, weight)| server(at, *weight)).collect();
    Farm { scheduler, ..web }
}

fn server(at: usize, weight: u16) -> Backend {
    backend(&[SERVERS[at], SERVERS_V6[at]], None, weight)
}

/// A rig with room for many connections.
fn wide(farms: &[Farm]) -> Rig {
    let mut rig = Rig::new(1 << 15);
    rig.configure(farms, |_| true);
    rig
}

fn client(number: usize, v6: bool) -> (String, &'static str) {
    let [high, low] = (number as u16).to_be_bytes();
    match v6 {
        false => (format!("198.18.{high}.{low}:40000"), "192.0.2.10:80"),
        true => (format!("[2001:db8:7::{number:x}]:40000"), "[2001:db8::10]:80"),
    }
}

/// The place of the backend to which a frame was sent on.
fn place(frame: &[u8]) -> usize {
    let address = read(frame).dst.ip().to_string();
    let known = |servers: &[&str]| servers.iter().position(|server| *server == address);
    known(&SERVERS).or(known(&SERVERS_V6)).unwrap_or_else(|| panic!("{address} is no backend"))
}

/// Who gets a client's first packet.
fn open(rig: &mut Rig, number: usize, v6: bool, l4: L4) -> usize {
    let (from, to) = client(number, v6);
    place(&rig.run(&frame(&from, to, l4, b"")).1)
}

#[test]
fn of_20_000_connections_each_backend_gets_its_share() {
    const MANY: usize = 20_000;
    let weights = [5, 3, 2, 0];
    for (scheduler, v6) in [
        (Scheduler::Maglev, false),
        (Scheduler::WeightedRoundRobin, false),
        (Scheduler::LeastConnections, false),
        (Scheduler::LeastConnections, true),
        (Scheduler::SourceHash, false),
        (Scheduler::SourceHash, true),
    ] {
        let mut rig = wide(&[web(scheduler, &weights)]);
        let mut got = [0; 4];
        (0..MANY).for_each(|number| got[open(&mut rig, number, v6, tcp(SYN))] += 1);
        for (got, weight) in got.iter().zip(weights) {
            let (share, wanted) = (f64::from(*got) / MANY as f64, f64::from(weight) / 10.0);
            assert!((share - wanted).abs() < 0.03, "{scheduler:?}: {share} for a weight of {weight}");
            let exact = scheduler == Scheduler::WeightedRoundRobin;
            assert!(!exact || (share - wanted).abs() < 0.0005, "turns are exact: {share}, {wanted}");
        }
    }
}

#[test]
fn backends_take_turns_whoever_comes_and_by_whatever_protocol() {
    let mut rig = wide(&[web(Scheduler::WeightedRoundRobin, &[1, 1, 1])]);
    let first = open(&mut rig, 0, false, tcp(SYN));
    for number in 1..60 {
        let l4 = if number % 3 == 0 { L4::Udp } else { tcp(SYN) };
        let got = open(&mut rig, number, number % 2 == 0, l4);
        assert_eq!(got, (first + number) % 3, "client {number}");
    }
}

#[test]
fn a_repeated_syn_takes_nobodys_turn() {
    let mut rig = wide(&[web(Scheduler::WeightedRoundRobin, &[1, 1])]);
    for number in 0..20 {
        let first = open(&mut rig, number, false, tcp(SYN));
        assert_eq!(open(&mut rig, number, false, tcp(SYN)), first);
        assert_eq!(open(&mut rig, number, false, tcp(SYN)), first);
        assert_ne!(open(&mut rig, 1000 + number, false, tcp(SYN)), first);
    }
}

#[test]
fn turns_go_on_where_they_were_when_the_table_changes() {
    // A daemon may change the table at every connection (slow start does it every few seconds): nobody is always the first.
    let mut rig = Rig::new(4096);
    let mut got = BTreeMap::<usize, u32>::new();
    for number in 0..60 {
        let weight = 1 + number as u16 % 2;
        rig.configure(&[web(Scheduler::WeightedRoundRobin, &[weight, weight, weight])], |_| true);
        *got.entry(open(&mut rig, number, false, tcp(SYN))).or_default() += 1;
    }
    assert_eq!(got, [(0, 20), (1, 20), (2, 20)].into());
}

#[test]
fn a_source_meets_one_backend_by_all_its_ports_and_after_any_time() {
    let mut web = web(Scheduler::SourceHash, &[1, 1, 1, 1]);
    web.ports = Ports::Ranges(vec![(80, 81)]);
    let mut rig = wide(&[web.clone()]);
    let mut met = BTreeSet::new();
    for client in 1..40 {
        let to = |rig: &mut Rig, source: &str, service: &str, l4: L4| {
            place(&rig.run(&frame(source, service, l4, b"")).1)
        };
        let first = to(&mut rig, &format!("198.51.100.{client}:1024"), "192.0.2.10:80", tcp(SYN));
        for source in [1025, 40_000, 65_535] {
            for (service, l4) in
                [("192.0.2.10:80", tcp(SYN)), ("192.0.2.10:81", tcp(SYN)), ("192.0.2.10:81", L4::Udp)]
            {
                let source = format!("198.51.100.{client}:{source}");
                assert_eq!(to(&mut rig, &source, service, l4), first, "{source} to {service}");
            }
        }
        met.insert(first);
        rig.later(Duration::from_secs(60));
        assert_eq!(to(&mut rig, &format!("198.51.100.{client}:7"), "192.0.2.10:80", tcp(SYN)), first);
    }
    assert_eq!(met.len(), 4, "others meet others");
}

#[test]
fn when_a_backend_goes_only_its_own_sources_move() {
    let farms = [web(Scheduler::SourceHash, &[1, 1, 1, 1])];
    let mut rig = wide(&farms);
    let before: Vec<_> = (0..200).map(|number| open(&mut rig, number, true, tcp(SYN))).collect();
    rig.configure(&farms, |name| name != SERVERS[2]);
    for (number, before) in before.iter().enumerate() {
        let (from, to) = client(number, true);
        let again = place(&rig.run(&frame(&from.replace("40000", "50000"), to, tcp(SYN), b"")).1);
        assert!(again == *before || *before == 2, "client {number} was moved from {before} to {again}");
        assert_ne!(again, 2);
    }
}

#[test]
fn schedulers_change_under_traffic_and_connections_stay() {
    let mut rig = wide(&[web(Scheduler::Maglev, &[1, 1, 1])]);
    let mut held = Vec::new();
    let schedulers = [
        Scheduler::WeightedRoundRobin,
        Scheduler::LeastConnections,
        Scheduler::SourceHash,
        Scheduler::Maglev,
    ];
    for (round, scheduler) in schedulers.into_iter().enumerate() {
        let numbers = 10 * round..10 * round + 10;
        held.extend(numbers.map(|number| (number, open(&mut rig, number, false, tcp(SYN)))));
        rig.configure(&[web(scheduler, &[1, 1, 1])], |_| true);
        for (number, backend) in &held {
            assert_eq!(open(&mut rig, *number, false, tcp(SYN)), *backend, "client {number}");
        }
    }
}

#[test]
fn nobody_serves_a_farm_whose_backends_are_down_whatever_its_scheduler() {
    for scheduler in [Scheduler::WeightedRoundRobin, Scheduler::LeastConnections, Scheduler::SourceHash] {
        let mut rig = Rig::new(4096);
        rig.configure(&[web(scheduler, &[1, 1])], |_| false);
        let (from, to) = client(1, false);
        assert_eq!(rig.verdict(&frame(&from, to, tcp(SYN), b"")), "refused", "{scheduler:?}");
        let mut rig = Rig::new(4096);
        rig.set_with(&[web(scheduler, &[1, 1])], |_| BackendStatus::Up, &NextHops::new());
        assert_eq!(rig.verdict(&frame(&from, to, tcp(SYN), b"")), "no_next_hop", "{scheduler:?}");
    }
}
