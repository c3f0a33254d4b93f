//! The daemon's start: it takes over what is there, and brings it to the configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lb_core::config::model::Config;
use tokio::sync::mpsc;

use super::changes::Changing;
use super::dataplane::Dataplane;
use super::forwarding::Forwarding;
use super::in_force::InForce;
use super::jobs::Jobs;
use super::network::{self, Surroundings};
use super::operators::Operators;
use super::publish::Publisher;
use super::service::{Beginning, Service};
use super::tell::Telling;
use super::{Daemon, Inbox, TICK};
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
        let mut checks = Runner::spawn(health);
        checks.watch(&supervisor);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let in_force = InForce::new(Arc::new(config), text, format, config_path);
        let vitals = Arc::<Vitals>::default();
        let (publisher, events) = (Publisher::new(&in_force, clock::wall()), Arc::<Events>::default());
        let path = in_force.path().to_owned();
        let mut file = FileWatch::spawn(path, publisher.subscribe(), events.clone());
        file.watch(&supervisor);
        let mut defects = DefectWatch::spawn(publisher.subscribe(), events.clone());
        defects.watch(&supervisor);
        let mut network = follow_network(in_force.config(), &dataplane, netlink, changes);
        network.watch(&supervisor);
        let surroundings = Surroundings::new(network, links, dataplane.hops());
        let mut service = Service::new(Beginning {
            in_force,
            forwarding: Forwarding::new(dataplane, surroundings, vitals.clone()),
            operators: Operators::new(overrides),
            checks,
            jobs,
            telling: Telling::new(events, Hooks::new(vitals)),
            publisher,
        });
        if let Err(error) = service.take_up(NETWORK_WITHIN).await {
            return Err((error, service.into_datapath()));
        }
        let inbox = Inbox { commands: command_inbox, health: health_inbox, done, ticks, signals, endings };
        Ok(Self { service, changing: Changing::default(), file, defects, commands, inbox })
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
