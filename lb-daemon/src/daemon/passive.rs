//! What the traffic says of backends, several times a second: suspicion, ejection, and the slow start of who comes back.

use std::time::Instant;

use lb_core::config::model::Eject;
use lb_core::health::passive::{Suspicion, Watch, may_eject};

use super::{BackendKey, Daemon};

/// Every how many ticks the counters are looked at.
const PULSE_TICKS: u32 = 2;
/// A slow start goes in steps of so many percent.
const RAMP_STEP: u8 = 10;

impl Daemon {
    /// Looks at the counters of every backend whose farm wants it, and acts on what they say.
    pub(super) fn take_pulses(&mut self, now: Instant) {
        self.end_ejections(now);
        if !self.clock.ticks().is_multiple_of(PULSE_TICKS) {
            return;
        }
        let config = self.config.clone();
        for farm in config.farms.iter().filter(|farm| farm.enabled) {
            if !farm.passive.suspect && farm.passive.eject.is_none() {
                continue;
            }
            for backend in &farm.backends {
                let pulse = self.backend_id(farm, backend).map(|id| self.reader.pulse(id));
                let Some(Ok(pulse)) = pulse else { continue };
                let key = (farm.name.clone(), backend.name.clone());
                let watch = self.watches.entry(key.clone()).or_default();
                let Some(suspicion) = watch.handle_pulse(pulse, now) else { continue };
                tracing::debug!(farm = %farm.name, backend = %backend.name, "suspected: {suspicion}");
                if farm.passive.suspect {
                    self.runner.suspect(&farm.name, &backend.name);
                }
                if let Some(eject) = &farm.passive.eject {
                    self.eject(key, eject, suspicion, now);
                }
            }
        }
        self.watches.retain(|(farm, backend), _| {
            config.farm(farm.as_str()).is_some_and(|farm| farm.backends.iter().any(|b| b.name == *backend))
        });
    }

    /// Takes a backend out on the traffic's word, if the farm can spare it.
    fn eject(&mut self, key: BackendKey, eject: &Eject, suspicion: Suspicion, now: Instant) {
        let all = self.config.farm(key.0.as_str()).map_or(0, |farm| farm.backends.len());
        let out = self.ejected.keys().filter(|(farm, _)| *farm == key.0).count();
        if self.ejected.contains_key(&key) || !may_eject(eject, out, all) {
            return;
        }
        let Some(watch) = self.watches.get_mut(&key) else { return };
        watch.eject(eject, now);
        let held = watch.ejected(now).map_or(eject.hold, |until| until - now);
        let reason = format!("ejected for {}: {suspicion}", lb_core::config::duration_text(held));
        self.ejected.insert(key.clone(), reason.clone());
        self.follow();
        self.went_down(vec![(key, reason)]);
        self.publish();
    }

    fn end_ejections(&mut self, now: Instant) {
        let out = |watch: &Watch| watch.ejected(now).is_some();
        let over: Vec<BackendKey> =
            self.ejected.keys().filter(|key| !self.watches.get(*key).is_some_and(out)).cloned().collect();
        if over.is_empty() {
            return;
        }
        self.ejected.retain(|key, _| !over.contains(key));
        self.follow();
        for key in over {
            self.tell_up(&key, "resurrect", "its ejection is over");
        }
        self.publish();
    }

    /// Moves slow starts on; whether any weight has changed.
    pub(super) fn ramp_up(&mut self, now: Instant) -> bool {
        let (config, mut changed) = (self.config.clone(), false);
        self.ramps.retain(|(farm, _), (since, percent)| {
            let over = config.farm(farm.as_str()).map_or(std::time::Duration::ZERO, |farm| farm.slow_start);
            let done = now.saturating_duration_since(*since).as_millis() * 100;
            let reached = done.checked_div(over.as_millis()).unwrap_or(100).min(100) as u8;
            let step = (reached / RAMP_STEP * RAMP_STEP).max(*percent);
            changed |= step != *percent;
            *percent = step;
            step < 100
        });
        changed
    }
}
