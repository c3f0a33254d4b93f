//! The daemon's loop: everything that can wake it is one [`Event`], and each event ends with the maps following the latest
//! state.
//!
//! One task owns [`Daemon`] and with it every map, the configuration, health as last reported, and what operators have set.
//! Checks, the sweep of the connection tables and the API run beside it and talk to it by channels. Cancelled, it leaves
//! everything in the kernel as it is: the next daemon adopts it.

mod commands;
mod departed;
mod describe;
mod health;
mod network;
mod passive;
mod publish;
mod sweep;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use lb_core::config::model::{BackendName, Config, FarmName};
use lb_core::desired::{Desired, NextHops, mapped};
use lb_core::diff::{Numbers, Observed, Planner};
use lb_core::state::{EventKind, EventLevel, News, Peer, Snapshot, Tables};
use tokio::sync::{mpsc, watch};

use crate::checks::{BackendHealth, Judgement, Runner};
use crate::clock::{self, KeptTime, Passed};
use crate::config::{DefectWatch, FileWatch};
use crate::datapath::{Attached, Datapath, Reader, Registered, Sweep};
use crate::handle::{Events, Format, Handle, Order};
use crate::hooks::Hooks;
use crate::netlink::{Change, Changes, Link, Netlink};
use crate::overrides::Overrides;
use crate::signals::{Asked, Signals};
use crate::supervise::{Ended, Endings, Supervisor};

/// How often the data plane's clock is set, and the next part of the connection tables swept.
const TICK: Duration = Duration::from_millis(lb_common::abi::TICK_MILLISECONDS as u64);
/// News of neighbours come in flocks.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Backends are resolved again even without news.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);

/// Everything that can wake the daemon.
enum Event {
    Command(Order),
    Health(BackendHealth),
    Network(Change),
    /// A backend that went down has had its connections cut.
    Cut(health::Down),
    /// The clock is to be set, and whatever is due by now is to be done.
    Tick,
    Asked(Asked),
    /// A task is no more that the daemon cannot do without.
    Ended(Ended),
}

/// A backend of a farm.
type BackendKey = (FarmName, BackendName);

/// What is known of a backend's health.
#[derive(Debug, Clone)]
struct Health {
    status: Judgement,
    reason: String,
    since: SystemTime,
}

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
    health: HashMap<BackendKey, Health>,
    departed: departed::AllDeparted,
    /// VIPs that were taken away, and until when the program knows them.
    former_vips: BTreeMap<IpAddr, Instant>,
    /// What the traffic says of backends, and who is out on its word.
    passive: passive::Passive,
    /// Backends that start slowly: since when, and how much of their weight counts by now, in percent.
    ramps: BTreeMap<BackendKey, (Instant, u8)>,

    datapath: Datapath,
    reader: Arc<Reader>,
    observed: Observed,
    /// Of what is observed.
    numbers: Numbers,
    planner: Planner,
    /// A change could not be brought into the maps; it is tried again.
    behind: bool,

    netlink: Netlink,
    links: Vec<Link>,
    /// Interfaces as the program last was told of them, by name.
    registered: BTreeMap<String, Registered>,
    attached: BTreeMap<u32, Attached>,
    hops: NextHops,
    /// Why there is no next hop, of those without.
    unresolved: BTreeMap<IpAddr, String>,
    resolve_at: Instant,
    /// VIPs in place, and by which interface.
    vips: BTreeMap<IpAddr, u32>,
    announce_again: Option<Instant>,

    runner: Runner,
    /// What the last round of the sweep has found.
    sweep: Sweep,
    sweeping: sweep::Sweeping,
    cut: mpsc::UnboundedSender<health::Down>,
    /// Counts changes of the maps; how many of them came before the last sweep, and before the one under way.
    changes: u64,
    swept_changes: u64,
    sweeping_changes: u64,
    clock: KeptTime,

    hooks: Hooks,
    events: Arc<Events>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    commands: mpsc::Sender<Order>,
    /// Whose command is being carried out.
    by: Option<Peer>,
    inbox: Inbox,
}

/// The receiving ends of all that wakes the daemon.
struct Inbox {
    commands: mpsc::Receiver<Order>,
    health: mpsc::Receiver<BackendHealth>,
    changes: Changes,
    cut: mpsc::UnboundedReceiver<health::Down>,
    ticks: tokio::time::Interval,
    signals: Signals,
    endings: Endings,
}

/// What the daemon is started with: a valid configuration, and a data plane that is loaded.
pub struct Start {
    pub config: Config,
    pub config_path: PathBuf,
    pub text: Arc<str>,
    pub format: Format,
    pub datapath: Datapath,
    pub reader: Reader,
    pub overrides: Overrides,
    pub netlink: Netlink,
    pub changes: Changes,
    pub signals: Signals,
    pub supervisor: Supervisor,
    pub endings: Endings,
}

impl Daemon {
    /// Takes everything over, brings the maps to the configuration, attaches the program, puts the VIPs in place, and starts
    /// the checks. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// What stands in the way. What was adopted goes on as it was; what is new is for the caller to remove.
    pub async fn start(start: Start) -> Result<Self, (anyhow::Error, Datapath)> {
        let Start { config, config_path, text, format, mut datapath, reader, overrides, .. } = start;
        let Start { mut netlink, changes, signals, supervisor, endings, .. } = start;
        netlink.watch(&supervisor);
        let prepared = prepare(&config, &mut datapath, &netlink).await;
        let (observed, links, registered, attached) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Err((error, datapath)),
        };
        let (commands, command_inbox) = mpsc::channel(64);
        let (health, health_inbox) = mpsc::channel(256);
        let (cut, cut_inbox) = mpsc::unbounded_channel();
        let mut runner = Runner::spawn(health);
        runner.watch(&supervisor);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let now = clock::now();
        let clock = KeptTime::new(datapath.maps.control.now(), now);
        let started = clock::wall();
        let config = Arc::new(config);
        let empty = Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            started,
            generation: 1,
            config: config.clone(),
            text: text.clone(),
            config_path: config_path.display().to_string(),
            interfaces: Vec::new(),
            tables: Tables::default(),
            farms: Vec::new(),
        };
        let (snapshots, events) = (watch::channel(Arc::new(empty)).0, Arc::<Events>::default());
        let mut file = FileWatch::spawn(config_path.clone(), snapshots.subscribe(), events.clone());
        file.watch(&supervisor);
        let mut defects = DefectWatch::spawn(snapshots.subscribe(), events.clone());
        defects.watch(&supervisor);
        let mut daemon = Self {
            config,
            config_path,
            text,
            format,
            file,
            defects,
            generation: 1,
            started,
            overrides,
            touched: HashMap::new(),
            health: HashMap::new(),
            departed: departed::AllDeparted::new(),
            former_vips: BTreeMap::new(),
            passive: passive::Passive::default(),
            ramps: BTreeMap::new(),
            datapath,
            reader: Arc::new(reader),
            numbers: observed.numbers(),
            observed,
            planner: Planner::default(),
            behind: false,
            netlink,
            links,
            registered,
            attached,
            hops: NextHops::new(),
            unresolved: BTreeMap::new(),
            resolve_at: now,
            vips: BTreeMap::new(),
            announce_again: None,
            runner,
            sweep: Sweep::default(),
            sweeping: sweep::Sweeping::default(),
            cut,
            changes: 0,
            swept_changes: 0,
            sweeping_changes: 0,
            clock,
            hooks: Hooks::default(),
            events,
            snapshots,
            commands,
            by: None,
            inbox: Inbox {
                commands: command_inbox,
                health: health_inbox,
                changes,
                cut: cut_inbox,
                ticks,
                signals,
                endings,
            },
        };
        match daemon.take_up().await {
            Ok(()) => Ok(daemon),
            Err(error) => Err((error, daemon.datapath)),
        }
    }

    /// The first reconciliation: health of the daemon before, next hops, maps, VIPs, checks.
    async fn take_up(&mut self) -> anyhow::Result<()> {
        if self.datapath.upgraded {
            // The maps have no time-outs yet but the defaults: nobody is to be forgotten by those.
            self.changes += 1;
        } else if self.datapath.adopted {
            self.sweep_at_once();
        }
        self.adopt_health();
        self.resolve().await;
        self.remove_unwanted_vips().await;
        self.reconcile()?;
        self.place_vips().await;
        self.watch_backends(true);
        let how =
            if self.datapath.adopted { "adopted the running data plane" } else { "loaded the data plane" };
        let interfaces: Vec<String> = self
            .attached
            .values()
            .map(|attached| format!("{} ({})", attached.interface, attached.mode()))
            .collect();
        let message =
            format!("drover {} started: {how}, on {}", env!("CARGO_PKG_VERSION"), interfaces.join(", "));
        self.tell(EventLevel::Info, EventKind::DaemonStarted, None, None, message);
        self.publish();
        Ok(())
    }

    /// A hold on the daemon for the API.
    pub fn handle(&self) -> Handle {
        Handle {
            commands: self.commands.clone(),
            snapshots: self.snapshots.subscribe(),
            events: self.events.clone(),
            dataplane: self.reader.clone(),
            checks: self.runner.checks(),
            file: self.file.state(),
            defects: self.defects.defects(),
        }
    }

    /// Runs until it is told to stop. With `stay`, packets go on flowing without it; else the data plane is removed.
    ///
    /// # Errors
    ///
    /// If something could not be taken away at the end.
    pub async fn run(mut self, stay: bool) -> anyhow::Result<()> {
        loop {
            let event = self.inbox.next().await;
            match event {
                Event::Command(order) => self.command(order).await,
                Event::Health(health) => self.judged(health),
                Event::Network(change) => self.network_changed(change),
                Event::Cut(down) => self.tell_down(&down),
                Event::Tick => self.ticked().await,
                Event::Asked(Asked::Reload) => {
                    if let Err(refusal) = self.reload().await {
                        tracing::warn!("the configuration stays as it is: {refusal}");
                    }
                }
                Event::Asked(Asked::Stop(by)) => return self.stop(by, stay).await,
                Event::Ended(ended) => return self.bereft(&ended),
            }
        }
    }

    /// Sets the clock, and does whatever is due.
    async fn ticked(&mut self) {
        let now = clock::now();
        match self.clock.keep(now) {
            Passed::Ticks(0) => {}
            Passed::Ticks(_) => self.datapath.set_clock(self.clock.ticks()),
            Passed::Gap(gap) => {
                tracing::warn!(?gap, "the clock of the data plane stood still; connections age from now on");
            }
        }
        if now >= self.resolve_at {
            self.settle_network().await;
        }
        self.take_pulses(now);
        // All of them, whatever the first one says.
        if self.ramp_up(now) | self.forget_vips(now) | self.behind {
            self.follow();
        }
        if self.announce_again.is_some_and(|at| now >= at) {
            self.announce_again = None;
            self.announce_all();
        }
        self.sweep_on().await;
    }

    /// Brings the maps to the present state.
    ///
    /// # Errors
    ///
    /// If it does not fit or the kernel refuses. The maps may then be anywhere on the way.
    fn reconcile(&mut self) -> anyhow::Result<()> {
        let mut desired = Desired::of(&self.config, |farm| self.facts(farm));
        desired.former_vips = self.former_vips.keys().map(|&vip| mapped(vip)).collect();
        // Taken out for the while, since it changes and the rest is read.
        let mut planner = std::mem::take(&mut self.planner);
        let ops = planner.plan(&self.observed, &desired, &self.hops, |number| self.is_borne(number));
        self.planner = planner;
        let ops = ops?;
        if !ops.is_empty() {
            tracing::debug!(operations = ops.len(), "changing the maps");
            self.changes += 1;
        }
        let applied = self.datapath.apply(&mut self.observed, &ops);
        if !ops.is_empty() {
            self.numbers = self.observed.numbers();
        }
        applied?;
        self.behind = false;
        Ok(())
    }

    /// As [`Daemon::reconcile`], for changes that nobody waits for: what fails is tried again.
    fn follow(&mut self) {
        if let Err(error) = self.reconcile() {
            if !self.behind {
                tracing::error!("the data plane does not follow, trying again: {error:#}");
            }
            self.behind = true;
        }
    }

    /// Ends: what the daemon put in place is taken away, or left to go on without it.
    async fn stop(mut self, by: &'static str, stay: bool) -> anyhow::Result<()> {
        let how = if stay { "packets go on flowing" } else { "taking the data plane away" };
        self.tell(EventLevel::Info, EventKind::DaemonStopping, None, None, format!("stopping ({by}): {how}"));
        if stay {
            return Ok(());
        }
        let vips = std::mem::take(&mut self.vips).into_iter().map(|(vip, ifindex)| (ifindex, vip)).collect();
        self.take_vips_away(vips).await;
        drop(self.runner);
        self.datapath.remove()
    }

    /// Ends, as one who cannot see any more must not say that all is well. The next daemon takes over what is there.
    fn bereft(self, ended: &Ended) -> anyhow::Result<()> {
        let message = format!(
            "{ended}, and the daemon does not go on without it; packets go on flowing as they do now"
        );
        self.tell(EventLevel::Error, EventKind::TaskEnded, None, None, message.clone());
        Err(anyhow::Error::msg(message))
    }

    /// Keeps an event, tells those who follow, and logs it.
    fn tell(
        &self,
        level: EventLevel,
        kind: EventKind,
        farm: Option<&FarmName>,
        backend: Option<&BackendName>,
        mut message: String,
    ) {
        if let Some(by) = self.by {
            message += &format!(" ({by})");
        }
        match level {
            EventLevel::Info => tracing::info!("{message}"),
            EventLevel::Warning => tracing::warn!("{message}"),
            EventLevel::Error => tracing::error!("{message}"),
        }
        let news = News {
            level,
            kind,
            farm: farm.map(FarmName::as_str),
            backend: backend.map(BackendName::as_str),
            by: self.by,
            message,
        };
        let event = self.events.publish(|log| log.push(clock::wall(), news));
        // Events that name a backend are changes of its state.
        if let (Some(farm), Some(_)) = (farm, backend) {
            self.call_hooks(farm, event);
        }
    }

    fn call_hooks(&self, farm: &FarmName, event: lb_core::state::Event) {
        let Some(config) = self.config.farm(farm.as_str()) else { return };
        if config.on_change.is_empty() {
            return;
        }
        match serde_json::to_string(&crate::api::types::Event::new(&event)) {
            Ok(json) => config.on_change.iter().for_each(|hook| self.hooks.notify(farm, hook, json.clone())),
            Err(error) => tracing::error!("cannot write an event as JSON: {error}"),
        }
    }
}

impl Inbox {
    /// Cancel-safe, as each of its parts is.
    async fn next(&mut self) -> Event {
        tokio::select! {
            Some(command) = self.commands.recv() => Event::Command(command),
            Some(health) = self.health.recv() => Event::Health(health),
            change = self.changes.next() => match change {
                Some(change) => Event::Network(change),
                None => Event::Ended(Ended { task: "the network's news", how: "has ended".to_owned() }),
            },
            Some(down) = self.cut.recv() => Event::Cut(down),
            _ = self.ticks.tick() => Event::Tick,
            asked = self.signals.next() => Event::Asked(asked),
            Some(ended) = self.endings.recv() => Event::Ended(ended),
        }
    }
}

/// What is there before the daemon changes anything.
type Prepared = (Observed, Vec<Link>, BTreeMap<String, Registered>, BTreeMap<u32, Attached>);

/// Reads what the maps hold, and attaches the program to every interface.
async fn prepare(config: &Config, datapath: &mut Datapath, netlink: &Netlink) -> anyhow::Result<Prepared> {
    let links = netlink.links().await.context("cannot list the network interfaces")?;
    let mut observed = datapath.observe()?;
    let registered = network::registrations(&config.daemon.interfaces, &links, &BTreeMap::new());
    // Before the first packet.
    datapath.register(&registered.values().copied().collect::<Vec<_>>())?;
    let upgrade = datapath.upgrade()?;
    if let Some(upgrade) = &upgrade {
        upgrade.begin(datapath, &mut observed)?;
    }
    let mut attached = BTreeMap::new();
    for name in &config.daemon.interfaces {
        let link = links.iter().find(|link| link.name == *name);
        let link = link.ok_or_else(|| crate::datapath::AttachError::NoInterface(name.clone()))?;
        attached.insert(link.index, datapath.attach(name, link.index, config.daemon.xdp_mode)?);
    }
    let all: Vec<Attached> = attached.values().cloned().collect();
    datapath.detach_others(&all)?;
    if let Some(upgrade) = upgrade {
        upgrade.finish(datapath)?;
    }
    datapath.pin_program()?;
    Ok((observed, links, registered, attached))
}
