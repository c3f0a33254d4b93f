//! All targets and backends, their machines and their schedule. The runner of the checks owns one; it drops nothing
//! but itself when it is cancelled, since a board holds no resource.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Instant;

use super::backend::judge;
use super::{Health, Machine, Outcome, ProbeId, Schedule, Step, Target, TargetId};
use crate::config::model::{BackendName, Check, FarmName};

/// What the board wants done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Probe `address` as `check` says, and tell [`Board::handle_result`]. The board watches the time-out.
    Start { probe: ProbeId, address: SocketAddr, check: Check },
    /// Nobody waits for this probe any more.
    Stop(ProbeId),
    /// The health of a backend is new, or has another status or reason.
    Report(Report),
    /// The outcome of a target's probe differs from that of the one before. For a log.
    Turned { target: Target, outcome: Outcome },
}

/// The health of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub farm: FarmName,
    pub backend: BackendName,
    pub health: Health,
}

#[derive(Debug)]
struct Slot {
    target: Target,
    machine: Machine,
    /// Whether the last probe passed.
    passed: Option<bool>,
}

#[derive(Debug)]
struct Backend {
    /// In the configuration's order.
    targets: Vec<TargetId>,
    health: Option<Health>,
}

/// See the module.
#[derive(Debug)]
pub struct Board {
    next_id: u64,
    slots: HashMap<TargetId, Slot>,
    backends: BTreeMap<(FarmName, BackendName), Backend>,
    schedule: Schedule,
}

impl Board {
    /// `limit`: the most probes in flight at once.
    pub fn new(limit: usize) -> Self {
        Self { next_id: 0, slots: HashMap::new(), backends: BTreeMap::new(), schedule: Schedule::new(limit) }
    }

    /// Makes `targets` the targets. Those that are the same as before keep their judgement and their place on the
    /// schedule; one whose check has other settings keeps its judgement. A target twice in the list counts once.
    pub fn set_targets(&mut self, mut targets: Vec<Target>, now: Instant) -> Vec<Effect> {
        let mut seen: HashMap<Place, Vec<Check>> = HashMap::new();
        targets.retain(|target| {
            let checks = seen.entry(place(target)).or_default();
            let new = !checks.contains(&target.check);
            checks.extend(new.then(|| target.check.clone()));
            new
        });
        // The old targets by where they are; what nobody takes is gone in the end.
        let mut old: HashMap<Place, Vec<TargetId>> = HashMap::new();
        for (&id, slot) in &self.slots {
            old.entry(place(&slot.target)).or_default().push(id);
        }
        // Exact matches first, so that of two checks at one place neither takes the other's judgement.
        let same = |slot: &Slot, target: &Target| slot.target.check == target.check;
        let kept: Vec<_> = targets.iter().map(|target| self.take(&mut old, target, same)).collect();

        let mut effects = Vec::new();
        let mut old_backends = std::mem::take(&mut self.backends);
        for (target, kept) in targets.into_iter().zip(kept) {
            let key = (target.farm.clone(), target.backend.clone());
            let id = match kept {
                Some(id) => id,
                None => {
                    let kind = |slot: &Slot, target: &Target| slot.target.check.kind == target.check.kind;
                    let retuned = self.take(&mut old, &target, kind);
                    self.add(target, retuned, now, &mut effects)
                }
            };
            let backend = self.backends.entry(key).or_insert_with_key(|key| Backend {
                targets: Vec::new(),
                health: old_backends.remove(key).and_then(|backend| backend.health),
            });
            backend.targets.push(id);
        }
        for id in old.into_values().flatten() {
            self.forget(id, &mut effects);
        }
        let keys: Vec<_> = self.backends.keys().cloned().collect();
        effects.extend(keys.into_iter().filter_map(|(farm, backend)| self.rejudge(farm, backend, now)));
        effects
    }

    /// A probe has ended.
    pub fn handle_result(&mut self, probe: ProbeId, outcome: &Outcome, now: Instant) -> Vec<Effect> {
        if self.schedule.handle_done(probe) { self.count(probe, outcome, now) } else { Vec::new() }
    }

    /// A probe could not be made, for a reason that says nothing of the backend: no result, and the next slot as ever.
    pub fn handle_untried(&mut self, probe: ProbeId) {
        self.schedule.handle_done(probe);
    }

    /// Starts what is due and counts what has outlasted its time-out as failed.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        for step in self.schedule.handle_timeout(now) {
            match step {
                Step::Expire(probe) => {
                    effects.push(Effect::Stop(probe));
                    let Some(slot) = self.slots.get(&probe.target) else { continue };
                    let reason = format!("no answer within {:?}", slot.target.check.timeout);
                    effects.extend(self.count(probe, &Outcome::failed(reason), now));
                }
                Step::Start(probe) => {
                    let Some(slot) = self.slots.get(&probe.target) else { continue };
                    let (address, check) = (slot.target.address, slot.target.check.clone());
                    effects.push(Effect::Start { probe, address, check });
                }
            }
        }
        effects
    }

    /// When [`Self::handle_timeout`] is to be called next, if nothing else happens before.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.schedule.next_timeout()
    }

    fn count(&mut self, probe: ProbeId, outcome: &Outcome, now: Instant) -> Vec<Effect> {
        let Some(slot) = self.slots.get_mut(&probe.target) else { return Vec::new() };
        let mut effects = Vec::new();
        if slot.passed.replace(outcome.passed) != Some(outcome.passed) {
            effects.push(Effect::Turned { target: slot.target.clone(), outcome: outcome.clone() });
        }
        slot.machine.handle_result(outcome, now);
        let (farm, backend) = (slot.target.farm.clone(), slot.target.backend.clone());
        effects.extend(self.rejudge(farm, backend, now));
        effects
    }

    fn rejudge(&mut self, farm: FarmName, name: BackendName, now: Instant) -> Option<Effect> {
        let key = (farm, name);
        let backend = self.backends.get_mut(&key)?;
        let targets = backend.targets.iter().filter_map(|id| self.slots.get(id));
        let targets = targets.map(|slot| (&slot.target, &slot.machine));
        let health = judge(backend.health.as_ref(), targets, now);
        if backend.health.as_ref() == Some(&health) {
            return None;
        }
        backend.health = Some(health.clone());
        Some(Effect::Report(Report { farm: key.0, backend: key.1, health }))
    }

    /// Takes an old target at `target`'s place that `fits` out of `old`.
    fn take(
        &self,
        old: &mut HashMap<Place, Vec<TargetId>>,
        target: &Target,
        fits: impl Fn(&Slot, &Target) -> bool,
    ) -> Option<TargetId> {
        let ids = old.get_mut(&place(target))?;
        let at = ids.iter().position(|id| self.slots.get(id).is_some_and(|slot| fits(slot, target)))?;
        Some(ids.remove(at))
    }

    fn add(
        &mut self,
        target: Target,
        retuned: Option<TargetId>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) -> TargetId {
        let (rise, fall) = (target.check.rise, target.check.fall);
        let before = retuned.and_then(|id| self.forget(id, effects));
        let (machine, passed) = match before {
            Some(slot) => (slot.machine.retuned(rise, fall), slot.passed),
            None if target.adopted => (Machine::adopted_up(rise, fall, now), None),
            None => (Machine::new(rise, fall, now), None),
        };
        let id = TargetId(self.next_id);
        self.next_id += 1;
        self.schedule.insert(id, target.check.interval, target.check.timeout, now);
        self.slots.insert(id, Slot { target, machine, passed });
        id
    }

    fn forget(&mut self, id: TargetId, effects: &mut Vec<Effect>) -> Option<Slot> {
        effects.extend(self.schedule.remove(id).map(Effect::Stop));
        self.slots.remove(&id)
    }
}

/// Where a target is; several checks may look at one place.
type Place = (FarmName, BackendName, SocketAddr);

fn place(target: &Target) -> Place {
    (target.farm.clone(), target.backend.clone(), target.address)
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
