//! How many packets a machine forwards: a generator, a balancer and a sink, each in a network namespace of its own, joined by
//! veth pairs. The same datagrams of 64 bytes go through Drover, through the kernel's own NAT (nftables), and through
//! plain routing, turn by turn, each in a network of its own that is idle in the meantime.
//!
//! ```text
//! generator g0 -- b0 balancer b1 -- s0 sink
//! ```
//!
//! The kernel does a virtual link's work on the CPU that sends, so one CPU does all of it, the generator's and the sink's part
//! included: nothing is lost, and the ratio is smaller than that of the balancers alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::programs::xdp::XdpMode;
use lb_common::bench::{Order, PORTS};
use lb_common::wire::eth::Mac;
use lb_core::config::model::{self, Mode};
use nix::net::if_::if_nametoindex;

use super::balancer::{Balancer, CONNECTIONS, farm, hops};
use super::object::Object;
use super::packet::{self, Ends, Kind};
use crate::netns::Netns;
use crate::wait::wait_until;

const GENERATOR_MAC: Mac = [2, 0, 0, 0, 0, 1];
const FRONT_MAC: Mac = [2, 0, 0, 0, 0, 2];
const BACK_MAC: Mac = [2, 0, 0, 0, 0, 3];
const SINK_MAC: Mac = [2, 0, 0, 0, 0, 4];

const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const FIRST_CLIENT_PORT: u16 = 16384;
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);
const PORT: u16 = 9;

/// The flows of the row with many.
pub const FLOWS: u32 = PORTS;
/// Frames a call. Many, for with each call the kernel patches its dispatcher of programs and waits for all CPUs to
/// notice: some 20 ms on the machine where this was found.
const BURST: u32 = 1 << 19;

/// Who forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Drover,
    Nftables,
    Routed,
    /// Nobody: the frame is counted and dropped where the balancer would receive it. What the generator and its link cost.
    Dropped,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Drover, Self::Nftables, Self::Routed, Self::Dropped];
}

/// What a turn of one way saw.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Packets a second that reached the sink.
    pub packets: f64,
    /// The share of those sent that did not.
    pub lost: f64,
}

/// One way's network.
pub struct Lane {
    generator: Netns,
    balancer: Netns,
    sink: Netns,
    source: Object,
    counter: Object,
    /// What flow 0 sends.
    frame: Vec<u8>,
    /// The program and its maps live as long as this does.
    drover: Option<Balancer>,
}

impl Lane {
    /// Builds the network and makes all flows known to whoever forwards.
    pub fn new(way: Way) -> Result<Self> {
        let [generator, balancer, sink] = ["gen", "bal", "sink"].map(Netns::new);
        let (generator, balancer, sink) = (generator?, balancer?, sink?);
        let destination = match way {
            Way::Drover | Way::Nftables => VIP,
            Way::Routed | Way::Dropped => BACKEND,
        };
        let ends = Ends::new((CLIENT.into(), FIRST_CLIENT_PORT), (destination.into(), PORT));
        let frame = packet::frame((FRONT_MAC, GENERATOR_MAC), ends, Kind::Datagram)?;
        let (source, counter) = (Object::load()?, Object::load()?);
        let mut lane = Self { generator, balancer, sink, source, counter, frame, drover: None };
        lane.connect()?;
        lane.count(way)?;
        match way {
            Way::Drover => lane.balance()?,
            Way::Nftables => lane.translate()?,
            Way::Routed => lane.route()?,
            Way::Dropped => return Ok(lane),
        }
        lane.open(way).with_context(|| format!("opening flows through {way:?}"))?;
        Ok(lane)
    }

    fn connect(&self) -> Result<()> {
        let mac = |mac: Mac| mac.map(|byte| format!("{byte:02x}")).join(":");
        let link = |name: &str, own: Mac, peer: &str, other: Mac| {
            format!(
                "link add {name} address {} type veth peer name {peer} address {} netns {}\nlink set {name} up\n",
                mac(own),
                mac(other),
                self.balancer.name()
            )
        };
        self.generator.ip(&link("g0", GENERATOR_MAC, "b0", FRONT_MAC))?;
        self.sink.ip(&link("s0", SINK_MAC, "b1", BACK_MAC))?;
        self.balancer.ip(&format!(
            "link set b0 up\nlink set b1 up\naddr add 10.1.0.1/24 dev b0\naddr add 10.2.0.1/24 dev b1\n\
             neigh replace 10.1.0.2 lladdr {} dev b0 nud permanent\n\
             neigh replace {BACKEND} lladdr {} dev b1 nud permanent\n\
             route add {CLIENT} via 10.1.0.2\n",
            mac(GENERATOR_MAC),
            mac(SINK_MAC)
        ))
    }

    /// Attaches the sink.
    fn count(&mut self, way: Way) -> Result<()> {
        let ends = Ends::new((CLIENT.into(), 0), (BACKEND.into(), PORT));
        self.counter.pattern(
            &packet::frame((SINK_MAC, BACK_MAC), ends, Kind::Datagram)?,
            1,
            Order::SHUFFLED,
        )?;
        let counter = &mut self.counter;
        let (place, link) = if way == Way::Dropped { (&self.balancer, "b0") } else { (&self.sink, "s0") };
        place.enter(|| -> Result<()> {
            let program = counter.program("sink")?;
            program.attach_to_if_index(if_nametoindex(link)?, XdpMode::Driver)?;
            Ok(())
        })?
    }

    fn balance(&mut self) -> Result<()> {
        let backend = [(BACKEND, Ipv6Addr::LOCALHOST)];
        let mut farms = vec![farm("bench", &[IpAddr::V4(VIP)], PORT, Mode::Nat, &backend)?];
        for backend in farms.iter_mut().flat_map(|farm| &mut farm.backends) {
            backend.address.v6 = None;
        }
        let drover = self.balancer.enter(|| -> Result<Balancer> {
            let (front, back) = (if_nametoindex("b0")?, if_nametoindex("b1")?);
            let hops = hops(&farms, back, SINK_MAC, BACK_MAC);
            let mut drover = Balancer::new(farms, &hops, CONNECTIONS)?;
            drover.datapath.register(&[(front, FRONT_MAC), (back, BACK_MAC)])?;
            for (name, index) in [("b0", front), ("b1", back)] {
                drover.datapath.attach(name, index, model::XdpMode::Native)?;
            }
            Ok(drover)
        })??;
        self.drover = Some(drover);
        Ok(())
    }

    /// Sets a key of the balancer's own `net`.
    fn set(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        self.balancer.enter(|| std::fs::write(&path, value))?.with_context(|| path.clone())
    }

    /// The kernel as a router. Its links take what XDP sends by GRO's way, which a link must have while both ends are up.
    fn route(&self) -> Result<()> {
        self.set("ipv4/ip_forward", "1")?;
        self.set("ipv4/conf/all/rp_filter", "0")?;
        self.set("ipv4/conf/b0/rp_filter", "0")?;
        for link in ["b0", "b1"] {
            self.balancer.run("ethtool", &["-K", link, "gro", "on"])?;
        }
        Ok(())
    }

    /// The same translation as Drover's, by the kernel.
    fn translate(&self) -> Result<()> {
        self.route()?;
        let rules = format!(
            "table ip bench {{
                chain before {{
                    type nat hook prerouting priority dstnat;
                    ip daddr {VIP} udp dport {PORT} dnat to {BACKEND}:{PORT}
                }}
                chain after {{
                    type nat hook postrouting priority srcnat;
                    ip daddr {BACKEND} udp dport {PORT} snat to {VIP}
                }}
            }}"
        );
        self.balancer.run("nft", &[&rules])?;
        // A network card would have checked the checksums; Drover does not check them either.
        self.set("netfilter/nf_conntrack_checksum", "0")?;
        Ok(())
    }

    /// Sends one datagram of each flow, and the sink's answer to it, so that all flows are known and answered.
    fn open(&mut self, way: Way) -> Result<()> {
        self.source.pattern(&self.frame, FLOWS, Order::SHUFFLED)?;
        // A new link carries nothing until the kernel has looked at it, which may take a second.
        wait_until("the first datagram", Duration::from_secs(10), || {
            self.send(1).is_ok_and(|arrived| arrived == 1)
        })?;
        let arrived = self.send(FLOWS)?;
        ensure!(arrived == u64::from(FLOWS), "of {FLOWS} new flows' datagrams {arrived} arrive");
        let source = if way == Way::Routed { CLIENT } else { VIP };
        let answerer = &mut self.counter;
        self.sink.enter(|| -> Result<()> {
            let index = if_nametoindex("s0")?;
            for port in 0..FLOWS as u16 {
                let ends = Ends::new((BACKEND.into(), PORT), (source.into(), FIRST_CLIENT_PORT + port));
                // The floor turns it round.
                let frame = packet::frame((SINK_MAC, BACK_MAC), ends, Kind::Datagram)?;
                answerer.send("floor", &frame, index, 1)?;
            }
            Ok(())
        })??;
        let arrived = self.send(FLOWS)?;
        ensure!(arrived == u64::from(FLOWS), "of {FLOWS} known flows' datagrams {arrived} arrive");
        if let Some(drover) = &self.drover {
            let verdicts = drover.verdicts()?;
            let opened = verdicts.get("opened");
            ensure!(opened == Some(&u64::from(FLOWS)), "not every flow is known: {verdicts:?}");
        }
        Ok(())
    }

    /// Sends `count` frames; how many arrived.
    fn send(&mut self, count: u32) -> Result<u64> {
        let before = self.counter.arrived()?;
        let (source, frame) = (&mut self.source, &self.frame);
        self.generator.enter(|| source.send("generator", frame, if_nametoindex("g0")?, count))??;
        Ok(self.counter.arrived()? - before)
    }

    /// Sends packets of `flows` flows for `duration`.
    pub fn measure(&mut self, flows: u32, duration: Duration) -> Result<Rate> {
        self.source.pattern(&self.frame, flows, Order::SHUFFLED)?;
        // Warms up.
        self.send(BURST)?;
        let before = self.counter.arrived()?;
        let (source, frame) = (&mut self.source, &self.frame);
        let (sent, elapsed) = self.generator.enter(|| -> Result<(u64, Duration)> {
            let (index, start, mut sent) = (if_nametoindex("g0")?, Instant::now(), 0);
            while start.elapsed() < duration {
                source.send("generator", frame, index, BURST)?;
                sent += u64::from(BURST);
            }
            Ok((sent, start.elapsed()))
        })??;
        let arrived = self.counter.arrived()? - before;
        ensure!(arrived > 0, "nothing arrives");
        Ok(Rate { packets: arrived as f64 / elapsed.as_secs_f64(), lost: 1.0 - arrived as f64 / sent as f64 })
    }
}
