//! The state as others see it: one snapshot after each change.

use std::sync::Arc;

use lb_core::config::model::{Backend, Farm};
use lb_core::desired::BackendFacts;
use lb_core::standing::Ground;
use lb_core::state::{AdminState, BackendState, FarmState, FarmStatus, Snapshot, Traffic};

use super::Daemon;

/// A number that the data plane does not give: nothing is found under it.
const NO_ID: u16 = u16::MAX;

impl Daemon {
    /// Publishes the present state. Cheap enough to be called after every change.
    pub(super) fn publish(&self) {
        let snapshot = Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            started: self.started,
            generation: self.generation,
            config: self.config.clone(),
            text: self.text.clone(),
            config_path: self.config_path.display().to_string(),
            interfaces: {
                let names = &self.config.daemon.interfaces;
                self.dataplane.interface_states(names, self.surroundings.links())
            },
            tick_lateness: self.tick_lateness.clone(),
            tables: self.dataplane.tables(&self.sweeping.found().tables),
            farms: self.config.farms.iter().map(|farm| self.farm_state(farm)).collect(),
        };
        self.snapshots.send_replace(Arc::new(snapshot));
    }

    fn farm_state(&self, farm: &Farm) -> FarmState {
        let pairs = farm.backends.iter().zip(self.facts(farm));
        let backends: Vec<BackendState> =
            pairs.map(|(backend, facts)| self.backend_state(farm, backend, facts)).collect();
        FarmState {
            name: farm.name.clone(),
            id: self.dataplane.farm_id(&farm.name).unwrap_or(NO_ID),
            status: FarmStatus::of(farm.enabled, backends.iter().map(|it| (it.status, it.weight))),
            backends,
        }
    }

    fn backend_state(&self, farm: &Farm, backend: &Backend, facts: BackendFacts) -> BackendState {
        let key = (farm.name.clone(), backend.name.clone());
        let id = self.backend_id(farm, backend).filter(|_| farm.enabled);
        let touched = self.touched.get(&key).copied().unwrap_or(self.started);
        let (reason, ground) = self.known(farm, backend, &key).reason(facts.status);
        let since = match ground {
            Ground::Judgement => self.judgements.of(&key).map(|health| health.since),
            Ground::Reach => self.surroundings.ways().lack_since(&backend.address),
            Ground::Setting => None,
        };
        BackendState {
            name: backend.name.clone(),
            id: id.unwrap_or(NO_ID),
            status: facts.status,
            admin: self.admin(&key),
            weight: facts.weight,
            since: since.unwrap_or(touched),
            reason,
            connections: id.map_or(0, |id| self.sweeping.live(id)),
            // Whoever wants to know reads it beside the loop: `Handle::measured`.
            traffic: Traffic::default(),
            unresolved: self.surroundings.ways().unreached(&backend.address),
        }
    }

    fn admin(
        &self,
        (farm, backend): &(lb_core::config::model::FarmName, lb_core::config::model::BackendName),
    ) -> AdminState {
        self.overrides.get(farm, backend).admin
    }
}
