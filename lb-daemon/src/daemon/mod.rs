//! The daemon's loop: everything that can wake it is one [`Event`], and each event ends with the maps following the latest
//! state.
//!
//! One task owns [`Daemon`] and with it every map, the configuration, health as last reported, and what operators have set. It
//! awaits its inbox and nothing else: checks, the network, the sweep of the connection tables, files and the API are others'
//! work, who talk to it by channels. Cancelled, it leaves everything in the kernel as it is: the next daemon adopts it.
//!
//! What it holds is in parts that keep to themselves, a file each: a part's fields are its own, it is told what it needs, and
//! says what is to be done. [`service`] wires those that serve, [`changes`] carries out what is asked for, and here both meet
//! what wakes them.

mod changes;
#[cfg(test)]
mod changes_fake;
#[cfg(test)]
mod changes_tests;
mod cuts;
mod dataplane;
mod departed;
mod former;
mod forwarding;
mod ground;
mod health;
mod in_force;
mod interfaces;
mod jobs;
mod judgements;
mod keeping;
mod network;
mod operators;
mod passive;
mod patch;
mod publish;
mod service;
mod start;
mod steps;
mod sweep;
mod tell;
#[cfg(test)]
mod test_config;
mod vips;
mod voices;
mod wayless;
mod ways;
mod words;

use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_core::config::model::{BackendName, FarmName};
use lb_core::state::EventKind;
use tokio::sync::{mpsc, watch};

use crate::checks::BackendHealth;
use crate::clock;
use crate::config::{DefectWatch, FileWatch};
use crate::handle::{Command, Handle, Order, Refusal};
use crate::network::News;
use crate::refusal::Conflict;
use crate::signals::{Asked, Signals};
use crate::supervise::{Ended, Endings};
use changes::Changing;
use ground::Ground as _;
use jobs::Done;
use service::{Readers, Service};
pub use start::Start;
use steps::Request;
use tell::Told;

/// How often the data plane's clock is set, and the next part of the connection tables swept.
const TICK: Duration = Duration::from_millis(lb_common::abi::TICK_MILLISECONDS as u64);

/// So many reports are taken together: others wait, too.
const REPORTS_AT_ONCE: usize = 1024;

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
    service: Service,
    changing: Changing,
    file: FileWatch,
    defects: DefectWatch,
    commands: mpsc::Sender<Order>,
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
        let Readers { snapshots, events, dataplane, checks, vitals } = self.service.readers();
        Handle {
            commands: self.commands.clone(),
            snapshots,
            events,
            dataplane,
            checks,
            file: self.file.state(),
            defects: self.defects.defects(),
            // Told by who looks at the daemon from outside.
            condition: watch::channel(Arc::default()).1,
            vitals,
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
                Event::Asked(Asked::Reload) => self.changing.requested(&mut self.service, Request::Reload),
                Event::Ended(ended) => return self.bereft(&ended),
                Event::Tick { due } => self.ticked(due),
                Event::Health(health) => self.judged(health),
                Event::Done(done) => self.done(done),
                Event::Network(news) => {
                    self.service.network_told(news);
                    self.changing.network_tried(&mut self.service);
                }
                Event::Command(order) => self.command(order),
            }
            self.changing.begin_next(&mut self.service);
            self.service.set_by(None);
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
            Some(news) = self.service.news() => Event::Network(news),
            Some(command) = commands.recv() => Event::Command(command),
        }
    }

    /// Sets the clock, and does whatever is due.
    fn ticked(&mut self, due: Instant) {
        let now = clock::now();
        self.service.ticked(due, now);
        self.changing.give_up_overdue(&mut self.service, now);
        self.service.tell_ways();
        self.service.sweep();
    }

    /// All reports that have come are taken together: at a start there is one for each backend.
    fn judged(&mut self, first: BackendHealth) {
        let more = std::iter::from_fn(|| self.inbox.health.try_recv().ok()).take(REPORTS_AT_ONCE);
        let reports = std::iter::once(first).chain(more).collect();
        self.service.judged(reports, self.changing.former());
    }

    fn done(&mut self, done: Done) {
        let Self { service, changing, .. } = self;
        match done {
            Done::Read(number, result) => changing.was_read(service, number, *result),
            Done::Written(number, result) => changing.was_written(service, number, result),
            Done::Saved(number, result) => changing.was_saved(service, number, result),
            Done::VipsCut(number) => changing.vips_were_cut(service, number),
            Done::Broke(number) => changing.broke(service, number),
            Done::Judged(result, format, reply) => service.judged_dry(*result, format, reply),
            Done::Swept(sweeper, round) => service.swept(sweeper, round, changing.former().is_none()),
            Done::SweepBroke => service.sweep_broke(),
            Done::Cut(down) => service.tell_down(&down),
            Done::Nothing => {}
        }
    }

    /// Carries a command out and answers it. Changes are put in a row; the rest is answered at once, or beside the loop. Whoever
    /// asked may be gone by then; it was done all the same.
    fn command(&mut self, order: Order) {
        match order.command {
            Command::DryRun { .. } | Command::Cut { .. } | Command::Ping { .. } => {
                self.service.set_by(order.by);
                self.service.answer(order.command);
            }
            Command::PatchBackend { .. }
            | Command::EditFarm { .. }
            | Command::Apply { .. }
            | Command::Reload { .. }
                if self.changing.has_room() =>
            {
                self.changing.requested(&mut self.service, Request::Command(order))
            }
            Command::PatchBackend { reply, .. } => drop(reply.send(Err(too_many()))),
            Command::EditFarm { reply, .. } | Command::Apply { reply, .. } | Command::Reload { reply } => {
                drop(reply.send(Err(too_many())));
            }
        }
    }

    /// Ends: what the daemon put in place is taken away, or left to go on without it.
    async fn stop(self, by: &'static str, stay: bool) -> anyhow::Result<()> {
        let how = if stay { "packets go on flowing" } else { "taking the data plane away" };
        self.service.tell(Told::info(EventKind::DaemonStopping, format!("stopping ({by}): {how}")));
        if stay {
            return Ok(());
        }
        self.service.end().await
    }

    /// Ends, as one who cannot see any more must not say that all is well. The next daemon takes over what is there.
    fn bereft(self, ended: &Ended) -> anyhow::Result<()> {
        let message = format!(
            "{ended}, and the daemon does not go on without it; packets go on flowing as they do now"
        );
        self.service.tell(Told::error(EventKind::TaskEnded, message.clone()));
        Err(anyhow::Error::msg(message))
    }
}

fn too_many() -> Refusal {
    Conflict::TooMany.into()
}
