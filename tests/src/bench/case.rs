//! A row's network: the data plane with a farm in it, the flows that are known to it, and the packets to measure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use lb_common::bench::{EXCHANGE, Order, PORTS};
use lb_core::config::model::{Farm, Mode};

use super::balancer::{
    Balancer, CONNECTIONS, FORGETS_ALL, FORGETS_HALF_OPEN, HALF_FULL, TEST_INGRESS, farm, hops,
};
use super::cost::{Case, Load, Outcome, Wrapper, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX, feed};
use super::object::Object;
use super::packet::{self, BACKEND_MAC, BALANCER_MAC, CLIENT_MAC, Ends, Kind};

/// An interface towards the backends: any but the one that test runs come in by.
const EGRESS: u32 = 77;
const PORT: u16 = 443;
const FIRST_CLIENT_PORT: u16 = 16384;
/// Clients whose packets are measured: RFC 2544's addresses for benchmarks, and RFC 5180's.
const CLIENTS: Pair = (Ipv4Addr::new(198, 18, 0, 1), Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1));
/// Clients whose connections fill the table while others are measured.
const SETTLED: Pair = (Ipv4Addr::new(198, 19, 0, 1), Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 1));
const VIPS: Pair = (Ipv4Addr::new(192, 0, 2, 10), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10));
const STRANGERS: Pair = (Ipv4Addr::new(203, 0, 113, 9), Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 9));
/// Backends of a farm with few connections.
const BACKENDS: u32 = 64;
/// More than so many connections to one backend would make source ports scarce: clients use 2^14.
const CROWD: u32 = PORTS / 4;
/// Test runs of a case that costs little.
const REPEAT: u32 = 1 << 20;
/// New flows of a round, half of what a table of half-open connections held that was not the whole table.
const NEW: u32 = 1 << 15;
/// More flows than any run gets through.
const ENDLESS: u32 = 1 << 24;
/// Whoever sends that long without being answered is known for it, in ticks: two seconds and some.
const UNANSWERED: u32 = 25;
/// A flood's half-open connections are older than the newest, but not so old that they have expired: in ticks, a second.
const HALF_OPEN: u32 = 10;

type Pair = (Ipv4Addr, Ipv6Addr);

const FORWARDED: Outcome = &[(&["forwarded"], 1)];
const CHALLENGED: Outcome = &[(&["challenged"], 1)];
const OPENED: Outcome = &[(&["opened"], 1)];
const HANDSHAKE: Outcome = &[(&["opened"], 1), (&["forwarded"], EXCHANGE - 1)];

/// What is sent, and what is known before.
#[derive(Debug, Clone, Copy)]
pub enum Traffic {
    /// One established flow, its client's packets.
    Known(Kind, Mode),
    /// Its backend's.
    Answers(Kind),
    /// So many established flows, their clients' packets.
    Many(Kind, u32, Order),
    /// Datagrams of so many flows that nobody answers.
    OneWay(u32),
    /// Nothing but new flows, forgotten in time.
    New(Kind, Filling),
    /// SYNs of new flows to a farm that is flooded: a table full of half-open connections.
    Challenged,
    /// The opening packets of new flows, up to the one that makes them established.
    Handshake,
    /// Resets of flows that nobody knows.
    Reset,
    /// To an address that is no VIP.
    Stranger,
}

/// What the table holds beside the flows that are measured.
#[derive(Debug, Clone, Copy)]
pub enum Filling {
    Nothing,
    /// Half of it, established connections.
    Established,
    /// All of it, half-open connections: a flood, of senders who are there and have said so.
    HalfOpen,
}

impl Filling {
    /// How many flows make it.
    fn flows(self) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Established => HALF_FULL,
            // Twice as many as there is room for by any count, since they do not spread evenly.
            Self::HalfOpen => 4 * CONNECTIONS,
        }
    }
}

/// Loads a data plane of the row's own and leads its flows through their opening packets.
pub fn build(object: &mut Object, v6: bool, traffic: Traffic) -> Result<Case> {
    let network = Network { v6 };
    let farms = vec![network.farm(traffic)?];
    let here = hops(&farms, TEST_INGRESS, BACKEND_MAC, BALANCER_MAC);
    let away = hops(&farms, EGRESS, BACKEND_MAC, BALANCER_MAC);
    let mut balancer = Balancer::new(farms, &here, room(traffic))?;
    let mut load = network.load(traffic)?;
    match traffic {
        Traffic::Known(kind, _) => {
            balancer.establish(network.ends(), kind == Kind::Datagram)?;
        }
        Traffic::Answers(kind) => {
            let back = balancer.establish(network.ends(), kind == Kind::Datagram)?;
            load.frame = packet::frame((BALANCER_MAC, BACKEND_MAC), back, kind)?;
            load.action = XDP_TX;
        }
        Traffic::Many(kind, flows, _) => network.establish(object, &mut balancer, CLIENTS, kind, flows)?,
        Traffic::OneWay(flows) => {
            // The first datagrams, and those that show that nobody answers.
            for (outcome, pause) in [(OPENED, UNANSWERED), (FORWARDED, 0)] {
                let first = Load { repeat: flows, action: XDP_TX, outcome, ..network.load(traffic)? };
                object.pattern(&first.frame, flows, Order::OPENED)?;
                feed(object, &mut balancer, &first)?;
                balancer.pass_time(pause);
            }
        }
        Traffic::New(kind, Filling::Established) => {
            let flows = Filling::Established.flows();
            network.establish(object, &mut balancer, SETTLED, kind, flows)?;
        }
        Traffic::New(kind, Filling::HalfOpen) => {
            network.flood(object, &mut balancer, kind)?;
            balancer.challenge_nobody();
        }
        Traffic::Challenged => network.flood(object, &mut balancer, Kind::Syn)?,
        Traffic::New(_, Filling::Nothing) | Traffic::Handshake | Traffic::Reset | Traffic::Stranger => {}
    }
    if load.action == XDP_REDIRECT {
        balancer.route(&away)?;
    }
    let afresh = match traffic {
        Traffic::New(_, Filling::Nothing | Filling::Established) => Some(FORGETS_HALF_OPEN),
        Traffic::Handshake => Some(FORGETS_ALL),
        Traffic::New(_, Filling::HalfOpen)
        | Traffic::Challenged
        | Traffic::Known(..)
        | Traffic::Answers(_)
        | Traffic::Many(..)
        | Traffic::OneWay(_)
        | Traffic::Reset
        | Traffic::Stranger => None,
    };
    Ok(Case { balancer, load, afresh })
}

/// Most flows that are known at one time.
fn known(traffic: Traffic) -> u32 {
    match traffic {
        Traffic::Many(_, flows, _) | Traffic::OneWay(flows) => flows,
        Traffic::New(_, filling) => filling.flows().min(CONNECTIONS),
        Traffic::Challenged => Filling::HalfOpen.flows().min(CONNECTIONS),
        Traffic::Known(..)
        | Traffic::Answers(_)
        | Traffic::Handshake
        | Traffic::Reset
        | Traffic::Stranger => 0,
    }
}

/// How many connections the table is made for: somewhat more than are known, since the first windows without room appear when half
/// of the lines are taken.
fn room(traffic: Traffic) -> u32 {
    (known(traffic) / 8 * 9).max(CONNECTIONS)
}

/// Who is where, in one address family.
struct Network {
    v6: bool,
}

impl Network {
    fn one_of(&self, (v4, v6): Pair) -> IpAddr {
        if self.v6 { v6.into() } else { v4.into() }
    }

    fn ends(&self) -> Ends {
        Ends::new((self.one_of(CLIENTS), FIRST_CLIENT_PORT), (self.one_of(VIPS), PORT))
    }

    fn farm(&self, traffic: Traffic) -> Result<Farm> {
        let mode = if let Traffic::Known(_, mode) = traffic { mode } else { Mode::Nat };
        let backends: Vec<Pair> = (1..=BACKENDS.max(known(traffic) / CROWD))
            .map(|i| {
                let v4 = Ipv4Addr::from_bits(Ipv4Addr::new(10, 99, 0, 0).to_bits() + i);
                (v4, Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, i as u16))
            })
            .collect();
        farm("bench", &[VIPS.0.into(), VIPS.1.into()], PORT, mode, &backends)
    }

    /// First packets of `flows` flows of `clients`, each sent once.
    fn first(&self, clients: Pair, kind: Kind, flows: u32, outcome: Outcome) -> Result<Load> {
        let ends = Ends::new((self.one_of(clients), FIRST_CLIENT_PORT), (self.one_of(VIPS), PORT));
        let frame = packet::frame((BALANCER_MAC, CLIENT_MAC), ends, kind)?;
        let (wrapper, action) = (Wrapper::Restore, XDP_TX);
        Ok(Load { frame, flows, order: Order::OPENED, wrapper, repeat: flows, outcome, action })
    }

    /// Fills the table with half-open connections, and lets the daemon see them.
    fn flood(&self, object: &mut Object, balancer: &mut Balancer, kind: Kind) -> Result<()> {
        let flows = Filling::HalfOpen.flows();
        let flood = self.first(SETTLED, kind, flows, OPENED)?;
        object.pattern(&flood.frame, flows, flood.order)?;
        feed(object, balancer, &flood)?;
        balancer.pass_time(HALF_OPEN);
        Ok(())
    }

    /// Leads `flows` flows of `clients` through their opening packets, one after the other. `kind` is a packet of theirs.
    fn establish(
        &self,
        object: &mut Object,
        balancer: &mut Balancer,
        clients: Pair,
        kind: Kind,
        flows: u32,
    ) -> Result<()> {
        let kind = if kind == Kind::Datagram { kind } else { Kind::Syn };
        let first = self.first(clients, kind, flows, HANDSHAKE)?;
        let all = Load { wrapper: Wrapper::Handshake, repeat: EXCHANGE * flows, ..first };
        object.pattern(&all.frame, flows, all.order)?;
        feed(object, balancer, &all)?;
        Ok(())
    }

    /// The packets to be measured, forwarded by another interface where they are forwarded.
    fn load(&self, traffic: Traffic) -> Result<Load> {
        let from_client = (BALANCER_MAC, CLIENT_MAC);
        let ends = self.ends();
        let load = |kind: Kind, flows: u32, repeat: u32, outcome: Outcome, action: u32| -> Result<Load> {
            let (frame, order) = (packet::frame(from_client, ends, kind)?, Order::SHUFFLED);
            Ok(Load { frame, flows, order, wrapper: Wrapper::Restore, repeat, outcome, action })
        };
        match traffic {
            Traffic::Known(kind, _) | Traffic::Answers(kind) => {
                load(kind, 1, REPEAT, FORWARDED, XDP_REDIRECT)
            }
            Traffic::Many(kind, flows, order) => {
                Ok(Load { order, ..load(kind, flows, REPEAT, FORWARDED, XDP_REDIRECT)? })
            }
            Traffic::OneWay(flows) => load(Kind::Datagram, flows, REPEAT, FORWARDED, XDP_REDIRECT),
            Traffic::New(kind, Filling::HalfOpen) => load(kind, ENDLESS, 4 * NEW, OPENED, XDP_REDIRECT),
            Traffic::New(kind, Filling::Nothing | Filling::Established) => {
                load(kind, ENDLESS, NEW, OPENED, XDP_REDIRECT)
            }
            Traffic::Challenged => {
                let load = load(Kind::BareSyn, ENDLESS, REPEAT, CHALLENGED, XDP_TX)?;
                Ok(Load { wrapper: Wrapper::Syn, ..load })
            }
            Traffic::Handshake => {
                let load = load(Kind::Syn, ENDLESS, EXCHANGE * NEW, HANDSHAKE, XDP_TX)?;
                Ok(Load { wrapper: Wrapper::Handshake, ..load })
            }
            Traffic::Reset => load(Kind::Rst, ENDLESS, REPEAT, &[(&["no_connection"], 1)], XDP_DROP),
            Traffic::Stranger => {
                let ends = Ends::new((ends.src.ip(), ends.src.port()), (self.one_of(STRANGERS), PORT));
                let frame = packet::frame(from_client, ends, Kind::Ack)?;
                Ok(Load { frame, ..load(Kind::Ack, 1, REPEAT, &[(&["not_for_vip"], 1)], XDP_PASS)? })
            }
        }
    }
}
