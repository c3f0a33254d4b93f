//! The daemon's start: it takes over what is there, and brings it to the configuration.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lb_core::config::model::Config;
use lb_core::state::{EventKind, EventLevel, Histogram, Snapshot, Tables};
use tokio::sync::{mpsc, watch};

use super::changing::Changing;
use super::dataplane::Dataplane;
use super::jobs::Jobs;
use super::judgements::Judgements;
use super::keeping::Keeping;
use super::network::{self, Surroundings};
use super::sweep::Sweeping;
use super::{Daemon, Inbox, TICK, departed, passive};
use crate::checks::Runner;
use crate::clock;
use crate::config::{DefectWatch, FileWatch};
use crate::datapath::{Datapath, Reader};
use crate::handle::{Events, Format};
use crate::hooks::Hooks;
use crate::netlink::{Changes, Netlink};
use crate::network::Network;
use crate::overrides::Overrides;
use crate::signals::Signals;
use crate::supervise::{Endings, Supervisor};
use crate::vitals::Vitals;

/// The network answers in hundredths of a second. A start does not wait for longer.
const NETWORK_WITHIN: Duration = Duration::from_secs(5);

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
        let Start { config, config_path, text, format, datapath, reader, overrides, .. } = start;
        let Start { mut netlink, changes, signals, supervisor, endings, .. } = start;
        netlink.watch(&supervisor);
        let prepared = Dataplane::prepare(&config, datapath, reader, &netlink, clock::now()).await;
        let (dataplane, links) = prepared?;
        let (commands, command_inbox) = mpsc::channel(64);
        let (health, health_inbox) = mpsc::channel(256);
        let (jobs, done) = Jobs::new();
        let mut runner = Runner::spawn(health);
        runner.watch(&supervisor);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
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
            tick_lateness: Histogram::default(),
            farms: Vec::new(),
        };
        let vitals = Arc::<Vitals>::default();
        let (snapshots, events) = (watch::channel(Arc::new(empty)).0, Arc::<Events>::default());
        let mut file = FileWatch::spawn(config_path.clone(), snapshots.subscribe(), events.clone());
        file.watch(&supervisor);
        let mut defects = DefectWatch::spawn(snapshots.subscribe(), events.clone());
        defects.watch(&supervisor);
        let mut network = follow_network(&config, &dataplane, netlink, changes);
        network.watch(&supervisor);
        let surroundings = Surroundings::new(network, links, dataplane.hops());
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
            judgements: Judgements::default(),
            departed: departed::AllDeparted::new(),
            former_vips: BTreeMap::new(),
            wayless: BTreeSet::new(),
            passive: passive::Passive::default(),
            dataplane,
            surroundings,
            runner,
            sweeping: Sweeping::default(),
            changing: Changing::default(),
            keeping: Keeping::default(),
            jobs,
            tick_lateness: Histogram::default(),
            running: false,
            hooks: Hooks::new(vitals.clone()),
            vitals,
            events,
            snapshots,
            commands,
            by: None,
            inbox: Inbox { commands: command_inbox, health: health_inbox, done, ticks, signals, endings },
        };
        match daemon.take_up().await {
            Ok(()) => Ok(daemon),
            Err(error) => Err((error, daemon.dataplane.into_datapath())),
        }
    }

    /// The first reconciliation: health of the daemon before, next hops, maps, VIPs, checks.
    async fn take_up(&mut self) -> anyhow::Result<()> {
        if self.dataplane.adopted() && !self.dataplane.upgraded() {
            self.sweeping.at_once(&self.dataplane.reader(), self.enabled_farms());
        }
        self.adopt_health();
        self.wait_for_network(1).await;
        self.reconcile()?;
        self.running = true;
        // Only when the maps know them: a packet for a VIP that came before would be answered by the host.
        let number = self.want();
        self.wait_for_network(number).await;
        self.watch_backends(|daemon, farm, backend, _| daemon.held_before(farm, backend));
        let config = self.config.clone();
        let how =
            if self.dataplane.adopted() { "adopted the running data plane" } else { "loaded the data plane" };
        let (version, on) = (env!("CARGO_PKG_VERSION"), self.dataplane.interfaces_text());
        let message = format!("drover {version} started: {how}, on {on}");
        self.tell(EventLevel::Info, EventKind::DaemonStarted, None, None, message);
        for name in &config.daemon.interfaces {
            if !self.surroundings.links().iter().any(|link| link.name == *name) {
                let message = format!(
                    "there is no interface '{name}' (`ip link` lists those that there are): nothing is served by it until it comes"
                );
                self.tell(EventLevel::Error, EventKind::Interface, None, None, message);
            }
        }
        self.publish();
        Ok(())
    }

    /// At the start nothing else is to be done before this. A network that does not answer is not waited for.
    async fn wait_for_network(&mut self, number: u64) {
        let told = async {
            while self.surroundings.tried() < number {
                match self.surroundings.next().await {
                    Some(news) => self.network_told(news),
                    None => return,
                }
            }
        };
        if tokio::time::timeout(NETWORK_WITHIN, told).await.is_err() {
            tracing::warn!("the network takes its time; the daemon starts without waiting for it");
        }
    }
}

/// Starts the task that follows the network. At first it puts nothing in place, but takes away what is no longer wanted: the
/// maps are to be brought to the configuration first.
fn follow_network(config: &Config, dataplane: &Dataplane, netlink: Netlink, changes: Changes) -> Network {
    let inherited = dataplane.managed_vips();
    let mut wanted = network::wanted(config, dataplane.backend_addresses());
    wanted.number = 1;
    wanted.vips.retain(|vip| inherited.contains(vip));
    Network::spawn(netlink, changes, inherited, wanted)
}
