//! What the traffic says of backends, several times a second: suspicion, and who is out on its word.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use lb_core::config::model::{Backend, Config, Eject, Farm};
use lb_core::health::passive::{Pulse, Suspicion, Watch, Witnesses, follows, may_eject};
use tokio::task::JoinHandle;

use super::BackendKey;

/// Every how many ticks the counters are looked at.
const PULSE_TICKS: u32 = 2;
/// Between two looks at the connection tables for witnesses.
const HEARING_PAUSE: Duration = Duration::from_secs(1);

/// The watch over all backends whose farms want one, and who is out on its word.
#[derive(Debug, Default)]
pub(super) struct Passive {
    watched: Vec<Watched>,
    /// As of which configuration and which change of the maps.
    as_of: Option<(u64, u64)>,
    /// How many packets the data plane had dealt with at the last look, if whoever is watched was watched then, by his number.
    handled: Option<u64>,
    /// Who is out, and why.
    ejected: BTreeMap<BackendKey, String>,
    hearing: Option<Hearing>,
    /// When the last one began.
    heard: Option<Instant>,
}

/// A backend that is watched.
#[derive(Debug)]
struct Watched {
    id: u16,
    key: BackendKey,
    watch: Watch,
}

/// Who is suspected of what, by number.
pub(super) type Suspects = BTreeMap<u16, (BackendKey, Suspicion)>;

/// A look for witnesses, under way beside the loop.
#[derive(Debug)]
struct Hearing {
    suspects: Suspects,
    task: JoinHandle<BTreeMap<u16, Witnesses>>,
}

/// What follows from a look at the counters.
#[derive(Debug, Default)]
pub(super) struct Suspected {
    /// Who is to be checked at once.
    pub check: Vec<BackendKey>,
    /// Of whom witnesses are to be heard.
    pub hear: Suspects,
}

impl Passive {
    /// Why a backend is out on the traffic's word, if it is.
    pub fn ejected(&self, key: &BackendKey) -> Option<&String> {
        self.ejected.get(key)
    }

    /// Whether the counters are to be looked at in this tick.
    pub fn is_due(ticks: u32) -> bool {
        ticks.is_multiple_of(PULSE_TICKS)
    }

    /// Notes who is to be watched: anew only after a change, since it is looked at several times a second. `id`: the number by
    /// which the data plane knows a backend.
    pub fn watch(&mut self, as_of: (u64, u64), config: &Config, id: impl Fn(&Farm, &Backend) -> Option<u16>) {
        if self.as_of == Some(as_of) {
            return;
        }
        let before = std::mem::take(&mut self.watched);
        let mut before: HashMap<_, _> = before.into_iter().map(|it| (it.key, it.watch)).collect();
        let farms = config.farms.iter().filter(|farm| farm.enabled && watches(farm));
        let pairs = farms.flat_map(|farm| farm.backends.iter().map(move |backend| (farm, backend)));
        let watched = pairs.filter_map(|(farm, backend)| {
            let id = id(farm, backend)?;
            let key = (farm.name.clone(), backend.name.clone());
            let watch = before.remove(&key).unwrap_or_default();
            Some(Watched { id, key, watch })
        });
        self.watched = watched.collect();
        (self.as_of, self.handled) = (Some(as_of), None);
    }

    /// The numbers of those whose counters are to be read. `handled`: how many packets the data plane has dealt with in all; while
    /// that stands still so do the counters, and only those are looked at of whom something is awaited.
    pub fn numbers(&self, handled: u64) -> Vec<u16> {
        let quiet = self.handled == Some(handled);
        let due = self.watched.iter().filter(|watched| !quiet || watched.watch.awaits());
        due.map(|watched| watched.id).collect()
    }

    /// Takes the counters, by number, as they were after so many packets were `handled` or later.
    pub fn take_pulses(
        &mut self,
        config: &Config,
        handled: u64,
        pulses: &HashMap<u16, Pulse>,
        now: Instant,
    ) -> Suspected {
        self.handled = Some(handled);
        let told = self.watched.iter_mut().filter_map(|Watched { id, key, watch }| {
            let suspicion = watch.handle_pulse(*pulses.get(id)?, now)?;
            Some((*id, key.clone(), suspicion))
        });
        let told: Vec<_> = told.collect();
        let mut suspected = Suspected::default();
        for (id, key, suspicion) in told {
            let Some(farm) = config.farm(key.0.as_str()) else { continue };
            tracing::debug!(farm = %key.0, backend = %key.1, "suspected: {suspicion}");
            let (is_out, out) = (self.ejected.contains_key(&key), self.out(&key));
            let follows = follows(&farm.passive, is_out, out, farm.backends.len());
            if follows.check {
                suspected.check.push(key.clone());
            }
            if follows.hear {
                suspected.hear.insert(id, (key, suspicion));
            }
        }
        suspected
    }

    /// How many of a backend's farm are out.
    fn out(&self, key: &BackendKey) -> usize {
        self.ejected.keys().filter(|(farm, _)| *farm == key.0).count()
    }

    /// Asks the connection tables, beside the loop, by `look`. While they are asked, and for a second after they were, nobody
    /// else is: a suspicion that lasts is told again.
    pub fn hear(
        &mut self,
        suspects: Suspects,
        now: Instant,
        look: impl FnOnce(&[u16]) -> BTreeMap<u16, Witnesses> + Send + 'static,
    ) {
        let rests = self.heard.is_none_or(|at| now.saturating_duration_since(at) >= HEARING_PAUSE);
        if suspects.is_empty() || self.hearing.is_some() || !rests {
            return;
        }
        let ids = suspects.keys().copied().collect::<Vec<_>>();
        let task = tokio::task::spawn_blocking(move || look(&ids));
        self.hearing = Some(Hearing { suspects, task });
        self.heard = Some(now);
    }

    /// What the witnesses have said, once they have; and of whom.
    pub fn verdict(&mut self) -> Vec<(BackendKey, Suspicion)> {
        let Some(hearing) = self.hearing.take_if(|hearing| hearing.task.is_finished()) else {
            return Vec::new();
        };
        let witnesses = match hearing.task.now_or_never() {
            Some(Ok(witnesses)) => witnesses,
            Some(Err(error)) => {
                tracing::error!("looking for witnesses broke off: {error}");
                return Vec::new();
            }
            None => return Vec::new(),
        };
        let borne_out =
            |id: &u16, suspicion| witnesses.get(id).is_some_and(|heard| heard.bear_out(suspicion));
        let suspects = hearing.suspects.into_iter();
        suspects.filter(|(id, (_, suspicion))| borne_out(id, *suspicion)).map(|(_, it)| it).collect()
    }

    /// Takes out who is not out yet, if its farm wants that and can spare it. Why.
    pub fn eject(
        &mut self,
        config: &Config,
        key: &BackendKey,
        suspicion: Suspicion,
        now: Instant,
    ) -> Option<String> {
        let farm = config.farm(key.0.as_str())?;
        let eject = farm.passive.eject.as_ref()?;
        if self.ejected.contains_key(key) || !may_eject(eject, self.out(key), farm.backends.len()) {
            return None;
        }
        let watch = &mut self.watched.iter_mut().find(|watched| watched.key == *key)?.watch;
        let reason = format!("ejected for {}: {suspicion}", held(watch, eject, now));
        self.ejected.insert(key.clone(), reason.clone());
        Some(reason)
    }

    /// Lets those in again whose time is over.
    pub fn release(&mut self, now: Instant) -> Vec<BackendKey> {
        if self.ejected.is_empty() {
            return Vec::new();
        }
        let out = |watched: &&Watched| watched.watch.ejected(now).is_some();
        let out: BTreeSet<_> = self.watched.iter().filter(out).map(|watched| &watched.key).collect();
        let out = |key: &BackendKey| out.contains(key);
        let over: Vec<_> = self.ejected.keys().filter(|key| !out(key)).cloned().collect();
        self.ejected.retain(|key, _| !over.contains(key));
        over
    }
}

/// Has the watch take its backend out; for how long.
fn held(watch: &mut Watch, eject: &Eject, now: Instant) -> String {
    watch.eject(eject, now);
    let held = watch.ejected(now).map_or(eject.hold, |until| until - now);
    lb_core::config::duration_text(held)
}

/// Of backends that answer past us nobody sees whether they do.
fn watches(farm: &Farm) -> bool {
    !farm.mode.is_direct() && (farm.passive.suspect || farm.passive.eject.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::test_config::{key, parse, web};

    const EJECT: &str = "passive = { eject = true }";

    /// Numbers by the last byte of the address.
    fn id(_: &Farm, backend: &Backend) -> Option<u16> {
        backend.address.v4.map(|address| address.octets()[3].into())
    }

    /// The farm's two backends, watched.
    fn watched(keys: &str) -> (Config, Passive) {
        let (config, mut passive) = (parse(&web(keys)), Passive::default());
        passive.watch((1, 1), &config, id);
        (config, passive)
    }

    fn resets(reset: u64) -> HashMap<u16, Pulse> {
        let pulse = |reset| Pulse { handshakes: reset, reset, ..Pulse::default() };
        HashMap::from([(1, pulse(reset)), (2, pulse(0))])
    }

    #[test]
    fn who_resets_its_clients_is_checked_and_heard_of_as_its_farm_wants() {
        for (keys, check, hear) in [
            ("", true, false),
            (EJECT, true, true),
            ("passive = { suspect = false, eject = true }", false, true),
        ] {
            let (config, mut passive) = watched(keys);
            let now = Instant::now();
            assert_eq!(passive.numbers(0), [1, 2]);
            let first = passive.take_pulses(&config, 7, &resets(0), now);
            assert!(first.check.is_empty() && first.hear.is_empty());
            let suspected = passive.take_pulses(&config, 7, &resets(9), now + Duration::from_millis(200));
            assert_eq!((suspected.check.len(), suspected.hear.len()), (check.into(), hear.into()), "{keys}");
            assert!(suspected.check.iter().all(|found| *found == key("a")));
        }
    }

    #[test]
    fn a_farm_that_wants_neither_is_not_watched_and_neither_is_one_that_is_disabled() {
        for keys in ["passive = { suspect = false }", "enabled = false"] {
            assert!(watched(keys).1.numbers(0).is_empty(), "{keys}");
        }
    }

    #[test]
    fn only_as_many_are_out_as_a_farm_can_spare_and_they_come_in_again_when_their_time_is_over() {
        let (config, mut passive) = watched(EJECT);
        let (now, suspicion) = (Instant::now(), Suspicion::Resets(9));
        let reason = passive.eject(&config, &key("a"), suspicion, now).unwrap();
        assert_eq!(reason, "ejected for 10s: 9 connections reset while they opened");
        assert_eq!(passive.ejected(&key("a")), Some(&reason));
        assert_eq!(passive.eject(&config, &key("a"), suspicion, now), None, "it is out");
        assert_eq!(passive.eject(&config, &key("b"), suspicion, now), None, "it is the last one");
        assert!(passive.release(now + Duration::from_secs(9)).is_empty());
        assert_eq!(passive.release(now + Duration::from_secs(10)), [key("a")]);
        assert_eq!(passive.ejected(&key("a")), None);
        let (config, mut unwilling) = watched("");
        assert_eq!(unwilling.eject(&config, &key("a"), suspicion, now), None, "its farm does not want that");
    }

    #[test]
    fn while_the_data_plane_stands_still_only_they_are_looked_at_of_whom_something_is_awaited() {
        let (config, mut passive) = watched("");
        let now = Instant::now();
        assert_eq!(passive.numbers(7), [1, 2], "nobody has been looked at");
        passive.take_pulses(&config, 7, &resets(0), now);
        assert!(passive.numbers(7).is_empty());
        assert_eq!(passive.numbers(8), [1, 2]);
        assert_eq!(passive.numbers(8), [1, 2], "they could not be read");
        let waits = Pulse { handshakes: 1, ..Pulse::default() };
        passive.take_pulses(&config, 8, &HashMap::from([(1, waits), (2, Pulse::default())]), now);
        assert_eq!(passive.numbers(8), [1], "its silence may become long");
        passive.watch((2, 1), &config, id);
        assert_eq!(passive.numbers(8), [1, 2], "numbers may have changed hands");
    }

    #[test]
    fn a_watch_goes_on_over_a_change() {
        let (config, mut passive) = watched(EJECT);
        let now = Instant::now();
        passive.eject(&config, &key("a"), Suspicion::Resets(9), now).unwrap();
        passive.watch((2, 1), &config, |farm, backend| id(farm, backend).map(|id| id + 10));
        assert_eq!(passive.numbers(0), [11, 12]);
        assert!(passive.release(now).is_empty(), "it is still out");
        passive.watch((3, 1), &parse(""), id);
        assert_eq!(passive.release(now), [key("a")], "nobody watches it any more");
    }

    #[tokio::test]
    async fn witnesses_are_heard_of_one_suspicion_at_a_time() {
        let (_, mut passive) = watched(EJECT);
        let suspects = || Suspects::from([(1, (key("a"), Suspicion::Resets(9)))]);
        let now = Instant::now();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        passive.hear(suspects(), now, move |_| {
            held.recv().unwrap_err();
            BTreeMap::new()
        });
        passive.hear(suspects(), now + HEARING_PAUSE, |_| panic!("one is under way"));
        assert!(passive.verdict().is_empty());
        drop(hold);
        while passive.hearing.is_some() {
            assert!(passive.verdict().is_empty(), "nobody bears it out");
            tokio::task::yield_now().await;
        }
        passive.hear(suspects(), now + HEARING_PAUSE / 2, |_| panic!("it rests"));
        assert!(passive.hearing.is_none());
        passive.hear(suspects(), now + HEARING_PAUSE, |ids| {
            assert_eq!(ids, [1]);
            BTreeMap::new()
        });
        assert!(passive.hearing.is_some());
    }
}
