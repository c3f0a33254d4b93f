//! What is probed when. [`super::Board`] owns the schedule and keeps it told of subjects and results.
//!
//! A new subject is due at once. After that its probes start on a grid of its own: one an interval apart, at a phase that
//! differs from subject to subject, so that thousands of checks do not start in the same millisecond. A slot that
//! comes while the subject's probe is still in flight, or that was missed, is left out: the grid never moves. Between
//! two states a subject is due its fast interval after its last start, or as soon as that probe has ended; when it has
//! settled it goes back to its grid.
//!
//! Every call costs O(log n). A probe in flight holds one of its lane's places until it ends or expires, so a lane
//! is on time as long as (probes started per second) x (how long they last) stays below its limit: of 2,000 subjects
//! at 5 s whose probes all hang for 3 s, 1,200 are in flight.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::state::Histogram;

/// Probes that start within so long of each other start together: the process is woken once for them.
const GRAIN: Duration = Duration::from_millis(10);

/// Names a subject on the schedule; never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectId(pub u64);

/// Names one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId {
    pub subject: SubjectId,
    /// Counts the subject's probes, from 1.
    pub attempt: u64,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The probe has outlasted its time-out: stop it and count it as failed.
    Expire(ProbeId),
    Start(ProbeId),
}

/// What a probe costs while it is in flight. Each lane has a limit of its own, so that commands that hang do not hold
/// up what needs a socket only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// A socket.
    Network,
    /// A process.
    Command,
}

/// The most probes in flight at once. A limit of 0 counts as 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub network: usize,
    pub commands: usize,
}

/// How a subject is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub lane: Lane,
    pub interval: Duration,
    /// At most `interval`.
    pub fast_interval: Duration,
    pub timeout: Duration,
}

#[derive(Debug)]
struct Entry {
    pace: Pace,
    /// The next point of the grid.
    slot: Instant,
    /// When it is due, `slot` or earlier; the key of this entry in its queue.
    next: Instant,
    attempts: u64,
    started: Instant,
    /// When the probe in flight expires; the key of this entry in `Schedule::deadlines`.
    deadline: Option<Instant>,
}

#[derive(Debug)]
struct Queue {
    limit: usize,
    in_flight: usize,
    /// Every subject of the lane, by when it is due.
    due: BTreeSet<(Instant, SubjectId)>,
}

impl Queue {
    fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), in_flight: 0, due: BTreeSet::new() }
    }

    /// When the next one may start.
    fn next(&self) -> Option<Instant> {
        // At the limit nothing can start before something ends.
        self.due.first().map(|&(at, _)| at).filter(|_| self.in_flight < self.limit)
    }
}

/// The probes of all subjects: at most one in flight for each, and at most as many as the limits say in all.
#[derive(Debug)]
pub struct Schedule {
    entries: HashMap<SubjectId, Entry>,
    network: Queue,
    commands: Queue,
    /// Every subject with a probe in flight, by when it expires.
    deadlines: BTreeSet<(Instant, SubjectId)>,
    lateness: Histogram,
}

impl Schedule {
    pub fn new(limits: Limits) -> Self {
        Self {
            entries: HashMap::new(),
            network: Queue::new(limits.network),
            commands: Queue::new(limits.commands),
            deadlines: BTreeSet::new(),
            lateness: Histogram::default(),
        }
    }

    /// Adds a subject, due at once. An `id` that is there already is left as it is.
    pub fn insert(&mut self, id: SubjectId, pace: Pace, now: Instant) {
        if self.entries.contains_key(&id) {
            return;
        }
        let interval = pace.interval.max(Duration::from_millis(1));
        let fast_interval = pace.fast_interval.clamp(Duration::from_millis(1), interval);
        let pace = Pace { interval, fast_interval, ..pace };
        let entry = Entry { pace, slot: now, next: now, attempts: 0, started: now, deadline: None };
        self.entries.insert(id, entry);
        self.queue(pace.lane).due.insert((now, id));
    }

    /// Forgets a subject; the answer is its probe in flight.
    pub fn remove(&mut self, id: SubjectId) -> Option<ProbeId> {
        let entry = self.entries.remove(&id)?;
        let queue = self.queue(entry.pace.lane);
        queue.due.remove(&(entry.next, id));
        let deadline = entry.deadline?;
        queue.in_flight -= 1;
        self.deadlines.remove(&(deadline, id));
        Some(ProbeId { subject: id, attempt: entry.attempts })
    }

    /// A probe has ended; the answer is how long it took. `None`: it had expired before, or its subject is gone; what
    /// it found does not count.
    pub fn handle_done(&mut self, probe: ProbeId, now: Instant) -> Option<Duration> {
        let entry = self.entries.get_mut(&probe.subject).filter(|entry| entry.attempts == probe.attempt)?;
        let deadline = entry.deadline.take()?;
        let (lane, took) = (entry.pace.lane, now.saturating_duration_since(entry.started));
        self.queue(lane).in_flight -= 1;
        self.deadlines.remove(&(deadline, probe.subject));
        Some(took)
    }

    /// Says, after each result, whether a subject is between two states.
    pub fn settle(&mut self, id: SubjectId, between: bool, now: Instant) {
        let Some(entry) = self.entries.get(&id).filter(|entry| entry.deadline.is_none()) else { return };
        let soon = (entry.started + entry.pace.fast_interval).max(now);
        let next = if !between {
            entry.slot
        } else if entry.attempts == 0 {
            entry.next
        } else {
            entry.slot.min(soon)
        };
        self.postpone(id, next);
    }

    /// Makes a subject due now, unless its probe is in flight or was within the last fast interval. Whether it did.
    pub fn hurry(&mut self, id: SubjectId, now: Instant) -> bool {
        let Some(entry) = self.entries.get(&id) else { return false };
        let fresh = entry.attempts > 0 && entry.started + entry.pace.fast_interval > now;
        if entry.deadline.is_some() || fresh || entry.next <= now {
            return false;
        }
        self.postpone(id, now);
        true
    }

    /// What is due. When a limit is reached, those that have waited longest start first as others end.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(&(deadline, subject)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            if let Some(entry) = self.entries.get_mut(&subject) {
                entry.deadline = None;
                steps.push(Step::Expire(ProbeId { subject, attempt: entry.attempts }));
                let lane = entry.pace.lane;
                self.queue(lane).in_flight -= 1;
            }
        }
        for lane in [Lane::Network, Lane::Command] {
            while let Some(due) = self.queue(lane).next()
                && due <= now
                && let Some((_, subject)) = self.queue(lane).due.pop_first()
            {
                steps.extend(self.start(subject, now).map(Step::Start));
            }
        }
        steps
    }

    /// Starts what was just taken out of its queue, and puts it back for its next slot.
    fn start(&mut self, subject: SubjectId, now: Instant) -> Option<ProbeId> {
        let entry = self.entries.get_mut(&subject)?;
        let Pace { interval, fast_interval, timeout, lane } = entry.pace;
        let due = entry.next;
        entry.slot = if entry.attempts == 0 {
            now + phase(subject, interval)
        } else if entry.slot <= now {
            next_slot(entry.slot, interval, now)
        } else if entry.slot < now + fast_interval / 2 {
            // It is out of turn, and its turn would come right after.
            entry.slot + interval
        } else {
            entry.slot
        };
        entry.next = entry.slot;
        let next = entry.next;
        let probe = entry.deadline.is_none().then(|| {
            let deadline = now + timeout;
            entry.attempts += 1;
            entry.started = now;
            entry.deadline = Some(deadline);
            (ProbeId { subject, attempt: entry.attempts }, deadline)
        });
        let queue = self.queue(lane);
        queue.due.insert((next, subject));
        let (probe, deadline) = probe?;
        queue.in_flight += 1;
        self.deadlines.insert((deadline, subject));
        self.lateness.record(now.saturating_duration_since(due));
        Some(probe)
    }

    /// When [`Self::handle_timeout`] has something to do next, if nothing else happens before.
    pub fn next_timeout(&self) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|&(at, _)| at);
        [deadline, self.network.next(), self.commands.next()].into_iter().flatten().min()
    }

    /// When a subject is due, and whether its probe is in flight.
    pub fn state(&self, id: SubjectId) -> Option<(Instant, bool)> {
        self.entries.get(&id).map(|entry| (entry.next, entry.deadline.is_some()))
    }
    pub fn in_flight(&self) -> usize {
        self.deadlines.len()
    }
    /// How much later than they were due probes started.
    pub fn lateness(&self) -> &Histogram {
        &self.lateness
    }

    fn postpone(&mut self, id: SubjectId, next: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let (before, lane) = (std::mem::replace(&mut entry.next, next), entry.pace.lane);
        let queue = self.queue(lane);
        queue.due.remove(&(before, id));
        queue.due.insert((next, id));
    }

    fn queue(&mut self, lane: Lane) -> &mut Queue {
        match lane {
            Lane::Network => &mut self.network,
            Lane::Command => &mut self.commands,
        }
    }
}

/// From the first probe to the subject's grid: above 0, at most `interval`. Multiples of the golden ratio, modulo 1,
/// cover the interval evenly however many subjects there are; those that lie closer together than a grain start together.
fn phase(id: SubjectId, interval: Duration) -> Duration {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let fraction = (id.0.wrapping_mul(GOLDEN) >> 32) as u32;
    let grains = (interval.as_nanos() / GRAIN.as_nanos()).max(1);
    let skipped = (grains * u128::from(fraction)) >> 32;
    interval - interval.mul_f64(skipped as f64 / grains as f64)
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
#[path = "schedule_tests.rs"]
mod tests;
