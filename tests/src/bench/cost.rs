//! What one packet costs: `BPF_PROG_TEST_RUN` of the data plane and of the floor, turn by turn.
//!
//! The kernel repeats a test run on the frame as the last run left it. So the program run is a wrapper that puts back what
//! forwarding changes (or makes it the next flow's packet, or the packet that answers it) and jumps to the program under
//! measurement by a tail call. Wrapper and jump are in the time of the floor and of the data plane alike. How much they
//! take is measured as well, by running the floor without them (it needs none: swapping twice is nothing), so that the
//! ratio can be told without.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions};
use lb_common::bench::Order;
use nix::time::{ClockId, clock_gettime};

use super::balancer::Balancer;
use super::object::Object;

pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;
pub const XDP_TX: u32 = 3;
pub const XDP_REDIRECT: u32 = 4;

/// How long the floor runs for, in packets.
const FLOOR_REPEAT: u32 = 1 << 19;

/// What must become of the packets that one figure is of: so many have one of these verdicts, so many one of those.
pub type Outcome = &'static [(&'static [&'static str], u32)];

/// How the program under measurement is given packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapper {
    /// One of each flow in turn, all alike.
    Restore,
    /// SYNs, one of each flow in turn, that are answered in their place.
    Syn,
    /// Each flow's opening packets, one flow after the other.
    Handshake,
}

impl Wrapper {
    fn program(self, frame: &[u8]) -> &'static str {
        match (self, frame.get(12..14) == Some(&[0x08, 0x00])) {
            (Self::Restore, true) => "restore_v4",
            (Self::Restore, false) => "restore_v6",
            (Self::Syn, true) => "syn_v4",
            (Self::Syn, false) => "syn_v6",
            (Self::Handshake, true) => "handshake_v4",
            (Self::Handshake, false) => "handshake_v6",
        }
    }
}

/// Packets for the data plane.
pub struct Load {
    /// The packet of flow 0.
    pub frame: Vec<u8>,
    /// A power of 2.
    pub flows: u32,
    pub order: Order,
    pub wrapper: Wrapper,
    /// Packets of a run: a multiple of those that one figure is of.
    pub repeat: u32,
    /// What must become of every packet.
    pub outcome: Outcome,
    pub action: u32,
}

impl Load {
    /// Packets that one figure is of.
    fn unit(&self) -> u32 {
        self.outcome.iter().map(|(_, packets)| packets).sum()
    }
}

/// What is to be measured.
pub struct Case {
    pub balancer: Balancer,
    pub load: Load,
    /// How many ticks pass before each round, so that connections are forgotten.
    pub afresh: Option<u32>,
}

/// Nanoseconds per packet, or for all packets that one figure is of.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// The floor alone.
    pub bare: f64,
    /// The floor behind the wrapper.
    pub floor: f64,
    /// The data plane behind the wrapper.
    pub program: f64,
}

impl Round {
    pub fn ratio(self) -> f64 {
        self.program / self.floor
    }
    /// With the time of the wrapper taken from both.
    pub fn ratio_without_restore(self) -> f64 {
        (self.program - (self.floor - self.bare)) / self.bare
    }
}

/// Measures a case in `rounds` rounds, after one that does not count.
pub fn measure(object: &mut Object, case: &mut Case, rounds: usize) -> Result<Vec<Round>> {
    let Case { balancer, load, afresh } = case;
    object.pattern(&load.frame, load.flows, load.order)?;
    let floor = object.handle("floor")?;
    let unit = load.unit();
    // A run ends where a flow's packets end.
    let repeat = FLOOR_REPEAT / unit * unit;
    let mut measured = Vec::with_capacity(rounds + 1);
    for _ in 0..=rounds {
        let bare = run(object, "floor", &load.frame, repeat, XDP_TX)?;
        object.aim(&floor)?;
        let floor = run(object, load.wrapper.program(&load.frame), &load.frame, repeat, XDP_TX)?;
        if let Some(ticks) = *afresh {
            balancer.pass_time(ticks);
        }
        let program = feed(object, balancer, load)?;
        let [bare, floor, program] = [bare, floor, program].map(|one| one * f64::from(unit));
        measured.push(Round { bare, floor, program });
    }
    Ok(measured.split_off(1))
}

/// Sends all packets of `load` through the data plane, from where the pattern stands; the CPU time of one.
pub fn feed(object: &mut Object, balancer: &mut Balancer, load: &Load) -> Result<f64> {
    object.aim(&balancer.handle()?)?;
    let before = balancer.verdicts()?;
    let spent = run(object, load.wrapper.program(&load.frame), &load.frame, load.repeat, load.action)
        .with_context(|| format!("so far: {:?}", balancer.verdicts()))?;
    let after = balancer.verdicts()?;
    let count = |verdict: &&str| Some(after.get(verdict)? - before.get(verdict)?);
    for (verdicts, packets) in load.outcome {
        let counted = verdicts.iter().map(count).sum::<Option<u64>>();
        let wanted = u64::from(load.repeat / load.unit() * packets);
        ensure!(
            counted == Some(wanted),
            "of {} packets {counted:?} and not {wanted} were {verdicts:?}: {:?}",
            load.repeat,
            after.iter().filter(|(_, count)| **count > 0).collect::<Vec<_>>()
        );
    }
    Ok(spent)
}

/// Runs a program `repeat` times; the CPU time of one.
fn run(object: &mut Object, name: &str, frame: &[u8], repeat: u32, action: u32) -> Result<f64> {
    let program = object.program(name)?;
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
    // The kernel's own figure is cut to whole nanoseconds.
    let before = cpu_time()?;
    let result = program.test_run(options).with_context(|| format!("running {name}"))?;
    let spent = cpu_time()? - before;
    ensure!(result.return_value == action, "{name}: action {} instead of {action}", result.return_value);
    Ok(spent.as_secs_f64() * 1e9 / f64::from(repeat))
}

/// What this thread has had of the CPU: other processes' turns do not count.
fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
