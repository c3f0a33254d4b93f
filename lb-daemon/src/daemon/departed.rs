//! Backends that the configuration no longer has, but connections do: they are checked until the last connection is gone, and when
//! one goes down its connections are cut as they would have been.
//!
//! And VIPs that were taken away: their connections are cut, and for a while the program still knows them, so that whoever
//! speaks is told by a reset.
//!
//! The daemon that took them out remembers them. One that is started later knows of them no more than their numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lb_core::config::model::{Backend, BackendName, Config, Farm, OnDown};
use lb_core::diff::Number;
use lb_core::health::Target;
use lb_core::state::{EventKind, EventLevel};

use super::judgements::Judgements;
use super::{BackendKey, Daemon, describe, health::Down};
use crate::checks::{BackendHealth, Judgement, targets};
use crate::clock;

/// A backend as it was when it left.
#[derive(Debug, Clone)]
pub(super) struct Departed {
    /// The farm as it was, with no other backend. The backend has a name for the checks: another of the old one's may be there.
    farm: Farm,
    /// Who it was, for people.
    who: String,
    is_down: bool,
}

/// For how long the program knows a VIP that was taken away: longer than a connection that was cut is remembered, and than a
/// neighbour remembers whose the address was.
const VIP_KEPT: Duration = Duration::from_secs(60);

/// Those that left, by number.
pub(super) type AllDeparted = BTreeMap<u16, Departed>;

impl Daemon {
    /// Remembers the backends of `old` that were up, as `held` says, and that the configuration in force has no more.
    pub(super) fn remember_departed(&mut self, old: &Config, held: &Judgements) {
        let pairs = old
            .farms
            .iter()
            .filter(|farm| farm.enabled)
            .flat_map(|farm| farm.backends.iter().map(move |backend| (farm, backend)));
        let left = pairs.filter(|(farm, backend)| !stays(&self.config, farm, backend));
        let left: AllDeparted = left
            .filter(|(farm, backend)| {
                let key = (farm.name.clone(), backend.name.clone());
                held.serves(&key)
            })
            .filter_map(|(farm, backend)| {
                let id = self.backend_id(farm, backend)?;
                let name = BackendName::new(&format!("{}:was-{id}", backend.name))?;
                let alone = Backend { name, ..backend.clone() };
                let who = describe::backend(farm, backend);
                Some((
                    id,
                    Departed { farm: Farm { backends: vec![alone], ..farm.clone() }, who, is_down: false },
                ))
            })
            .collect();
        self.departed.extend(left);
        // A number that somebody has again is his own concern.
        let pairs = self.config.farms.iter().flat_map(|farm| farm.backends.iter().map(move |b| (farm, b)));
        let current: Vec<u16> = pairs.filter_map(|(farm, backend)| self.backend_id(farm, backend)).collect();
        self.departed.retain(|id, _| !current.contains(id));
    }

    /// Forgets those that no connection bears any more; whether there were any.
    pub(super) fn forget_departed(&mut self) -> bool {
        let gone: Vec<u16> = self
            .departed
            .keys()
            .copied()
            .filter(|&id| !self.sweeping.is_borne(Number::Backend(id), self.dataplane.changes()))
            .collect();
        gone.iter().for_each(|id| drop(self.departed.remove(id)));
        !gone.is_empty()
    }

    /// What of theirs is to be checked.
    pub(super) fn departed_targets(&self) -> Vec<Target> {
        let farms = self.departed.values().map(|departed| departed.farm.clone()).collect();
        // They were up when they left.
        targets(&Config { daemon: self.config.daemon.clone(), farms }, |_, _, _| Judgement::Up)
    }

    /// Takes a report if it is of one of them; whether it was. Whoever went down once has no connections that come back.
    pub(super) fn judge_departed(&mut self, report: &BackendHealth) -> bool {
        let key: BackendKey = (report.farm.clone(), report.backend.clone());
        let found = self.departed.iter_mut().find(|(_, departed)| {
            departed.farm.name == key.0 && departed.farm.backends.iter().any(|backend| backend.name == key.1)
        });
        let Some((&id, departed)) = found else { return false };
        if report.status == Judgement::Down && !departed.is_down {
            departed.is_down = true;
            let down = Down {
                cut: departed.farm.on_down == OnDown::Cut,
                former: Some(departed.who.clone()),
                key,
                reason: report.reason.clone(),
                connections: 0,
                unfinished: false,
            };
            self.cut_and_tell(BTreeMap::from([(id, down)]));
        }
        true
    }

    pub(super) fn tell_departed_down(&self, down: &Down, who: &str) {
        let (farm, reason) = (&down.key.0, &down.reason);
        let message = format!(
            "BackEnd {who} down in farm: '{farm}': {reason}; the configuration no longer has it; {}",
            down.fate()
        );
        self.tell(EventLevel::Warning, EventKind::BackendDown, Some(farm), None, message);
    }
}

impl Daemon {
    /// Remembers the VIPs that `old` has and the configuration that is about to be brought in has not.
    pub(super) fn remember_vips(&mut self, old: &Config) -> Vec<IpAddr> {
        let there = vips(&self.config);
        let gone: Vec<IpAddr> = vips(old).difference(&there).copied().collect();
        let until = clock::now() + VIP_KEPT;
        self.former_vips.extend(gone.iter().map(|vip| (*vip, until)));
        self.former_vips.retain(|vip, _| !there.contains(vip));
        gone
    }

    /// The VIPs that were to go stay after all.
    pub(super) fn keep_vips(&mut self, gone: &[IpAddr]) {
        self.former_vips.retain(|vip, _| !gone.contains(vip));
    }

    /// Forgets VIPs whose time is over; whether there were any.
    pub(super) fn forget_vips(&mut self, now: Instant) -> bool {
        let before = self.former_vips.len();
        self.former_vips.retain(|_, until| now < *until);
        self.former_vips.len() != before
    }
}

/// Those of farms that are enabled.
fn vips(config: &Config) -> BTreeSet<IpAddr> {
    config.farms.iter().filter(|farm| farm.enabled).flat_map(|farm| farm.vips.iter().copied()).collect()
}

/// Whether `config` has the same server in the same farm.
pub(super) fn stays(config: &Config, farm: &Farm, backend: &Backend) -> bool {
    config.farm(farm.name.as_str()).is_some_and(|farm| {
        let same = |other: &Backend| {
            other.name == backend.name && other.address == backend.address && other.port == backend.port
        };
        farm.enabled && farm.backends.iter().any(same)
    })
}
