//! What the loop has others do that may take a while: files, look-ups of users, the connection tables. Each ends as an event,
//! whatever becomes of it; nobody waits for one.
//!
//! A job cannot be stopped: a disk that hangs keeps its thread. So there are at most a few of those ([`Jobs::is_stuck`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use lb_core::config::ConfigError;
use lb_core::config::model::Config;
use tokio::sync::mpsc;

use super::cuts::Down;
use super::in_force::Loaded;
use crate::datapath::{Sweep, Sweeper};
use crate::handle::{Changes, Format, Refusal, Reply};
use crate::refusal::Failed;

/// A configuration that is not to be applied, and how many connections of each backend, by its number, it would cut.
pub(super) type Judged = Result<(Config, HashMap<u16, u64>), Vec<ConfigError>>;

/// What a job has come to.
pub(super) enum Done {
    /// A configuration was read, by the number of the change that it is for.
    Read(u64, Box<Result<Loaded, Refusal>>),
    /// The configuration file was written.
    Written(u64, Result<(), Refusal>),
    /// What operators have set was written.
    Saved(u64, Result<(), String>),
    /// The connections of VIPs that are gone are cut.
    VipsCut(u64),
    /// A change's job broke off.
    Broke(u64),
    /// A text was judged that is not to be applied.
    Judged(Box<Judged>, Format, Reply<Changes>),
    /// A slice of the tables was swept; with it perhaps a round.
    Swept(Box<Sweeper>, Option<Box<Sweep>>),
    SweepBroke,
    /// A backend that went down has had its connections cut.
    Cut(Box<Down>),
    /// Nobody waits for it.
    Nothing,
}

/// So many jobs of which nobody expects an end any more are no accident.
const STUCK_MAX: usize = 4;

/// Starts jobs.
#[derive(Clone)]
pub(super) struct Jobs {
    done: mpsc::UnboundedSender<Done>,
    stuck: Arc<AtomicUsize>,
}

impl Jobs {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Done>) {
        let (done, inbox) = mpsc::unbounded_channel();
        (Self { done, stuck: Arc::default() }, inbox)
    }

    /// Does `work` beside the loop. `broke` is told if it panics.
    pub fn run(&self, broke: Done, work: impl FnOnce() -> Done + Send + 'static) {
        let (done, job) = (self.done.clone(), tokio::task::spawn_blocking(work));
        tokio::spawn(async move {
            let told = job.await.unwrap_or_else(|error| {
                tracing::error!("a task beside the loop broke off: {error}");
                broke
            });
            // The daemon may have stopped meanwhile.
            done.send(told).ok();
        });
    }

    /// Has a text judged beside the loop for whoever waits at `reply`. If that takes too long, or too many jobs hang, he is
    /// told `no_answer`.
    pub fn judge(
        &self,
        (patience, no_answer): (Duration, Refusal),
        work: impl FnOnce() -> Judged + Send + 'static,
        format: Format,
        reply: Reply<Changes>,
    ) {
        // Whoever asked may have left.
        if self.is_stuck() {
            return drop(reply.send(Err(no_answer)));
        }
        let (jobs, mut job) = (self.clone(), tokio::task::spawn_blocking(work));
        tokio::spawn(async move {
            match tokio::time::timeout(patience, &mut job).await {
                Ok(Ok(judged)) => drop(jobs.done.send(Done::Judged(Box::new(judged), format, reply))),
                Ok(Err(error)) => {
                    tracing::error!("a task beside the loop broke off: {error}");
                    reply.send(Err(Failed::BrokeOff.into())).ok();
                }
                Err(_) => {
                    reply.send(Err(no_answer)).ok();
                    jobs.give_up();
                    job.await.ok();
                    jobs.came_back();
                }
            }
        });
    }

    /// Cuts the connections of backends that went down, which are told when that is done; if it takes too long, as they are by
    /// then.
    pub fn cut(
        &self,
        patience: Duration,
        unfinished: Vec<Down>,
        work: impl FnOnce() -> Vec<Down> + Send + 'static,
    ) {
        let (done, mut job) = (self.done.clone(), tokio::task::spawn_blocking(work));
        tokio::spawn(async move {
            let told = match tokio::time::timeout(patience, &mut job).await {
                Ok(Ok(cut)) => cut,
                Ok(Err(error)) => {
                    tracing::error!("cutting connections broke off: {error}");
                    unfinished
                }
                Err(_) => unfinished,
            };
            // The daemon may have stopped meanwhile.
            told.into_iter().for_each(|down| drop(done.send(Done::Cut(Box::new(down)))));
        });
    }

    /// Somebody has stopped waiting for a job; the mark is taken back when it ends after all.
    pub fn give_up(&self) {
        self.stuck.fetch_add(1, Ordering::Relaxed);
    }

    /// A job has ended that was given up.
    pub fn came_back(&self) {
        self.stuck.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether so many jobs hang that another one is not to be begun.
    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed) >= STUCK_MAX
    }
}

/// Says whether a write may still take effect: either the writer takes the pass before it does, or the loop when its patience
/// is over.
#[derive(Debug, Clone, Default)]
pub(super) struct Pass(Arc<AtomicU8>);

impl Pass {
    /// Whether it was free until now.
    pub fn take(&self) -> bool {
        self.0.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use lb_core::config::model::{BackendName, FarmName};

    use super::*;

    #[tokio::test]
    async fn a_job_that_panics_ends_as_an_event() {
        let (jobs, mut inbox) = Jobs::new();
        jobs.run(Done::Broke(7), || panic!("on purpose"));
        assert!(matches!(inbox.recv().await, Some(Done::Broke(7))));
        jobs.run(Done::Broke(8), || Done::VipsCut(8));
        assert!(matches!(inbox.recv().await, Some(Done::VipsCut(8))));
    }

    #[tokio::test]
    async fn who_has_a_text_judged_is_answered_though_the_disk_hangs_and_few_threads_are_kept() {
        let (jobs, mut inbox) = Jobs::new();
        let mut frozen = Vec::new();
        let no_answer = || Refusal::from(Failed::TooLate);
        // No machine is so busy that it is over by chance.
        let limit = Duration::from_secs(60);
        let ask = |patience: Duration, work: Box<dyn FnOnce() + Send>| {
            let (reply, answer) = tokio::sync::oneshot::channel();
            let judged = move || {
                work();
                Err(Vec::new())
            };
            jobs.judge((patience, no_answer()), judged, Format::Toml, reply);
            tokio::time::timeout(limit, answer)
        };
        for _ in 0..STUCK_MAX {
            let (hold, held) = std::sync::mpsc::channel::<()>();
            frozen.push(hold);
            let freeze = move || assert!(held.recv().is_err());
            let answer = ask(Duration::from_millis(50), Box::new(freeze));
            assert_eq!(answer.await.unwrap().unwrap().unwrap_err(), no_answer());
        }
        assert!(jobs.is_stuck());
        let refused = ask(limit, Box::new(|| panic!("it is not begun")));
        assert_eq!(refused.await.unwrap().unwrap().unwrap_err(), no_answer());
        drop(frozen);
        let back = async {
            while jobs.stuck.load(Ordering::Relaxed) > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(limit, back).await.expect("those that were held come back");
        let _answer = ask(limit, Box::new(|| {}));
        let told = tokio::time::timeout(limit, inbox.recv()).await.expect("what is asked now is judged");
        assert!(matches!(told, Some(Done::Judged(..))));
    }

    #[tokio::test]
    async fn who_is_down_is_told_though_cutting_his_connections_does_not_end() {
        let (jobs, mut inbox) = Jobs::new();
        let key = (FarmName::new("web").unwrap(), BackendName::new("a").unwrap());
        let reason = "connection refused".to_owned();
        let down = Down { key, reason, cut: true, connections: 0, unfinished: true, former: None };
        let cut = vec![Down { connections: 7, unfinished: false, ..down.clone() }];
        let (hold, held) = std::sync::mpsc::channel::<()>();
        jobs.cut(Duration::from_millis(20), vec![down.clone()], move || {
            held.recv().ok();
            cut
        });
        let fate = |done: Option<Done>| match done {
            Some(Done::Cut(down)) => down.fate(),
            _ => panic!("it is not told"),
        };
        assert_eq!(fate(inbox.recv().await), "its connections are still being cut");
        drop(hold);
        jobs.cut(Duration::from_secs(20), vec![down.clone()], move || {
            vec![Down { connections: 2, unfinished: false, ..down }]
        });
        assert_eq!(fate(inbox.recv().await), "2 connections cut", "and nothing more of the first");
    }

    #[test]
    fn a_pass_is_taken_once() {
        let pass = Pass::default();
        assert!(pass.clone().take());
        assert!(!pass.take());
    }

    #[test]
    fn a_few_jobs_that_hang_are_enough() {
        let (jobs, _inbox) = Jobs::new();
        (0..STUCK_MAX).for_each(|_| jobs.give_up());
        assert!(jobs.is_stuck());
        jobs.came_back();
        assert!(!jobs.is_stuck());
    }
}
