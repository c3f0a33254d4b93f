//! Which target is probed when. [`super::Board`] owns the schedule and keeps it told of targets and results.
//!
//! A new target is due at once. After that its probes start on a grid of its own: one a (full) interval apart, at a
//! phase that differs from target to target, so that hundreds of checks do not start in the same millisecond. A slot
//! that comes while the target's probe is still in flight, or that was missed, is left out: the grid never moves.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// Names a target on the schedule; never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub u64);

/// Names one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId {
    pub target: TargetId,
    /// Counts the target's probes, from 1.
    pub attempt: u64,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The probe has outlasted its time-out: stop it and count it as failed.
    Expire(ProbeId),
    Start(ProbeId),
}

#[derive(Debug)]
struct Entry {
    interval: Duration,
    timeout: Duration,
    /// The next slot; the key of this entry in `Schedule::due`.
    next: Instant,
    attempts: u64,
    /// When the probe in flight expires; the key of this entry in `Schedule::deadlines`.
    deadline: Option<Instant>,
}

/// The probes of all targets: at most one in flight for each, and at most `limit` in all.
#[derive(Debug)]
pub struct Schedule {
    limit: usize,
    entries: HashMap<TargetId, Entry>,
    /// Every target, by its next slot.
    due: BTreeSet<(Instant, TargetId)>,
    /// Every target with a probe in flight, by when it expires.
    deadlines: BTreeSet<(Instant, TargetId)>,
}

impl Schedule {
    /// A `limit` of 0 counts as 1.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            entries: HashMap::new(),
            due: BTreeSet::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// Adds a target, due at once. An `id` that is there already is left as it is.
    pub fn insert(&mut self, id: TargetId, interval: Duration, timeout: Duration, now: Instant) {
        if self.entries.contains_key(&id) {
            return;
        }
        let interval = interval.max(Duration::from_millis(1));
        self.entries.insert(id, Entry { interval, timeout, next: now, attempts: 0, deadline: None });
        self.due.insert((now, id));
    }

    /// Forgets a target; the answer is its probe in flight.
    pub fn remove(&mut self, id: TargetId) -> Option<ProbeId> {
        let entry = self.entries.remove(&id)?;
        self.due.remove(&(entry.next, id));
        let deadline = entry.deadline?;
        self.deadlines.remove(&(deadline, id));
        Some(ProbeId { target: id, attempt: entry.attempts })
    }

    /// A probe has ended. `false`: it had expired before, or its target is gone; what it found does not count.
    pub fn handle_done(&mut self, probe: ProbeId) -> bool {
        let Some(entry) = self.entries.get_mut(&probe.target) else { return false };
        if entry.attempts != probe.attempt {
            return false;
        }
        let Some(deadline) = entry.deadline.take() else { return false };
        self.deadlines.remove(&(deadline, probe.target))
    }

    /// What is due. When the limit is reached, those that have waited longest start first as others end.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(&(deadline, target)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            if let Some(entry) = self.entries.get_mut(&target) {
                entry.deadline = None;
                steps.push(Step::Expire(ProbeId { target, attempt: entry.attempts }));
            }
        }
        while self.deadlines.len() < self.limit
            && let Some(&(slot, target)) = self.due.first()
            && slot <= now
        {
            self.due.pop_first();
            let Some(entry) = self.entries.get_mut(&target) else { continue };
            entry.next = if entry.attempts == 0 {
                now + phase(target, entry.interval)
            } else {
                next_slot(entry.next, entry.interval, now)
            };
            self.due.insert((entry.next, target));
            if entry.deadline.is_none() {
                let deadline = now + entry.timeout;
                entry.attempts += 1;
                entry.deadline = Some(deadline);
                self.deadlines.insert((deadline, target));
                steps.push(Step::Start(ProbeId { target, attempt: entry.attempts }));
            }
        }
        steps
    }

    /// When [`Self::handle_timeout`] has something to do next, if nothing else happens before.
    pub fn next_timeout(&self) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|&(at, _)| at);
        // At the limit nothing can start before something ends.
        let due = self.due.first().map(|&(at, _)| at).filter(|_| self.deadlines.len() < self.limit);
        deadline.into_iter().chain(due).min()
    }
}

/// From the first probe to the target's grid: above 0, at most `interval`. Multiples of the golden ratio, modulo 1,
/// cover the interval evenly however many targets there are.
fn phase(id: TargetId, interval: Duration) -> Duration {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let fraction = (id.0.wrapping_mul(GOLDEN) >> 32) as u32;
    interval - interval.mul_f64(f64::from(fraction) / 2f64.powi(32)).min(interval - Duration::from_nanos(1))
}

/// The first slot of the grid through `slot` after `now`.
fn next_slot(slot: Instant, interval: Duration, now: Instant) -> Instant {
    let missed = now.saturating_duration_since(slot).as_nanos() / interval.as_nanos();
    match u32::try_from(missed) {
        Ok(missed) => slot + interval * missed + interval,
        // Suspended for ages: start a new grid rather than count.
        Err(_) => now + interval,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const TIMEOUT: Duration = Duration::from_secs(3);

    fn started(steps: &[Step]) -> Vec<ProbeId> {
        let probe = |step: &Step| match *step {
            Step::Start(probe) => Some(probe),
            Step::Expire(_) => None,
        };
        steps.iter().filter_map(probe).collect()
    }

    #[test]
    fn a_new_target_is_due_at_once_and_then_on_its_grid() {
        let origin = Instant::now();
        let mut schedule = Schedule::new(256);
        schedule.insert(TargetId(7), INTERVAL, TIMEOUT, origin);
        let mut now = origin;
        let mut starts = Vec::new();
        while starts.len() < 50 {
            for probe in started(&schedule.handle_timeout(now)) {
                starts.push(now);
                assert!(schedule.handle_done(probe));
            }
            now = schedule.next_timeout().unwrap();
        }
        assert_eq!(starts[0], origin);
        assert!(starts[1] > origin && starts[1] <= origin + INTERVAL);
        assert!(starts[1..].windows(2).all(|pair| pair[1] - pair[0] == INTERVAL));
    }

    #[test]
    fn starts_are_spread_over_the_interval() {
        let origin = Instant::now();
        let mut schedule = Schedule::new(1000);
        (0..100).for_each(|id| schedule.insert(TargetId(id), INTERVAL, TIMEOUT, origin));
        for probe in started(&schedule.handle_timeout(origin)) {
            schedule.handle_done(probe);
        }
        let mut tenths = [0u32; 10];
        for &(at, _) in &schedule.due {
            let tenth = ((at - origin).as_nanos() - 1) * 10 / INTERVAL.as_nanos();
            tenths[usize::try_from(tenth).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|&count| (8..=12).contains(&count)), "{tenths:?}");
    }

    #[test]
    fn a_probe_that_outlasts_expires_and_its_late_result_does_not_count() {
        let origin = Instant::now();
        let mut schedule = Schedule::new(256);
        schedule.insert(TargetId(0), INTERVAL, TIMEOUT, origin);
        let probe = started(&schedule.handle_timeout(origin))[0];
        assert_eq!(schedule.next_timeout(), Some(origin + TIMEOUT));
        assert_eq!(schedule.handle_timeout(origin + TIMEOUT), [Step::Expire(probe)]);
        assert!(!schedule.handle_done(probe));
    }

    #[test]
    fn slots_are_left_out_while_a_probe_is_in_flight() {
        let origin = Instant::now();
        let (interval, timeout) = (Duration::from_secs(1), Duration::from_millis(2500));
        let mut schedule = Schedule::new(256);
        schedule.insert(TargetId(0), interval, timeout, origin);
        let mut seen = Vec::new();
        let mut now = origin;
        for _ in 0..12 {
            seen.extend(schedule.handle_timeout(now).into_iter().map(|step| (now - origin, step)));
            now = schedule.next_timeout().unwrap();
        }
        // The phase of target 0 is a whole interval: slots at each full second.
        let at: Vec<u128> = seen.iter().map(|(at, _)| at.as_millis()).collect();
        assert_eq!(at[..6], [0, 2500, 3000, 5500, 6000, 8500]);
    }

    #[test]
    fn at_the_limit_those_that_waited_longest_start_first() {
        let origin = Instant::now();
        let mut schedule = Schedule::new(2);
        (0..5).for_each(|id| schedule.insert(TargetId(id), INTERVAL, TIMEOUT, origin));
        let first = started(&schedule.handle_timeout(origin));
        assert_eq!(first.iter().map(|probe| probe.target.0).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(
            schedule.next_timeout(),
            Some(origin + TIMEOUT),
            "waiting for a place is no reason to spin"
        );
        schedule.handle_done(first[0]);
        assert_eq!(schedule.next_timeout(), Some(origin));
        assert_eq!(started(&schedule.handle_timeout(origin))[0].target, TargetId(2));
    }

    #[test]
    fn a_removed_target_gives_its_place_free() {
        let origin = Instant::now();
        let mut schedule = Schedule::new(1);
        schedule.insert(TargetId(0), INTERVAL, TIMEOUT, origin);
        schedule.insert(TargetId(1), INTERVAL, TIMEOUT, origin);
        let probe = started(&schedule.handle_timeout(origin))[0];
        assert_eq!(schedule.remove(TargetId(0)), Some(probe));
        assert_eq!(started(&schedule.handle_timeout(origin))[0].target, TargetId(1));
        assert_eq!(schedule.remove(TargetId(0)), None);
    }

    /// A world of targets whose probes take as long as `takes` says, and a driver that is late by `late`.
    #[derive(Debug, Clone)]
    struct World {
        limit: usize,
        targets: Vec<(u64, u64)>,
        takes: Vec<u64>,
        late: Vec<u64>,
    }

    fn world() -> impl Strategy<Value = World> {
        (
            1usize..8,
            prop::collection::vec((10u64..2000, 1u64..3000), 1..12),
            prop::collection::vec(0u64..4000, 1..50),
            prop::collection::vec(0u64..5, 1..50),
        )
            .prop_map(|(limit, targets, takes, late)| World { limit, targets, takes, late })
    }

    proptest! {
        #[test]
        fn no_target_starves_drifts_or_is_probed_twice_at_once(world in world()) {
            let ms = Duration::from_millis;
            let origin = Instant::now();
            let mut schedule = Schedule::new(world.limit);
            for (id, &(interval, timeout)) in world.targets.iter().enumerate() {
                schedule.insert(TargetId(id as u64), ms(interval), ms(timeout), origin);
            }
            let mut flying: Vec<(Instant, ProbeId)> = Vec::new();
            let mut starts: Vec<Vec<Instant>> = vec![Vec::new(); world.targets.len()];
            let mut now = origin;
            for round in 0..400 {
                flying.retain(|&(ends, probe)| ends > now || !schedule.handle_done(probe));
                for step in schedule.handle_timeout(now) {
                    match step {
                        Step::Expire(probe) => {
                            prop_assert!(flying.iter().any(|&(_, flying)| flying == probe));
                            flying.retain(|&(_, flying)| flying != probe);
                        }
                        Step::Start(probe) => {
                            prop_assert!(flying.iter().all(|(_, flying)| flying.target != probe.target));
                            let takes = ms(world.takes[round % world.takes.len()]);
                            flying.push((now + takes, probe));
                            starts[usize::try_from(probe.target.0).unwrap()].push(now);
                        }
                    }
                }
                prop_assert!(flying.len() <= world.limit);
                let next = schedule.next_timeout().unwrap();
                let end = flying.iter().map(|&(ends, _)| ends).min().unwrap_or(next);
                prop_assert!(next > now, "nothing is left undone");
                now = next.min(end).max(now) + ms(world.late[round % world.late.len()]);
            }
            // Once a slot has come, each of the others goes first at most once, besides those that are in flight.
            let longest: u64 = world.targets.iter().map(|&(_, timeout)| 2 * (timeout + 5)).sum();
            for (starts, &(interval, timeout)) in starts.iter().zip(&world.targets) {
                let bound = ms(2 * interval + timeout + longest + 10);
                let last = starts.last().copied().unwrap_or(origin);
                prop_assert!(starts.windows(2).all(|pair| pair[1] - pair[0] <= bound));
                prop_assert!(now - last <= bound, "starved for {:?}", now - last);
            }
        }

        #[test]
        fn the_grid_never_moves(interval in 1u64..5000, late in prop::collection::vec(0u64..20_000, 1..50)) {
            let (interval, origin) = (Duration::from_millis(interval), Instant::now());
            let mut slot = origin;
            for late in late {
                let now = slot + Duration::from_millis(late);
                slot = next_slot(slot, interval, now);
                prop_assert!(slot > now && slot <= now + interval);
                prop_assert_eq!((slot - origin).as_nanos() % interval.as_nanos(), 0);
            }
        }
    }
}
