//! How backends are, by their checks and by the traffic, those included that have left: what is reported is taken in here, and
//! what follows comes out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use lb_core::config::model::{Backend, Config, Farm};
use lb_core::config::renames::Heirs;
use lb_core::health::Target;
use lb_core::health::passive::{Pulse, Witnesses};
use lb_core::standing::Turn;

use super::BackendKey;
use super::cuts::Down;
use super::departed::{Departed, Reported};
use super::former::Former;
use super::judgements::{Health as Held, Judgements};
use super::operators::Operators;
use super::passive::{Passive, Suspects};
use super::voices::Voices;
use super::wayless::Wayless;
use super::ways::Ways;
use crate::checks::{BackendHealth, Judgement, targets};

/// See the module.
#[derive(Default)]
pub(super) struct Health {
    judgements: Judgements,
    passive: Passive,
    departed: Departed,
    wayless: Wayless,
}

/// What follows from reports.
#[derive(Debug, Default)]
pub(super) struct Turned {
    /// Who turned, and why, in the order of the reports.
    pub turns: Vec<(BackendKey, Turn, String)>,
    /// Those who have left and went down, by number.
    pub departed: BTreeMap<u16, Down>,
}

impl Health {
    /// All who have a say in what a backend is.
    pub fn voices<'a>(&'a self, operators: &'a Operators, ways: &'a Ways) -> Voices<'a> {
        Voices { operators, judgements: &self.judgements, passive: &self.passive, ways }
    }

    /// What the daemon before this one held of the backends holds until a check says otherwise.
    pub fn adopt(&mut self, config: &Config, held: impl Fn(&Farm, &Backend) -> Judgement, since: SystemTime) {
        self.judgements.adopt(config, held, since);
    }

    /// What is to be probed. `held`: what the checks are to take a backend at an address for that they do not know.
    pub fn targets(
        &mut self,
        config: &Config,
        held: impl Fn(&Farm, &Backend, IpAddr) -> Judgement,
    ) -> Vec<Target> {
        let mut targets = targets(config, |farm, backend, address| {
            let farm = config.farm(farm.as_str());
            let found = farm.and_then(|farm| {
                Some((farm, farm.backends.iter().find(|candidate| candidate.name == *backend)?))
            });
            found.map_or(Judgement::Starting, |(farm, backend)| held(farm, backend, address))
        });
        let watched: BTreeSet<_> =
            targets.iter().map(|target| (target.farm.clone(), target.backend.clone())).collect();
        self.judgements.retain(|key| watched.contains(key));
        targets.extend(self.departed.targets(&config.daemon));
        targets
    }

    /// The same when a configuration has taken the place of another: who was up stays up until the new checks have spoken.
    pub fn targets_after(&mut self, config: &Config, former: &Former) -> Vec<Target> {
        let judgements = self.judgements.clone();
        self.targets(config, |farm, backend, address| {
            let key = (farm.name.clone(), backend.name.clone());
            judgements.after_change(&key, former.was(&key), address)
        })
    }

    /// Takes what checks have reported. `former`: what comes back if the configuration is not certain yet.
    pub fn take_reports(
        &mut self,
        config: &Config,
        reports: Vec<BackendHealth>,
        mut former: Option<&mut Former>,
        now: Instant,
    ) -> Turned {
        let mut turned = Turned::default();
        for report in reports {
            match self.departed.judge(&report) {
                Reported::OfAnother => {}
                Reported::Noted => continue,
                Reported::Down(id, down) => {
                    turned.departed.insert(id, down);
                    continue;
                }
            }
            let reports = match &mut former {
                Some(former) => former.take_report(report, now),
                None => vec![report],
            };
            turned.turns.extend(reports.into_iter().filter_map(|report| self.note(config, report, now)));
        }
        turned
    }

    fn note(
        &mut self,
        config: &Config,
        report: BackendHealth,
        now: Instant,
    ) -> Option<(BackendKey, Turn, String)> {
        // The configuration may have changed while the report was on its way.
        let farm = config.farm(report.farm.as_str())?;
        farm.backends.iter().find(|backend| backend.name == report.backend)?;
        let key = (report.farm.clone(), report.backend.clone());
        let health = Held::from(report);
        let reason = health.reason.clone();
        let turn = self.judgements.note(key.clone(), health, farm.slow_start, now)?;
        Some((key, turn, reason))
    }

    /// Moves slow starts on; whether any weight has changed.
    pub fn ramp_up(&mut self, config: &Config, now: Instant) -> bool {
        self.judgements.ramp_up(now, |(farm, _)| {
            config.farm(farm.as_str()).map_or(Duration::ZERO, |farm| farm.slow_start)
        })
    }

    /// Notes who would serve if there were a way to him: who is new among them, and to whom there is a way again.
    pub fn seek_ways(
        &mut self,
        config: &Config,
        operators: &Operators,
        ways: &Ways,
    ) -> (Vec<BackendKey>, Vec<BackendKey>) {
        if ways.are_all_known() && self.wayless.is_empty() {
            return Default::default();
        }
        let voices = self.voices(operators, ways);
        let farms = config.farms.iter().filter(|farm| farm.enabled);
        let pairs = farms.flat_map(|farm| farm.backends.iter().map(move |backend| (farm, backend)));
        let without = pairs.filter(|(farm, backend)| voices.known(farm, backend).lacks_only_a_way());
        let without = without.map(|(farm, backend)| (farm.name.clone(), backend.name.clone())).collect();
        self.wayless.turn(without)
    }

    /// Forgets those who have left and whom no connection bears any more; whether there were any.
    pub fn forget_departed(&mut self, is_borne: impl Fn(u16) -> bool) -> bool {
        self.departed.forget(is_borne)
    }
}

/// What the traffic says.
impl Health {
    /// The numbers of those whose counters are to be looked at; see [`Passive::watch`].
    pub fn watched(
        &mut self,
        as_of: (u64, u64),
        config: &Config,
        handled: u64,
        id: impl Fn(&Farm, &Backend) -> Option<u16>,
    ) -> Vec<u16> {
        self.passive.watch(as_of, config, id);
        self.passive.numbers(handled)
    }

    /// Takes their counters; who is to be checked at once, and of whom witnesses are to be heard.
    pub fn take_pulses(
        &mut self,
        config: &Config,
        handled: u64,
        pulses: &HashMap<u16, Pulse>,
        now: Instant,
    ) -> (Vec<BackendKey>, Suspects) {
        let suspected = self.passive.take_pulses(config, handled, pulses, now);
        (suspected.check, suspected.hear)
    }

    /// Has witnesses heard, beside the loop.
    pub fn hear(
        &mut self,
        suspects: Suspects,
        now: Instant,
        look: impl FnOnce(&[u16]) -> BTreeMap<u16, Witnesses> + Send + 'static,
    ) {
        self.passive.hear(suspects, now, look);
    }

    /// Takes out whom witnesses have borne a suspicion out of; who they are, and why.
    pub fn eject(&mut self, config: &Config, now: Instant) -> Vec<(BackendKey, String)> {
        let verdicts = self.passive.verdict().into_iter();
        let ejected = verdicts.filter_map(|(key, suspicion)| {
            let reason = self.passive.eject(config, &key, suspicion, now)?;
            Some((key, reason))
        });
        ejected.collect()
    }

    /// Lets those in again whose ejection is over: whether there are any, and who of them is well. Of others their checks say
    /// otherwise, and have been told.
    pub fn release(&mut self, now: Instant) -> Option<Vec<BackendKey>> {
        let mut over = self.passive.release(now);
        if over.is_empty() {
            return None;
        }
        over.retain(|key| self.judgements.of(key).is_none_or(|health| health.status.serves()));
        Some(over)
    }
}

/// Another configuration.
impl Health {
    /// What is held of the backends holds under their names of now; what was held before.
    pub fn hand_on(&mut self, heirs: &Heirs, old: &Config, now: SystemTime) -> Judgements {
        self.judgements.hand_on(heirs, old, now)
    }

    /// The configuration before is in force again, of which this is held.
    pub fn take_back(&mut self, judgements: Judgements) {
        self.judgements = judgements;
    }

    /// It is certain: who was up and has left is remembered.
    pub fn remember_departed(
        &mut self,
        former: &Former,
        new: &Config,
        id: impl Fn(&Farm, &Backend) -> Option<u16>,
    ) {
        self.departed.remember(&former.config, new, |key| former.judgements.serves(key), id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::test_config::{key, parse, web};

    fn report(backend: &str, status: Judgement) -> BackendHealth {
        let (farm, backend) = key(backend);
        let reason = status.as_str().to_owned();
        BackendHealth { farm, backend, status, reason, since: SystemTime::UNIX_EPOCH }
    }

    fn id(_: &Farm, backend: &Backend) -> Option<u16> {
        backend.address.v4.map(|address| address.octets()[3].into())
    }

    fn former(old: Config, judgements: Judgements, heirs: Heirs) -> Former {
        let (gone, missed) = (Vec::new(), Vec::new());
        Former { config: old.into(), gone, overrides: None, heirs, judgements, missed }
    }

    fn told(turned: &Turned) -> Vec<(&str, Turn)> {
        turned.turns.iter().map(|(key, turn, _)| (key.1.as_str(), *turn)).collect()
    }

    #[test]
    fn turns_are_told_and_nothing_of_whom_the_configuration_no_longer_has() {
        let (mut health, config, now) = (Health::default(), parse(&web("")), Instant::now());
        let reports = ["a", "gone", "b"].map(|name| report(name, Judgement::Up));
        let turned = health.take_reports(&config, reports.to_vec(), None, now);
        assert_eq!(told(&turned), [("a", Turn::Up), ("b", Turn::Up)]);
        let turned = health.take_reports(&config, vec![report("a", Judgement::Up)], None, now);
        assert_eq!(told(&turned), [], "only its words are new");
    }

    #[test]
    fn whoever_left_while_it_was_up_is_heard_of_by_its_number_when_it_goes_down() {
        let (mut health, old, new) = (Health::default(), parse(&web("")), parse(""));
        let now = Instant::now();
        health.take_reports(&old, vec![report("a", Judgement::Up)], None, now);
        let held = health.hand_on(&Heirs::new(), &old, SystemTime::UNIX_EPOCH);
        health.remember_departed(&former(old, held, Heirs::new()), &new, id);
        let targets = health.targets(&new, |_, _, _| Judgement::Starting);
        assert_eq!(targets.iter().map(|target| target.backend.as_str()).collect::<Vec<_>>(), ["a:was-1"]);
        let turned = health.take_reports(&new, vec![report("a:was-1", Judgement::Down)], None, now);
        assert!(turned.turns.is_empty());
        assert_eq!(turned.departed.keys().collect::<Vec<_>>(), [&1]);
        assert!(health.forget_departed(|_| false));
        assert!(health.targets(&new, |_, _, _| Judgement::Starting).is_empty());
    }

    #[test]
    fn a_change_that_is_taken_back_takes_back_what_was_held_under_its_names() {
        let (mut health, old) = (Health::default(), parse(&web("")));
        let new = parse(&web("").replace("name = \"a\"", "name = \"c\""));
        let now = Instant::now();
        health.take_reports(&old, vec![report("a", Judgement::Up)], None, now);
        let heirs = Heirs::from([(key("c"), key("a")), (key("b"), key("b"))]);
        let held = health.hand_on(&heirs, &old, SystemTime::UNIX_EPOCH);
        let mut before = former(old.clone(), held, heirs);
        let turned = health.take_reports(&new, vec![report("a", Judgement::Down)], Some(&mut before), now);
        assert_eq!(told(&turned), [("c", Turn::Down)], "the checks still have its name of before");
        health.take_back(before.judgements);
        let turned = health.take_reports(&old, vec![report("a", Judgement::Down)], None, now);
        assert_eq!(told(&turned), [], "that is known");
    }

    #[test]
    fn the_checks_of_a_new_configuration_take_a_server_for_what_it_was() {
        let (mut health, old, now) = (Health::default(), parse(&web("")), Instant::now());
        health.take_reports(&old, vec![report("a", Judgement::Up)], None, now);
        let new = parse(&web("").replace("name = \"a\"", "name = \"c\""));
        let heirs = Heirs::from([(key("c"), key("a")), (key("b"), key("b"))]);
        let held = health.hand_on(&heirs, &old, SystemTime::UNIX_EPOCH);
        let targets = health.targets_after(&new, &former(old, held, heirs));
        let adopted: Vec<_> =
            targets.iter().map(|target| (target.backend.as_str(), target.adopted)).collect();
        assert_eq!(adopted, [("c", Judgement::Up), ("b", Judgement::Starting)]);
    }

    #[test]
    fn whose_ejection_is_over_is_told_to_be_back_unless_its_checks_say_otherwise() {
        let eject = "passive = { eject = true, at_most = 100 }";
        let (mut health, config, now) = (Health::default(), parse(&web(eject)), Instant::now());
        assert_eq!(health.watched((1, 1), &config, 0, id), [1, 2]);
        let reports = vec![report("a", Judgement::Up), report("b", Judgement::Down)];
        health.take_reports(&config, reports, None, now);
        let suspicion = lb_core::health::passive::Suspicion::Resets(9);
        for name in ["a", "b"] {
            health.passive.eject(&config, &key(name), suspicion, now).unwrap();
        }
        assert_eq!(health.release(now), None);
        assert_eq!(health.release(now + Duration::from_secs(10)), Some(vec![key("a")]));
    }
}
