//! A change that is asked for: who asked, which step it is at, and those that wait behind it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_core::config::model::{Config, FarmName};
use lb_core::config::renames::Heirs;
use lb_core::state::Peer;

use super::jobs::{Jobs, Pass};
use super::judgements::{Health, Judgements};
use super::patch::Patch;
use crate::checks::BackendHealth;
use crate::clock;
use crate::config::Staged;
use crate::handle::{Changes, Order, Refusal, Reply};
use crate::overrides::Overrides;
use crate::refusal::Failed;

/// A disk that takes longer is broken, or so busy that its operator must know.
pub const DISK_WITHIN: Duration = Duration::from_secs(5);
/// The network answers in hundredths of a second. What is not known by then comes later, by itself.
pub const NETWORK_WITHIN: Duration = Duration::from_secs(3);
/// Cutting looks at the whole tables.
pub const CUT_WITHIN: Duration = Duration::from_secs(10);
/// So many changes wait; more are refused, so that what is no change is still answered.
const WAITING_MAX: usize = 128;

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

/// The one under way, and those that wait.
#[derive(Default)]
pub(super) struct Changing {
    pub waiting: VecDeque<Request>,
    pub now: Option<Change>,
    /// Who asked for the one under way.
    pub by: Option<Peer>,
    pub count: u64,
}

pub(super) struct Change {
    pub number: u64,
    pub step: Step,
    /// Until when the step may take.
    pub until: Instant,
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

/// What comes back into force if the new one cannot be written.
pub(super) struct Former {
    pub config: Arc<Config>,
    pub gone: Vec<IpAddr>,
    /// What operators had set, if that changes.
    pub overrides: Option<Overrides>,
    /// Who of the new ones is who of the old ones.
    pub heirs: Heirs,
    /// As reported until now, under the names of before.
    pub judgements: Judgements,
    /// What was reported meanwhile of backends that the new one does not have.
    pub missed: Vec<BackendHealth>,
}

impl Former {
    /// Takes a report that comes before it is certain which configuration stays: the checks are still those of before, and so
    /// are their names. It is given back under the names of now.
    pub fn take_report(&mut self, report: BackendHealth, now: Instant) -> Vec<BackendHealth> {
        let key = (report.farm.clone(), report.backend.clone());
        let heirs: Vec<_> = self.heirs.iter().filter(|(_, from)| **from == key).map(|(to, _)| to).collect();
        if heirs.is_empty() {
            self.missed.push(report);
            return Vec::new();
        }
        let told = heirs.into_iter().cloned().map(|(farm, backend)| BackendHealth {
            farm,
            backend,
            ..report.clone()
        });
        let told = told.collect();
        let slow_start = self.config.farm(key.0.as_str()).map_or(Duration::ZERO, |farm| farm.slow_start);
        // Whoever turns is told under the names of now.
        self.judgements.note(key, Health::from(report), slow_start, now);
        told
    }
}

/// A configuration that is in force.
pub(super) struct Applied {
    pub planned: Changes,
    pub gone: Vec<IpAddr>,
    pub farm: Option<FarmName>,
    pub unwritten: Option<Refusal>,
    pub answer: Answer,
}

impl Changing {
    /// Whether another one may wait.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }

    /// Takes the change of that number out, if it is under way.
    pub fn take(&mut self, number: u64, jobs: &Jobs) -> Option<Step> {
        let change = self.now.take_if(|change| change.number == number);
        if change.is_none() {
            // It was given up.
            jobs.came_back();
        }
        Some(change?.step)
    }

    /// Takes the change of that number out, if it waits for what operators have set to be saved.
    pub fn take_saved(&mut self, number: u64) -> Option<Step> {
        let waits = |change: &mut Change| {
            change.number == number && matches!(change.step, Step::Saved { .. } | Step::Kept { .. })
        };
        Some(self.now.take_if(waits)?.step)
    }

    /// What comes back if the change under way is refused, while it is in the maps and not yet certain.
    pub fn former(&mut self) -> Option<&mut Former> {
        match &mut self.now.as_mut()?.step {
            Step::Written { former, .. } => Some(former),
            Step::Read { .. }
            | Step::Resolved { .. }
            | Step::Placed { .. }
            | Step::Cut { .. }
            | Step::Kept { .. }
            | Step::Saved { .. } => None,
        }
    }

    pub fn set(&mut self, number: u64, step: Step, within: Duration) {
        self.now = Some(Change { number, step, until: clock::now() + within });
    }
}

/// The change is in force, and its file may hold it or not.
pub(super) fn not_known_to_be_written(path: &Path) -> Refusal {
    Failed::Unwritten { path: path.to_owned(), seconds: DISK_WITHIN.as_secs() }.into()
}

pub(super) fn no_disk(path: &Path) -> Refusal {
    Failed::NoAnswer { path: path.to_owned(), seconds: DISK_WITHIN.as_secs() }.into()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use lb_core::config::model::BackendName;

    use super::*;
    use crate::checks::Judgement;
    use crate::daemon::BackendKey;

    fn key(backend: &str) -> BackendKey {
        (FarmName::new("web").unwrap(), BackendName::new(backend).unwrap())
    }

    #[test]
    fn reports_that_come_while_a_change_is_written_are_of_both_configurations() {
        let farms = Vec::new();
        let daemon = lb_core::config::model::Daemon {
            interfaces: Vec::new(),
            xdp_mode: lb_core::config::model::XdpMode::Auto,
            socket: "/s".into(),
            socket_group: None,
            state_dir: "/d".into(),
            bpffs_dir: "/b".into(),
            connections: None,
            manage_vips: true,
        };
        let mut former = Former {
            config: Arc::new(Config { daemon, farms }),
            gone: Vec::new(),
            overrides: None,
            heirs: Heirs::from([(key("new"), key("old")), (key("same"), key("same"))]),
            judgements: Judgements::default(),
            missed: Vec::new(),
        };
        let (since, status, reason) = (SystemTime::now(), Judgement::Down, "refused".to_owned());
        let mut told = |name: &str| -> Vec<String> {
            let (farm, backend) = key(name);
            let report = BackendHealth { farm, backend, status, reason: reason.clone(), since };
            former
                .take_report(report, Instant::now())
                .into_iter()
                .map(|report| report.backend.to_string())
                .collect()
        };
        assert_eq!(told("same"), ["same"]);
        assert_eq!(told("old"), ["new"], "it has another name now");
        assert!(told("gone").is_empty());
        // A server that is new under a name that another had has not been checked yet.
        assert!(told("new").is_empty());
        let status = |name: &str| former.judgements.of(&key(name)).map(|health| health.status);
        assert_eq!([status("same"), status("old")], [Some(Judgement::Down); 2]);
        assert_eq!([status("gone"), status("new")], [None; 2]);
        let missed: Vec<&str> = former.missed.iter().map(|report| report.backend.as_str()).collect();
        assert_eq!(missed, ["gone", "new"], "told again if they stay after all");
    }

    #[tokio::test]
    async fn what_ends_after_it_was_given_up_is_no_step_of_the_next_change() {
        let (jobs, _inbox) = Jobs::new();
        let mut changing = Changing::default();
        let step = || Step::Read { answer: Answer::Log, farm: None };
        changing.set(1, step(), DISK_WITHIN);
        assert!(matches!(changing.take(1, &jobs), Some(Step::Read { .. })));
        changing.set(2, step(), DISK_WITHIN);
        (0..4).for_each(|_| jobs.give_up());
        assert!(jobs.is_stuck());
        assert!(changing.take(1, &jobs).is_none());
        assert!(!jobs.is_stuck(), "one has come back");
        assert!(changing.take(2, &jobs).is_some(), "the other goes on");
    }
}
