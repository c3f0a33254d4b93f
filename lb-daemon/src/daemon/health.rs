//! What the checks report, what operators have set, and what follows for a backend.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_core::config::model::{Backend, BackendName, Config, Farm, FarmName, OnDown, WhenAllDown};
use lb_core::config::renames::Heirs;
use lb_core::desired::{BackendFacts, adopted, rank};
use lb_core::standing::{Known, Turn};
use lb_core::state::{EventKind, EventLevel};

use super::changing::Former;
use super::jobs::CUT_WITHIN;
use super::judgements::{Health, Judgements};
use super::{BackendKey, Daemon, describe};
use crate::checks::{BackendHealth, Judgement, targets};
use crate::clock;

/// So many reports are taken together: others wait, too.
const REPORTS_AT_ONCE: usize = 1024;

/// A backend that went down.
#[derive(Debug, Clone)]
pub(super) struct Down {
    pub key: BackendKey,
    pub reason: String,
    /// Whether its connections are cut, and how many they are.
    pub cut: bool,
    pub connections: u64,
    /// That takes longer than who is down can wait to be told.
    pub unfinished: bool,
    /// Who it was, if the configuration no longer has it.
    pub former: Option<String>,
}

impl Down {
    /// What becomes of its connections.
    pub fn fate(&self) -> String {
        let connections = describe::count(self.connections, "connection");
        match (self.unfinished, self.cut) {
            (true, true) => "its connections are still being cut".to_owned(),
            (true, false) => "it keeps its connections".to_owned(),
            (false, true) => format!("{connections} cut"),
            (false, false) => format!("it keeps {connections}"),
        }
    }
}

impl Daemon {
    /// Status and weight of a farm's backends as of now, in order.
    pub(super) fn facts(&self, farm: &Farm) -> Vec<BackendFacts> {
        let facts = farm.backends.iter().map(|backend| {
            let key = (farm.name.clone(), backend.name.clone());
            let weight = self.overrides.get(&farm.name, &backend.name).weight.unwrap_or(backend.weight);
            let (ramp, failing) = (self.judgements.ramp(&key), self.judgements.is_down(&key));
            BackendFacts { status: self.known(farm, backend, &key).status(), weight, ramp, failing }
        });
        let mut facts: Vec<BackendFacts> = facts.collect();
        rank(farm, &mut facts);
        facts
    }

    /// All that is known of a backend.
    pub(super) fn known<'a>(&'a self, farm: &Farm, backend: &Backend, key: &BackendKey) -> Known<'a> {
        Known {
            admin: self.overrides.get(&key.0, &key.1).admin,
            ejected: self.passive.ejected(key).map(String::as_str),
            farm_enabled: farm.enabled,
            checked: !farm.checks.is_empty(),
            held: self.judgements.of(key).map(|health| (health.status, health.reason.as_str())),
            reach: self.surroundings.ways().reach(&backend.address),
        }
    }

    pub(super) fn find(&self, farm: &FarmName, backend: &BackendName) -> Option<(&Farm, &Backend)> {
        let farm = self.config.farm(farm.as_str())?;
        Some((farm, farm.backends.iter().find(|candidate| candidate.name == *backend)?))
    }

    /// The number by which the data plane knows a backend.
    pub(super) fn backend_id(&self, farm: &Farm, backend: &Backend) -> Option<u16> {
        self.dataplane.backend_id(farm, backend)
    }

    /// What the daemon before this one held of a backend, as far as the maps tell.
    pub(super) fn held_before(&self, farm: &Farm, backend: &Backend) -> Judgement {
        adopted(self.dataplane.backend_flags(farm, backend))
    }

    /// What the daemon before this one held of the backends holds until a check says otherwise.
    pub(super) fn adopt_health(&mut self) {
        let enabled = self.config.farms.iter().filter(|farm| farm.enabled);
        let pairs = enabled.flat_map(|farm| farm.backends.iter().map(move |backend| (farm, backend)));
        let adopted: Vec<_> = pairs
            .map(|(farm, backend)| {
                let status = self.held_before(farm, backend);
                let reason = format!("held to be {} by the daemon before this one", status.as_str());
                ((farm.name.clone(), backend.name.clone()), Health { status, reason, since: self.started })
            })
            .collect();
        for (key, health) in adopted.into_iter().filter(|(_, health)| health.status != Judgement::Starting) {
            self.judgements.set(key, health);
        }
    }

    /// What is held of the backends under their names of before holds under those of now; of a server that was not there nothing
    /// is. What was held before is returned.
    pub(super) fn hand_on_health(&mut self, heirs: &Heirs, old: &Config) -> Judgements {
        let before = self.judgements.clone();
        self.judgements.hand_on(heirs);
        for (to, from) in heirs {
            // A farm that had no checks sent traffic to all, and goes on until its first checks have judged them.
            if old.farm(from.0.as_str()).is_some_and(|farm| farm.checks.is_empty()) {
                let reason = "the farm had no checks until now".to_owned();
                let unchecked = Health { status: Judgement::Unchecked, reason, since: clock::wall() };
                self.judgements.set(to.clone(), unchecked);
            }
        }
        before
    }

    /// What is held of a backend that another check is to look after from now on: who was up stays up until that one has spoken
    /// against it. An address that it did not have is another matter.
    pub(super) fn held_before_change(
        &self,
        former: &Former,
        farm: &Farm,
        backend: &Backend,
        address: IpAddr,
    ) -> Judgement {
        let key = (farm.name.clone(), backend.name.clone());
        let was = former.heirs.get(&key).and_then(|from| {
            let farm = former.config.farm(from.0.as_str())?;
            farm.backends.iter().find(|backend| backend.name == from.1)
        });
        let had = was.is_some_and(|was| was.address.iter().any(|had| had == address));
        let held = self.judgements.of(&key).map(|health| health.status).filter(|status| status.serves());
        held.filter(|_| had).unwrap_or(Judgement::Starting)
    }

    /// Tells the checks what to probe. `held`: what they are to take a backend at an address for that they do not know.
    pub(super) fn watch_backends(&mut self, held: impl Fn(&Self, &Farm, &Backend, IpAddr) -> Judgement) {
        let config = self.config.clone();
        let mut targets = targets(&config, |farm, backend, address| {
            let found = self.find(farm, backend);
            found.map_or(Judgement::Starting, |(farm, backend)| held(self, farm, backend, address))
        });
        let watched: BTreeSet<_> =
            targets.iter().map(|target| (target.farm.clone(), target.backend.clone())).collect();
        self.judgements.retain(|key| watched.contains(key));
        targets.extend(self.departed_targets());
        self.runner.set_targets(targets);
    }

    /// Checks have changed their mind about backends, or their words. All reports that have come are taken together: at a start
    /// there is one for each backend.
    pub(super) fn judged(&mut self, first: BackendHealth) {
        let mut turns = self.take_report(first);
        for _ in 0..REPORTS_AT_ONCE {
            let Ok(next) = self.inbox.health.try_recv() else { break };
            turns.extend(self.take_report(next));
        }
        if !turns.is_empty() {
            self.follow();
        }
        let mut down = Vec::new();
        for (key, turn, reason) in turns {
            match turn {
                Turn::Up => self.tell_up(&key, "up", &reason),
                Turn::Back => self.tell_up(&key, "resurrect", &reason),
                Turn::Down => down.push((key, reason)),
                Turn::Unchecked => self.tell_unchecked(&key, &reason),
                Turn::Starting => {}
            }
        }
        self.went_down(down);
        self.publish();
    }

    /// Notes a report; the turns that it tells of.
    fn take_report(&mut self, report: BackendHealth) -> Vec<(BackendKey, Turn, String)> {
        if self.judge_departed(&report) {
            return Vec::new();
        }
        let reports = match self.changing.former() {
            Some(former) => former.take_report(report, clock::now()),
            None => vec![report],
        };
        reports.into_iter().filter_map(|report| self.note(report)).collect()
    }

    fn note(&mut self, report: BackendHealth) -> Option<(BackendKey, Turn, String)> {
        // The configuration may have changed while the report was on its way.
        let slow_start = self.find(&report.farm, &report.backend)?.0.slow_start;
        let key = (report.farm.clone(), report.backend.clone());
        let health = Health::from(report);
        let reason = health.reason.clone();
        let turn = self.judgements.note(key.clone(), health, slow_start, clock::now())?;
        Some((key, turn, reason))
    }

    /// As FarmGuardian says it: `BackEnd 10.0.0.11:443 down in farm: 'exchange'`, and why.
    fn phrase(&self, key: &BackendKey, verb: &str, reason: &str) -> Option<String> {
        let (farm, backend) = self.find(&key.0, &key.1)?;
        let who = describe::backend(farm, backend);
        Some(format!("BackEnd {who} {verb} in farm: '{}': {reason}", farm.name))
    }

    pub(super) fn tell_up(&self, key: &BackendKey, verb: &str, reason: &str) {
        let Some(message) = self.phrase(key, verb, reason) else { return };
        self.tell(EventLevel::Info, EventKind::BackendUp, Some(&key.0), Some(&key.1), message);
    }

    /// Tells of backends that would serve if there were a way to them, and of those to which there is one again.
    pub(super) fn tell_ways(&mut self) {
        if self.surroundings.ways().are_all_known() && self.wayless.is_empty() {
            return;
        }
        let farms = self.config.farms.iter().filter(|farm| farm.enabled);
        let pairs = farms.flat_map(|farm| farm.backends.iter().map(move |backend| (farm, backend)));
        let keyed = pairs.map(|(farm, backend)| (farm, backend, (farm.name.clone(), backend.name.clone())));
        let without: BTreeSet<BackendKey> = keyed
            .filter(|(farm, backend, key)| self.known(farm, backend, key).lacks_only_a_way())
            .map(|(_, _, key)| key)
            .collect();
        let before = std::mem::replace(&mut self.wayless, without);
        for key in self.wayless.difference(&before) {
            self.tell_way(key, true);
        }
        for key in before.difference(&self.wayless) {
            self.tell_way(key, false);
        }
    }

    fn tell_way(&self, key: &BackendKey, lost: bool) {
        let Some((farm, backend)) = self.find(&key.0, &key.1) else { return };
        let known = self.known(farm, backend, key);
        let (level, phrase) = match lost {
            true => {
                let (reason, _) = known.reason(known.status());
                let why = format!("{reason}; it gets no new connections");
                (EventLevel::Warning, self.phrase(key, "down", &why))
            }
            false if known.status().serves() => {
                (EventLevel::Info, self.phrase(key, "resurrect", "its next hop is known"))
            }
            // Down for another reason by now, or taken out by hand: that is told by itself.
            false => return,
        };
        let Some(message) = phrase else { return };
        self.tell(level, EventKind::NextHop, Some(&key.0), Some(&key.1), message);
    }

    fn tell_unchecked(&self, key: &BackendKey, reason: &str) {
        let Some(phrase) = self.phrase(key, "unchecked", reason) else { return };
        let message = format!("{phrase}; it goes on as it was last judged");
        self.tell(EventLevel::Warning, EventKind::BackendUnchecked, Some(&key.0), Some(&key.1), message);
    }

    /// Does with the connections of backends that went down what their farms ask for, and tells.
    pub(super) fn went_down(&self, keys: Vec<(BackendKey, String)>) {
        let down = keys.into_iter().filter_map(|(key, reason)| {
            let (farm, backend) = self.find(&key.0, &key.1)?;
            let id = self.backend_id(farm, backend)?;
            let cut = farm.on_down == OnDown::Cut;
            Some((id, Down { cut, key, reason, connections: 0, unfinished: false, former: None }))
        });
        self.cut_and_tell(down.collect());
    }

    /// The same for backends by number.
    pub(super) fn cut_and_tell(&self, mut down: BTreeMap<u16, Down>) {
        if down.is_empty() {
            return;
        }
        // Beside the loop, and in one go for all of them: a large table takes a while. The events follow when it is done. If a
        // farm then tries all its backends, those who come by that are not meant.
        let (reader, now, cutting) = (self.dataplane.reader(), self.dataplane.ticks(), self.vitals.cutting());
        let unfinished: Vec<Down> =
            down.values().map(|down| Down { unfinished: true, ..down.clone() }).collect();
        self.jobs.cut(CUT_WITHIN, unfinished, move || {
            let _cutting = cutting;
            reader.cut_backends(now, |backend| match down.get_mut(&backend) {
                Some(down) => {
                    down.connections += 1;
                    down.cut
                }
                None => false,
            });
            down.into_values().collect()
        });
    }

    pub(super) fn tell_down(&self, down: &Down) {
        let Down { key, reason, former, .. } = down;
        if let Some(who) = former {
            return self.tell_departed_down(down, who);
        }
        let Some((config, _)) = self.find(&key.0, &key.1) else { return };
        let Some(phrase) = self.phrase(key, "down", reason) else { return };
        let facts = self.facts(config);
        let heirs = config.backends.iter().zip(facts);
        let heirs = heirs.filter(|(_, facts)| facts.status.serves() && facts.weight > 0);
        let heirs: Vec<&str> = heirs.map(|(backend, _)| backend.name.as_str()).collect();
        let takers = match (&heirs[..], config.when_all_down) {
            ([], WhenAllDown::Refuse) => "nobody is left: new connections are refused".to_owned(),
            ([], WhenAllDown::TryAll) => "nobody is left: all are tried".to_owned(),
            (heirs, _) => format!("new connections go to {}", describe::list(heirs)),
        };
        let message = format!("{phrase}; {takers}; {}", down.fate());
        self.tell(EventLevel::Warning, EventKind::BackendDown, Some(&key.0), Some(&key.1), message);
    }
}
