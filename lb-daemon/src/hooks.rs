//! Hooks: commands of the operator's that are told of each change of a farm's backends.
//!
//! The daemon owns one [`Hooks`] and tells it of changes; it never waits for a hook. A hook runs in the sandbox of the
//! command checks, with the event as JSON on standard input. The hooks of a farm run one after another in the order of
//! the changes; those of different farms beside each other, a few at once. Dropping [`Hooks`] kills what runs and forgets
//! what waits.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lb_core::config::model::{FarmName, Hook};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::checks::Untried;
use crate::checks::command::process::{GRACE, Job};
use crate::vitals::Vitals;

/// The most hooks that run at once.
const AT_ONCE: usize = 8;
/// The most changes of one farm that wait; the oldest gives way.
const WAITING: usize = 64;

/// A change that a hook has not been told of yet.
#[derive(Debug)]
struct Notice {
    hook: Hook,
    event: String,
}

/// What waits, by farm. A farm is in it while a task of its own works through its queue.
type Queues = Arc<Mutex<HashMap<FarmName, VecDeque<Notice>>>>;

/// See the module.
#[derive(Debug)]
pub struct Hooks {
    queues: Queues,
    at_once: Arc<Semaphore>,
    vitals: Arc<Vitals>,
    /// One for each farm that something waits or runs for.
    tasks: Mutex<JoinSet<()>>,
}

impl Hooks {
    /// `vitals` are told of what no hook was told.
    pub fn new(vitals: Arc<Vitals>) -> Self {
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        Self { queues: Queues::default(), at_once, vitals, tasks: Mutex::default() }
    }

    /// Has `hook` of `farm` told of `event_json`, after all that was notified for the farm before. Returns at once. Only
    /// within the daemon's runtime.
    pub fn notify(&self, farm: &FarmName, hook: &Hook, event_json: String) {
        let notice = Notice { hook: hook.clone(), event: event_json };
        let mut queues = lock(&self.queues);
        if let Some(queue) = queues.get_mut(farm) {
            if queue.len() == WAITING
                && let Some(lost) = queue.pop_front()
            {
                let hook = program(&lost.hook);
                tracing::warn!(%farm, hook, event = lost.event, "a hook was not told of a change: too many wait");
                self.vitals.lose_hook(format!("{hook} of farm '{farm}': too many changes wait for it"));
            }
            queue.push_back(notice);
            return;
        }
        queues.insert(farm.clone(), VecDeque::from([notice]));
        drop(queues);
        let mut tasks = lock(&self.tasks);
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "the hooks of a farm broke off");
            }
        }
        tasks.spawn(work(farm.clone(), self.queues.clone(), self.at_once.clone(), self.vitals.clone()));
    }
}

/// Works through a farm's queue and ends when it is empty.
async fn work(farm: FarmName, queues: Queues, at_once: Arc<Semaphore>, vitals: Arc<Vitals>) {
    loop {
        // Never closed.
        let Ok(_permit) = at_once.acquire().await else { return };
        let notice = {
            let mut queues = lock(&queues);
            match queues.get_mut(&farm).and_then(VecDeque::pop_front) {
                Some(notice) => notice,
                None => {
                    queues.remove(&farm);
                    return;
                }
            }
        };
        tell(&farm, notice, &vitals).await;
    }
}

async fn tell(farm: &FarmName, notice: Notice, vitals: &Vitals) {
    let Notice { hook, event } = notice;
    let job = Job {
        command: hook.command.clone(),
        user: hook.user.clone(),
        environment: vec![("DROVER_FARM", farm.to_string())],
        input: Some(event),
        timeout: hook.timeout,
        grace: GRACE,
    };
    let hook_name = program(&hook);
    match job.run().await {
        Ok(run) if run.passed() => {
            tracing::debug!(%farm, hook = hook_name, duration = ?run.duration, "a hook was told of a change");
        }
        Ok(run) => {
            let reason = run.reason(hook.timeout);
            tracing::warn!(%farm, hook = hook_name, reason, "a hook failed");
        }
        Err(Untried(reason)) => {
            tracing::warn!(%farm, hook = hook_name, reason, "a hook could not be run");
            vitals.lose_hook(format!("{hook_name} of farm '{farm}': {reason}"));
        }
    }
}

fn program(hook: &Hook) -> &str {
    hook.command.first().map_or("", String::as_str)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
