//! What operators set on a backend by hand: saved first, then in force.

use lb_core::config::model::{BackendName, FarmName};
use lb_core::state::{AdminState, EventKind, EventLevel};

use super::{Daemon, describe};
use crate::clock;
use crate::handle::{BackendPatch, Refusal, Reply};
use crate::overrides::{Override, Overrides};
use crate::refusal::Failed;

/// One such change.
pub(super) struct Patch {
    farm: FarmName,
    backend: BackendName,
    before: Override,
    after: Override,
    /// All that is set, with the change.
    pub next: Overrides,
    reply: Reply<()>,
}

impl Patch {
    pub fn refuse(self, refusal: Refusal) {
        // Whoever asked may have left.
        self.reply.send(Err(refusal)).ok();
    }
}

impl Daemon {
    pub(super) fn begin_patch(
        &mut self,
        number: u64,
        farm: FarmName,
        name: BackendName,
        patch: BackendPatch,
        reply: Reply<()>,
    ) {
        let Some((_, backend)) = self.find(&farm, &name) else {
            return drop(reply.send(Err(self.whom_instead(farm, name))));
        };
        let before = self.overrides.get(&farm, &name);
        let mut after = before;
        after.admin = patch.admin.unwrap_or(before.admin);
        // The configured weight is no override.
        after.weight = patch.weight.or(before.weight).filter(|&weight| weight != backend.weight);
        if after == before {
            return drop(reply.send(Ok(())));
        }
        let next = self.overrides.with(&farm, &name, after);
        self.save(number, Patch { farm, backend: name, before, after, next, reply });
    }

    /// It is saved, and comes into force.
    pub(super) fn patched(&mut self, patch: Patch) {
        let Patch { farm, backend: name, before, after, next, reply } = patch;
        let old = std::mem::replace(&mut self.overrides, next);
        if let Err(error) = self.reconcile() {
            self.overrides = old;
            self.follow();
            self.keep_in_force();
            return drop(reply.send(Err(Failed::Kernel(format!("{error:#}")).into())));
        }
        self.touched.insert((farm.clone(), name.clone()), clock::wall());
        if let Some((config, backend)) = self.find(&farm, &name) {
            let who = describe::backend(config, backend);
            let weight = after.weight.unwrap_or(backend.weight);
            let what = match (after.admin == before.admin, after.admin) {
                (true, _) => format!("has weight {weight} by an operator"),
                (false, AdminState::Up) => "was put back by an operator".to_owned(),
                (false, AdminState::Drain) => "is drained by an operator: no new connections".to_owned(),
                (false, AdminState::Maintenance) => "was put into maintenance by an operator".to_owned(),
            };
            let message = format!("BackEnd {who} in farm: '{farm}' {what}");
            self.tell(EventLevel::Info, EventKind::BackendAdmin, Some(&farm), Some(&name), message);
        }
        self.publish();
        reply.send(Ok(())).ok();
    }

    fn whom_instead(&self, farm: FarmName, backend: BackendName) -> Refusal {
        match self.config.farm(farm.as_str()) {
            None => {
                let there = self.config.farms.iter().map(|farm| farm.name.to_string()).collect();
                Refusal::NoFarm { farm, there }
            }
            Some(found) => {
                let there = found.backends.iter().map(|backend| backend.name.to_string()).collect();
                Refusal::NoBackend { farm, backend, there }
            }
        }
    }
}
