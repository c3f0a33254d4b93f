//! The data plane with farms in it, filled by the daemon's own planner and applier, and flows led through their opening
//! packets as real ends would do it.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use aya::programs::{ProgramFd, TestRun as _, TestRunOptions};
use lb_common::abi::{NextHop, POLICY_UNANSWERED_FIRST};
use lb_common::wire::eth::Mac;
use lb_core::config::model::{
    Addresses, Backend, BackendName, Config, Daemon, Farm, FarmName, Mode, Ports, Protocols, XdpMode,
};
use lb_core::desired::{BackendFacts, Desired, NextHops};
use lb_core::diff::{Observed, Planner};
use lb_core::quota::Policy;
use lb_core::state::BackendStatus;
use lb_daemon::datapath::{Datapath, Reader, Sweeper};
use lb_daemon::handle::DataplaneReader as _;

use super::packet::{self, BACKEND_MAC, BALANCER_MAC, CLIENT_MAC, Ends, Kind};
use crate::netns::unique;

/// Connections that a table has room for, as the daemon's default is.
pub const CONNECTIONS: u32 = 1 << 19;
/// Half of that. They take a quarter of the lines, of which the table has four for each connection: at half of the lines the first
/// windows have no room, and who is refused is not what is to be measured.
pub const HALF_FULL: u32 = CONNECTIONS / 2;

/// The interface that test runs come in by: loopback. Their frames are addressed to [`BALANCER_MAC`].
pub const TEST_INGRESS: u32 = 1;

/// Longer than a half-open connection may be idle, in ticks; and an established one.
pub const FORGETS_HALF_OPEN: u32 = 101;
pub const FORGETS_ALL: u32 = 75_000;

/// The data plane, loaded. Dropping it takes it out of the kernel.
pub struct Balancer {
    pub datapath: Datapath,
    reader: Reader,
    planner: Planner,
    desired: Desired,
    observed: Observed,
    ticks: u32,
    sweeper: Sweeper,
    _pins: Pins,
}

/// The directory of bpffs with everything that is pinned, removed on drop.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != ErrorKind::NotFound
        {
            eprintln!("{} is left over: {error}", self.0.display());
        }
    }
}

impl Balancer {
    /// Loads the program with room for `connections` and brings its maps to `farms`, every backend up and reached by `hops`.
    pub fn new(farms: Vec<Farm>, hops: &NextHops, connections: u32) -> Result<Self> {
        let dir = PathBuf::from(format!("/sys/fs/bpf/drover-bench-{}-{:06x}", std::process::id(), unique()));
        let pins = Pins(dir.clone());
        let mut datapath = Datapath::load(&dir, connections)?;
        datapath.register(&[(TEST_INGRESS, BALANCER_MAC)])?;
        let reader = Reader::open(&dir)?;
        let config = Config { daemon: daemon(connections), farms };
        let facts = BackendFacts {
            status: BackendStatus::Up,
            weight: 1,
            ramp: 100,
            failing: false,
            unreachable: false,
        };
        let desired = Desired::of(&config, |farm| vec![facts; farm.backends.len()]);
        let (planner, observed) = (Planner::default(), Observed::default());
        let mut balancer = Self {
            datapath,
            reader,
            planner,
            desired,
            observed,
            ticks: 0,
            sweeper: Sweeper::default(),
            _pins: pins,
        };
        balancer.route(hops)?;
        Ok(balancer)
    }

    /// Lets the backends be reached by `hops` from now on.
    pub fn route(&mut self, hops: &NextHops) -> Result<()> {
        let ops = self.planner.plan(&self.observed, &self.desired, hops, |_| true)?;
        self.datapath.apply(&mut self.observed, &ops)
    }

    /// Lets so many ticks of 100 ms pass on the data plane's clock, in which the daemon sweeps the tables.
    pub fn pass_time(&mut self, ticks: u32) {
        self.ticks += ticks;
        self.datapath.set_clock(self.ticks);
        self.reader.sweep_round(&mut self.sweeper, self.observed.farms.len());
    }

    /// From now on newcomers take the places of unanswered connections without being challenged, until the daemon sweeps again.
    pub fn challenge_nobody(&mut self) {
        let policy = Policy { bits: POLICY_UNANSWERED_FIRST, ..Policy::default() };
        [0, 1].into_iter().for_each(|family| self.datapath.maps.control.set_policy(family, &policy));
    }

    /// A descriptor of its own of the program.
    pub fn handle(&mut self) -> Result<ProgramFd> {
        Ok(self.datapath.program()?.fd()?.try_clone()?)
    }

    /// Packets counted so far, by verdict.
    pub fn verdicts(&self) -> Result<HashMap<&'static str, u64>> {
        Ok(self.reader.verdicts()?.into_iter().collect())
    }

    /// Leads a flow through its opening packets: a handshake, or a datagram, its answer, and another datagram. The ends of
    /// the backend's packets. An answer comes in by the interface that test runs come in by, so that must be the backend's.
    pub fn establish(&mut self, ends: Ends, datagrams: bool) -> Result<Ends> {
        let (first, second, third) = if datagrams {
            (Kind::Datagram, Kind::Datagram, Kind::Datagram)
        } else {
            (Kind::Syn, Kind::SynAck, Kind::Ack)
        };
        let client = (BALANCER_MAC, CLIENT_MAC);
        let inside = self.pass(&packet::frame(client, ends, first)?)?;
        let back = inside.reversed();
        let answer = self.pass(&packet::frame((BALANCER_MAC, BACKEND_MAC), back, second)?)?;
        ensure!(answer == ends.reversed(), "{ends:?} is answered as {answer:?}");
        self.pass(&packet::frame(client, ends, third)?)?;
        Ok(back)
    }

    /// Sends one packet through the program; its ends afterwards.
    fn pass(&mut self, frame: &[u8]) -> Result<Ends> {
        let mut out = [0; 128];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = self.datapath.program()?.test_run(options)?;
        ensure!(
            [super::cost::XDP_TX, super::cost::XDP_REDIRECT].contains(&result.return_value),
            "a packet was not forwarded: {:?}, counted so far: {:?}",
            packet::ends(frame)?,
            self.verdicts()?.iter().filter(|(_, count)| **count > 0).collect::<Vec<_>>()
        );
        packet::ends(&out)
    }
}

/// A farm of both protocols with backends that have an address in each family.
pub fn farm(
    name: &str,
    vips: &[IpAddr],
    port: u16,
    mode: Mode,
    backends: &[(Ipv4Addr, Ipv6Addr)],
) -> Result<Farm> {
    let backends = backends.iter().map(|(v4, v6)| {
        let name = BackendName::new(&v4.to_string()).context("an address is a name")?;
        Ok(Backend {
            name,
            address: Addresses { v4: Some(*v4), v6: Some(*v6) },
            port: None,
            weight: 1,
            priority: 0,
        })
    });
    let name = FarmName::new(name).with_context(|| format!("'{name}' is no name of a farm"))?;
    Ok(Farm {
        vips: vips.to_vec(),
        ports: Ports::Ranges(vec![(port, port)]),
        protocols: Protocols { tcp: true, udp: true },
        mode,
        backends: backends.collect::<Result<_>>()?,
        checks: Vec::new(),
        ..Farm::new(name)
    })
}

/// The same next hop for all backends of `farms`.
pub fn hops(farms: &[Farm], ifindex: u32, destination: Mac, source: Mac) -> NextHops {
    let backends = farms.iter().flat_map(|farm| &farm.backends);
    let hop = NextHop { ifindex, destination, source };
    backends.flat_map(|backend| backend.address.iter()).map(|address| (address, hop)).collect()
}

fn daemon(connections: u32) -> Daemon {
    Daemon {
        interfaces: Vec::new(),
        xdp_mode: XdpMode::Native,
        socket: PathBuf::new(),
        socket_group: None,
        state_dir: PathBuf::new(),
        bpffs_dir: PathBuf::new(),
        connections: Some(connections),
        manage_vips: false,
    }
}
