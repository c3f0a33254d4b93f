//! Any history of packets: of clients and backends that keep to the rules, of strangers that forge, of floods; with time that
//! passes and backends that come and go. The model here knows only what the program has sent: whose packets it has sent to a
//! backend under which source.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use lb_core::config::model::{Farm, Mode};
use lb_core::state::BackendStatus::{self, Down, Draining, Maintenance, Up};
use lb_core::state::ConnectionFilter;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::ends::*;
use crate::network::Network;
use crate::packet::*;
use crate::rig::*;

const BACKENDS: [&str; 2] = ["10.0.0.11:80", "10.0.0.12:80"];
/// Few clients with fewer ports, so that they get in each other's way.
const FLOWS: usize = 24;

/// The flow as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Flow {
    udp: bool,
    client: SocketAddr,
    vip: SocketAddr,
}

impl Flow {
    fn numbered(number: usize, udp: bool) -> Self {
        let vip = ["192.0.2.10:80", "192.0.2.11:80"][number % 2];
        let client = format!("198.51.100.{}:{}", number / 4, 40_000 + number / 2 % 2);
        Self { udp, client: client.parse().unwrap(), vip: vip.parse().unwrap() }
    }
}

/// The flow as its backend sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Inside {
    udp: bool,
    source: SocketAddr,
    backend: SocketAddr,
}

#[derive(Debug, Clone)]
enum Step {
    /// A client's packet, with the right numbers or with forged ones.
    Client {
        flow: usize,
        udp: bool,
        flags: u8,
        forged: Option<u32>,
    },
    /// A packet of the backend that a flow was last sent to, or, if it never was, to a port by chance.
    Backend {
        flow: usize,
        udp: bool,
        flags: u8,
        forged: Option<u32>,
        port: u16,
    },
    /// Clients of whom nobody hears again; the backend answers them or not.
    Flood {
        packets: u32,
        udp: bool,
        answered: bool,
    },
    /// Tenths of a second.
    Pass {
        ticks: u64,
        sweep: bool,
    },
    Health {
        backend: usize,
        status: BackendStatus,
    },
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop::sample::select(vec![SYN, ACK, ACK, ACK, FIN | ACK, RST, SYN | FIN, 0]);
    let theirs = prop::sample::select(vec![SYN | ACK, SYN | ACK, ACK, ACK, FIN | ACK, RST, RST | ACK, SYN]);
    let forged = || prop_oneof![4 => Just(None), 1 => any::<u32>().prop_map(Some)];
    let status = prop::sample::select(vec![Up, Up, Draining, Maintenance, Down]);
    prop_oneof![
        12 => (0..FLOWS, any::<bool>(), flags, forged())
            .prop_map(|(flow, udp, flags, forged)| Step::Client { flow, udp, flags, forged }),
        12 => (0..FLOWS, any::<bool>(), theirs, forged(), 39_998..40_004u16)
            .prop_map(|(flow, udp, flags, forged, port)| Step::Backend { flow, udp, flags, forged, port }),
        3 => (1..20u32, any::<bool>(), any::<bool>())
            .prop_map(|(packets, udp, answered)| Step::Flood { packets, udp, answered }),
        2 => (prop::sample::select(vec![1, 25, 110, 1300]), any::<bool>())
            .prop_map(|(ticks, sweep)| Step::Pass { ticks, sweep }),
        1 => (0..2usize, status).prop_map(|(backend, status)| Step::Health { backend, status }),
        1 => Just(Step::Cut),
    ]
}

fn web() -> Farm {
    farm("web", &["192.0.2.10", "192.0.2.11"], port(80), Mode::Nat, &[("10.0.0.11", 1), ("10.0.0.12", 1)])
}

struct World {
    rig: Rig,
    /// The interface that backends are behind.
    inside: u32,
    statuses: [BackendStatus; 2],
    /// Whose packets were last sent to a backend under this source.
    owners: HashMap<Inside, Flow>,
    /// Where a flow was last sent.
    ways: HashMap<Flow, Inside>,
    flooded: u32,
}

impl World {
    /// With room for no more than `connections`, so that floods fill it.
    fn new(network: &Network, connections: u32) -> Self {
        let mut rig = Rig::new(connections);
        for backend in ["10.0.0.11", "10.0.0.12"] {
            rig.put_behind(network.inside, backend);
        }
        Self {
            rig,
            inside: network.inside,
            statuses: [Up; 2],
            owners: HashMap::new(),
            ways: HashMap::new(),
            flooded: 0,
        }
    }

    /// Forgets everything, as if the balancer had just been started.
    fn begin(&mut self) {
        self.statuses = [Up; 2];
        self.apply_statuses();
        self.rig.reader.cut(&ConnectionFilter::default());
        self.rig.later(Duration::from_secs(3 * 3600));
        assert_eq!(self.rig.connections(), 0);
        (self.owners, self.ways) = (HashMap::new(), HashMap::new());
    }

    fn apply_statuses(&mut self) {
        let statuses = self.statuses;
        self.rig.set(&[web()], |name| statuses[usize::from(name == "10.0.0.12")]);
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Client { flow, udp, flags, forged } => {
                let sequence = if flags & SYN != 0 { CLIENT_ISN } else { CLIENT_ISN + 1 };
                let numbers = forged.map_or((sequence, BACKEND_ISN + 1), |number| (number, !number));
                self.client(Flow::numbered(flow, udp), flags, numbers)
            }
            Step::Backend { flow, udp, flags, forged, port } => {
                let flow = Flow::numbered(flow, udp);
                let by_chance = Inside {
                    udp,
                    source: SocketAddr::new(flow.vip.ip(), port),
                    backend: BACKENDS[usize::from(port) % 2].parse().unwrap(),
                };
                let from = self.ways.get(&flow).copied().unwrap_or(by_chance);
                let sequence = if flags & SYN != 0 { BACKEND_ISN } else { BACKEND_ISN + 1 };
                let numbers = forged.map_or((sequence, CLIENT_ISN + 1), |number| (number, !number));
                self.backend(from, flags, numbers)
            }
            Step::Flood { packets, udp, answered } => self.flood(packets, udp, answered),
            Step::Pass { ticks, sweep } => {
                self.rig.pass(Duration::from_millis(100 * ticks));
                if sweep {
                    self.rig.sweep();
                }
                Ok(())
            }
            Step::Health { backend, status } => {
                self.statuses[backend] = status;
                self.apply_statuses();
                Ok(())
            }
            Step::Cut => {
                self.rig.reader.cut(&ConnectionFilter::default());
                Ok(())
            }
        }
    }

    /// A packet in a client's name: it goes to a backend under a source that is this flow's, or back to its sender.
    fn client(&mut self, flow: Flow, flags: u8, (seq, ack): (u32, u32)) -> Result<(), TestCaseError> {
        let l4 = if flow.udp { L4::Udp } else { segment(flags, seq, ack) };
        let got = self.rig.send(&frame_between(flow.client, flow.vip, l4, b""));
        if got.action != XDP_TX && got.action != XDP_REDIRECT {
            return Ok(());
        }
        // Whoever finds no room is told so as well, and in a flood newcomers are asked.
        if ["refused", "challenged", "table_full", "farm_full", "ports_exhausted"].contains(&got.verdict) {
            return self.refused(&got, flow.client, flow.vip);
        }
        let seen = read(&got.frame);
        let inside = Inside { udp: flow.udp, source: seen.src, backend: seen.dst };
        prop_assert!(BACKENDS.contains(&seen.dst.to_string().as_str()), "{flow:?} to {inside:?}");
        prop_assert_eq!(seen.src.ip(), flow.vip.ip());
        if got.verdict == "opened" {
            self.opened(flow, inside);
        }
        let owner = self.owners.get(&inside);
        prop_assert_eq!(owner, Some(&flow), "a packet goes under another's source: {:?}", inside);
        Ok(())
    }

    fn opened(&mut self, flow: Flow, inside: Inside) {
        self.owners.insert(inside, flow);
        self.ways.insert(flow, inside);
    }

    /// A backend's packet: it goes to the client to whom its source was last given, or back.
    fn backend(&mut self, from: Inside, flags: u8, (seq, ack): (u32, u32)) -> Result<(), TestCaseError> {
        let l4 = if from.udp { L4::Udp } else { segment(flags, seq, ack) };
        let got = self.rig.send_by(self.inside, &frame_between(from.backend, from.source, l4, b""));
        // A backend that opens a connection of its own to a port that no farm has is a client of the host.
        let opens = !from.udp && flags == SYN;
        prop_assert!(opens || got.action != XDP_PASS, "{from:?} reaches the host");
        if got.action == XDP_PASS {
            return Ok(());
        }
        if got.action == XDP_DROP {
            return Ok(());
        }
        if got.verdict == "refused" {
            return self.refused(&got, from.backend, from.source);
        }
        let seen = read(&got.frame);
        let owner = self.owners.get(&from);
        let got = Flow { udp: from.udp, client: seen.dst, vip: seen.src };
        prop_assert_eq!(owner, Some(&got), "an answer goes to another: {:?}", from);
        Ok(())
    }

    fn refused(&self, got: &Outcome, from: SocketAddr, to: SocketAddr) -> Result<(), TestCaseError> {
        let seen = read(&got.frame);
        let is_reset = got.frame[23] == 6;
        prop_assert!(
            !is_reset || (seen.src, seen.dst) == (to, from),
            "the sender of {from} is told, not {seen:?}"
        );
        Ok(())
    }

    fn flood(&mut self, packets: u32, udp: bool, answered: bool) -> Result<(), TestCaseError> {
        for _ in 0..packets {
            self.flooded += 1;
            let source = Ipv4Addr::from(0x6400_0000 + self.flooded);
            let client = SocketAddr::from((source, 40_000 + (self.flooded % 3) as u16));
            let flow = Flow { client, ..Flow::numbered(self.flooded as usize % FLOWS, udp) };
            let l4 = if udp { L4::Udp } else { segment(SYN, CLIENT_ISN, 0) };
            let (action, out) = self.rig.run(&frame_between(flow.client, flow.vip, l4, b""));
            if action != XDP_REDIRECT {
                continue;
            }
            let seen = read(&out);
            let inside = Inside { udp, source: seen.src, backend: seen.dst };
            self.opened(flow, inside);
            if answered {
                self.backend(inside, SYN | ACK, (BACKEND_ISN, CLIENT_ISN + 1))?;
            }
            self.ways.remove(&flow);
        }
        Ok(())
    }
}

fn check<S: Strategy>(strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases: 100, max_shrink_iters: 500, failure_persistence: None, ..Config::default() };
    if let Err(failure) = TestRunner::new(config).run(strategy, test) {
        panic!("{failure}");
    }
}

#[test]
fn no_history_brings_a_packet_to_another_than_its_own_client() {
    let network = Network::enter();
    let world = RefCell::new(World::new(&network, 14));
    check(&vec(step(), 1..200), |steps| {
        let mut world = world.borrow_mut();
        world.begin();
        steps.iter().try_for_each(|step| world.take(step))
    });
}

/// What others do while connections are established: forgers who know the addresses and ports of all of them but no number,
/// in the client's name or, from outside, in the backend's; floods; and drains.
#[derive(Debug, Clone)]
enum Mischief {
    AsClient { connection: usize, flags: u8, number: usize },
    AsBackend { connection: usize, flags: u8 },
    Step(Step),
}

fn mischief() -> impl Strategy<Value = Mischief> {
    let number = 0..15usize;
    // An hour in all at most.
    let ticks = prop::sample::select(vec![1, 25, 110, 600]);
    let status = prop::sample::select(vec![Up, Draining, Maintenance]);
    prop_oneof![
        10 => (0..8usize, any::<u8>(), number)
            .prop_map(|(connection, flags, number)| Mischief::AsClient { connection, flags, number }),
        5 => (0..8usize, any::<u8>()).prop_map(|(connection, flags)| Mischief::AsBackend { connection, flags }),
        3 => (1..300u32, any::<bool>(), any::<bool>())
            .prop_map(|(packets, udp, answered)| Mischief::Step(Step::Flood { packets, udp, answered })),
        2 => (ticks, any::<bool>()).prop_map(|(ticks, sweep)| Mischief::Step(Step::Pass { ticks, sweep })),
        1 => (0..2usize, status).prop_map(|(backend, status)| Mischief::Step(Step::Health { backend, status })),
    ]
}

#[test]
fn no_history_of_forged_packets_and_floods_ends_an_established_connection() {
    let network = Network::enter();
    let world = RefCell::new(World::new(&network, 98));
    check(&vec(mischief(), 1..60), |deeds| {
        let mut world = world.borrow_mut();
        world.begin();
        let flows: Vec<_> = (0..8).map(|number| Flow::numbered(number, false)).collect();
        for flow in &flows {
            world.client(*flow, SYN, (CLIENT_ISN, 0))?;
            let inside = world.ways[flow];
            world.backend(inside, SYN | ACK, (BACKEND_ISN, CLIENT_ISN + 1))?;
            world.client(*flow, ACK, (CLIENT_ISN + 1, BACKEND_ISN + 1))?;
        }
        let ways: Vec<_> = flows.iter().map(|flow| world.ways[flow]).collect();
        for deed in &deeds {
            match deed {
                Mischief::AsClient { connection, flags, number } => {
                    let seq = far_from(CLIENT_ISN + 1).nth(*number).unwrap();
                    world.client(flows[*connection], *flags, (seq, !seq))?;
                    if flags & SYN != 0 {
                        // A backend that knows the connection answers with what it expects next (RFC 9293, section 3.10.7.4).
                        // Of one that says nothing to a SYN, and nothing when it is repeated, the client may be rid.
                        world.backend(ways[*connection], ACK, (BACKEND_ISN + 1, CLIENT_ISN + 1))?;
                    }
                }
                Mischief::AsBackend { connection, flags } => {
                    let Inside { source, backend, .. } = ways[*connection];
                    let forged = segment(*flags, BACKEND_ISN + 1, CLIENT_ISN + 1);
                    let got = world.rig.send(&frame_between(backend, source, forged, b""));
                    prop_assert_eq!(got.action, XDP_DROP, "from outside, {:#x}", flags);
                }
                Mischief::Step(step) => world.take(step)?,
            }
        }
        for (flow, inside) in flows.iter().zip(&ways) {
            let forwarded = |world: &World| world.rig.count("forwarded");
            let before = forwarded(&world);
            world.client(*flow, ACK, (CLIENT_ISN + 1, BACKEND_ISN + 1))?;
            world.backend(*inside, ACK, (BACKEND_ISN + 1, CLIENT_ISN + 1))?;
            prop_assert_eq!(forwarded(&world) - before, 2, "{:?} has ended", flow);
        }
        Ok(())
    });
}
