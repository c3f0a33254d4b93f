//! What is held of the backends' health, as last reported, and who of them starts slowly.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime};

use lb_core::config::renames::Heirs;
use lb_core::health::Judgement;
use lb_core::standing::{RAMP_FROM, Turn, ramp, turn};

use super::BackendKey;
use crate::checks::BackendHealth;

/// What is known of a backend's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Health {
    pub status: Judgement,
    pub reason: String,
    /// Since when the status is what it is.
    pub since: SystemTime,
}

impl From<BackendHealth> for Health {
    fn from(BackendHealth { status, reason, since, .. }: BackendHealth) -> Self {
        Self { status, reason, since }
    }
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Judgements {
    held: HashMap<BackendKey, Health>,
    /// Backends that start slowly: since when, and how much of their weight counts by now, in percent.
    ramps: BTreeMap<BackendKey, (Instant, u8)>,
}

impl Judgements {
    pub fn of(&self, key: &BackendKey) -> Option<&Health> {
        self.held.get(key)
    }

    /// Whether a backend is held to be well enough for traffic.
    pub fn serves(&self, key: &BackendKey) -> bool {
        self.of(key).is_some_and(|health| health.status.serves())
    }

    pub fn is_down(&self, key: &BackendKey) -> bool {
        self.of(key).is_some_and(|health| health.status == Judgement::Down)
    }

    /// How much of its weight counts, in percent.
    pub fn ramp(&self, key: &BackendKey) -> u8 {
        self.ramps.get(key).map_or(100, |(_, percent)| *percent)
    }

    /// Takes a report over; what has turned. Who comes back starts slowly if its farm wants that.
    pub fn note(
        &mut self,
        key: BackendKey,
        health: Health,
        slow_start: Duration,
        now: Instant,
    ) -> Option<Turn> {
        let status = health.status;
        let before = self.held.insert(key.clone(), health).map(|health| health.status);
        let turned = turn(before, status)?;
        if turned == Turn::Back && !slow_start.is_zero() {
            self.ramps.insert(key, (now, RAMP_FROM));
        } else if turned == Turn::Down {
            self.ramps.remove(&key);
        }
        Some(turned)
    }

    /// What is held without a report.
    pub fn set(&mut self, key: BackendKey, health: Health) {
        self.held.insert(key, health);
    }

    pub fn retain(&mut self, keep: impl Fn(&BackendKey) -> bool) {
        self.held.retain(|key, _| keep(key));
        self.ramps.retain(|key, _| keep(key));
    }

    /// What was held of the backends under their former names holds under those of now, and of others nothing.
    pub fn hand_on(&mut self, heirs: &Heirs) {
        let before = std::mem::take(self);
        for (to, from) in heirs {
            self.held.extend(before.held.get(from).map(|health| (to.clone(), health.clone())));
            self.ramps.extend(before.ramps.get(from).map(|ramp| (to.clone(), *ramp)));
        }
    }

    /// Moves slow starts on, which take as long as `over` says; whether any weight has changed.
    pub fn ramp_up(&mut self, now: Instant, over: impl Fn(&BackendKey) -> Duration) -> bool {
        let mut changed = false;
        self.ramps.retain(|key, (since, percent)| {
            let step = ramp(now.saturating_duration_since(*since), over(key), *percent);
            changed |= step != *percent;
            *percent = step;
            step < 100
        });
        changed
    }
}

#[cfg(test)]
mod tests {
    use lb_core::config::model::{BackendName, FarmName};

    use super::*;

    const SLOW: Duration = Duration::from_secs(10);

    fn key(backend: &str) -> BackendKey {
        (FarmName::new("web").unwrap(), BackendName::new(backend).unwrap())
    }

    fn health(status: Judgement) -> Health {
        Health { status, reason: status.as_str().to_owned(), since: SystemTime::UNIX_EPOCH }
    }

    #[test]
    fn who_comes_back_starts_slowly_and_who_falls_again_no_more() {
        let (mut judgements, now) = (Judgements::default(), Instant::now());
        let note = |judgements: &mut Judgements, status| judgements.note(key("a"), health(status), SLOW, now);
        assert_eq!(note(&mut judgements, Judgement::Up), Some(Turn::Up));
        assert_eq!(judgements.ramp(&key("a")), 100, "the first time is no return");
        assert_eq!(note(&mut judgements, Judgement::Down), Some(Turn::Down));
        assert_eq!(note(&mut judgements, Judgement::Up), Some(Turn::Back));
        assert_eq!(judgements.ramp(&key("a")), RAMP_FROM);
        assert!(!judgements.ramp_up(now + Duration::from_secs(1), |_| SLOW));
        assert!(judgements.ramp_up(now + Duration::from_secs(5), |_| SLOW));
        assert_eq!(judgements.ramp(&key("a")), 50);
        assert_eq!(note(&mut judgements, Judgement::Unchecked), Some(Turn::Unchecked));
        assert_eq!(judgements.ramp(&key("a")), 50, "it goes on");
        assert!(judgements.ramp_up(now + SLOW, |_| SLOW));
        assert!(!judgements.ramp_up(now + SLOW * 2, |_| SLOW), "nobody is left");
    }

    #[test]
    fn judgement_and_slow_start_follow_a_server_to_its_new_name() {
        let (mut judgements, now) = (Judgements::default(), Instant::now());
        for status in [Judgement::Down, Judgement::Up] {
            judgements.note(key("a"), health(status), SLOW, now);
        }
        judgements.note(key("b"), health(Judgement::Down), SLOW, now);
        judgements.hand_on(&Heirs::from([(key("c"), key("a"))]));
        assert!(judgements.serves(&key("c")));
        assert_eq!(judgements.ramp(&key("c")), RAMP_FROM);
        assert_eq!((judgements.of(&key("a")), judgements.of(&key("b"))), (None, None));
    }
}
