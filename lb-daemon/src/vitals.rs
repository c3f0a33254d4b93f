//! What the loop, its jobs and the hooks leave behind for whoever looks at the daemon from beside (`ills`): it is to be seen
//! though they hang.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;

/// See the module.
#[derive(Debug)]
pub struct Vitals {
    behind: Mutex<Option<String>>,
    /// When the last round of the sweep ended.
    swept: Mutex<Instant>,
    /// When the cuts began that are under way.
    cuts: Mutex<Cuts>,
    hooks: Mutex<(u64, Option<String>)>,
}

#[derive(Debug, Default)]
struct Cuts {
    next: u64,
    began: BTreeMap<u64, Instant>,
}

impl Default for Vitals {
    fn default() -> Self {
        let swept = Mutex::new(clock::now());
        Self { behind: Mutex::default(), swept, cuts: Mutex::default(), hooks: Mutex::default() }
    }
}

impl Vitals {
    /// Notes whether the maps follow, or why not.
    pub fn follows(&self, behind: Option<String>) {
        *lock(&self.behind) = behind;
    }

    /// Why the maps do not follow, if they do not.
    pub fn behind(&self) -> Option<String> {
        lock(&self.behind).clone()
    }

    /// Notes the end of a round of the sweep.
    pub fn swept(&self) {
        *lock(&self.swept) = clock::now();
    }

    /// How long ago the last one was.
    pub fn sweep_age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(*lock(&self.swept))
    }

    /// Connections are to be cut, and are when this is dropped.
    pub fn cutting(self: &Arc<Self>) -> Cutting {
        let mut cuts = lock(&self.cuts);
        cuts.next += 1;
        let number = cuts.next;
        cuts.began.insert(number, clock::now());
        Cutting { vitals: self.clone(), number }
    }

    /// For how long the oldest cut has been under way.
    pub fn cutting_for(&self, now: Instant) -> Duration {
        let oldest = lock(&self.cuts).began.values().min().copied();
        oldest.map_or(Duration::ZERO, |began| now.saturating_duration_since(began))
    }

    /// A hook was not told of a change; why, in words.
    pub fn lose_hook(&self, why: String) {
        let mut hooks = lock(&self.hooks);
        *hooks = (hooks.0 + 1, Some(why));
    }

    /// How often that was, and why the last time.
    pub fn hooks_lost(&self) -> (u64, Option<String>) {
        lock(&self.hooks).clone()
    }
}

/// A cut that is under way.
#[derive(Debug)]
pub struct Cutting {
    vitals: Arc<Vitals>,
    number: u64,
}

impl Drop for Cutting {
    fn drop(&mut self) {
        lock(&self.vitals.cuts).began.remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_cut_counts_until_it_has_ended() {
        let vitals = Arc::new(Vitals::default());
        let later = |seconds| clock::now() + Duration::from_secs(seconds);
        assert_eq!(vitals.cutting_for(later(9)), Duration::ZERO);
        let (first, second) = (vitals.cutting(), vitals.cutting());
        assert!(vitals.cutting_for(later(9)) >= Duration::from_secs(9));
        drop(first);
        assert!(vitals.cutting_for(later(9)) >= Duration::from_secs(9), "the second goes on");
        drop(second);
        assert_eq!(vitals.cutting_for(later(9)), Duration::ZERO);
    }
}
