//! The state as others see it: one snapshot after each change.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lb_core::config::model::{Backend, Farm};
use lb_core::desired::BackendFacts;
use lb_core::state::tables::Tables;
use lb_core::state::{BackendState, FarmState, FarmStatus, Histogram, Snapshot, Traffic};
use tokio::sync::watch;

use super::forwarding::Forwarding;
use super::in_force::InForce;
use super::voices::{Said, Voices};

/// A number that the data plane does not give: nothing is found under it.
const NO_ID: u16 = u16::MAX;

/// See the module.
pub(super) struct Publisher {
    snapshots: watch::Sender<Arc<Snapshot>>,
    started: SystemTime,
    tick_lateness: Histogram,
}

/// What a snapshot is made of.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub in_force: &'a InForce,
    pub forwarding: &'a Forwarding,
    pub voices: Voices<'a>,
}

impl Publisher {
    /// Nothing is published yet but that the daemon starts.
    pub fn new(in_force: &InForce, started: SystemTime) -> Self {
        let empty = Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            started,
            generation: in_force.generation(),
            config: in_force.config().clone(),
            text: in_force.text().clone(),
            config_path: in_force.path().display().to_string(),
            interfaces: Vec::new(),
            tables: Tables::default(),
            tick_lateness: Histogram::default(),
            farms: Vec::new(),
        };
        let (snapshots, tick_lateness) = (watch::channel(Arc::new(empty)).0, Histogram::default());
        Self { snapshots, started, tick_lateness }
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.subscribe()
    }

    /// When the daemon started.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// A tick came so late.
    pub fn note_tick(&mut self, late: Duration) {
        self.tick_lateness.record(late);
    }

    /// Publishes the present state. Cheap enough to be called after every change.
    pub fn publish(&self, view: View<'_>) {
        let View { in_force, forwarding, .. } = view;
        let config = in_force.config();
        let snapshot = Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            started: self.started,
            generation: in_force.generation(),
            config: config.clone(),
            text: in_force.text().clone(),
            config_path: in_force.path().display().to_string(),
            interfaces: forwarding.interface_states(&config.daemon.interfaces),
            tick_lateness: self.tick_lateness.clone(),
            tables: forwarding.tables(),
            farms: config.farms.iter().map(|farm| view.farm(farm, self.started)).collect(),
        };
        self.snapshots.send_replace(Arc::new(snapshot));
    }
}

impl View<'_> {
    fn farm(&self, farm: &Farm, started: SystemTime) -> FarmState {
        let pairs = farm.backends.iter().zip(self.voices.facts(farm));
        let backends: Vec<BackendState> =
            pairs.map(|(backend, facts)| self.backend(farm, backend, facts, started)).collect();
        FarmState {
            name: farm.name.clone(),
            id: self.forwarding.farm_id(&farm.name).unwrap_or(NO_ID),
            status: FarmStatus::of(farm.enabled, backends.iter().map(|it| (it.status, it.weight))),
            backends,
        }
    }

    fn backend(
        &self,
        farm: &Farm,
        backend: &Backend,
        facts: BackendFacts,
        started: SystemTime,
    ) -> BackendState {
        let id = self.forwarding.backend_id(farm, backend).filter(|_| farm.enabled);
        let Said { admin, reason, since } = self.voices.said(farm, backend, facts.status);
        BackendState {
            name: backend.name.clone(),
            id: id.unwrap_or(NO_ID),
            status: facts.status,
            admin,
            weight: facts.weight,
            since: since.unwrap_or(started),
            reason,
            connections: id.map_or(0, |id| self.forwarding.live(id)),
            // Whoever wants to know reads it beside the loop: `Handle::measured`.
            traffic: Traffic::default(),
            unresolved: self.forwarding.ways().unreached(farm.mode, &backend.address),
        }
    }
}
