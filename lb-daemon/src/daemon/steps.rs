//! The steps of a change that is asked for, and what each carries with it.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lb_core::change::Stage;
use lb_core::config::model::{Config, FarmName};

use super::former::Former;
use super::jobs::Pass;
use super::patch::Patch;
use crate::config::Staged;
use crate::handle::{Changes, Order, Refusal, Reply};
use crate::refusal::Failed;

/// A disk that takes longer is broken, or so busy that its operator must know.
pub const DISK_WITHIN: Duration = Duration::from_secs(5);
/// The network answers in hundredths of a second. What is not known by then comes later, by itself.
pub const NETWORK_WITHIN: Duration = Duration::from_secs(3);
/// Cutting looks at the whole tables.
pub const CUT_WITHIN: Duration = Duration::from_secs(10);

/// A change as it is asked for.
pub(super) enum Request {
    Command(Order),
    /// By a signal.
    Reload,
}

/// Who is told what became of it.
pub(super) enum Answer {
    Api(Reply<Changes>),
    /// A signal waits for no answer.
    Log,
}

impl Answer {
    pub fn give(self, result: Result<Changes, Refusal>) {
        match (self, result) {
            // Whoever asked may have left.
            (Self::Api(reply), result) => drop(reply.send(result)),
            (Self::Log, Ok(_)) => {}
            (Self::Log, Err(refusal @ Refusal::Failed(Failed::Unwritten { .. }))) => {
                tracing::warn!("{refusal}")
            }
            (Self::Log, Err(refusal)) => tracing::warn!("the configuration stays as it is: {refusal}"),
        }
    }
}

/// What is waited for.
pub(super) enum Step {
    /// The text and what it says.
    Read {
        answer: Answer,
        farm: Option<FarmName>,
    },
    /// The next hops of new backends, and whose the new VIPs are.
    Resolved {
        of: u64,
        ready: Ready,
    },
    Written {
        ready: Ready,
        former: Former,
        pass: Pass,
    },
    /// VIPs come and go.
    Placed {
        of: u64,
        done: Applied,
    },
    /// Connections of VIPs that are gone.
    Cut {
        done: Applied,
    },
    /// What a configuration has changed of what operators have set.
    Kept {
        done: Applied,
    },
    Saved {
        patch: Patch,
    },
}

/// A configuration that may come into force.
pub(super) struct Ready {
    pub new: Arc<Config>,
    pub text: Arc<str>,
    /// To become the file's content.
    pub staged: Option<Staged>,
    pub planned: Changes,
    /// Whose change it is, if it is one farm's.
    pub farm: Option<FarmName>,
    /// What is answered if it is not known to be written.
    pub unwritten: Option<Refusal>,
    pub answer: Answer,
}

/// A configuration that is in force.
pub(super) struct Applied {
    pub planned: Changes,
    pub gone: Vec<IpAddr>,
    pub farm: Option<FarmName>,
    pub unwritten: Option<Refusal>,
    pub answer: Answer,
}

impl Step {
    pub fn stage(&self) -> Stage {
        match self {
            Self::Read { .. } => Stage::Read,
            Self::Resolved { .. } => Stage::Resolved,
            Self::Written { .. } => Stage::Written,
            Self::Placed { .. } => Stage::Placed,
            Self::Cut { .. } => Stage::Cut,
            Self::Kept { .. } => Stage::Kept,
            Self::Saved { .. } => Stage::Saved,
        }
    }

    /// Up to which number the network must have tried what was wanted of it.
    pub fn of(&self) -> Option<u64> {
        match self {
            Self::Resolved { of, .. } | Self::Placed { of, .. } => Some(*of),
            Self::Read { .. }
            | Self::Written { .. }
            | Self::Cut { .. }
            | Self::Kept { .. }
            | Self::Saved { .. } => None,
        }
    }
}

/// The change is in force, and its file may hold it or not.
pub(super) fn not_known_to_be_written(path: &Path) -> Refusal {
    Failed::Unwritten { path: path.to_owned(), seconds: DISK_WITHIN.as_secs() }.into()
}

pub(super) fn no_disk(path: &Path) -> Refusal {
    Failed::NoAnswer { path: path.to_owned(), seconds: DISK_WITHIN.as_secs() }.into()
}
