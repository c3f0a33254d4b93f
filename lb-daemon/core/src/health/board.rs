//! All targets and backends, their machines and their schedule. The runner of the checks owns one; it drops nothing
//! but itself when it is cancelled, since a board holds no resource.
//!
//! A result costs O(log n) of the number of targets for each target that shares it; new targets cost O(n log n).

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::{Tally, words};
use super::overdue::{Overdue, patience};
use super::subject::{Key, Subject};
use super::{Health, Judgement, Limits, Machine, Outcome, ProbeId, Schedule, Step, SubjectId, Target};
use crate::config::model::{BackendName, Check, FarmName};
use crate::state::CheckVerdict;

/// Names a target on the board; never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub u64);

/// What the board wants done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Probe the target's address as its check says, and tell [`Board::handle_result`]. The board watches the time-out.
    /// The target is one of those that share the probe.
    Start { probe: ProbeId, target: Arc<Target> },
    /// Nobody waits for this probe any more.
    Stop(ProbeId),
    /// The health of a backend is new, or has another status or reason.
    Report(Report),
    /// What came of a probe differs from what came of the one before; told once for all that share it. For a log.
    Turned { target: Arc<Target>, verdict: CheckVerdict, reason: String },
}

/// The health of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub farm: FarmName,
    pub backend: BackendName,
    pub health: Health,
}

/// A target and what is held of it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) target: Arc<Target>,
    pub(super) machine: Machine,
    pub(super) subject: SubjectId,
    pub(super) transitions: u64,
    /// Which of several checks of the same kind at the same place of the backend it is, from 1.
    ordinal: usize,
    /// When it is looked at whether it is overdue.
    pub(super) look: Instant,
}

impl Slot {
    /// Unique in the backend.
    pub(super) fn name(&self) -> String {
        match self.ordinal {
            1 => self.target.to_string(),
            n => format!("{} #{n}", self.target),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Backend {
    pub(super) tally: Tally,
    health: Option<Health>,
}

/// See the module.
#[derive(Debug)]
pub struct Board {
    next_target: u64,
    next_subject: u64,
    pub(super) slots: HashMap<TargetId, Slot>,
    pub(super) subjects: HashMap<SubjectId, Subject>,
    by_key: HashMap<Arc<Key>, SubjectId>,
    pub(super) backends: BTreeMap<(FarmName, BackendName), Backend>,
    pub(super) schedule: Schedule,
    pub(super) overdue: Overdue,
}

impl Board {
    /// `limits`: the most probes in flight at once.
    pub fn new(limits: Limits) -> Self {
        Self {
            next_target: 0,
            next_subject: 0,
            slots: HashMap::new(),
            subjects: HashMap::new(),
            by_key: HashMap::new(),
            backends: BTreeMap::new(),
            schedule: Schedule::new(limits),
            overdue: Overdue::default(),
        }
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
        let mut alike: HashMap<(Place, &'static str), usize> = HashMap::new();
        for (target, kept) in targets.into_iter().zip(kept) {
            let key = (target.farm.clone(), target.backend.clone());
            let ordinal = alike.entry((place(&target), target.check.kind.as_str())).or_default();
            *ordinal += 1;
            let id = match kept {
                Some(id) => {
                    // What it is told beside, as the VIP, may be another.
                    if let Some(slot) = self.slots.get_mut(&id).filter(|slot| *slot.target != target) {
                        slot.target = Arc::new(target);
                    }
                    id
                }
                None => {
                    let kind = |slot: &Slot, target: &Target| slot.target.check.kind == target.check.kind;
                    let retuned = self.take(&mut old, &target, kind);
                    self.add(target, retuned, now, &mut effects)
                }
            };
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            slot.ordinal = *ordinal;
            let backend = self.backends.entry(key).or_insert_with_key(|key| Backend {
                tally: Tally::default(),
                health: old_backends.remove(key).and_then(|backend| backend.health),
            });
            backend.tally.add(id, &slot.target, &slot.machine);
        }
        for id in old.into_values().flatten() {
            self.forget(id, &mut effects);
        }
        let keys: Vec<_> = self.backends.keys().cloned().collect();
        effects.extend(keys.into_iter().filter_map(|key| self.rejudge(key, now)));
        effects
    }

    /// A probe has ended.
    pub fn handle_result(&mut self, probe: ProbeId, outcome: &Outcome, now: Instant) -> Vec<Effect> {
        match self.schedule.handle_done(probe, now) {
            Some(took) => self.count(probe.subject, outcome, took, now),
            None => Vec::new(),
        }
    }

    /// A probe could not be made, for a reason that says nothing of the backend: no result, and the next slot as ever.
    pub fn handle_untried(&mut self, probe: ProbeId, reason: &str, now: Instant) -> Vec<Effect> {
        let Some(took) = self.schedule.handle_done(probe, now) else { return Vec::new() };
        let mut effects = self.record(probe.subject, CheckVerdict::Untried, reason, took, now);
        let Some(subject) = self.subjects.get(&probe.subject) else { return effects };
        for id in subject.targets.iter().copied().collect::<Vec<_>>() {
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            slot.machine.handle_untried(reason);
            let key = (slot.target.farm.clone(), slot.target.backend.clone());
            effects.extend(self.rejudge(key, now));
        }
        self.settle(probe.subject, now);
        effects
    }

    /// Starts what is due, counts what has outlasted its time-out as failed, and says of whom nothing was heard for too long.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        for step in self.schedule.handle_timeout(now) {
            match step {
                Step::Expire(probe) => {
                    effects.push(Effect::Stop(probe));
                    let Some(subject) = self.subjects.get(&probe.subject) else { continue };
                    let timeout = subject.key.pace().timeout;
                    let outcome = Outcome::failed(format!("no answer within {timeout:?}"));
                    effects.extend(self.count(probe.subject, &outcome, timeout, now));
                }
                Step::Start(probe) => {
                    let Some(target) = self.speaker(probe.subject) else { continue };
                    effects.push(Effect::Start { probe, target });
                }
            }
        }
        for id in self.overdue.due(now) {
            effects.extend(self.look_at(id, now));
        }
        effects
    }

    /// When [`Self::handle_timeout`] is to be called next, if nothing else happens before.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.schedule.next_timeout().into_iter().chain(self.overdue.next()).min()
    }

    /// Something else says that a backend does not work: its checks are due now, but for those in flight or with a
    /// start within their last fast interval. How many are due.
    pub fn suspect(&mut self, farm: &FarmName, backend: &BackendName, now: Instant) -> usize {
        let Some(backend) = self.backends.get(&(farm.clone(), backend.clone())) else { return 0 };
        let subjects = backend.tally.targets().iter().filter_map(|id| self.slots.get(id));
        let (schedule, mut due) = (&mut self.schedule, 0);
        for slot in subjects {
            due += usize::from(schedule.hurry(slot.subject, now));
        }
        due
    }

    fn count(&mut self, id: SubjectId, outcome: &Outcome, took: Duration, now: Instant) -> Vec<Effect> {
        let verdict = CheckVerdict::of(outcome.passed);
        let mut effects = self.record(id, verdict, &outcome.reason, took, now);
        let Some(subject) = self.subjects.get(&id) else { return effects };
        for target in subject.targets.iter().copied().collect::<Vec<_>>() {
            effects.extend(self.judge(target, outcome, now));
        }
        self.settle(id, now);
        effects
    }

    /// One target's share of a result.
    fn judge(&mut self, id: TargetId, outcome: &Outcome, now: Instant) -> Option<Effect> {
        let slot = self.slots.get_mut(&id)?;
        let machine = &mut slot.machine;
        let before = (machine.judgement(), machine.since());
        let confirmed = machine.is_confirmed();
        let transition = machine.handle_result(outcome, now);
        // Most results change neither judgement nor words, and cost nothing more.
        let other_words = match before.0 {
            Judgement::Starting => true,
            Judgement::Up => outcome.passed && !confirmed,
            // Its words tell why nobody checks it, until a result has made it something else.
            Judgement::Unchecked => false,
            Judgement::Down => !outcome.passed,
        };
        if transition.is_none() && !other_words {
            return None;
        }
        let key = (slot.target.farm.clone(), slot.target.backend.clone());
        if transition.is_some() {
            // What was not checked for a while and is up again has not been down.
            let turned = before.0 == Judgement::Down || machine.judgement() == Judgement::Down;
            slot.transitions += u64::from(turned && before.0 != Judgement::Starting);
            let backend = self.backends.get_mut(&key)?;
            backend.tally.turn(id, &slot.target, before, &slot.machine);
        } else if slot.machine.is_confirmed() {
            self.backends.get_mut(&key)?.tally.prove(id);
        }
        self.rejudge(key, now)
    }

    pub(super) fn rejudge(&mut self, key: (FarmName, BackendName), now: Instant) -> Option<Effect> {
        let backend = self.backends.get_mut(&key)?;
        let look = |id: TargetId| self.slots.get(&id).map(|slot| words(&slot.target, &slot.machine));
        let health = backend.tally.judge(backend.health.as_ref(), look, now);
        if backend.health.as_ref() == Some(&health) {
            return None;
        }
        backend.health = Some(health.clone());
        Some(Effect::Report(Report { farm: key.0, backend: key.1, health }))
    }

    fn record(
        &mut self,
        id: SubjectId,
        verdict: CheckVerdict,
        reason: &str,
        took: Duration,
        now: Instant,
    ) -> Vec<Effect> {
        let turned = self.subjects.get_mut(&id).is_some_and(|it| it.record(verdict, reason, took, now));
        let target = self.speaker(id).filter(|_| turned);
        target
            .map(|target| Effect::Turned { target, verdict, reason: reason.to_owned() })
            .into_iter()
            .collect()
    }

    /// Tells the schedule whether any of those that share a subject is between two states.
    fn settle(&mut self, id: SubjectId, now: Instant) {
        let Some(subject) = self.subjects.get(&id) else { return };
        let mut slots = subject.targets.iter().filter_map(|id| self.slots.get(id));
        let between = slots.any(|slot| slot.machine.is_between());
        self.schedule.settle(id, between, now);
    }

    /// The target that a shared subject goes by.
    fn speaker(&self, id: SubjectId) -> Option<Arc<Target>> {
        let first = self.subjects.get(&id)?.targets.first()?;
        self.slots.get(first).map(|slot| slot.target.clone())
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
        Some(ids.swap_remove(at))
    }

    fn add(
        &mut self,
        target: Target,
        retuned: Option<TargetId>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) -> TargetId {
        let (rise, fall) = (target.check.rise, target.check.fall);
        let before = retuned.and_then(|id| self.slots.get(&id));
        let (machine, transitions) = match before {
            Some(slot) => (slot.machine.retuned(rise, fall), slot.transitions),
            None => (Machine::adopted(target.adopted, rise, fall, now), 0),
        };
        let id = TargetId(self.next_target);
        self.next_target += 1;
        let from = before.map(|slot| slot.subject);
        let subject = self.join(id, Key::of(&target), from, now);
        let look = self.overdue.look(id, machine.heard() + patience(&target.check));
        let target = Arc::new(target);
        self.slots.insert(id, Slot { target, machine, subject, transitions, ordinal: 1, look });
        if let Some(old) = retuned {
            self.forget(old, effects);
        }
        id
    }

    /// Adds a target to the subject that it shares, which is then probed soon, or makes one. The target had shared
    /// `from` before.
    fn join(&mut self, target: TargetId, key: Key, from: Option<SubjectId>, now: Instant) -> SubjectId {
        let key = Arc::new(key);
        if let Some(&id) = self.by_key.get(&key) {
            if let Some(subject) = self.subjects.get_mut(&id) {
                subject.targets.insert(target);
            }
            self.schedule.settle(id, true, now);
            return id;
        }
        let id = SubjectId(self.next_subject);
        self.next_subject += 1;
        let mut subject = Subject::new(key.clone());
        if let Some(from) = from.and_then(|from| self.subjects.get(&from)) {
            subject.inherit(from);
        }
        subject.targets.insert(target);
        self.schedule.insert(id, key.pace(), now);
        self.subjects.insert(id, subject);
        self.by_key.insert(key, id);
        id
    }

    fn forget(&mut self, id: TargetId, effects: &mut Vec<Effect>) {
        let Some(slot) = self.slots.remove(&id) else { return };
        self.overdue.forget(id, slot.look);
        let Some(subject) = self.subjects.get_mut(&slot.subject) else { return };
        subject.targets.remove(&id);
        if subject.targets.is_empty() {
            effects.extend(self.schedule.remove(slot.subject).map(Effect::Stop));
            self.by_key.remove(&subject.key);
            self.subjects.remove(&slot.subject);
        }
    }
}

/// Where a target is; several checks may look at one place.
type Place = (FarmName, BackendName, SocketAddr);

fn place(target: &Target) -> Place {
    (target.farm.clone(), target.backend.clone(), target.address)
}

#[cfg(test)]
#[path = "board_simulation.rs"]
mod simulation;
#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
