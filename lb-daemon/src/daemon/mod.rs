//! The daemon's loop: everything that can wake it is one [`Event`], and each event ends with the maps following the latest
//! state.
//!
//! One task owns [`Daemon`] and with it every map, the configuration, health as last reported, and what operators have set. It
//! awaits its inbox and nothing else: checks, the network, the sweep of the connection tables, files and the API are others'
//! work, who talk to it by channels. Cancelled, it leaves everything in the kernel as it is: the next daemon adopts it.

mod changes;
mod changing;
mod commands;
mod dataplane;
mod departed;
mod describe;
mod health;
mod jobs;
mod judgements;
mod keeping;
mod network;
mod passive;
mod patch;
mod publish;
mod start;
mod sweep;
mod tell;
mod ways;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use lb_core::config::model::{BackendName, Config, FarmName};
use lb_core::desired::{Desired, mapped};
use lb_core::state::{EventKind, EventLevel, Histogram, Peer, Snapshot};
use tokio::sync::{mpsc, watch};

use crate::checks::{BackendHealth, Judgement, Runner};
use crate::clock;
use crate::config::{DefectWatch, FileWatch};
use crate::handle::{Events, Format, Handle, Order};
use crate::hooks::Hooks;
use crate::network::News;
use crate::overrides::Overrides;
use crate::signals::{Asked, Signals};
use crate::supervise::{Ended, Endings};
use crate::vitals::Vitals;
use changing::{Changing, Request};
use dataplane::Dataplane;
use jobs::{Done, Jobs};
use judgements::Judgements;
use keeping::Keeping;
use network::Surroundings;
pub use start::Start;
use sweep::{Flood, Sweeping};

/// How often the data plane's clock is set, and the next part of the connection tables swept.
const TICK: Duration = Duration::from_millis(lb_common::abi::TICK_MILLISECONDS as u64);

/// Everything that can wake the daemon.
enum Event {
    Asked(Asked),
    /// A task is no more that the daemon cannot do without.
    Ended(Ended),
    /// The clock is to be set, and whatever is due by now is to be done.
    Tick {
        due: Instant,
    },
    Health(BackendHealth),
    /// What was done beside the loop.
    Done(Done),
    Network(News),
    Command(Order),
}

/// A backend of a farm.
type BackendKey = (FarmName, BackendName);

/// The daemon; see the module's description.
pub struct Daemon {
    config: Arc<Config>,
    config_path: PathBuf,
    text: Arc<str>,
    format: Format,
    file: FileWatch,
    defects: DefectWatch,
    generation: u64,
    started: SystemTime,
    overrides: Overrides,
    /// When an operator last touched a backend's state.
    touched: HashMap<BackendKey, SystemTime>,
    judgements: Judgements,
    departed: departed::AllDeparted,
    /// VIPs that were taken away, and until when the program knows them.
    former_vips: BTreeMap<IpAddr, Instant>,
    /// Who was told to take nobody new since there is no way to him.
    wayless: BTreeSet<BackendKey>,
    /// What the traffic says of backends, and who is out on its word.
    passive: passive::Passive,

    dataplane: Dataplane,
    surroundings: Surroundings,
    runner: Runner,
    sweeping: Sweeping,
    changing: Changing,
    keeping: Keeping,
    jobs: Jobs,
    tick_lateness: Histogram,
    /// The maps have been brought to the configuration once; if that fails, the start does.
    running: bool,

    hooks: Hooks,
    vitals: Arc<Vitals>,
    events: Arc<Events>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    commands: mpsc::Sender<Order>,
    /// Who asked for what is being done.
    by: Option<Peer>,
    inbox: Inbox,
}

/// The receiving ends of what wakes the daemon.
struct Inbox {
    commands: mpsc::Receiver<Order>,
    health: mpsc::Receiver<BackendHealth>,
    done: mpsc::UnboundedReceiver<Done>,
    ticks: tokio::time::Interval,
    signals: Signals,
    endings: Endings,
}

impl Daemon {
    /// A hold on the daemon for the API.
    pub fn handle(&self) -> Handle {
        Handle {
            commands: self.commands.clone(),
            snapshots: self.snapshots.subscribe(),
            events: self.events.clone(),
            dataplane: self.dataplane.reader(),
            checks: self.runner.checks(),
            file: self.file.state(),
            defects: self.defects.defects(),
            // Told by who looks at the daemon from outside.
            condition: watch::channel(Arc::default()).1,
            vitals: self.vitals.clone(),
        }
    }

    /// Runs until it is told to stop. With `stay`, packets go on flowing without it; else the data plane is removed.
    ///
    /// # Errors
    ///
    /// If something could not be taken away at the end, or a task has ended without which there is no going on: packets go
    /// on flowing then.
    pub async fn run(mut self, stay: bool) -> anyhow::Result<()> {
        loop {
            match self.next().await {
                Event::Asked(Asked::Stop(by)) => return self.stop(by, stay).await,
                Event::Asked(Asked::Reload) => self.requested(Request::Reload),
                Event::Ended(ended) => return self.bereft(&ended),
                Event::Tick { due } => self.ticked(due),
                Event::Health(health) => self.judged(health),
                Event::Done(done) => self.done(done),
                Event::Network(news) => self.network_told(news),
                Event::Command(order) => self.command(order),
            }
            self.begin_next();
            self.by = None;
        }
    }

    /// The next event, by rank: what keeps packets flowing comes before what is asked for. None of them can keep the others
    /// waiting for long: ticks are as rare as they are, reports and news of the network are of the latest state, and whoever
    /// asks waits for an answer. Cancel-safe, as each of its parts is.
    async fn next(&mut self) -> Event {
        let Inbox { commands, health, done, ticks, signals, endings } = &mut self.inbox;
        tokio::select! {
            biased;
            asked = signals.next() => Event::Asked(asked),
            Some(ended) = endings.recv() => Event::Ended(ended),
            due = ticks.tick() => Event::Tick { due: due.into() },
            Some(report) = health.recv() => Event::Health(report),
            Some(done) = done.recv() => Event::Done(done),
            Some(news) = self.surroundings.next() => Event::Network(news),
            Some(command) = commands.recv() => Event::Command(command),
        }
    }

    /// Sets the clock, and does whatever is due.
    fn ticked(&mut self, due: Instant) {
        let now = clock::now();
        self.tick_lateness.record(now.saturating_duration_since(due));
        self.dataplane.keep_time(now);
        self.take_pulses(now);
        // All of them, whatever the first one says.
        if self.ramp_up(now) | self.forget_vips(now) | self.dataplane.is_behind() {
            self.follow();
        }
        self.give_up_overdue(now);
        self.tell_ways();
        let (reader, changes) = (self.dataplane.reader(), self.dataplane.changes());
        self.sweeping.go_on(&self.jobs, reader, self.enabled_farms(), changes);
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Read(number, result) => self.was_read(number, *result),
            Done::Written(number, result) => self.was_written(number, result),
            Done::Saved(number, result) => self.was_saved(number, result),
            Done::VipsCut(number) => self.vips_were_cut(number),
            Done::Broke(number) => self.change_broke(number),
            Done::Judged(result, format, reply) => self.judged_dry(*result, format, reply),
            Done::Swept(sweeper, round) => {
                if let Some(freed) = self.sweeping.take(sweeper, round) {
                    self.swept(freed);
                }
            }
            Done::SweepBroke => self.sweeping.broke(),
            Done::Cut(down) => self.tell_down(&down),
            Done::Nothing => {}
        }
    }

    /// A round of the sweep is over.
    fn swept(&mut self, freed: bool) {
        self.vitals.swept();
        if freed {
            self.follow();
        }
        // A change that may still be refused has the checks go on as they are.
        if self.changing.former().is_none() && self.forget_departed() {
            // The checks know all that were there.
            self.watch_backends(|_, _, _, _| Judgement::Starting);
        }
        let tables = self.dataplane.tables(&self.sweeping.found().tables);
        for (warning, message) in self.sweeping.crowds(&tables.families) {
            let level = if warning { EventLevel::Warning } else { EventLevel::Info };
            self.tell(level, EventKind::ConnectionTable, None, None, message);
        }
        let config = self.config.clone();
        let farms =
            config.farms.iter().filter_map(|farm| Some((self.dataplane.farm_id(&farm.name)?, &farm.name)));
        for (farm, flood) in self.sweeping.floods(farms) {
            let (level, what) = match flood {
                Flood::Began => {
                    (EventLevel::Warning, "is flooded by half-open connections; newcomers are challenged")
                }
                Flood::Ended => (EventLevel::Info, "is no longer flooded"),
            };
            self.tell(level, EventKind::Flood, Some(&farm), None, format!("farm '{farm}' {what}"));
        }
        self.publish();
    }

    fn enabled_farms(&self) -> usize {
        self.config.farms.iter().filter(|farm| farm.enabled).count()
    }

    /// Takes what the network's task has found, and brings maps and interfaces to it.
    fn network_told(&mut self, news: News) {
        let config = self.config.clone();
        let (names, mode) = (&config.daemon.interfaces, config.daemon.xdp_mode);
        let turns = network::turns(names, self.surroundings.links(), &news.links);
        self.dataplane.follow_links(names, mode, &news.links);
        for (level, message) in turns {
            self.tell(level, EventKind::Interface, None, None, message);
        }
        self.surroundings.take(news, clock::wall(), |hop| self.dataplane.admits(hop));
        if self.running {
            self.follow();
            self.publish();
        }
        self.network_tried();
    }

    /// Tells the network's task what is wanted now.
    fn want(&self) -> u64 {
        self.surroundings.want(network::wanted(&self.config, self.dataplane.backend_addresses()))
    }

    /// Brings the maps to the present state.
    ///
    /// # Errors
    ///
    /// If it does not fit or the kernel refuses. The maps may then be anywhere on the way.
    fn reconcile(&mut self) -> anyhow::Result<()> {
        let mut desired = Desired::of(&self.config, |farm| self.facts(farm));
        desired.former_vips = self.former_vips.keys().map(|&vip| mapped(vip)).collect();
        desired.leaving_vips = self.surroundings.ours().iter().map(|&vip| mapped(vip)).collect();
        let (sweeping, changes) = (&self.sweeping, self.dataplane.changes());
        self.dataplane.reconcile(&desired, self.surroundings.ways().hops(), |number| {
            sweeping.is_borne(number, changes)
        })?;
        self.vitals.follows(None);
        Ok(())
    }

    /// As [`Daemon::reconcile`], for changes that nobody waits for: what fails is tried again.
    fn follow(&mut self) {
        if let Err(error) = self.reconcile() {
            if !self.dataplane.is_behind() {
                tracing::error!("the data plane does not follow, trying again: {error:#}");
            }
            self.dataplane.set_behind();
            self.vitals.follows(Some(format!("{error:#}")));
        }
    }

    /// Ends: what the daemon put in place is taken away, or left to go on without it.
    async fn stop(self, by: &'static str, stay: bool) -> anyhow::Result<()> {
        let how = if stay { "packets go on flowing" } else { "taking the data plane away" };
        self.tell(EventLevel::Info, EventKind::DaemonStopping, None, None, format!("stopping ({by}): {how}"));
        if stay {
            return Ok(());
        }
        self.surroundings.end().await;
        drop(self.runner);
        self.dataplane.remove()
    }

    /// Ends, as one who cannot see any more must not say that all is well. The next daemon takes over what is there.
    fn bereft(self, ended: &Ended) -> anyhow::Result<()> {
        let message = format!(
            "{ended}, and the daemon does not go on without it; packets go on flowing as they do now"
        );
        self.tell(EventLevel::Error, EventKind::TaskEnded, None, None, message.clone());
        Err(anyhow::Error::msg(message))
    }
}
