//! What the traffic says of backends, several times a second: suspicion, ejection, and the slow start of who comes back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use lb_core::config::model::{Eject, Passive as Policy};
use lb_core::health::passive::{Suspicion, Watch, Witnesses, may_eject};
use tokio::task::JoinHandle;

use super::health::Down;
use super::{BackendKey, Daemon};

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

/// A look for witnesses, under way beside the loop.
#[derive(Debug)]
struct Hearing {
    /// Who is suspected of what, by number.
    suspects: BTreeMap<u16, (BackendKey, Suspicion)>,
    task: JoinHandle<BTreeMap<u16, Witnesses>>,
}

impl Passive {
    /// Why a backend is out on the traffic's word, if it is.
    pub fn ejected(&self, key: &BackendKey) -> Option<&String> {
        self.ejected.get(key)
    }

    /// Takes out who is not out yet, if its farm, of `all` backends, can spare it. Why.
    fn eject(
        &mut self,
        key: &BackendKey,
        eject: &Eject,
        suspicion: Suspicion,
        all: usize,
        now: Instant,
    ) -> Option<String> {
        if !self.may_eject(key, eject, all) {
            return None;
        }
        let watch = &mut self.watched.iter_mut().find(|watched| watched.key == *key)?.watch;
        watch.eject(eject, now);
        let held = watch.ejected(now).map_or(eject.hold, |until| until - now);
        let reason = format!("ejected for {}: {suspicion}", lb_core::config::duration_text(held));
        self.ejected.insert(key.clone(), reason.clone());
        Some(reason)
    }

    fn may_eject(&self, key: &BackendKey, eject: &Eject, all: usize) -> bool {
        let out = self.ejected.keys().filter(|(farm, _)| *farm == key.0).count();
        !self.ejected.contains_key(key) && may_eject(eject, out, all)
    }

    /// Lets those in again whose time is over.
    fn release(&mut self, now: Instant) -> Vec<BackendKey> {
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

    /// What the witnesses have said, once they have; and of whom.
    fn verdict(&mut self) -> Vec<(BackendKey, Suspicion)> {
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
}

fn watches(policy: &Policy) -> bool {
    policy.suspect || policy.eject.is_some()
}

impl Daemon {
    /// Looks at the counters of every backend whose farm wants it, and acts on what they say.
    pub(super) fn take_pulses(&mut self, now: Instant) {
        self.end_ejections(now);
        for (key, suspicion) in self.passive.verdict() {
            self.eject(&key, suspicion, now);
        }
        if !self.dataplane.ticks().is_multiple_of(PULSE_TICKS) {
            return;
        }
        self.watch_traffic();
        let ids = self.passive.watched.iter().map(|watched| watched.id).collect();
        let pulses = match self.dataplane.reader().pulses(ids) {
            Ok(pulses) => pulses,
            Err(error) => return tracing::debug!("no look at the traffic: {error:#}"),
        };
        let suspected = self.passive.watched.iter_mut().filter_map(|Watched { id, key, watch }| {
            let suspicion = watch.handle_pulse(*pulses.get(id)?, now)?;
            Some((*id, key.clone(), suspicion))
        });
        let suspected: Vec<_> = suspected.collect();
        let mut suspects = BTreeMap::new();
        for (id, key, suspicion) in suspected {
            let Some(farm) = self.config.farm(key.0.as_str()) else { continue };
            tracing::debug!(farm = %key.0, backend = %key.1, "suspected: {suspicion}");
            if farm.passive.suspect {
                self.runner.suspect(&key.0, &key.1);
            }
            if let Some(eject) = &farm.passive.eject
                && self.passive.may_eject(&key, eject, farm.backends.len())
            {
                suspects.insert(id, (key, suspicion));
            }
        }
        self.hear_witnesses(suspects, now);
    }

    /// Notes who is to be watched: anew only after a change, since it is looked at several times a second.
    fn watch_traffic(&mut self) {
        let as_of = Some((self.generation, self.dataplane.changes()));
        if self.passive.as_of == as_of {
            return;
        }
        let before = std::mem::take(&mut self.passive.watched);
        let mut before: HashMap<_, _> = before.into_iter().map(|it| (it.key, it.watch)).collect();
        let config = self.config.clone();
        let farms = config.farms.iter().filter(|farm| farm.enabled && watches(&farm.passive));
        let pairs = farms.flat_map(|farm| farm.backends.iter().map(move |backend| (farm, backend)));
        let watched = pairs.filter_map(|(farm, backend)| {
            let id = self.backend_id(farm, backend)?;
            let key = (farm.name.clone(), backend.name.clone());
            let watch = before.remove(&key).unwrap_or_default();
            Some(Watched { id, key, watch })
        });
        self.passive.watched = watched.collect();
        self.passive.as_of = as_of;
    }

    /// Asks the connection tables, beside the loop. While they are asked, and for a second after they were, nobody else is: a
    /// suspicion that lasts is told again.
    fn hear_witnesses(&mut self, suspects: BTreeMap<u16, (BackendKey, Suspicion)>, now: Instant) {
        let rests = self.passive.heard.is_none_or(|at| now.saturating_duration_since(at) >= HEARING_PAUSE);
        if suspects.is_empty() || self.passive.hearing.is_some() || !rests {
            return;
        }
        let (reader, ids) = (self.dataplane.reader(), suspects.keys().copied().collect::<Vec<_>>());
        let task = tokio::task::spawn_blocking(move || reader.witnesses(&ids));
        self.passive.hearing = Some(Hearing { suspects, task });
        self.passive.heard = Some(now);
    }

    /// Takes a backend out on the traffic's word. Nobody is cut for that: who is connected may be served well.
    fn eject(&mut self, key: &BackendKey, suspicion: Suspicion, now: Instant) {
        let config = self.config.clone();
        let Some(farm) = config.farm(key.0.as_str()) else { return };
        let Some(eject) = &farm.passive.eject else { return };
        let Some(reason) = self.passive.eject(key, eject, suspicion, farm.backends.len(), now) else {
            return;
        };
        self.follow();
        let id = self.find(&key.0, &key.1).and_then(|(farm, backend)| self.backend_id(farm, backend));
        let down =
            Down { cut: false, key: key.clone(), reason, connections: 0, unfinished: false, former: None };
        self.cut_and_tell(id.into_iter().map(|id| (id, down.clone())).collect());
        self.publish();
    }

    fn end_ejections(&mut self, now: Instant) {
        let over = self.passive.release(now);
        if over.is_empty() {
            return;
        }
        self.follow();
        for key in over {
            // Its checks may say otherwise, and have been told.
            if self.judgements.of(&key).is_none_or(|health| health.status.serves()) {
                self.tell_up(&key, "resurrect", "its ejection is over");
            }
        }
        self.publish();
    }

    /// Moves slow starts on; whether any weight has changed.
    pub(super) fn ramp_up(&mut self, now: Instant) -> bool {
        let config = &self.config;
        self.judgements.ramp_up(now, |(farm, _)| {
            config.farm(farm.as_str()).map_or(Duration::ZERO, |farm| farm.slow_start)
        })
    }
}
