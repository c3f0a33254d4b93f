//! Which cases are measured, and what each may cost.
//!
//! A row has the name that the kernel's own benchmark of an XDP load balancer gives to the same traffic
//! (tools/testing/selftests/bpf/benchs/bench_xdp_lb.c), where it has it; other names follow the same grammar.

use anyhow::Result;
use lb_common::bench::Order;
use lb_core::config::model::Mode::{Dnat, Nat};

use super::bar::Bar;
use super::case::{self, Filling, Traffic};
use super::cost::Case;
use super::object::Object;
use super::packet::Kind::{self, Ack, Datagram, Syn};

/// A case by name. Its network is built when it is measured.
pub struct Row {
    /// What it stands under in the table.
    pub group: &'static str,
    pub name: String,
    pub bar: Option<Bar>,
    v6: bool,
    traffic: Traffic,
}

impl Row {
    /// Loads a data plane of the row's own and establishes its flows.
    pub fn case(&self, object: &mut Object) -> Result<Case> {
        case::build(object, self.v6, self.traffic)
    }
}

/// Collects rows under one heading.
struct Group<'a> {
    rows: &'a mut Vec<Row>,
    name: &'static str,
}

impl Group<'_> {
    /// A row for IPv4 and one for IPv6, with what each may cost.
    fn both(&mut self, first: &str, rest: &str, traffic: Traffic, bars: [Option<f64>; 2]) {
        for (v6, bar) in [false, true].into_iter().zip(bars) {
            let name = format!("{first}-{}-{rest}", if v6 { "v6" } else { "v4" });
            self.rows.push(Row { group: self.name, name, bar: bar.map(Bar::at_most), v6, traffic });
        }
    }
}

/// All of them, in the order in which they are shown.
pub fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut group = |name, fill: fn(&mut Group<'_>)| fill(&mut Group { rows: &mut rows, name });
    group("one known flow", one_flow);
    group("many known flows", many_flows);
    group("datagrams that nobody answers", one_way);
    group("new flows", new_flows);
    group("none of ours", strangers);
    rows
}

const NONE: [Option<f64>; 2] = [None, None];

fn one_flow(group: &mut Group<'_>) {
    group.both("tcp", "lru-hit", Traffic::Known(Ack, Nat), [Some(2.0), Some(2.4)]);
    group.both("udp", "lru-hit", Traffic::Known(Datagram, Nat), NONE);
    group.both("tcp", "answer", Traffic::Answers(Ack), NONE);
    group.both("udp", "answer", Traffic::Answers(Datagram), NONE);
    group.both("tcp", "dnat", Traffic::Known(Ack, Dnat), NONE);
}

fn many_flows(group: &mut Group<'_>) {
    for (first, kind) in [("tcp", Ack), ("udp", Datagram)] {
        // As many as the kernel's benchmark has.
        group.both(first, "lru-diverse", Traffic::Many(kind, 1 << 12, Order::SHUFFLED), NONE);
    }
    for (order, name) in [(Order::OPENED, "ordered"), (Order::SHUFFLED, "shuffled")] {
        for (exponent, bar) in [(16, Some(8.5)), (18, Some(8.5)), (20, None)] {
            let rest = format!("2^{exponent}-{name}");
            group.both("tcp", &rest, Traffic::Many(Ack, 1 << exponent, order), [bar, None]);
        }
    }
    // What one-way datagrams are to be compared with.
    for exponent in [16, 18] {
        let rest = format!("2^{exponent}-shuffled");
        group.both("udp", &rest, Traffic::Many(Datagram, 1 << exponent, Order::SHUFFLED), NONE);
    }
}

fn one_way(group: &mut Group<'_>) {
    // They may cost what answered ones may.
    group.both("udp", "one-way", Traffic::OneWay(1), [Some(2.0), Some(2.4)]);
    for exponent in [16, 18] {
        let rest = format!("one-way-2^{exponent}");
        group.both("udp", &rest, Traffic::OneWay(1 << exponent), [Some(8.5), None]);
    }
}

fn new_flows(group: &mut Group<'_>) {
    let new = |kind: Kind, filling| Traffic::New(kind, filling);
    group.both("tcp", "syn", new(Syn, Filling::Nothing), [Some(16.0), Some(18.0)]);
    group.both("udp", "lru-miss", new(Datagram, Filling::Nothing), NONE);
    group.both("tcp", "syn-half-full", new(Syn, Filling::Established), NONE);
    group.both("tcp", "syn-flood", Traffic::Challenged, [Some(21.0), None]);
    // The same of senders who are there, so that each takes somebody's place.
    group.both("tcp", "syn-flood-entered", new(Syn, Filling::HalfOpen), NONE);
    group.both("tcp", "handshake", Traffic::Handshake, NONE);
}

fn strangers(group: &mut Group<'_>) {
    group.both("tcp", "rst-miss", Traffic::Reset, NONE);
    group.both("pass", "no-vip", Traffic::Stranger, [Some(1.25), Some(1.25)]);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_have_the_kernels_where_it_has_the_scenario() {
        let rows = all();
        let names: HashSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names.len(), rows.len());
        for kernels in [
            "tcp-v4-lru-hit",
            "tcp-v6-lru-hit",
            "udp-v4-lru-hit",
            "udp-v6-lru-hit",
            "tcp-v4-lru-diverse",
            "tcp-v6-lru-diverse",
            "udp-v4-lru-diverse",
            "udp-v4-lru-miss",
            "tcp-v4-syn",
            "tcp-v4-rst-miss",
            "pass-v4-no-vip",
            "pass-v6-no-vip",
        ] {
            assert!(names.contains(kernels), "{kernels}");
        }
    }
}
