//! What carries packets: the maps, the next hops of what stands in them, the numbers that connections bear. They are brought to
//! what a configuration and the facts about its backends ask for, and what fails is tried again.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use lb_core::config::model::{Backend, Config, Farm, FarmName};
use lb_core::desired::{BackendFacts, Desired, adopted, mapped};
use lb_core::diff::Number;
use lb_core::health::Judgement;
use lb_core::state::tables::Tables;
use lb_core::state::{EventKind, EventLevel, InterfaceState};

use super::dataplane::Dataplane;
use super::jobs::{Done, Jobs};
use super::network::{self, Surroundings};
use super::sweep::Sweeping;
use super::tell::Told;
use super::vips::FormerVips;
use super::ways::Ways;
use super::words;
use crate::clock;
use crate::datapath::{Datapath, Lists, Reader, Sweep, Sweeper};
use crate::network::News;
use crate::vitals::Vitals;

/// See the module.
pub(super) struct Forwarding {
    dataplane: Dataplane,
    surroundings: Surroundings,
    sweeping: Sweeping,
    former_vips: FormerVips,
    vitals: Arc<Vitals>,
}

impl Forwarding {
    /// `vitals` are told whether the maps follow, and of the sweep.
    pub fn new(dataplane: Dataplane, surroundings: Surroundings, vitals: Arc<Vitals>) -> Self {
        Self {
            dataplane,
            surroundings,
            sweeping: Sweeping::default(),
            former_vips: FormerVips::default(),
            vitals,
        }
    }

    /// For what is read, swept and cut beside the loop.
    pub fn reader(&self) -> Arc<Reader> {
        self.dataplane.reader()
    }

    pub fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    /// Whether it was there before the daemon was.
    pub fn adopted(&self) -> bool {
        self.dataplane.adopted()
    }

    /// `eth0 (native)` and so on.
    pub fn interfaces_text(&self) -> String {
        self.dataplane.interfaces().text()
    }

    /// The numbers by which the data plane knows a backend and a farm.
    pub fn backend_id(&self, farm: &Farm, backend: &Backend) -> Option<u16> {
        self.dataplane.backend_id(farm, backend)
    }

    pub fn farm_id(&self, farm: &FarmName) -> Option<u16> {
        self.dataplane.farm_id(farm)
    }

    /// What the daemon before this one held of a backend, as far as the maps tell.
    pub fn held_before(&self, farm: &Farm, backend: &Backend) -> Judgement {
        adopted(self.dataplane.backend_flags(farm, backend))
    }

    /// The lists of who may connect, for whoever writes them beside the loop.
    pub fn lists(&self) -> Lists {
        self.dataplane.lists()
    }

    /// Has lists taken out that neither `config` nor any farm goes by.
    pub fn tidy_lists(&self, config: &Config, jobs: &Jobs) {
        self.dataplane.want_lists(config);
        let lists = self.dataplane.lists();
        jobs.run(Done::Nothing, move || {
            if let Err(error) = lists.tidy() {
                tracing::warn!("lists that nobody needs stay in the maps: {error:#}");
            }
            Done::Nothing
        });
    }

    /// Writes the lists of `config`, at the start.
    ///
    /// # Errors
    ///
    /// If the kernel refuses them.
    pub async fn take_up_lists(&self, config: &Arc<Config>) -> anyhow::Result<()> {
        let (lists, config) = (self.dataplane.lists(), config.clone());
        tokio::task::spawn_blocking(move || lists.bring(&config)).await?
    }

    /// Counts changes of the maps.
    pub fn changes(&self) -> u64 {
        self.dataplane.changes()
    }

    pub fn keep_time(&mut self, now: Instant) {
        self.dataplane.keep_time(now);
    }

    pub fn ticks(&self) -> u32 {
        self.dataplane.ticks()
    }

    /// Brings the maps to a configuration; `facts` tells those about a farm's backends, by the ways to them.
    ///
    /// # Errors
    ///
    /// If it does not fit or the kernel refuses. The maps may then be anywhere on the way.
    pub fn bring(
        &mut self,
        config: &Config,
        facts: impl Fn(&Farm, &Ways) -> Vec<BackendFacts>,
    ) -> anyhow::Result<()> {
        let mut desired = Desired::of(config, |farm| facts(farm, self.surroundings.ways()));
        desired.former_vips = self.former_vips.iter().map(mapped).collect();
        desired.leaving_vips = self.surroundings.ours().iter().map(|&vip| mapped(vip)).collect();
        desired.paths.clone_from(self.surroundings.ways().paths());
        let (sweeping, changes) = (&self.sweeping, self.dataplane.changes());
        let hops = self.surroundings.ways().hops();
        self.dataplane.reconcile(&desired, hops, |number| sweeping.is_borne(number, changes))?;
        self.vitals.follows(None);
        Ok(())
    }

    /// As [`Forwarding::bring`], for changes that nobody waits for: what fails is tried again.
    pub fn follow(&mut self, config: &Config, facts: impl Fn(&Farm, &Ways) -> Vec<BackendFacts>) {
        if let Err(error) = self.bring(config, facts) {
            if !self.dataplane.is_behind() {
                tracing::error!("the data plane does not follow, trying again: {error:#}");
            }
            self.dataplane.set_behind();
            self.vitals.follows(Some(format!("{error:#}")));
        }
    }

    /// Forgets what its time is over of; whether the maps are to follow once more.
    pub fn is_due(&mut self, now: Instant) -> bool {
        self.former_vips.forget(now) | self.dataplane.is_behind()
    }

    /// Remembers the VIPs that `old` has and `new` has not: these.
    pub fn remember_vips(&mut self, old: &Config, new: &Config, now: Instant) -> Vec<IpAddr> {
        self.former_vips.remember(old, new, now)
    }

    /// The VIPs that were to go stay after all.
    pub fn keep_vips(&mut self, gone: &[IpAddr]) {
        self.former_vips.stay(gone);
    }
}

/// The network.
impl Forwarding {
    /// The next news; `None` when the task has ended. Cancel-safe.
    pub async fn news(&mut self) -> Option<News> {
        self.surroundings.next().await
    }

    /// Takes what the network's task has found, and brings the interfaces to it; what is to be told.
    pub fn take_news(&mut self, config: &Config, news: News) -> Vec<Told> {
        let (names, mode) = (&config.daemon.interfaces, config.daemon.xdp_mode);
        let turns = network::turns(names, self.surroundings.links(), &news.links);
        self.dataplane.follow_links(names, mode, &news.links);
        self.surroundings.take(news, clock::wall(), |hop| self.dataplane.interfaces().admits(hop));
        let told = |(level, message)| Told::new(level, EventKind::Interface, message);
        turns.into_iter().map(told).collect()
    }

    /// Tells the network's task what is wanted; up to which number it must have tried to have done it.
    pub fn want(&self, config: &Config) -> u64 {
        self.surroundings.want(network::wanted(config, self.dataplane.backend_addresses()))
    }

    /// Has it look for what `new` needs besides, without putting anything in place; up to which number it must have tried, if
    /// anything is unknown.
    pub fn look_around(&self, config: &Config, new: &Config) -> Option<u64> {
        let next = network::wanted(new, self.dataplane.backend_addresses());
        let unknown = !self.surroundings.knows(&next.backends);
        let mut meanwhile = network::wanted(config, next.backends);
        meanwhile.interfaces = next.interfaces;
        let of = self.surroundings.want(meanwhile);
        unknown.then_some(of)
    }

    /// Up to which number what was wanted has been tried.
    pub fn tried(&self) -> u64 {
        self.surroundings.tried()
    }

    /// The ways to backends.
    pub fn ways(&self) -> &Ways {
        self.surroundings.ways()
    }

    /// The interfaces of those names that are not there.
    pub fn missing<'a>(&self, names: &'a [String]) -> Vec<&'a String> {
        let there = |name: &String| self.surroundings.links().iter().any(|link| link.name == *name);
        names.iter().filter(|name| !there(name)).collect()
    }

    /// Every interface that is wanted, those included that are missing.
    pub fn interface_states(&self, names: &[String]) -> Vec<InterfaceState> {
        self.dataplane.interfaces().states(names, self.surroundings.links())
    }

    /// Takes all of it away.
    ///
    /// # Errors
    ///
    /// If something stays.
    pub async fn end(self) -> anyhow::Result<()> {
        self.surroundings.end().await;
        self.dataplane.remove()
    }

    pub fn into_datapath(self) -> Datapath {
        self.dataplane.into_datapath()
    }
}

/// The connections.
impl Forwarding {
    /// Sweeps the next slice of the tables beside the loop, of so many farms.
    pub fn sweep(&mut self, jobs: &Jobs, farms: usize) {
        self.sweeping.go_on(jobs, self.dataplane.reader(), farms, self.dataplane.changes());
    }

    /// Sweeps all there is, if connections were there before the daemon, whose numbers it must know.
    pub fn sweep_adopted(&mut self, farms: usize) {
        if self.dataplane.adopted() && !self.dataplane.upgraded() {
            self.sweeping.at_once(&self.dataplane.reader(), farms);
        }
    }

    /// Takes a slice's end; whether a round is over, and if so whether numbers may have come free.
    pub fn take_sweep(&mut self, sweeper: Box<Sweeper>, round: Option<Box<Sweep>>) -> Option<bool> {
        let freed = self.sweeping.take(sweeper, round)?;
        self.vitals.swept();
        Some(freed)
    }

    /// A slice has broken off.
    pub fn sweep_broke(&mut self) {
        self.sweeping.broke();
    }

    /// Whether connections bear a backend's number, or may.
    pub fn is_borne(&self, backend: u16) -> bool {
        self.sweeping.is_borne(Number::Backend(backend), self.dataplane.changes())
    }

    /// Connections of a backend, by number.
    pub fn live(&self, backend: u16) -> u64 {
        self.sweeping.live(backend)
    }

    /// The connection tables, as of the last round.
    pub fn tables(&self) -> Tables {
        self.dataplane.tables(&self.sweeping.found().tables)
    }

    /// What is to be told of the last round: tables that are crowded, farms that are flooded.
    pub fn told_by_sweep(&mut self, config: &Config) -> Vec<Told> {
        let crowds = self.sweeping.crowds(&self.tables().families);
        let crowds = crowds.into_iter().map(|(warning, message)| {
            let level = if warning { EventLevel::Warning } else { EventLevel::Info };
            Told::new(level, EventKind::ConnectionTable, message)
        });
        let mut told: Vec<Told> = crowds.collect();
        let farms = config.farms.iter();
        let farms = farms.filter_map(|farm| Some((self.dataplane.farm_id(&farm.name)?, &farm.name)));
        told.extend(self.sweeping.floods(farms).iter().map(|(farm, flood)| words::flood(farm, flood)));
        told
    }
}
