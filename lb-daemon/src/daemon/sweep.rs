//! The sweep of the connection tables: it runs beside the loop, and what it finds steers which numbers are given up.

use std::collections::HashMap;
use std::time::Duration;

use lb_core::config::model::Timeouts;

use super::{Daemon, SWEEP_EVERY};
use crate::clock;
use crate::datapath::Sweep;

impl Daemon {
    pub(super) fn start_sweep(&mut self) {
        self.sweeping = true;
        self.sweeping_changes = self.changes;
        let (reader, floor, timeouts, swept) =
            (self.reader.clone(), self.floor, self.timeouts(), self.swept.clone());
        tokio::task::spawn_blocking(move || {
            let started = clock::now();
            let sweep = reader.sweep(floor, timeouts);
            // The daemon may have stopped meanwhile.
            swept.blocking_send((sweep, clock::now() - started)).ok();
        });
    }

    pub(super) fn swept(&mut self, sweep: anyhow::Result<Sweep>, took: Duration) {
        self.sweeping = false;
        self.sweep_at = clock::now() + SWEEP_EVERY.max(took * 20);
        match sweep {
            Ok(sweep) => {
                tracing::trace!(expired = sweep.expired, ?took, "swept the connection tables");
                let freed = self.sweep.tracked.keys().any(|id| !sweep.tracked.contains_key(id));
                self.sweep = sweep;
                // After a change the planner waits for a look at the connections before it gives numbers up.
                let first_look = self.swept_changes != self.sweeping_changes;
                self.swept_changes = self.sweeping_changes;
                if freed || first_look {
                    self.follow();
                }
                self.publish();
            }
            Err(error) => tracing::error!("cannot sweep the connection tables: {error:#}"),
        }
    }

    /// How long connections may be idle, by farm number.
    pub(super) fn timeouts(&self) -> impl Fn(u16) -> Timeouts + Send + 'static {
        let by_id: HashMap<u16, Timeouts> = self
            .config
            .farms
            .iter()
            .filter_map(|farm| Some((self.observed.farm_id(&farm.name)?, farm.timeouts)))
            .collect();
        // Connections of a farm that is gone age by the defaults.
        move |farm| by_id.get(&farm).copied().unwrap_or_default()
    }
}
