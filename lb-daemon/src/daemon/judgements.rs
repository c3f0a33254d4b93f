//! What is held of the backends' health, as last reported, and who of them starts slowly.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use lb_core::config::model::{Backend, Config, Farm};
use lb_core::config::renames::Heirs;
use lb_core::health::Judgement;
use lb_core::standing::{RAMP_FROM, Turn, after_change, ramp, turn};

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

    /// What the daemon before this one held of the backends, as `held` tells of each, holds until a check says otherwise.
    pub fn adopt(&mut self, config: &Config, held: impl Fn(&Farm, &Backend) -> Judgement, since: SystemTime) {
        let enabled = config.farms.iter().filter(|farm| farm.enabled);
        for (farm, backend) in
            enabled.flat_map(|farm| farm.backends.iter().map(move |backend| (farm, backend)))
        {
            let status = held(farm, backend);
            if status != Judgement::Starting {
                let reason = format!("held to be {} by the daemon before this one", status.as_str());
                self.set((farm.name.clone(), backend.name.clone()), Health { status, reason, since });
            }
        }
    }

    /// What was held of the backends of `old` under their names of before holds under those of now, and of others nothing. What
    /// was held before is returned.
    pub fn hand_on(&mut self, heirs: &Heirs, old: &Config, now: SystemTime) -> Self {
        let before = std::mem::take(self);
        for (to, from) in heirs {
            self.held.extend(before.held.get(from).map(|health| (to.clone(), health.clone())));
            self.ramps.extend(before.ramps.get(from).map(|ramp| (to.clone(), *ramp)));
            // A farm that had no checks sent traffic to all, and goes on until its first checks have judged them.
            if old.farm(from.0.as_str()).is_some_and(|farm| farm.checks.is_empty()) {
                let reason = "the farm had no checks until now".to_owned();
                self.set(to.clone(), Health { status: Judgement::Unchecked, reason, since: now });
            }
        }
        before
    }

    /// What the checks of another configuration are to take a backend for that was `was` before.
    pub fn after_change(&self, key: &BackendKey, was: Option<&Backend>, address: IpAddr) -> Judgement {
        let had = was.is_some_and(|was| was.address.iter().any(|had| had == address));
        after_change(self.of(key).map(|health| health.status), had)
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
    use super::*;
    use crate::daemon::test_config::{key, parse, web};

    const SLOW: Duration = Duration::from_secs(10);

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
        let before = judgements.hand_on(
            &Heirs::from([(key("c"), key("a"))]),
            &parse(&web("")),
            SystemTime::UNIX_EPOCH,
        );
        assert!(judgements.serves(&key("c")));
        assert_eq!(judgements.ramp(&key("c")), RAMP_FROM);
        assert_eq!((judgements.of(&key("a")), judgements.of(&key("b"))), (None, None));
        assert!(before.serves(&key("a")) && !before.serves(&key("b")));
    }

    #[test]
    fn who_was_served_without_checks_goes_on_until_its_first_checks_have_judged_it() {
        let mut judgements = Judgements::default();
        let heirs = Heirs::from([(key("a"), key("a"))]);
        judgements.hand_on(&heirs, &parse(&web("check = []")), SystemTime::UNIX_EPOCH);
        assert_eq!(judgements.of(&key("a")).unwrap().status, Judgement::Unchecked);
        let config = parse(&web(""));
        let was = &config.farms[0].backends[0];
        let address = |text: &str| text.parse().unwrap();
        let after = |was, address| judgements.after_change(&key("a"), was, address);
        assert_eq!(after(Some(was), address("10.0.0.1")), Judgement::Unchecked);
        assert_eq!(after(Some(was), address("10.0.0.9")), Judgement::Starting, "it did not have that one");
        assert_eq!(after(None, address("10.0.0.1")), Judgement::Starting);
    }

    #[test]
    fn what_the_daemon_before_held_holds_unless_it_held_nothing() {
        let mut judgements = Judgements::default();
        let held = |_: &Farm, backend: &Backend| match backend.name == key("a").1 {
            true => Judgement::Up,
            false => Judgement::Starting,
        };
        judgements.adopt(&parse(&web("enabled = false")), held, SystemTime::UNIX_EPOCH);
        assert!(judgements.of(&key("a")).is_none(), "nobody used it");
        judgements.adopt(&parse(&web("")), held, SystemTime::UNIX_EPOCH);
        let health = judgements.of(&key("a")).unwrap();
        assert_eq!(health.reason, "held to be up by the daemon before this one");
        assert!(judgements.of(&key("b")).is_none());
    }
}
