//! What a backend is, by all who have a say in it: operators, the traffic, the way to it, its checks.

use std::time::SystemTime;

use lb_core::config::model::{Backend, Farm};
use lb_core::desired::{BackendFacts, rank};
use lb_core::health::Judgement;
use lb_core::standing::{Ground, Known};
use lb_core::state::{AdminState, BackendStatus};

use super::BackendKey;
use super::judgements::Judgements;
use super::operators::Operators;
use super::passive::Passive;
use super::ways::Ways;

/// See the module.
#[derive(Clone, Copy)]
pub(super) struct Voices<'a> {
    pub operators: &'a Operators,
    pub judgements: &'a Judgements,
    pub passive: &'a Passive,
    pub ways: &'a Ways,
}

/// What is said of a backend's status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub admin: AdminState,
    pub reason: String,
    /// Since when; nothing, if it has been so since the start.
    pub since: Option<SystemTime>,
}

impl<'a> Voices<'a> {
    /// Status and weight of a farm's backends as of now, in order.
    pub fn facts(&self, farm: &Farm) -> Vec<BackendFacts> {
        let facts = farm.backends.iter().map(|backend| {
            let key = key(farm, backend);
            let set = self.operators.of(&key);
            let known = self.known_by(&key, set.admin, farm, backend);
            let weight = set.weight.unwrap_or(backend.weight);
            let failing = matches!(known.held, Some((Judgement::Down, _)));
            let unreachable = self.ways.must_not_be_taken(farm.mode, &backend.address);
            BackendFacts {
                status: known.status(),
                weight,
                ramp: self.judgements.ramp(&key),
                failing,
                unreachable,
            }
        });
        let mut facts: Vec<BackendFacts> = facts.collect();
        rank(farm, &mut facts);
        facts
    }

    /// Why a backend's status is what it is.
    pub fn said(&self, farm: &Farm, backend: &Backend, status: BackendStatus) -> Said {
        let key = key(farm, backend);
        let admin = self.operators.of(&key).admin;
        let (reason, ground) = self.known_by(&key, admin, farm, backend).reason(status);
        let since = match ground {
            Ground::Judgement => self.judgements.of(&key).map(|health| health.since),
            Ground::Reach => self.ways.lack_since(farm.mode, &backend.address),
            Ground::Setting => None,
        };
        let since = since.or_else(|| self.operators.touched(&key));
        Said { admin, reason, since }
    }

    /// All that is known of a backend.
    pub fn known(&self, farm: &Farm, backend: &Backend) -> Known<'a> {
        let key = key(farm, backend);
        self.known_by(&key, self.operators.of(&key).admin, farm, backend)
    }

    /// The same, by whoever has made the key already and asked the operators: this is asked of thousands each second.
    fn known_by(&self, key: &BackendKey, admin: AdminState, farm: &Farm, backend: &Backend) -> Known<'a> {
        Known {
            admin,
            ejected: self.passive.ejected(key).map(String::as_str),
            farm_enabled: farm.enabled,
            checked: !farm.checks.is_empty(),
            held: self.judgements.of(key).map(|health| (health.status, health.reason.as_str())),
            reach: self.ways.reach(farm.mode, &backend.address),
        }
    }
}

fn key(farm: &Farm, backend: &Backend) -> BackendKey {
    (farm.name.clone(), backend.name.clone())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use lb_common::abi::NextHop;

    use super::*;
    use crate::daemon::judgements::Health;
    use crate::daemon::test_config::{key, parse, web};
    use crate::handle::BackendPatch;
    use crate::overrides::Overrides;

    #[test]
    fn facts_and_reasons_are_of_whoever_has_the_last_word() {
        let folder = tempfile::tempdir().unwrap();
        let mut operators = Operators::new(Overrides::load(folder.path()).unwrap());
        let untouched = Operators::new(Overrides::load(folder.path()).unwrap());
        let (mut judgements, passive) = (Judgements::default(), Passive::default());
        let config = parse(&web(""));
        let farm = &config.farms[0];
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (backend, status) in [("a", Judgement::Up), ("b", Judgement::Down)] {
            let health = Health { status, reason: status.as_str().to_owned(), since: at(1) };
            judgements.set(key(backend), health);
        }
        let patch = BackendPatch { admin: Some(AdminState::Drain), weight: Some(9) };
        let setting = operators.plan(key("a"), &farm.backends[0], patch).unwrap();
        operators.set(&setting);
        operators.touch(&key("a"), at(2));
        let hop = NextHop { ifindex: 2, destination: [4; 6], source: [2; 6] };
        let known = |backend: &Backend| (backend.address.iter().next().unwrap(), hop);
        let ways = Ways::new(farm.backends.iter().map(known).collect::<HashMap<_, _>>());
        let (operators, judgements, passive) = (&operators, &judgements, &passive);
        let voices = Voices { operators, judgements, passive, ways: &ways };
        let facts = voices.facts(farm);
        assert_eq!((facts[0].status, facts[0].weight), (BackendStatus::Draining, 9));
        assert_eq!((facts[1].status, facts[1].weight, facts[1].failing), (BackendStatus::Down, 1, true));
        let said = voices.said(farm, &farm.backends[0], facts[0].status);
        assert_eq!((said.reason.as_str(), said.since), ("drained by an operator; up", Some(at(2))));
        let said = voices.said(farm, &farm.backends[1], facts[1].status);
        assert_eq!((said.reason.as_str(), said.since), ("down", Some(at(1))));
        let unsought = Ways::default();
        let facts = Voices { ways: &unsought, operators: &untouched, ..voices }.facts(farm);
        assert_eq!([facts[0].status, facts[1].status], [BackendStatus::Starting, BackendStatus::Down]);
    }
}
