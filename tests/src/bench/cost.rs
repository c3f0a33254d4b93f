//! What one packet costs: `BPF_PROG_TEST_RUN` of the data plane and of the floor, turn by turn.
//!
//! The kernel repeats a test run on the frame as the last run left it. So the program run is a wrapper that puts back what
//! forwarding changes (or makes it the next flow's packet) and jumps to the program under measurement by a tail call.
//! Wrapper and jump are in the time of the floor and of the data plane alike. How much they take is measured as well, by
//! running the floor without them (it needs none: swapping twice is nothing), so that the ratio can be told without.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::{ProgramFd, TestRun as _, TestRunOptions};
use lb_common::bench::Order;
use nix::time::{ClockId, clock_gettime};

use super::balancer::Balancer;
use super::object::Object;

pub const XDP_PASS: u32 = 2;
pub const XDP_TX: u32 = 3;
pub const XDP_REDIRECT: u32 = 4;

/// How long the floor runs for, in packets.
const FLOOR_REPEAT: u32 = 1 << 19;

/// What is to be measured.
pub struct Case {
    pub balancer: Balancer,
    /// The packet of flow 0.
    pub frame: Vec<u8>,
    /// A power of 2.
    pub flows: u32,
    pub order: Order,
    /// Packets a round.
    pub repeat: u32,
    /// What must become of every packet.
    pub verdict: &'static str,
    pub action: u32,
    /// Whether each round begins with no connection.
    pub afresh: bool,
}

/// Nanoseconds per packet.
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
    object.pattern(&case.frame, case.flows, case.order)?;
    let floor = object.handle("floor")?;
    let program = case.balancer.handle()?;
    let mut measured = Vec::with_capacity(rounds + 1);
    for _ in 0..=rounds {
        let bare = run(object, "floor", &case.frame, FLOOR_REPEAT, XDP_TX)?;
        let floor = wrapped(object, &floor, &case.frame, FLOOR_REPEAT, XDP_TX)?;
        if case.afresh {
            case.balancer.forget()?;
        }
        let before = case.balancer.verdicts()?;
        let program = wrapped(object, &program, &case.frame, case.repeat, case.action)?;
        let after = case.balancer.verdicts()?;
        let counted = after.get(case.verdict).zip(before.get(case.verdict)).map(|(a, b)| a - b);
        ensure!(
            counted == Some(u64::from(case.repeat)),
            "of {} packets {counted:?} were '{}': {after:?}",
            case.repeat,
            case.verdict
        );
        measured.push(Round { bare, floor, program });
    }
    Ok(measured.split_off(1))
}

fn wrapped(object: &mut Object, target: &ProgramFd, frame: &[u8], repeat: u32, action: u32) -> Result<f64> {
    object.aim(target)?;
    let wrapper = if frame.get(12..14) == Some(&[0x08, 0x00]) { "restore_v4" } else { "restore_v6" };
    run(object, wrapper, frame, repeat, action)
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
