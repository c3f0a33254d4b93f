//! What is probed: one check at one address, for all targets that ask for just that.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Lane, Pace, Target, TargetId};
use crate::config::model::{BackendName, CheckKind, CommandCheck, CommandContract, FarmName};
use crate::state::{CheckVerdict, Histogram, ResultRecord};

/// How many results of each subject are kept.
pub const HISTORY: usize = 20;
/// So much of a reason is kept, in bytes.
const REASON_MAX: usize = 512;

/// Targets with the same key share their probes. `rise` and `fall` are not part of it: each target counts for itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    address: SocketAddr,
    kind: CheckKind,
    interval: Duration,
    fast_interval: Duration,
    timeout: Duration,
    /// HAProxy's contract tells a command for which farm and backend it is run: nobody else can use its result.
    owner: Option<(FarmName, BackendName)>,
}

impl Key {
    pub fn of(target: &Target) -> Self {
        let check = &target.check;
        let owner = match &check.kind {
            CheckKind::Command(CommandCheck { contract: CommandContract::Haproxy, .. }) => {
                Some((target.farm.clone(), target.backend.clone()))
            }
            CheckKind::Command(CommandCheck { contract: CommandContract::FarmGuardian, .. })
            | CheckKind::Tcp
            | CheckKind::Http(_)
            | CheckKind::Tls { .. }
            | CheckKind::Udp { .. }
            | CheckKind::Dns { .. }
            | CheckKind::Icmp
            | CheckKind::Smtp { .. }
            | CheckKind::Imap { .. }
            | CheckKind::Pop3 { .. } => None,
        };
        let (interval, fast_interval, timeout) = (check.interval, check.fast_interval, check.timeout);
        Self { address: target.address, kind: check.kind.clone(), interval, fast_interval, timeout, owner }
    }

    pub fn pace(&self) -> Pace {
        let lane = if matches!(self.kind, CheckKind::Command(_)) { Lane::Command } else { Lane::Network };
        let Self { interval, fast_interval, timeout, .. } = *self;
        Pace { lane, interval, fast_interval, timeout }
    }
}

/// One result, as it is kept.
#[derive(Debug, Clone)]
struct Record {
    ended: Instant,
    took: Duration,
    verdict: CheckVerdict,
    reason: Arc<str>,
}

impl Record {
    fn told(&self, now: Instant) -> ResultRecord {
        let ago = now.saturating_duration_since(self.ended);
        ResultRecord { ago, took: self.took, verdict: self.verdict, reason: self.reason.clone() }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Subject {
    pub key: Arc<Key>,
    /// Who shares it; never empty.
    pub targets: BTreeSet<TargetId>,
    pub durations: Histogram,
    /// How often it could not be made.
    pub untried: u64,
    /// The latest results, oldest first, at most [`HISTORY`].
    history: VecDeque<Record>,
}

impl Subject {
    pub fn new(key: Arc<Key>) -> Self {
        let (targets, durations, history) = (BTreeSet::new(), Histogram::default(), VecDeque::new());
        Self { key, targets, durations, untried: 0, history }
    }

    /// Takes over what was told of the subject that this one replaces.
    pub fn inherit(&mut self, from: &Self) {
        if self.history.is_empty() {
            self.history.clone_from(&from.history);
            self.durations = from.durations.clone();
            self.untried = from.untried;
        }
    }

    /// Keeps a result. Whether the verdict differs from the one before.
    pub fn record(&mut self, verdict: CheckVerdict, reason: &str, took: Duration, now: Instant) -> bool {
        let turned = self.history.back().is_none_or(|last| last.verdict != verdict);
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        let reason = reason.get(..reason.floor_char_boundary(REASON_MAX)).unwrap_or_default().into();
        self.history.push_back(Record { ended: now, took, verdict, reason });
        match verdict {
            CheckVerdict::Passed | CheckVerdict::Failed => self.durations.record(took),
            CheckVerdict::Untried => self.untried += 1,
        }
        turned
    }

    pub fn last(&self, now: Instant) -> Option<ResultRecord> {
        self.history.back().map(|record| record.told(now))
    }

    /// The latest results, oldest first.
    pub fn history(&self, at_most: usize, now: Instant) -> Vec<ResultRecord> {
        let skipped = self.history.len().saturating_sub(at_most);
        self.history.iter().skip(skipped).map(|record| record.told(now)).collect()
    }
}
