//! Health of backends: the rise/fall machine of each target, the schedule of probes, and what both say of a backend.
//!
//! A *target* is one check at one address and port of one backend. A *subject* is what is probed: targets that ask the
//! same of the same address share one, and its results count for each of them. [`Board`] holds all of them and is the
//! only part that the daemon talks to; it asks for probes and is told of their outcomes. Nothing here reads a clock,
//! and what is told the time is told a monotonic one: the clock on the wall may jump.

mod backend;
mod board;
mod machine;
mod overdue;
pub mod passive;
mod schedule;
mod subject;
mod target;
mod tell;

pub use backend::Health;
pub use board::{Board, Effect, Report, TargetId};
pub use machine::{Machine, Transition};
pub use schedule::{Lane, Limits, Pace, ProbeId, Schedule, Step, SubjectId};
pub use subject::HISTORY;
pub use target::{Target, targets, vip_of};

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub passed: bool,
    /// In words, as in `connection refused`.
    pub reason: String,
}

impl Outcome {
    pub fn passed(reason: impl Into<String>) -> Self {
        Self { passed: true, reason: reason.into() }
    }
    pub fn failed(reason: impl Into<String>) -> Self {
        Self { passed: false, reason: reason.into() }
    }
}

/// What is held of a target or of a whole backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Judgement {
    /// Not judged yet.
    Starting,
    Up,
    Down,
    /// It was up when it was last checked, and no check of it has come to an end for so long that nobody can say that it is.
    Unchecked,
}

impl Judgement {
    /// Whether a backend of which that is held takes new connections.
    pub fn serves(self) -> bool {
        matches!(self, Self::Up | Self::Unchecked)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Down => "down",
            Self::Unchecked => "unchecked",
        }
    }
}
