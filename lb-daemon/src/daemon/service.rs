//! What serves: the configuration in force, and the parts that follow it. Each part keeps to itself; here one is told what
//! another says. What comes of a change that is asked for is decided outside, see [`super::ground`].

mod ground;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_core::config::model::{Backend, Farm, OnDown};
use lb_core::departed::gone;
use lb_core::standing::Turn;
use lb_core::state::{ConnectionFilter, EventKind, Snapshot};
use tokio::sync::watch;

use super::cuts::{self, Down};
use super::former::Former;
use super::forwarding::Forwarding;
use super::ground::Ground as _;
use super::health::Health;
use super::in_force::InForce;
use super::jobs::{Done, Jobs, Judged};
use super::keeping::Write;
use super::operators::Operators;
use super::passive::Passive;
use super::publish::Publisher;
use super::steps::{DISK_WITHIN, no_disk};
use super::tell::{self, Telling, Told};
use super::voices::Voices;
use super::{BackendKey, words};
use crate::checks::{BackendHealth, Judgement, Runner};
use crate::clock;
use crate::datapath::{Datapath, Reader, Sweep, Sweeper};
use crate::handle::{Changes, Checks, Events, Format, Refusal, Reply};
use crate::network::News;
use crate::vitals::Vitals;

/// See the module.
pub(super) struct Service {
    in_force: InForce,
    forwarding: Forwarding,
    operators: Operators,
    health: Health,
    checks: Runner,
    jobs: Jobs,
    telling: Telling,
    publisher: Publisher,
    /// The maps have been brought to the configuration once; if that fails, the start does.
    running: bool,
}

/// What a service begins with.
pub(super) struct Beginning {
    pub in_force: InForce,
    pub forwarding: Forwarding,
    pub operators: Operators,
    pub checks: Runner,
    pub jobs: Jobs,
    pub telling: Telling,
    pub publisher: Publisher,
}

/// What the API reads of a service without asking it.
pub(super) struct Readers {
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    pub events: Arc<Events>,
    pub dataplane: Arc<Reader>,
    pub checks: Checks,
    pub vitals: Arc<Vitals>,
}

impl Service {
    pub fn new(beginning: Beginning) -> Self {
        let Beginning { in_force, forwarding, operators, checks, jobs, telling, publisher } = beginning;
        let (health, running) = (Health::default(), false);
        Self { in_force, forwarding, operators, health, checks, jobs, telling, publisher, running }
    }

    /// The first reconciliation: health of the daemon before, next hops, maps, VIPs, checks.
    pub async fn take_up(&mut self, network_within: Duration) -> anyhow::Result<()> {
        let config = self.in_force.config().clone();
        self.forwarding.sweep_adopted(self.in_force.enabled_farms());
        let forwarding = &self.forwarding;
        let held = |farm: &Farm, backend: &Backend| forwarding.held_before(farm, backend);
        self.health.adopt(&config, held, self.publisher.started());
        self.wait_for_network(1, network_within).await;
        self.forwarding.take_up_lists(&config).await?;
        self.bring()?;
        self.running = true;
        self.forwarding.tidy_lists(&config, &self.jobs);
        // Only when the maps know them: a packet for a VIP that came before would be answered by the host.
        let number = self.forwarding.want(&config);
        self.wait_for_network(number, network_within).await;
        let forwarding = &self.forwarding;
        let held = |farm: &Farm, backend: &Backend, _: IpAddr| forwarding.held_before(farm, backend);
        self.checks.set_targets(self.health.targets(&config, held));
        let how = match self.forwarding.adopted() {
            true => "adopted the running data plane",
            false => "loaded the data plane",
        };
        let (version, on) = (env!("CARGO_PKG_VERSION"), self.forwarding.interfaces_text());
        let message = format!("drover {version} started: {how}, on {on}");
        self.tell(Told::info(EventKind::DaemonStarted, message));
        let missing = self.forwarding.missing(&config.daemon.interfaces);
        missing.into_iter().for_each(|name| self.tell(words::missing(name)));
        self.publish();
        Ok(())
    }

    /// At the start nothing else is to be done before this. A network that does not answer is not waited for.
    async fn wait_for_network(&mut self, number: u64, within: Duration) {
        let told = async {
            while self.forwarding.tried() < number {
                match self.forwarding.news().await {
                    Some(news) => self.network_told(news),
                    None => return,
                }
            }
        };
        if tokio::time::timeout(within, told).await.is_err() {
            tracing::warn!("the network takes its time; the daemon starts without waiting for it");
        }
    }

    /// Ends; what was put in place is taken away.
    pub async fn end(self) -> anyhow::Result<()> {
        drop(self.checks);
        self.forwarding.end().await
    }

    pub fn into_datapath(self) -> Datapath {
        self.forwarding.into_datapath()
    }

    /// A hold on it for the API.
    pub fn readers(&self) -> Readers {
        Readers {
            snapshots: self.publisher.subscribe(),
            events: self.telling.events(),
            dataplane: self.forwarding.reader(),
            checks: self.checks.checks(),
            vitals: self.forwarding.vitals().clone(),
        }
    }

    /// The next news of the network; `None` when its task has ended. Cancel-safe.
    pub async fn news(&mut self) -> Option<News> {
        self.forwarding.news().await
    }

    /// Brings the maps to the present state.
    fn bring(&mut self) -> anyhow::Result<()> {
        let Self { in_force, forwarding, operators, health, .. } = self;
        forwarding.bring(in_force.config(), |farm, ways| health.voices(operators, ways).facts(farm))
    }

    /// The same for changes that nobody waits for: what fails is tried again.
    fn follow(&mut self) {
        let Self { in_force, forwarding, operators, health, .. } = self;
        forwarding.follow(in_force.config(), |farm, ways| health.voices(operators, ways).facts(farm));
    }

    fn voices(&self) -> Voices<'_> {
        self.health.voices(&self.operators, self.forwarding.ways())
    }

    fn find(&self, (farm, backend): &BackendKey) -> Option<(&Farm, &Backend)> {
        self.in_force.find(farm, backend)
    }

    fn write(&self, write: Option<Write>) {
        if let Some(write) = write {
            write.begin(&self.jobs);
        }
    }
}

/// What happens by itself.
impl Service {
    /// Sets the clock, and has everything follow that is due.
    pub fn ticked(&mut self, due: Instant, now: Instant) {
        self.publisher.note_tick(now.saturating_duration_since(due));
        self.forwarding.keep_time(now);
        self.end_ejections(now);
        self.eject(now);
        if Passive::is_due(self.forwarding.ticks()) {
            self.take_pulses(now);
        }
        // All of them, whatever the first one says.
        if self.health.ramp_up(self.in_force.config(), now) | self.forwarding.is_due(now) {
            self.follow();
        }
    }

    /// Sweeps the next slice of the connection tables.
    pub fn sweep(&mut self) {
        self.forwarding.sweep(&self.jobs, self.in_force.enabled_farms());
    }

    /// A slice was swept. `certain`: no change is under way that may still be refused.
    pub fn swept(&mut self, sweeper: Box<Sweeper>, round: Option<Box<Sweep>>, certain: bool) {
        let Some(freed) = self.forwarding.take_sweep(sweeper, round) else { return };
        if freed {
            self.follow();
        }
        let config = self.in_force.config().clone();
        let forwarding = &self.forwarding;
        // Else the checks go on as they are.
        if certain && self.health.forget_departed(|id| forwarding.is_borne(id)) {
            // They know all that were there.
            self.checks.set_targets(self.health.targets(&config, |_, _, _| Judgement::Starting));
        }
        let told = self.forwarding.told_by_sweep(&config);
        told.into_iter().for_each(|told| self.tell(told));
        self.publish();
    }

    pub fn sweep_broke(&mut self) {
        self.forwarding.sweep_broke();
    }

    /// Takes what the network's task has found, and brings maps and interfaces to it.
    pub fn network_told(&mut self, news: News) {
        let told = self.forwarding.take_news(self.in_force.config(), news);
        told.into_iter().for_each(|told| self.tell(told));
        if self.running {
            self.follow();
            self.publish();
        }
    }

    /// Checks have changed their mind about backends, or their words. `former`: what comes back if the configuration is not
    /// certain yet.
    pub fn judged(&mut self, reports: Vec<BackendHealth>, former: Option<&mut Former>) {
        let turned = self.health.take_reports(self.in_force.config(), reports, former, clock::now());
        self.cut(turned.departed);
        if !turned.turns.is_empty() {
            self.follow();
        }
        let mut down = Vec::new();
        for (key, turn, reason) in turned.turns {
            let told = self.find(&key).and_then(|found| match turn {
                Turn::Up => Some(words::up(found, "up", &reason)),
                Turn::Back => Some(words::up(found, "resurrect", &reason)),
                Turn::Unchecked => Some(words::unchecked(found, &reason)),
                Turn::Down | Turn::Starting => None,
            });
            told.into_iter().for_each(|told| self.tell(told));
            if turn == Turn::Down {
                down.push((key, reason));
            }
        }
        self.went_down(down, None);
        self.publish();
    }

    /// Does with the connections of backends that went down what their farms ask for, or else what `cut` says, and tells.
    fn went_down(&self, keys: Vec<(BackendKey, String)>, cut: Option<bool>) {
        let down = keys.into_iter().filter_map(|(key, reason)| {
            let (farm, backend) = self.find(&key)?;
            let id = self.forwarding.backend_id(farm, backend)?;
            let cut = cut.unwrap_or(farm.on_down == OnDown::Cut);
            Some((id, Down { cut, key, reason, connections: 0, unfinished: false, former: None }))
        });
        self.cut(down.collect());
    }

    fn cut(&self, down: BTreeMap<u16, Down>) {
        let forwarding = &self.forwarding;
        let (reader, cutting) = (forwarding.reader(), forwarding.vitals().cutting());
        cuts::cut(down, forwarding.ticks(), (reader, cutting), &self.jobs);
    }

    /// A backend went down, and its connections have been seen to.
    pub fn tell_down(&self, down: &Down) {
        if let Some(who) = &down.former {
            return self.tell(words::departed_down(down, who));
        }
        let Some((farm, backend)) = self.find(&down.key) else { return };
        let facts = self.voices().facts(farm);
        self.tell(words::down((farm, backend), down, &facts));
    }

    /// Tells of backends that would serve if there were a way to them, and of those to which there is one again.
    pub fn tell_ways(&mut self) {
        let Self { in_force, forwarding, operators, health, .. } = self;
        let (lost, found) = health.seek_ways(in_force.config(), operators, forwarding.ways());
        for (key, is_lost) in lost.iter().map(|key| (key, true)).chain(found.iter().map(|key| (key, false))) {
            let Some((farm, backend)) = self.find(key) else { continue };
            let known = self.voices().known(farm, backend);
            if is_lost {
                self.tell(words::way_lost((farm, backend), &known.reason(known.status()).0));
            } else if known.status().serves() {
                // Else it is down for another reason by now, or taken out by hand: that is told by itself.
                self.tell(words::way_found((farm, backend)));
            }
        }
    }

    /// Looks at the counters of every backend whose farm wants it, and acts on what they say.
    fn take_pulses(&mut self, now: Instant) {
        let Self { in_force, forwarding, health, checks, .. } = self;
        let (config, as_of) = (in_force.config(), (in_force.generation(), forwarding.changes()));
        let reader = forwarding.reader();
        let pulses = reader.handled().and_then(|handled| {
            let id = |farm: &Farm, backend: &Backend| forwarding.backend_id(farm, backend);
            Ok((handled, reader.pulses(health.watched(as_of, config, handled, id))?))
        });
        let (handled, pulses) = match pulses {
            Ok(read) => read,
            Err(error) => return tracing::debug!("no look at the traffic: {error:#}"),
        };
        let (check, suspects) = health.take_pulses(config, handled, &pulses, now);
        check.iter().for_each(|(farm, backend)| checks.suspect(farm, backend));
        health.hear(suspects, now, move |ids| reader.witnesses(ids));
    }

    /// Takes backends out on the traffic's word. Nobody is cut for that: who is connected may be served well.
    fn eject(&mut self, now: Instant) {
        let ejected = self.health.eject(self.in_force.config(), now);
        if !ejected.is_empty() {
            self.follow();
            self.went_down(ejected, Some(false));
            self.publish();
        }
    }

    fn end_ejections(&mut self, now: Instant) {
        let Some(back) = self.health.release(now) else { return };
        self.follow();
        for key in back {
            let Some(found) = self.find(&key) else { continue };
            self.tell(words::up(found, "resurrect", "its ejection is over"));
        }
        self.publish();
    }
}

/// What is asked of it that changes nothing of the configuration.
impl Service {
    /// Has a text judged that is not to be applied.
    fn judge(&self, text: String, format: Format, reply: Reply<Changes>) {
        let in_force = self.in_force.clone();
        let (patience, reader) = ((DISK_WITHIN, no_disk(in_force.path())), self.forwarding.reader());
        let judge = move || {
            let new = in_force.judge(&text, format)?;
            let cut = reader.count_to_vips(&gone(in_force.config(), &new));
            Ok((new, cut))
        };
        self.jobs.judge(patience, judge, format, reply);
    }

    /// It was judged: says what would come of it.
    pub fn judged_dry(&self, judged: Judged, format: Format, reply: Reply<Changes>) {
        let told = judged.map_err(Refusal::Invalid).and_then(|(new, cut)| {
            self.in_force.may_become(format, &new)?;
            let forwarding = &self.forwarding;
            let number = |farm: &Farm, backend: &Backend| forwarding.backend_id(farm, backend);
            let live =
                |farm: &Farm, backend: &Backend| number(farm, backend).map_or(0, |id| forwarding.live(id));
            let cut = |farm: &Farm, backend: &Backend| {
                number(farm, backend).and_then(|id| cut.get(&id).copied()).unwrap_or(0)
            };
            Ok(self.in_force.affects(&new, live, cut))
        });
        reply.send(told).ok();
    }

    /// Cuts connections beside the loop: a large table takes a while.
    fn cut_by_hand(&self, filter: ConnectionFilter, reply: Reply<u64>) {
        let (reader, events, by) = (self.forwarding.reader(), self.telling.events(), self.telling.by());
        let cutting = self.forwarding.vitals().cutting();
        self.jobs.run(Done::Nothing, move || {
            let _cutting = cutting;
            let cut = reader.cut(&filter);
            if cut > 0 {
                let message = format!("{} cut by an operator", words::count(cut, "connection"));
                tell::publish(&events, by, Told::info(EventKind::ConnectionsCut, message));
            }
            reply.send(Ok(cut)).ok();
            Done::Nothing
        });
    }
}
