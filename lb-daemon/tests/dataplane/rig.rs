//! The loaded program with maps of its own, in a directory of bpffs that goes when the rig goes.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use lb_common::abi::{NextHop, TICK_MILLISECONDS};
use lb_core::config::model::*;
use lb_core::desired::{BackendFacts, Desired, NextHops, Paths};
use lb_core::diff::{Observed, Planner};
use lb_core::state::BackendStatus;
use lb_daemon::datapath::{Datapath, Reader, Registered, Sweep, Sweeper};
use lb_daemon::handle::DataplaneReader as _;

use crate::packet::{BACKEND_MAC, BALANCER_MAC};

/// The interface that a test run's packets come in by, unless it says otherwise: loopback. Backends are behind it, too.
pub const LOOPBACK: u32 = 1;

pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;
pub const XDP_TX: u32 = 3;
pub const XDP_REDIRECT: u32 = 4;

pub struct Rig {
    pub datapath: Datapath,
    pub reader: Reader,
    pub observed: Observed,
    planner: Planner,
    dir: PathBuf,
    farms: Vec<Farm>,
    /// Backends that are not behind loopback.
    elsewhere: HashMap<IpAddr, u32>,
    /// What is known of the ways to backends, from the next configuration on.
    pub paths: Paths,
    /// The data plane's clock.
    ticks: u32,
    /// The balancer's interfaces, and what each carries.
    owned: BTreeMap<u32, u16>,
    sweeper: Sweeper,
}

impl Drop for Rig {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// What became of a packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: &'static str,
    pub action: u32,
    pub frame: Vec<u8>,
}

impl Rig {
    pub fn new(connections: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::load(
            PathBuf::from(format!("/sys/fs/bpf/drover-test-{}-{number}", std::process::id())),
            connections,
        )
    }

    /// A rig on what is pinned in `dir`, which goes with it.
    pub fn taking_over(dir: PathBuf) -> Self {
        Self::load(dir, 4096)
    }

    fn load(dir: PathBuf, connections: u32) -> Self {
        let datapath = Datapath::load(&dir, connections)
            .expect("root, a bpffs on /sys/fs/bpf, and a kernel that accepts the program");
        // An installation of its own.
        datapath.maps.control.set_flow_seed(RandomState::new().hash_one(&dir));
        let reader = Reader::open(&dir).unwrap();
        let mut rig = Self {
            datapath,
            reader,
            observed: Observed::default(),
            planner: Planner::default(),
            dir,
            farms: Vec::new(),
            elsewhere: HashMap::new(),
            paths: Paths::new(),
            ticks: 0,
            owned: BTreeMap::new(),
            sweeper: Sweeper::default(),
        };
        rig.own(LOOPBACK);
        rig
    }

    /// What is pinned stays, as when the daemon is killed.
    pub fn leave(mut self) {
        self.dir = PathBuf::new();
    }

    /// A rig that balances `farms`, with every backend up and its next hop known.
    pub fn with(farms: Vec<Farm>) -> Self {
        let mut rig = Self::new(4096);
        rig.configure(&farms, |_| true);
        rig
    }

    /// Makes an interface one of the balancer's: [`BALANCER_MAC`] is its address.
    pub fn own(&mut self, ifindex: u32) {
        self.own_of_size(ifindex, 0);
    }

    /// The same of one that carries packets of at most so many bytes.
    pub fn own_of_size(&mut self, ifindex: u32, mtu: u16) {
        self.owned.insert(ifindex, mtu);
        let one = |(&ifindex, &mtu)| Registered { ifindex, mac: BALANCER_MAC, mtu, was: None };
        let all: Vec<Registered> = self.owned.iter().map(one).collect();
        self.datapath.register(&all).unwrap();
    }

    /// Puts a backend behind another interface than loopback, from the next configuration on.
    pub fn put_behind(&mut self, ifindex: u32, backend: &str) {
        self.own(ifindex);
        self.elsewhere.insert(backend.parse().unwrap(), ifindex);
    }

    /// Brings the maps to `farms`, the backends up for which `up` says so, by name.
    pub fn configure(&mut self, farms: &[Farm], up: impl Fn(&str) -> bool) {
        self.set(farms, |name| if up(name) { BackendStatus::Up } else { BackendStatus::Down });
    }

    /// Brings the maps to `farms`, with the status that each backend has, by name.
    pub fn set(&mut self, farms: &[Farm], status: impl Fn(&str) -> BackendStatus) {
        let hops = self.hops(farms);
        self.set_with(farms, status, &hops);
    }

    fn hops(&self, farms: &[Farm]) -> NextHops {
        let addresses =
            farms.iter().flat_map(|farm| &farm.backends).flat_map(|backend| backend.address.iter());
        let hops = addresses.map(|address| {
            let ifindex = self.elsewhere.get(&address).copied().unwrap_or(LOOPBACK);
            (address, NextHop { ifindex, destination: BACKEND_MAC, source: BALANCER_MAC })
        });
        hops.collect()
    }

    pub fn set_with(&mut self, farms: &[Farm], status: impl Fn(&str) -> BackendStatus, hops: &NextHops) {
        self.plan(farms, status, hops, true);
    }

    /// Brings the maps to `farms`, all backends up, while no connection bears any number.
    pub fn plan_without_connections(&mut self, farms: &[Farm]) {
        let hops = self.hops(farms);
        self.plan(farms, |_| BackendStatus::Up, &hops, false);
    }

    fn plan(
        &mut self,
        farms: &[Farm],
        status: impl Fn(&str) -> BackendStatus,
        hops: &NextHops,
        is_borne: bool,
    ) {
        self.farms = farms.to_vec();
        let config = Config { daemon: daemon(), farms: farms.to_vec() };
        let mut desired = Desired::of(&config, |farm| {
            let facts = farm.backends.iter().map(|backend| {
                let status = status(backend.name.as_str());
                // Its checks say that it is down, not the traffic.
                let failing = status == BackendStatus::Down;
                BackendFacts { status, weight: backend.weight, ramp: 100, failing, unreachable: false }
            });
            facts.collect()
        });
        desired.paths.clone_from(&self.paths);
        let lists = &self.datapath.maps.lists;
        lists.want(farms.iter().map(|farm| farm.lists.id()).chain(self.observed.lists()).collect());
        lists.write(farms.iter().map(|farm| &*farm.lists)).unwrap();
        let ops = self.planner.plan(&self.observed, &desired, hops, |_| is_borne).unwrap();
        self.datapath.apply(&mut self.observed, &ops).unwrap();
        assert!(
            self.datapath.observe().unwrap().farms == self.observed.farms,
            "the maps hold what was planned"
        );
    }

    /// Runs one packet through the program. Exactly one verdict is counted for it.
    pub fn send(&mut self, frame: &[u8]) -> Outcome {
        self.send_by(LOOPBACK, frame)
    }

    /// The same for a packet that comes in by `ifindex`.
    pub fn send_by(&mut self, ifindex: u32, frame: &[u8]) -> Outcome {
        let before = self.reader.verdicts().unwrap();
        let (action, frame) = self.run_by(ifindex, frame);
        let after = self.reader.verdicts().unwrap();
        let counted: Vec<_> = before.iter().zip(&after).filter(|(b, a)| a.1 != b.1).collect();
        let [(b, a)] = counted[..] else { panic!("one verdict a packet, not {counted:?}") };
        assert_eq!(a.1, b.1 + 1, "counted once");
        Outcome { verdict: a.0, action, frame }
    }

    /// Runs one packet through the program, for those who send many: the action and the frame.
    pub fn run(&mut self, frame: &[u8]) -> (u32, Vec<u8>) {
        self.run_by(LOOPBACK, frame)
    }

    fn run_by(&mut self, ifindex: u32, frame: &[u8]) -> (u32, Vec<u8>) {
        // The kernel wants 14 bytes at least and pads nothing.
        let mut out = vec![0; frame.len().max(14) + 64];
        // `struct xdp_md`: where the data begins and ends, where metadata begins, the interface, its queue, the way out.
        let context = [0, frame.len().max(14) as u32, 0, ifindex, 0, 0].map(u32::to_ne_bytes).concat();
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: (ifindex != LOOPBACK).then_some(&context[..]),
            ..TestRunOptions::default()
        };
        let result = self.datapath.program().unwrap().test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    /// The verdict on a packet.
    pub fn verdict(&mut self, frame: &[u8]) -> &'static str {
        self.send(frame).verdict
    }

    /// How many packets have had this verdict.
    pub fn count(&self, verdict: &str) -> u64 {
        let verdicts = self.reader.verdicts().unwrap();
        verdicts.iter().find(|(name, _)| *name == verdict).map_or(0, |(_, count)| *count)
    }

    /// Where its maps are pinned.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// How many newcomers a farm has turned away for this reason.
    pub fn turned_away(&self, farm: &str, reason: &str) -> u64 {
        let (id, _) =
            self.observed.farms.iter().find(|(_, (label, _))| label.as_str() == Some(farm)).unwrap();
        let told = self.reader.turned_away(*id).unwrap();
        told.iter().find(|(name, _)| *name == reason).unwrap().1
    }

    /// How many connections are tracked.
    pub fn connections(&self) -> u64 {
        self.reader.connections(&Default::default(), 0).unwrap().1
    }

    /// The states of all connections.
    pub fn states(&self) -> Vec<&'static str> {
        let (listed, _) = self.reader.connections(&Default::default(), 100).unwrap();
        listed.iter().map(|connection| connection.state).collect()
    }

    /// Lets time pass, in which the daemon does its rounds.
    pub fn later(&mut self, time: Duration) {
        self.pass(time);
        self.sweep();
    }

    /// Lets time pass in which the daemon does nothing but count it.
    pub fn pass(&mut self, time: Duration) {
        self.ticks += u32::try_from(time.as_millis()).unwrap() / TICK_MILLISECONDS;
        self.datapath.set_clock(self.ticks);
    }

    /// What the daemon does with its tables, all at once.
    pub fn sweep(&mut self) -> Sweep {
        self.reader.sweep_round(&mut self.sweeper, self.observed.farms.len())
    }

    /// The program, for those who run it on threads of their own.
    pub fn program(&mut self) -> &Xdp {
        self.datapath.program().unwrap()
    }
}

fn daemon() -> Daemon {
    Daemon {
        interfaces: vec!["eth0".to_owned()],
        xdp_mode: XdpMode::Auto,
        socket: "/run/drover/control.sock".into(),
        socket_group: None,
        state_dir: "/var/lib/drover".into(),
        bpffs_dir: "/sys/fs/bpf/drover".into(),
        connections: Some(4096),
        manage_vips: false,
    }
}

pub fn farm(name: &str, vips: &[&str], ports: Ports, mode: Mode, backends: &[(&str, u16)]) -> Farm {
    Farm {
        name: FarmName::new(name).unwrap(),
        vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
        ports,
        protocols: Protocols { tcp: true, udp: true },
        mode,
        scheduler: Scheduler::Maglev,
        timeouts: Timeouts::default(),
        enabled: true,
        backends: backends.iter().map(|(address, weight)| backend(&[address], None, *weight)).collect(),
        checks: Vec::new(),
        ..Farm::new(FarmName::new("x").unwrap())
    }
}

pub fn backend(addresses: &[&str], port: Option<u16>, weight: u16) -> Backend {
    let mut address = Addresses { v4: None, v6: None };
    for text in addresses {
        match text.parse().unwrap() {
            IpAddr::V4(v4) => address.v4 = Some(v4),
            IpAddr::V6(v6) => address.v6 = Some(v6),
        }
    }
    Backend { name: BackendName::new(addresses[0]).unwrap(), address, port, weight, priority: 0 }
}

pub fn port(port: u16) -> Ports {
    Ports::Ranges(vec![(port, port)])
}
