//! The loaded program with maps of its own, in a directory of bpffs that goes when the rig goes.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use aya::programs::{TestRun as _, TestRunOptions};
use lb_common::abi::NextHop;
use lb_core::config::model::*;
use lb_core::desired::{BackendFacts, Desired, NextHops};
use lb_core::diff::{Observed, Planner};
use lb_core::state::BackendStatus;
use lb_daemon::datapath::{Datapath, Reader};
use lb_daemon::handle::DataplaneReader as _;

use crate::packet::{BACKEND_MAC, BALANCER_MAC};

/// Some other interface, towards the backends.
pub const EGRESS: u32 = 77;

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
        let dir = PathBuf::from(format!("/sys/fs/bpf/drover-test-{}-{number}", std::process::id()));
        let datapath = Datapath::load(&dir, connections)
            .expect("root, a bpffs on /sys/fs/bpf, and a kernel that accepts the program");
        let reader = Reader::open(&dir).unwrap();
        Self { datapath, reader, observed: Observed::default(), planner: Planner::default(), dir }
    }

    /// A rig that balances `farms`, with every backend up and its next hop known.
    pub fn with(farms: Vec<Farm>) -> Self {
        let mut rig = Self::new(4096);
        rig.configure(&farms, |_| true);
        rig
    }

    /// Brings the maps to `farms`, the backends up for which `up` says so, by name.
    pub fn configure(&mut self, farms: &[Farm], up: impl Fn(&str) -> bool) {
        let mut hops = NextHops::new();
        for address in farms.iter().flat_map(|farm| &farm.backends).flat_map(|backend| backend.address.iter())
        {
            hops.insert(address, NextHop { ifindex: EGRESS, destination: BACKEND_MAC, source: BALANCER_MAC });
        }
        self.configure_with(farms, up, &hops);
    }

    pub fn configure_with(&mut self, farms: &[Farm], up: impl Fn(&str) -> bool, hops: &NextHops) {
        let config = Config { daemon: daemon(), farms: farms.to_vec() };
        let desired = Desired::of(&config, |farm| {
            let facts = farm.backends.iter().map(|backend| BackendFacts {
                status: if up(backend.name.as_str()) { BackendStatus::Up } else { BackendStatus::Down },
                weight: backend.weight,
                ramp: 100,
            });
            facts.collect()
        });
        let ops = self.planner.plan(&self.observed, &desired, hops, |_| true).unwrap();
        self.datapath.apply(&mut self.observed, &ops).unwrap();
        assert!(
            self.datapath.observe().unwrap().farms == self.observed.farms,
            "the maps hold what was planned"
        );
    }

    /// Runs one packet through the program. Exactly one verdict is counted for it.
    pub fn send(&mut self, frame: &[u8]) -> Outcome {
        let before = self.reader.verdicts().unwrap();
        // The kernel wants 14 bytes at least and pads nothing.
        let mut out = vec![0; frame.len().max(14) + 64];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat: 1,
            ..TestRunOptions::default()
        };
        let result = self.datapath.program().unwrap().test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        let after = self.reader.verdicts().unwrap();
        let counted: Vec<_> = before.iter().zip(&after).filter(|(b, a)| a.1 != b.1).collect();
        let [(b, a)] = counted[..] else { panic!("one verdict a packet, not {counted:?}") };
        assert_eq!(a.1, b.1 + 1, "counted once");
        Outcome { verdict: a.0, action: result.return_value, frame: out }
    }

    /// The verdict on a packet.
    pub fn verdict(&mut self, frame: &[u8]) -> &'static str {
        self.send(frame).verdict
    }

    /// How many connections are tracked.
    pub fn connections(&self) -> u64 {
        self.reader.connections(&Default::default(), 0).unwrap().1
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
        connections: 4096,
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
