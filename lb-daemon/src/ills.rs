//! Looks once a second at how the daemon itself does: how soon its loop answers, whether checks start in time, whether log
//! lines and events are lost. `lb_core::ills` says what of it is an ill.
//!
//! [`IllWatch`] owns one task, beside the loop, so that a loop that hangs is seen. Dropped, the task ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi;
use lb_core::ills::{CHECK_LATE, Signs, Turn, Watch};
use lb_core::state::tables::is_crowded;
use lb_core::state::{EventKind, EventLevel, Histogram, News, Tables};
use tokio::sync::watch;

pub use lb_core::ills::Condition;

use crate::clock;
use crate::config::Patient;
use crate::handle::{Command, Handle};
use crate::logging::Lines;
use crate::overrides::Overrides;
use crate::supervise::{Supervisor, Task};

const EVERY: Duration = Duration::from_secs(1);
/// How long the loop may take to answer before it is said to have taken so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// A hold on the task.
#[derive(Debug)]
pub struct IllWatch {
    condition: watch::Receiver<Arc<Condition>>,
    task: Task,
}

impl IllWatch {
    /// Starts it for the daemon behind `handle`.
    pub fn spawn(handle: Handle, lines: Arc<Lines>, places: Places) -> Self {
        let (sender, condition) = watch::channel(Arc::default());
        let (watch, patient) = (Watch::default(), Patient::default());
        let looking =
            Looking { handle, lines, places, sender, watch, patient, left: Left::default(), handled: 0 };
        Self { condition, task: Task::spawn(looking.run()) }
    }

    pub fn condition(&self) -> watch::Receiver<Arc<Condition>> {
        self.condition.clone()
    }

    /// Has the end of its task told.
    pub fn watch(&mut self, supervisor: &Supervisor) {
        self.task.watch(supervisor, "the daemon's own ills");
    }
}

/// Where to look, and what the start has found.
#[derive(Debug)]
pub struct Places {
    pub pins: PathBuf,
    /// The configuration's `state_dir`.
    pub state: PathBuf,
    /// Why the control socket is for root alone though it is meant for others.
    pub closed: Option<String>,
}

/// What somebody has left in those places, by name.
#[derive(Debug, Clone, Default)]
struct Left {
    former_maps: Vec<String>,
    damaged_overrides: Vec<String>,
}

impl Left {
    fn look(pins: &Path, state: &Path) -> Self {
        let damaged = Overrides::damaged(state).into_iter().map(|path| path.display().to_string());
        Self { former_maps: former_maps(pins), damaged_overrides: damaged.collect() }
    }
}

struct Looking {
    handle: Handle,
    lines: Arc<Lines>,
    places: Places,
    sender: watch::Sender<Arc<Condition>>,
    watch: Watch,
    patient: Patient<Left>,
    /// As of the last look that came to an end.
    left: Left,
    /// Log lines that were written or lost by the last look.
    handled: u64,
}

impl Looking {
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut loop_latency = Histogram::default();
        loop {
            ticks.tick().await;
            let signs = self.signs().await;
            loop_latency.record(signs.loop_answered_in);
            for turn in self.watch.look(&signs, clock::now(), clock::wall()) {
                self.tell(turn);
            }
            self.sender.send_replace(Arc::new(Condition {
                ills: self.watch.ills().cloned().collect(),
                loop_latency: loop_latency.clone(),
                log_written: self.lines.written(),
                log_lost: signs.log_lost,
                events_lost: signs.events_lost,
                hooks_lost: signs.hooks_lost,
                sweep_age: signs.sweep_age,
            }));
        }
    }

    async fn signs(&mut self) -> Signs {
        let asked = clock::now();
        let answer = self.handle.ask(None, |reply| Command::Ping { reply });
        // Whether it answered in time or not, so long it took; a daemon that is stopping answers at once.
        tokio::time::timeout(PATIENCE, answer).await.ok();
        let loop_answered_in = clock::now().saturating_duration_since(asked);
        let checks = self.handle.checks.load().await.unwrap_or_default();
        let (pins, state) = (self.places.pins.clone(), self.places.state.clone());
        if let Ok(left) = self.patient.look(move || Left::look(&pins, &state)).await {
            self.left = left;
        }
        let Left { former_maps, damaged_overrides } = self.left.clone();
        let handled = self.lines.handled();
        let log_stuck = !self.lines.is_idle() && handled == std::mem::replace(&mut self.handled, handled);
        let (vitals, now) = (&self.handle.vitals, clock::now());
        let (hooks_lost, hook_trouble) = vitals.hooks_lost();
        Signs {
            loop_answered_in,
            behind: vitals.behind(),
            sweep_age: vitals.sweep_age(now),
            cutting_for: vitals.cutting_for(now),
            hooks_lost,
            hook_trouble,
            damaged_overrides,
            socket: self.places.closed.clone(),
            late_checks: late(&checks.lateness),
            log_lost: self.lines.lost(),
            log_stuck,
            log_trouble: self.lines.trouble(),
            events_lost: self.handle.events.lost(),
            crowded_tables: crowded(&self.handle.snapshot().tables),
            config_file: self.handle.file.borrow().advice(),
            former_maps,
        }
    }

    fn tell(&self, turn: Turn) {
        let Turn { message, came, .. } = turn;
        let level = if came { EventLevel::Warning } else { EventLevel::Info };
        match came {
            true => tracing::warn!("{message}"),
            false => tracing::info!("{message}"),
        }
        let news = News { level, kind: EventKind::DaemonIll, farm: None, backend: None, by: None, message };
        self.handle.events.publish(|log| log.push(clock::wall(), news));
    }
}

/// How many runs started later than [`CHECK_LATE`] after their time.
fn late(lateness: &Histogram) -> u64 {
    let late = lateness.buckets().filter(|(bound, _)| bound.is_none_or(|bound| bound > CHECK_LATE));
    late.map(|(_, runs)| runs).sum()
}

fn crowded(tables: &Tables) -> Vec<String> {
    let crowded = tables.families.iter().filter(|table| is_crowded(false, table.load()));
    let words = crowded.map(|table| {
        let (family, load) = (table.family, table.load());
        format!("the connection table of {family} is {load} % full: new connections may find no room")
    });
    words.collect()
}

/// Directories of maps that another version has left.
fn former_maps(pins: &Path) -> Vec<String> {
    let own = format!("maps-v{}", abi::LAYOUT_VERSION);
    let Ok(entries) = std::fs::read_dir(pins) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut former: Vec<String> = names
        .filter(|name| name.starts_with("maps-v") && *name != own)
        .map(|name| pins.join(name).display().to_string())
        .collect();
    former.sort();
    former
}
