//! What comes back into force if a change is refused that is in the maps already, and what was reported meanwhile.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_core::config::model::{Backend, Config};
use lb_core::config::renames::Heirs;

use super::BackendKey;
use super::judgements::{Health, Judgements};
use crate::checks::BackendHealth;
use crate::overrides::Overrides;

/// See the module.
pub(super) struct Former {
    pub config: Arc<Config>,
    /// The VIPs that the new one has not.
    pub gone: Vec<IpAddr>,
    /// What operators had set, if that changes.
    pub overrides: Option<Overrides>,
    /// Who of the new ones is who of the old ones.
    pub heirs: Heirs,
    /// As reported until now, under the names of before.
    pub judgements: Judgements,
    /// What was reported meanwhile of backends that the new one does not have.
    pub missed: Vec<BackendHealth>,
}

impl Former {
    /// Who a backend of the new configuration was.
    pub fn was(&self, key: &BackendKey) -> Option<&Backend> {
        let from = self.heirs.get(key)?;
        let farm = self.config.farm(from.0.as_str())?;
        farm.backends.iter().find(|backend| backend.name == from.1)
    }

    /// Takes a report that comes before it is certain which configuration stays: the checks are still those of before, and so
    /// are their names. It is given back under the names of now.
    pub fn take_report(&mut self, report: BackendHealth, now: Instant) -> Vec<BackendHealth> {
        let key = (report.farm.clone(), report.backend.clone());
        let heirs: Vec<_> = self.heirs.iter().filter(|(_, from)| **from == key).map(|(to, _)| to).collect();
        if heirs.is_empty() {
            self.missed.push(report);
            return Vec::new();
        }
        let told = heirs.into_iter().cloned().map(|(farm, backend)| BackendHealth {
            farm,
            backend,
            ..report.clone()
        });
        let told = told.collect();
        let slow_start = self.config.farm(key.0.as_str()).map_or(Duration::ZERO, |farm| farm.slow_start);
        // Whoever turns is told under the names of now.
        self.judgements.note(key, Health::from(report), slow_start, now);
        told
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::checks::Judgement;
    use crate::daemon::test_config::{key, parse, web};

    /// Whose backend `a` has the name `c` now.
    fn former() -> Former {
        Former {
            config: Arc::new(parse(&web(""))),
            gone: Vec::new(),
            overrides: None,
            heirs: Heirs::from([(key("c"), key("a")), (key("b"), key("b"))]),
            judgements: Judgements::default(),
            missed: Vec::new(),
        }
    }

    #[test]
    fn reports_that_come_while_a_change_is_written_are_of_both_configurations() {
        let mut former = former();
        let (since, status, reason) = (SystemTime::now(), Judgement::Down, "refused".to_owned());
        let mut told = |name: &str| -> Vec<String> {
            let (farm, backend) = key(name);
            let report = BackendHealth { farm, backend, status, reason: reason.clone(), since };
            former
                .take_report(report, Instant::now())
                .into_iter()
                .map(|report| report.backend.to_string())
                .collect()
        };
        assert_eq!(told("b"), ["b"]);
        assert_eq!(told("a"), ["c"], "it has another name now");
        assert!(told("gone").is_empty());
        // A server that is new under a name that another had has not been checked yet.
        assert!(told("c").is_empty());
        let status = |name: &str| former.judgements.of(&key(name)).map(|health| health.status);
        assert_eq!([status("b"), status("a")], [Some(Judgement::Down); 2]);
        assert_eq!([status("gone"), status("c")], [None; 2]);
        let missed: Vec<&str> = former.missed.iter().map(|report| report.backend.as_str()).collect();
        assert_eq!(missed, ["gone", "c"], "told again if they stay after all");
    }

    #[test]
    fn a_backend_is_known_by_its_new_name() {
        let former = former();
        let was = |name| former.was(&key(name)).map(|backend| backend.name.as_str());
        assert_eq!([was("c"), was("b"), was("a")], [Some("a"), Some("b"), None]);
    }
}
