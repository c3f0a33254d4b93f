//! The checks: runs the probes that the health board asks for, and tells the daemon what became of each backend.
//!
//! [`Runner`] owns one task, which owns the board and the probes in flight. Dropping the runner aborts the task, and
//! with it every probe: their sockets are closed, and nothing is left behind.

pub mod command;
mod dns;
mod http;
mod icmp;
mod mail;
mod probe;
pub mod program;
mod tcp;
mod tls;
mod udp;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::SystemTime;

use lb_core::config::model::{BackendName, Check, CheckKind, FarmName};
use lb_core::health::{Board, Effect, Outcome, ProbeId, Report};
pub use lb_core::health::{Judgement, Target, targets};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinHandle, JoinSet};

use crate::clock;

/// The most probes in flight at once.
const PROBES_AT_ONCE: usize = 256;

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
    task: JoinHandle<()>,
}

impl Runner {
    /// Starts the task, without targets. `reports` gets the health of each backend when it is new, when its status
    /// changes, and when the reason of the same status does. A receiver that lags gets the latest of each backend.
    pub fn spawn(reports: mpsc::Sender<BackendHealth>) -> Self {
        let (targets, news) = watch::channel(Vec::new());
        let task = Task {
            board: Board::new(PROBES_AT_ONCE),
            probes: JoinSet::new(),
            in_flight: HashMap::new(),
            unsent: BTreeMap::new(),
        };
        Self { targets, task: tokio::spawn(task.run(news, reports)) }
    }

    /// Makes `targets` the targets. What is known of those that were there before is kept.
    pub fn set_targets(&self, targets: Vec<Target>) {
        self.targets.send_replace(targets);
    }
}

impl Runner {
    /// The traffic says that a backend is in trouble.
    pub fn suspect(&self, _farm: &FarmName, _backend: &BackendName) {}
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Ended = Result<(ProbeId, Result<Outcome, Untried>), JoinError>;

/// All that can wake the task.
enum Event {
    Targets(Vec<Target>),
    Ended(Ended),
    Due,
    /// The daemon takes a report.
    Room,
    /// The runner or the daemon is gone.
    Closed,
}

struct Task {
    board: Board,
    probes: JoinSet<(ProbeId, Result<Outcome, Untried>)>,
    in_flight: HashMap<ProbeId, AbortHandle>,
    /// The latest report of each backend that the daemon has not taken yet.
    unsent: BTreeMap<(FarmName, BackendName), BackendHealth>,
}

impl Task {
    async fn run(mut self, mut news: watch::Receiver<Vec<Target>>, reports: mpsc::Sender<BackendHealth>) {
        loop {
            let effects = self.board.handle_timeout(clock::now());
            self.carry_out(effects);
            match self.next(&mut news, &reports).await {
                Event::Targets(targets) => {
                    tracing::debug!(targets = targets.len(), "targets of the checks set");
                    let effects = self.board.set_targets(targets, clock::now());
                    self.carry_out(effects);
                }
                Event::Ended(ended) => self.handle_ended(ended),
                Event::Due | Event::Room => {}
                Event::Closed => return,
            }
        }
    }

    async fn next(
        &mut self,
        news: &mut watch::Receiver<Vec<Target>>,
        reports: &mpsc::Sender<BackendHealth>,
    ) -> Event {
        tokio::select! {
            changed = news.changed() => match changed {
                Ok(()) => Event::Targets(news.borrow_and_update().clone()),
                Err(_) => Event::Closed,
            },
            Some(ended) = self.probes.join_next() => Event::Ended(ended),
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
                // The board counts it as failed at its time-out.
                tracing::error!(%error, "a probe broke off");
                return;
            }
        };
        self.in_flight.remove(&probe);
        let now = clock::now();
        let effects = match result {
            Ok(outcome) => {
                tracing::trace!(?probe, passed = outcome.passed, reason = outcome.reason, "probe ended");
                self.board.handle_result(probe, &outcome, now)
            }
            Err(Untried(reason)) => {
                tracing::warn!(reason, "a check could not be made");
                self.board.handle_untried(probe);
                Vec::new()
            }
        };
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Start { probe, address, check } => {
                    let handle = self.probes.spawn(async move { (probe, run_probe(address, &check).await) });
                    self.in_flight.insert(probe, handle);
                }
                Effect::Stop(probe) => {
                    if let Some(handle) = self.in_flight.remove(&probe) {
                        handle.abort();
                    }
                }
                Effect::Turned { target, outcome } => {
                    let Target { farm, backend, .. } = &target;
                    let Outcome { passed, reason } = outcome;
                    tracing::debug!(%farm, %backend, %target, passed, reason, "check result changed");
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

async fn run_probe(address: SocketAddr, check: &Check) -> Result<Outcome, Untried> {
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
        CheckKind::Command(_) => Err(Untried(format!("no probe of kind {}", check.kind.as_str()))),
    }
}

#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;
