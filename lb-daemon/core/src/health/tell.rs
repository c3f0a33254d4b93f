//! What the board tells of its checks to those who ask: the API, by way of the runner.

use std::sync::Arc;
use std::time::Instant;

use super::board::{Board, Slot};
use super::{Target, TargetId};
use crate::config::model::{BackendName, FarmName};
use crate::state::{CheckLoad, CheckReport};

impl Board {
    /// The checks of all backends, or of one farm's, or of one backend; by farm and backend, then in the configuration's
    /// order. Each with at most `history` results.
    pub fn reports(
        &self,
        farm: Option<&FarmName>,
        backend: Option<&BackendName>,
        history: usize,
        now: Instant,
    ) -> Vec<CheckReport> {
        let slots = self.ids(farm, backend).filter_map(|id| self.slots.get(&id));
        slots.filter_map(|slot| self.report(slot, history, now)).collect()
    }

    /// The targets of a farm or of one of its backends, as [`Self::reports`] orders them.
    pub fn targets(&self, farm: &FarmName, backend: Option<&BackendName>) -> Vec<(Arc<Target>, String)> {
        let slots = self.ids(Some(farm), backend).filter_map(|id| self.slots.get(&id));
        slots.map(|slot| (slot.target.clone(), slot.name())).collect()
    }

    pub fn load(&self) -> CheckLoad {
        CheckLoad {
            targets: self.slots.len(),
            subjects: self.subjects.len(),
            in_flight: self.schedule.in_flight(),
            lateness: self.schedule.lateness().clone(),
        }
    }

    fn ids<'a>(
        &'a self,
        farm: Option<&'a FarmName>,
        backend: Option<&'a BackendName>,
    ) -> impl Iterator<Item = TargetId> + 'a {
        let wanted = move |(of, name): &(FarmName, BackendName)| {
            farm.is_none_or(|farm| farm == of) && backend.is_none_or(|backend| backend == name)
        };
        let backends = self.backends.iter().filter(move |(key, _)| wanted(key));
        backends.flat_map(|(_, backend)| backend.tally.targets().iter().copied())
    }

    fn report(&self, slot: &Slot, history: usize, now: Instant) -> Option<CheckReport> {
        let subject = self.subjects.get(&slot.subject)?;
        let (next, running) = self.schedule.state(slot.subject)?;
        Some(CheckReport {
            farm: slot.target.farm.clone(),
            backend: slot.target.backend.clone(),
            name: slot.name(),
            kind: slot.target.check.kind.as_str(),
            address: slot.target.address,
            judgement: slot.machine.judgement(),
            reason: slot.machine.reason().to_owned(),
            held_for: now.saturating_duration_since(slot.machine.since()),
            last: subject.last(now),
            history: subject.history(history, now),
            running,
            next_run_in: next.saturating_duration_since(now),
            transitions: slot.transitions,
            untried: subject.untried,
            durations: subject.durations.clone(),
            shared_with: subject.targets.len().saturating_sub(1),
        })
    }
}
