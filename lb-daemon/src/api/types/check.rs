//! The checks: what each found, when it runs next, and what one run by hand said.

use std::time::{Duration, SystemTime};

use lb_core::health::Judgement;
use lb_core::state::{self, CheckReport};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{seconds, timestamp};
use crate::handle::ChecksTold;

/// The checks of the backends, and how all of them keep their schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Checks {
    /// By farm and backend, then in the configuration's order.
    pub checks: Vec<Check>,
    pub schedule: CheckSchedule,
}

impl Checks {
    pub fn new(of: &ChecksTold, now: SystemTime) -> Self {
        let load = &of.load;
        Self {
            checks: of.checks.iter().map(|report| Check::new(report, now)).collect(),
            schedule: CheckSchedule {
                checks: load.targets,
                distinct: load.subjects,
                running: load.in_flight,
                lateness_p99_seconds: seconds(load.lateness.quantile(0.99)),
                lateness_max_seconds: seconds(load.lateness.max()),
            },
        }
    }
}

/// How the checks of all farms keep their schedule, since the daemon's start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckSchedule {
    pub checks: usize,
    /// What is run for them: a check that farms share runs once.
    pub distinct: usize,
    /// How many run now.
    pub running: usize,
    /// 99 of 100 runs started no later than so long after their time.
    pub lateness_p99_seconds: f64,
    pub lateness_max_seconds: f64,
}

/// One check at one address and port of one backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    pub farm: String,
    pub backend: String,
    /// Unique in the backend: kind and address, and a number if there are several such.
    #[schema(example = "tcp 10.0.0.11:443")]
    pub check: String,
    pub kind: String,
    /// `IP:PORT`, an IPv6 address in brackets.
    pub address: String,
    pub state: CheckState,
    /// Since when the state is what it is.
    #[schema(format = DateTime)]
    pub since: String,
    /// Why, in the check's words.
    pub reason: String,
    /// Null: it has not run yet.
    pub last: Option<CheckResult>,
    pub running: bool,
    /// 0 when it is due. While it runs, the time to the run after that.
    pub next_run_in_seconds: f64,
    /// How often the state went from up to down or back.
    pub transitions: u64,
    /// How many checks of other farms and backends share its runs.
    pub shared_with: usize,
    /// The latest results, oldest first.
    pub history: Vec<CheckResult>,
}

impl Check {
    fn new(of: &CheckReport, now: SystemTime) -> Self {
        Self {
            farm: of.farm.to_string(),
            backend: of.backend.to_string(),
            check: of.name.clone(),
            kind: of.kind.to_owned(),
            address: of.address.to_string(),
            state: of.judgement.into(),
            since: timestamp(before(now, of.held_for)),
            reason: of.reason.clone(),
            last: of.last.as_ref().map(|result| CheckResult::new(result, now)),
            running: of.running,
            next_run_in_seconds: seconds(of.next_run_in),
            transitions: of.transitions,
            shared_with: of.shared_with,
            history: of.history.iter().map(|result| CheckResult::new(result, now)).collect(),
        }
    }
}

fn before(now: SystemTime, ago: Duration) -> SystemTime {
    now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// `starting`: not judged yet. `unchecked`: it was up, and cannot be checked any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    Starting,
    Up,
    Down,
    Unchecked,
}

impl From<Judgement> for CheckState {
    fn from(of: Judgement) -> Self {
        match of {
            Judgement::Starting => Self::Starting,
            Judgement::Up => Self::Up,
            Judgement::Down => Self::Down,
            Judgement::Unchecked => Self::Unchecked,
        }
    }
}

/// `untried`: the check could not be made, through no fault of the backend; it counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckVerdict {
    Passed,
    Failed,
    Untried,
}

impl From<state::CheckVerdict> for CheckVerdict {
    fn from(of: state::CheckVerdict) -> Self {
        match of {
            state::CheckVerdict::Passed => Self::Passed,
            state::CheckVerdict::Failed => Self::Failed,
            state::CheckVerdict::Untried => Self::Untried,
        }
    }
}

/// One result of a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckResult {
    /// When it ended.
    #[schema(format = DateTime)]
    pub time: String,
    pub result: CheckVerdict,
    pub duration_seconds: f64,
    /// In the check's words.
    pub reason: String,
}

impl CheckResult {
    fn new(of: &state::ResultRecord, now: SystemTime) -> Self {
        Self {
            time: timestamp(before(now, of.ago)),
            result: of.verdict.into(),
            duration_seconds: seconds(of.took),
            reason: of.reason.to_string(),
        }
    }
}

/// Which checks to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckRunRequest {
    pub farm: String,
    /// Absent: those of every backend of the farm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
}

/// What checks run by hand said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckRuns {
    /// Whether all passed.
    pub passed: bool,
    pub runs: Vec<CheckRun>,
}

impl CheckRuns {
    pub fn new(of: Vec<state::CheckRun>) -> Self {
        let passed = of.iter().all(|run| run.verdict == state::CheckVerdict::Passed);
        Self { passed, runs: of.into_iter().map(Into::into).collect() }
    }
}

/// What one check run by hand said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckRun {
    pub farm: String,
    pub backend: String,
    /// As in the list of checks.
    #[schema(example = "tcp 10.0.0.11:443")]
    pub check: String,
    pub kind: String,
    /// `IP:PORT`, an IPv6 address in brackets.
    pub address: String,
    pub result: CheckVerdict,
    pub duration_seconds: f64,
    /// In the check's words.
    pub reason: String,
    /// The whole output of a command; empty for the other kinds.
    pub output: String,
}

impl From<state::CheckRun> for CheckRun {
    fn from(of: state::CheckRun) -> Self {
        Self {
            farm: of.farm.to_string(),
            backend: of.backend.to_string(),
            check: of.name,
            kind: of.kind.to_owned(),
            address: of.address.to_string(),
            result: of.verdict.into(),
            duration_seconds: seconds(of.took),
            reason: of.reason,
            output: of.output,
        }
    }
}
