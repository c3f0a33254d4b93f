//! What the checks report, what operators have set, and what follows for a backend.

use std::collections::BTreeSet;

use lb_common::abi::{BackendLabel, Label};
use lb_core::config::model::{Backend, BackendName, Farm, FarmName};
use lb_core::desired::BackendFacts;
use lb_core::state::{AdminState, BackendStatus, EventKind, EventLevel};

use super::{Daemon, Health, describe};
use crate::checks::{BackendHealth, Judgement, targets};

impl Daemon {
    /// A backend's status and weight, as of now.
    pub(super) fn facts(&self, farm: &FarmName, backend: &BackendName) -> BackendFacts {
        let found = self.find(farm, backend);
        let set = self.overrides.get(farm, backend);
        let weight = set.weight.or(found.map(|(_, backend)| backend.weight)).unwrap_or(0);
        BackendFacts { status: self.status(found.map(|(farm, _)| farm), farm, backend), weight }
    }

    fn status(&self, config: Option<&Farm>, farm: &FarmName, backend: &BackendName) -> BackendStatus {
        match self.overrides.get(farm, backend).admin {
            AdminState::Drain => return BackendStatus::Draining,
            AdminState::Maintenance => return BackendStatus::Maintenance,
            AdminState::Up => {}
        }
        if config.is_some_and(|farm| farm.checks.is_empty()) {
            return BackendStatus::Unchecked;
        }
        match self.health.get(&(farm.clone(), backend.clone())).map(|health| health.status) {
            Some(Judgement::Up) => BackendStatus::Up,
            Some(Judgement::Down) => BackendStatus::Down,
            Some(Judgement::Starting) | None => BackendStatus::Starting,
        }
    }

    pub(super) fn find(&self, farm: &FarmName, backend: &BackendName) -> Option<(&Farm, &Backend)> {
        let farm = self.config.farm(farm.as_str())?;
        Some((farm, farm.backends.iter().find(|candidate| candidate.name == *backend)?))
    }

    /// The number by which the data plane knows a backend.
    pub(super) fn backend_id(&self, farm: &Farm, backend: &Backend) -> Option<u16> {
        let label =
            BackendLabel { farm: Label::new(farm.name.as_str())?, name: Label::new(backend.name.as_str())? };
        self.observed.backend_id(&label, &backend.address, backend.port)
    }

    /// Whether the daemon before this one sent traffic to a backend.
    fn was_serving(&self, farm: &Farm, backend: &Backend) -> bool {
        let id = self.backend_id(farm, backend);
        id.and_then(|id| self.observed.backends.get(&id)).is_some_and(|(_, entry)| entry.serving != 0)
    }

    /// Backends that the daemon before this one held to be up stay up until a check says otherwise.
    pub(super) fn adopt_health(&mut self) {
        let enabled = self.config.farms.iter().filter(|farm| farm.enabled);
        let pairs = enabled.flat_map(|farm| farm.backends.iter().map(move |backend| (farm, backend)));
        let adopted =
            pairs.filter(|(farm, backend)| self.was_serving(farm, backend)).map(|(farm, backend)| {
                let health = Health {
                    status: Judgement::Up,
                    reason: "held to be up by the daemon before this one".to_owned(),
                    since: self.started,
                };
                ((farm.name.clone(), backend.name.clone()), health)
            });
        self.health = adopted.collect();
    }

    /// Tells the checks what to probe. `adopting`: the board knows nothing yet, the maps may.
    pub(super) fn watch_backends(&mut self, adopting: bool) {
        let config = self.config.clone();
        let targets = targets(&config, |farm, backend, _| {
            let found = if adopting { self.find(farm, backend) } else { None };
            found.is_some_and(|(farm, backend)| self.was_serving(farm, backend))
        });
        let watched: BTreeSet<_> =
            targets.iter().map(|target| (target.farm.clone(), target.backend.clone())).collect();
        self.health.retain(|key, _| watched.contains(key));
        self.runner.set_targets(targets);
    }

    /// A check has changed its mind about a backend, or its words.
    pub(super) fn judged(&mut self, news: BackendHealth) {
        let BackendHealth { farm, backend, status, reason, since } = news;
        // The configuration may have changed while the report was on its way.
        if self.find(&farm, &backend).is_none() {
            return;
        }
        let key = (farm.clone(), backend.clone());
        let before =
            self.health.insert(key, Health { status, reason: reason.clone(), since }).map(|h| h.status);
        if before == Some(status) || (before.is_none() && status == Judgement::Starting) {
            return self.publish();
        }
        self.follow();
        self.tell_health(&farm, &backend, before, status, &reason);
        self.publish();
    }

    fn tell_health(
        &self,
        farm: &FarmName,
        name: &BackendName,
        before: Option<Judgement>,
        now: Judgement,
        reason: &str,
    ) {
        let Some((config, backend)) = self.find(farm, name) else { return };
        let who = describe::backend(config, backend);
        let phrase = |verb: &str| format!("BackEnd {who} {verb} in farm: '{farm}': {reason}");
        match now {
            Judgement::Up => {
                let verb = if before == Some(Judgement::Down) { "resurrect" } else { "up" };
                self.tell(EventLevel::Info, EventKind::BackendUp, Some(farm), Some(name), phrase(verb));
            }
            Judgement::Down => {
                let heirs: Vec<&str> = config
                    .backends
                    .iter()
                    .filter(|heir| {
                        let facts = self.facts(farm, &heir.name);
                        facts.status.serves() && facts.weight > 0
                    })
                    .map(|heir| heir.name.as_str())
                    .collect();
                let live = self.backend_id(config, backend).and_then(|id| self.sweep.live.get(&id)).copied();
                let message = format!(
                    "{}; new connections go to {}; it keeps {}",
                    phrase("down"),
                    describe::list(&heirs),
                    describe::count(live.unwrap_or(0), "connection"),
                );
                self.tell(EventLevel::Warning, EventKind::BackendDown, Some(farm), Some(name), message);
            }
            Judgement::Starting => {}
        }
    }
}
