//! Backends that the configuration no longer has, but connections do: they are checked until the last connection is gone, and when
//! one goes down its connections are cut as they would have been.
//!
//! The daemon that took them out remembers them. One that is started later knows of them no more than their numbers.

use std::collections::BTreeMap;

use lb_core::config::model::{self, Backend, BackendName, Config, Farm, OnDown};
use lb_core::departed::{falls, leavers};
use lb_core::health::{Judgement, Target};

use super::cuts::Down;
use super::{BackendKey, words};
use crate::checks::{BackendHealth, targets};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Departed {
    /// By number.
    left: BTreeMap<u16, One>,
}

/// A backend as it was when it left.
#[derive(Debug)]
struct One {
    /// The farm as it was, with no other backend. The backend has a name for the checks: another of the old one's may be there.
    farm: Farm,
    /// Who it was, for people.
    who: String,
    is_down: bool,
}

/// What a report was.
#[derive(Debug)]
pub(super) enum Reported {
    /// Not of one of them.
    OfAnother,
    /// Nothing follows.
    Noted,
    /// It went down.
    Down(u16, Down),
}

impl Departed {
    /// Remembers the backends of `old` that were up, as `served` says, and that `new` has no more. `id`: the number by which the
    /// data plane knows a backend.
    pub fn remember(
        &mut self,
        old: &Config,
        new: &Config,
        served: impl Fn(&BackendKey) -> bool,
        id: impl Fn(&Farm, &Backend) -> Option<u16>,
    ) {
        let left = leavers(old, new)
            .filter(|(farm, backend)| farm.enabled && served(&(farm.name.clone(), backend.name.clone())));
        let left = left.filter_map(|(farm, backend)| {
            let id = id(farm, backend)?;
            let name = BackendName::new(&format!("{}:was-{id}", backend.name))?;
            let alone = Backend { name, ..backend.clone() };
            let farm_alone = Farm { backends: vec![alone], ..farm.clone() };
            Some((id, One { farm: farm_alone, who: words::who(farm, backend), is_down: false }))
        });
        self.left.extend(left);
        // A number that somebody has again is his own concern.
        let pairs =
            new.farms.iter().flat_map(|farm| farm.backends.iter().map(move |backend| (farm, backend)));
        let current: Vec<u16> = pairs.filter_map(|(farm, backend)| id(farm, backend)).collect();
        self.left.retain(|id, _| !current.contains(id));
    }

    /// Forgets those that no connection bears any more; whether there were any.
    pub fn forget(&mut self, is_borne: impl Fn(u16) -> bool) -> bool {
        let before = self.left.len();
        self.left.retain(|&id, _| is_borne(id));
        self.left.len() != before
    }

    /// What of theirs is to be checked.
    pub fn targets(&self, daemon: &model::Daemon) -> Vec<Target> {
        let farms = self.left.values().map(|one| one.farm.clone()).collect();
        // They were up when they left.
        targets(&Config { daemon: daemon.clone(), farms }, |_, _, _| Judgement::Up)
    }

    /// Takes a report if it is of one of them.
    pub fn judge(&mut self, report: &BackendHealth) -> Reported {
        let found = self.left.iter_mut().find(|(_, one)| {
            one.farm.name == report.farm
                && one.farm.backends.iter().any(|backend| backend.name == report.backend)
        });
        let Some((&id, one)) = found else { return Reported::OfAnother };
        if !falls(one.is_down, report.status) {
            return Reported::Noted;
        }
        one.is_down = true;
        let down = Down {
            cut: one.farm.on_down == OnDown::Cut,
            former: Some(one.who.clone()),
            key: (report.farm.clone(), report.backend.clone()),
            reason: report.reason.clone(),
            connections: 0,
            unfinished: false,
        };
        Reported::Down(id, down)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::daemon::test_config::{key, parse, web};

    /// Numbers by the last byte of the address.
    fn id(_: &Farm, backend: &Backend) -> Option<u16> {
        backend.address.v4.map(|address| address.octets()[3].into())
    }

    fn left(old: &str, new: &str, served: impl Fn(&BackendKey) -> bool) -> Departed {
        let mut departed = Departed::default();
        departed.remember(&parse(old), &parse(new), served, id);
        departed
    }

    fn report(backend: &str, status: Judgement) -> BackendHealth {
        let (farm, backend) = key(backend);
        BackendHealth { farm, backend, status, reason: "refused".to_owned(), since: SystemTime::UNIX_EPOCH }
    }

    fn checked(departed: &Departed) -> Vec<(String, Judgement)> {
        let targets = departed.targets(&parse("").daemon);
        targets.into_iter().map(|target| (target.backend.to_string(), target.adopted)).collect()
    }

    #[test]
    fn who_was_up_is_checked_on_under_a_name_of_its_own() {
        let departed = left(&web(""), "", |found| *found == key("a"));
        assert_eq!(checked(&departed), [("a:was-1".to_owned(), Judgement::Up)]);
        let disabled = left(&web("enabled = false"), "", |_| true);
        assert!(checked(&disabled).is_empty(), "nobody was sent to it");
    }

    #[test]
    fn a_number_that_is_in_use_again_is_forgotten_and_so_is_one_that_no_connection_bears() {
        let mut departed = left(&web(""), "", |_| true);
        assert_eq!(checked(&departed).len(), 2);
        assert!(!departed.forget(|_| true));
        assert!(departed.forget(|id| id == 2));
        assert_eq!(checked(&departed), [("b:was-2".to_owned(), Judgement::Up)]);
        departed.remember(&parse(""), &parse(&web("")), |_| true, id);
        assert!(checked(&departed).is_empty());
    }

    #[test]
    fn it_goes_down_once_and_as_its_farm_would_have_had_it() {
        for (keys, cut) in [("", true), ("on_down = \"keep\"", false)] {
            let mut departed = left(&web(keys), "", |_| true);
            assert!(matches!(departed.judge(&report("a", Judgement::Down)), Reported::OfAnother));
            assert!(matches!(departed.judge(&report("a:was-1", Judgement::Up)), Reported::Noted));
            let Reported::Down(id, down) = departed.judge(&report("a:was-1", Judgement::Down)) else {
                panic!("it went down");
            };
            assert_eq!((id, down.cut, down.former.as_deref()), (1, cut, Some("10.0.0.1:80")));
            assert!(matches!(departed.judge(&report("a:was-1", Judgement::Down)), Reported::Noted));
        }
    }
}
