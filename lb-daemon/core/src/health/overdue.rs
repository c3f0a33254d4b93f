//! Of which targets nothing has been heard for too long. [`super::Board`] owns an [`Overdue`] and tells it of every target.
//!
//! A target has its say at every result, some hundreds of times a second in all, and hardly ever is one overdue. So results
//! touch nothing here: a target is looked at when it might be overdue, and put back if it has been heard of meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::TargetId;
use super::board::{Board, Effect};
use crate::config::model::Check;

/// Looks are gathered: there is one a second at most.
const GRAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Overdue {
    /// Looks come whole grains after this.
    origin: Option<Instant>,
    looks: BTreeSet<(Instant, TargetId)>,
}

impl Overdue {
    /// Has a target looked at, no sooner than `at`; the answer is when. Each has one look ahead of it.
    pub fn look(&mut self, id: TargetId, at: Instant) -> Instant {
        let origin = *self.origin.get_or_insert(at);
        let grains = at.saturating_duration_since(origin).as_nanos().div_ceil(GRAIN.as_nanos());
        let at = origin + GRAIN * u32::try_from(grains).unwrap_or(u32::MAX);
        self.looks.insert((at, id));
        at
    }

    /// Who is to be looked at now.
    pub fn due(&mut self, now: Instant) -> Vec<TargetId> {
        if self.next().is_none_or(|at| at > now) {
            return Vec::new();
        }
        let later = self.looks.split_off(&(now + Duration::from_nanos(1), TargetId(0)));
        std::mem::replace(&mut self.looks, later).into_iter().map(|(_, id)| id).collect()
    }

    pub fn next(&self) -> Option<Instant> {
        self.looks.first().map(|&(at, _)| at)
    }

    pub fn forget(&mut self, id: TargetId, look: Instant) {
        self.looks.remove(&(look, id));
    }
}

/// For how long nothing may be heard of a target before nobody can say any more that it is up: as many intervals as it takes
/// failures to take it out, and the time that the last of those probes is given.
pub(super) fn patience(check: &Check) -> Duration {
    check.interval * check.fall.max(1) + check.timeout
}

impl Board {
    /// Whether something was heard of a target within its patience.
    pub(super) fn look_at(&mut self, id: TargetId, now: Instant) -> Option<Effect> {
        let slot = self.slots.get_mut(&id)?;
        let patience = patience(&slot.target.check);
        let deadline = slot.machine.heard() + patience;
        if now < deadline {
            slot.look = self.overdue.look(id, deadline);
            return None;
        }
        slot.look = self.overdue.look(id, now + patience);
        let before = (slot.machine.judgement(), slot.machine.since());
        let transition = slot.machine.handle_overdue(now);
        let key = (slot.target.farm.clone(), slot.target.backend.clone());
        if transition.is_some() {
            self.backends.get_mut(&key)?.tally.turn(id, &slot.target, before, &slot.machine);
        }
        self.rejudge(key, now)
    }
}
