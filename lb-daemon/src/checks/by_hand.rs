//! Checks that an operator runs to see what they say. They run beside the schedule, and their results count for nothing: a
//! look neither brings a backend up nor takes it out.
//!
//! The runner's task owns a [`ByHand`]; dropping it ends every run. A run whose asker has left ends too.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use lb_core::config::model::CheckKind;
use lb_core::health::{Outcome, Target};
use lb_core::state::{CheckRun, CheckVerdict};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::{Untried, command, command_context, run_probe};
use crate::clock;

/// The most checks run by hand at once.
const AT_ONCE: usize = 32;
/// How long after its time-out a command is given to be gone.
const GRACE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct ByHand {
    runs: JoinSet<()>,
    places: Arc<Semaphore>,
}

impl Default for ByHand {
    fn default() -> Self {
        Self { runs: JoinSet::new(), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl ByHand {
    /// Runs the check of each target, and answers when all have ended, in the same order.
    pub fn start(&mut self, targets: Vec<(Arc<Target>, String)>, mut reply: oneshot::Sender<Vec<CheckRun>>) {
        let places = self.places.clone();
        self.runs.spawn(async move {
            let runs = targets.into_iter().map(|(target, name)| one(target, name, places.clone()));
            let all = stream::iter(runs).buffered(AT_ONCE).collect::<Vec<_>>();
            tokio::select! {
                all = all => {
                    // The asker may leave at just that moment.
                    reply.send(all).ok();
                }
                () = reply.closed() => {}
            }
        });
    }

    /// One run has ended; `None` if there is none. Cancel-safe.
    pub async fn next(&mut self) -> Option<()> {
        match self.runs.join_next().await? {
            Ok(()) => {}
            Err(error) => tracing::error!(%error, "a run by hand broke off"),
        }
        Some(())
    }
}

async fn one(target: Arc<Target>, name: String, places: Arc<Semaphore>) -> CheckRun {
    // It is never closed; were it, the run would go on without a place.
    let _place = places.acquire().await.ok();
    let started = clock::now();
    let timeout = target.check.timeout;
    // A command ends itself, and what it had said until then is worth seeing.
    let patience = if matches!(target.check.kind, CheckKind::Command(_)) { timeout + GRACE } else { timeout };
    let (verdict, reason, output) = match tokio::time::timeout(patience, whole(&target)).await {
        Ok(Ok((Outcome { passed, reason }, output))) => (CheckVerdict::of(passed), reason, output),
        Ok(Err(Untried(reason))) => (CheckVerdict::Untried, reason, String::new()),
        Err(_elapsed) => (CheckVerdict::Failed, no_answer(timeout), String::new()),
    };
    CheckRun {
        farm: target.farm.clone(),
        backend: target.backend.clone(),
        name,
        kind: target.check.kind.as_str(),
        address: target.address,
        verdict,
        took: clock::now().saturating_duration_since(started),
        reason,
        output,
    }
}

/// What a check found, and all that it wrote if it is a command.
async fn whole(target: &Target) -> Result<(Outcome, String), Untried> {
    let CheckKind::Command(check) = &target.check.kind else {
        return Ok((run_probe(target).await?, String::new()));
    };
    let context = command_context(target);
    let mut run = command::run(target.address, check, &context).await?;
    if run.truncated {
        run.output += "\n[the rest was not kept]\n";
    }
    let outcome = Outcome { passed: run.passed(), reason: run.reason(context.timeout) };
    Ok((outcome, run.output))
}

fn no_answer(timeout: Duration) -> String {
    format!("no answer within {timeout:?}")
}
