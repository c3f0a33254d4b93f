//! Which cases are measured, and what each may cost.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use lb_common::bench::{Order, PORTS};
use lb_core::config::model::Mode;

use super::balancer::{Balancer, farm, hops};
use super::cost::{Case, XDP_PASS, XDP_REDIRECT, XDP_TX};
use super::packet::{self, BACKEND_MAC, BALANCER_MAC, CLIENT_MAC, Ends, Kind};

/// An interface towards the backends: any but the one that test runs come in by.
const EGRESS: u32 = 77;
const PORT: u16 = 443;
const FIRST_CLIENT_PORT: u16 = 16384;
/// RFC 2544's addresses for benchmarks, and RFC 5180's.
const CLIENTS: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(198, 18, 0, 1), Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1));
const VIPS: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(192, 0, 2, 10), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10));
const STRANGERS: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(203, 0, 113, 9), Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 9));
/// So many that source ports never get scarce.
const BACKENDS: u8 = 64;
/// Test runs of a case that costs little.
const REPEAT: u32 = 1 << 20;

/// The highest ratio to the floor.
#[derive(Debug, Clone, Copy)]
pub struct Bar {
    /// What Drover wants to be.
    pub goal: f64,
    /// What it must be, if that is another figure; `--check` holds to it.
    pub must: Option<f64>,
}

/// A case by name. Its network is built when it is measured.
pub struct Row {
    pub name: &'static str,
    pub bar: Option<Bar>,
    v6: bool,
    mode: Mode,
    traffic: Traffic,
}

enum Traffic {
    /// One established flow, its client's packets.
    Forward(Kind),
    /// Its backend's.
    Reverse(Kind),
    /// So many established flows.
    Many(u32, Order),
    /// Nothing but new flows, the table of half-open connections emptied in time.
    New,
    /// The same, the table full: a flood.
    Flood,
    /// To an address that is no VIP.
    Stranger,
}

/// All of them, in the order in which they are shown.
pub fn all() -> Vec<Row> {
    use Kind::{Ack, Datagram};
    use Mode::{Dnat, Nat};
    use Traffic::{Flood, Forward, Many, New, Reverse, Stranger};
    let known = Some(Bar { goal: 3.0, must: Some(3.5) });
    let goal = |goal| Some(Bar { goal, must: None });
    let stranger = Some(Bar { goal: 1.8, must: Some(1.8) });
    let row = |name, v6, mode, traffic, bar| Row { name, bar, v6, mode, traffic };
    vec![
        row("known flow, IPv4 TCP", false, Nat, Forward(Ack), known),
        row("known flow, IPv4 UDP", false, Nat, Forward(Datagram), None),
        row("known flow, IPv6 TCP", true, Nat, Forward(Ack), None),
        row("known flow, IPv6 UDP", true, Nat, Forward(Datagram), None),
        row("its answers, IPv4 TCP", false, Nat, Reverse(Ack), None),
        row("its answers, IPv6 TCP", true, Nat, Reverse(Ack), None),
        row("known flow, dnat, IPv4 TCP", false, Dnat, Forward(Ack), None),
        row("2^16 flows in order, IPv4 TCP", false, Nat, Many(1 << 16, Order::OPENED), goal(8.0)),
        row("2^18 flows in order, IPv4 TCP", false, Nat, Many(1 << 18, Order::OPENED), goal(9.0)),
        row("2^16 flows shuffled, IPv4 TCP", false, Nat, Many(1 << 16, Order::SHUFFLED), goal(8.0)),
        row("2^18 flows shuffled, IPv4 TCP", false, Nat, Many(1 << 18, Order::SHUFFLED), goal(9.0)),
        row("new flow, IPv4 TCP", false, Nat, New, goal(24.0)),
        row("new flow, IPv6 TCP", true, Nat, New, goal(24.0)),
        row("new flow in a flood, IPv4 TCP", false, Nat, Flood, goal(24.0)),
        row("new flow in a flood, IPv6 TCP", true, Nat, Flood, goal(24.0)),
        row("not for a VIP, IPv4", false, Nat, Stranger, stranger),
        row("not for a VIP, IPv6", true, Nat, Stranger, stranger),
    ]
}

impl Row {
    /// Loads a data plane of the row's own and establishes its flows.
    pub fn case(&self) -> Result<Case> {
        let backends: Vec<_> = (1..=BACKENDS)
            .map(|i| (Ipv4Addr::new(10, 99, 0, i), Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, i.into())))
            .collect();
        let vips = [VIPS.0.into(), VIPS.1.into()];
        let farms = vec![farm("bench", &vips, PORT, self.mode, &backends)?];
        let hops = hops(&farms, EGRESS, BACKEND_MAC, BALANCER_MAC);
        let mut balancer = Balancer::new(farms, &hops)?;
        let client = |flow: u32| self.client(flow);
        let ends = Ends::new(client(0), (self.family(VIPS), PORT));
        let from_client = (BALANCER_MAC, CLIENT_MAC);
        let (mut flows, mut order) = (1, Order::SHUFFLED);
        let (mut repeat, mut afresh) = (REPEAT, false);
        let (mut verdict, mut action) = ("forwarded", XDP_REDIRECT);
        let frame = match self.traffic {
            Traffic::Forward(kind) => {
                balancer.establish(ends, kind == Kind::Datagram)?;
                packet::frame(from_client, ends, kind)?
            }
            Traffic::Reverse(kind) => {
                let back = balancer.establish(ends, kind == Kind::Datagram)?;
                action = XDP_TX;
                packet::frame((BALANCER_MAC, BACKEND_MAC), back, kind)?
            }
            Traffic::Many(count, by) => {
                for flow in 0..count {
                    balancer.establish(Ends::new(client(flow), (self.family(VIPS), PORT)), false)?;
                }
                (flows, order) = (count, by);
                packet::frame(from_client, ends, Kind::Ack)?
            }
            Traffic::New | Traffic::Flood => {
                afresh = matches!(self.traffic, Traffic::New);
                (flows, verdict) = (1 << 24, "opened");
                // Half of what the table holds, or twice.
                repeat = if afresh { 1 << 15 } else { 1 << 17 };
                packet::frame(from_client, ends, Kind::Syn)?
            }
            Traffic::Stranger => {
                (verdict, action) = ("not_for_vip", XDP_PASS);
                packet::frame(from_client, Ends::new(client(0), (self.family(STRANGERS), PORT)), Kind::Ack)?
            }
        };
        Ok(Case { balancer, frame, flows, order, repeat, verdict, action, afresh })
    }

    fn family(&self, (v4, v6): (Ipv4Addr, Ipv6Addr)) -> IpAddr {
        if self.v6 { v6.into() } else { v4.into() }
    }

    /// A flow's client, as the wrapper numbers them.
    fn client(&self, flow: u32) -> (IpAddr, u16) {
        let (host, port) = (flow / PORTS, flow % PORTS);
        let address = if self.v6 {
            Ipv6Addr::from_bits(CLIENTS.1.to_bits() + u128::from(host)).into()
        } else {
            Ipv4Addr::from_bits(CLIENTS.0.to_bits() + host).into()
        };
        (address, FIRST_CLIENT_PORT + port as u16)
    }
}
