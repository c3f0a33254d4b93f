//! The checks: runs the probes that the health board asks for, and tells the daemon what became of each backend.
//!
//! [`Runner`] owns one task, which owns the board and the probes in flight. Dropping the runner aborts the task, and
//! with it every probe: their sockets are closed, and nothing is left behind. Others ask the task by way of
//! [`Checks`]; what is run by hand runs beside the schedule.

mod by_hand;
pub mod command;
mod dns;
mod http;
mod icmp;
mod mail;
mod probe;
mod tcp;
mod tls;
mod udp;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use lb_core::config::model::{BackendName, CheckKind, FarmName};
use lb_core::health::{Board, Effect, Limits, Outcome, ProbeId, Report};
pub use lb_core::health::{Judgement, Target, targets};
use lb_core::state::CheckVerdict;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};

use crate::clock;
use crate::handle::{CheckQuery, Checks, ChecksTold};
use crate::supervise::{Supervisor, Task};
use by_hand::ByHand;

/// The most probes in flight at once. A probe that hangs holds its place until its time-out: of backends that all hang
/// for 3 s every 5 s, 850 keep their schedule, and more are late. Each network probe holds a descriptor or two, of
/// the 1024 that a process has by default; each command holds a process.
const LIMITS: Limits = Limits { network: 512, commands: 64 };

/// The health of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendHealth {
    pub farm: FarmName,
    pub backend: BackendName,
    pub status: Judgement,
    /// In the check's words, as in `tcp 10.0.0.11:443: connection refused`.
    pub reason: String,
    /// Since when the status is what it is.
    pub since: SystemTime,
}

/// Why a probe could not be made at all, through no fault of the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untried(pub String);

/// A hold on the task that runs the checks.
#[derive(Debug)]
pub struct Runner {
    targets: watch::Sender<Vec<Target>>,
    checks: Checks,
    task: Task,
}

/// Runs the check of a target once; dropped, it leaves nothing behind.
type Probe = Box<dyn Fn(Arc<Target>) -> BoxFuture<'static, Result<Outcome, Untried>> + Send>;

impl Runner {
    /// Starts the task, without targets. `reports` gets the health of each backend when it is new, when its status
    /// changes, and when the reason of the same status does. A receiver that lags gets the latest of each backend.
    pub fn spawn(reports: mpsc::Sender<BackendHealth>) -> Self {
        Self::probing(Box::new(|target| Box::pin(async move { run_probe(&target).await })), reports)
    }

    fn probing(probe: Probe, reports: mpsc::Sender<BackendHealth>) -> Self {
        let (targets, news) = watch::channel(Vec::new());
        let (checks, queries) = Checks::new();
        let task = Checking {
            probe,
            board: Board::new(LIMITS),
            probes: JoinSet::new(),
            in_flight: HashMap::new(),
            unsent: BTreeMap::new(),
            by_hand: ByHand::default(),
        };
        let inbox = Inbox { news, queries, reports };
        Self { targets, checks, task: Task::spawn(task.run(inbox)) }
    }

    /// Has the task's end told.
    pub fn watch(&mut self, supervisor: &Supervisor) {
        self.task.watch(supervisor, "the checks");
    }

    /// For all that is asked of the checks: what is known, a run by hand, a suspicion.
    pub fn checks(&self) -> Checks {
        self.checks.clone()
    }

    /// As [`Checks::suspect`].
    pub fn suspect(&self, farm: &FarmName, backend: &BackendName) {
        self.checks.suspect(farm.clone(), backend.clone());
    }

    /// Makes `targets` the targets. What is known of those that were there before is kept.
    pub fn set_targets(&self, targets: Vec<Target>) {
        self.targets.send_replace(targets);
    }
}

type Ended = Result<(ProbeId, Result<Outcome, Untried>), JoinError>;

/// All that can wake the task.
enum Event {
    Targets(Vec<Target>),
    Query(CheckQuery),
    Ended(Ended),
    Due,
    /// The daemon takes a report.
    Room,
    /// The runner or the daemon is gone.
    Closed,
}

struct Checking {
    probe: Probe,
    board: Board,
    probes: JoinSet<(ProbeId, Result<Outcome, Untried>)>,
    in_flight: HashMap<ProbeId, AbortHandle>,
    /// The latest report of each backend that the daemon has not taken yet.
    unsent: BTreeMap<(FarmName, BackendName), BackendHealth>,
    by_hand: ByHand,
}

/// What connects the task to others.
struct Inbox {
    news: watch::Receiver<Vec<Target>>,
    queries: mpsc::Receiver<CheckQuery>,
    reports: mpsc::Sender<BackendHealth>,
}

impl Checking {
    async fn run(mut self, mut inbox: Inbox) {
        loop {
            let effects = self.board.handle_timeout(clock::now());
            self.carry_out(effects);
            match self.next(&mut inbox).await {
                Event::Targets(targets) => {
                    tracing::debug!(targets = targets.len(), "targets of the checks set");
                    let effects = self.board.set_targets(targets, clock::now());
                    self.carry_out(effects);
                }
                Event::Query(query) => self.handle_query(query),
                Event::Ended(ended) => self.handle_ended(ended),
                Event::Due | Event::Room => {}
                Event::Closed => return,
            }
        }
    }

    /// Cancel-safe, as each of its parts is.
    async fn next(&mut self, Inbox { news, queries, reports }: &mut Inbox) -> Event {
        tokio::select! {
            changed = news.changed() => match changed {
                Ok(()) => Event::Targets(news.borrow_and_update().clone()),
                Err(_) => Event::Closed,
            },
            Some(query) = queries.recv() => Event::Query(query),
            Some(ended) = self.probes.join_next() => Event::Ended(ended),
            Some(()) = self.by_hand.next() => Event::Due,
            () = clock::sleep_until(self.board.next_timeout()) => Event::Due,
            permit = reports.reserve(), if !self.unsent.is_empty() => match permit {
                Ok(permit) => {
                    if let Some((_, report)) = self.unsent.pop_first() {
                        permit.send(report);
                    }
                    Event::Room
                }
                Err(_) => Event::Closed,
            },
        }
    }

    fn handle_ended(&mut self, ended: Ended) {
        let (probe, result) = match ended {
            Ok(ended) => ended,
            Err(error) if error.is_cancelled() => return,
            Err(error) => {
                tracing::error!(%error, "a probe broke off");
                let broken = self.in_flight.iter().find(|(_, handle)| handle.id() == error.id());
                let Some(probe) = broken.map(|(probe, _)| *probe) else { return };
                // That it broke off is the daemon's fault, whatever the backend has sent.
                (probe, Err(Untried("the probe broke off; the log says why".to_owned())))
            }
        };
        self.in_flight.remove(&probe);
        let now = clock::now();
        let effects = match result {
            Ok(outcome) => {
                tracing::trace!(?probe, passed = outcome.passed, reason = outcome.reason, "probe ended");
                self.board.handle_result(probe, &outcome, now)
            }
            Err(Untried(reason)) => self.board.handle_untried(probe, &reason, now),
        };
        self.carry_out(effects);
    }

    fn handle_query(&mut self, query: CheckQuery) {
        match query {
            CheckQuery::Tell { farm, backend, history, reply } => {
                let checks = self.board.reports(farm.as_ref(), backend.as_ref(), history, clock::now());
                // Whoever asked may have left.
                reply.send(ChecksTold { checks, load: self.board.load() }).ok();
            }
            CheckQuery::Load { reply } => drop(reply.send(self.board.load())),
            CheckQuery::Run { farm, backend, reply } => {
                self.by_hand.start(self.board.targets(&farm, backend.as_ref()), reply);
            }
            CheckQuery::Suspect { farm, backend } => {
                let due = self.board.suspect(&farm, &backend, clock::now());
                tracing::debug!(%farm, %backend, due, "backend suspected");
            }
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Start { probe, target } => {
                    let run = (self.probe)(target);
                    let handle = self.probes.spawn(async move { (probe, run.await) });
                    self.in_flight.insert(probe, handle);
                }
                Effect::Stop(probe) => {
                    if let Some(handle) = self.in_flight.remove(&probe) {
                        handle.abort();
                    }
                }
                Effect::Turned { target, verdict, reason } => {
                    let Target { farm, backend, .. } = &*target;
                    match verdict {
                        CheckVerdict::Untried => {
                            tracing::warn!(%farm, %backend, %target, reason, "a check cannot be made");
                        }
                        CheckVerdict::Passed | CheckVerdict::Failed => {
                            let verdict = verdict.as_str();
                            tracing::debug!(%farm, %backend, %target, verdict, reason, "check result changed");
                        }
                    }
                }
                Effect::Report(Report { farm, backend, health }) => {
                    let key = (farm.clone(), backend.clone());
                    let since = clock::wall_at(health.since);
                    let (status, reason) = (health.status, health.reason);
                    self.unsent.insert(key, BackendHealth { farm, backend, status, reason, since });
                }
            }
        }
    }
}

/// Runs the check of a target once. The time-out is the caller's; dropped, it leaves nothing behind.
async fn run_probe(target: &Target) -> Result<Outcome, Untried> {
    let Target { address, check, .. } = target;
    let address = *address;
    match &check.kind {
        CheckKind::Tcp => tcp::probe(address).await,
        CheckKind::Http(http) => http::probe(address, check, http).await,
        CheckKind::Tls { tls, min_days } => tls::probe(address, check, tls, *min_days).await,
        CheckKind::Udp { send, expect } => udp::probe(address, check, send, expect.as_deref()).await,
        CheckKind::Dns { name, record, expect } => {
            dns::probe(address, check, dns::Question { name, record, expect }).await
        }
        CheckKind::Icmp => icmp::probe(address, check).await,
        CheckKind::Smtp { starttls } => {
            mail::probe(address, check, mail::Dialect::Smtp, starttls.as_ref()).await
        }
        CheckKind::Imap { starttls } => {
            mail::probe(address, check, mail::Dialect::Imap, starttls.as_ref()).await
        }
        CheckKind::Pop3 { starttls } => {
            mail::probe(address, check, mail::Dialect::Pop3, starttls.as_ref()).await
        }
        CheckKind::Command(command) => command::probe(address, command, &command_context(target)).await,
    }
}

/// What a command is told. It is killed when the board's patience ends, or at just that moment by itself.
fn command_context(target: &Target) -> command::Context {
    command::Context {
        farm: target.farm.clone(),
        backend: target.backend.clone(),
        vip: target.vip,
        timeout: target.check.timeout,
    }
}

#[cfg(test)]
mod schedule_tests;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;
