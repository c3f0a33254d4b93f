//! The sweep of the connection tables: a slice each tick, beside the loop. What a whole round finds steers which numbers are
//! given up, and how full the tables are is told.

use lb_core::diff::Number;
use lb_core::sizing;
use lb_core::state::tables::{self, Table, Tables};
use lb_core::state::{EventKind, EventLevel};
use tokio::task::JoinHandle;

use super::{Daemon, describe};
use crate::datapath::{Sweep, Sweeper};

/// The names of the families' tables, in the sweep's order.
const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

/// The sweep, as the loop holds it.
#[derive(Default)]
pub(super) struct Sweeping {
    /// The sweeper, between two slices.
    resting: Option<Box<Sweeper>>,
    /// The slice under way; its task ends by itself.
    task: Option<JoinHandle<(Box<Sweeper>, Option<Sweep>)>>,
    /// Tables that are nearly full, by family.
    crowded: [bool; 2],
}

impl Daemon {
    /// Takes what the last slice has found, and sweeps the next one. Called each tick; a slice that takes longer delays
    /// nobody but the next slice.
    pub(super) async fn sweep_on(&mut self) {
        if let Some(task) = self.sweeping.task.take_if(|task| task.is_finished()) {
            match task.await {
                Ok((sweeper, round)) => {
                    self.sweeping.resting = Some(sweeper);
                    if let Some(round) = round {
                        self.swept(round);
                    }
                }
                Err(error) => tracing::error!("the sweep of the connection tables broke off: {error}"),
            }
        }
        if self.sweeping.task.is_some() {
            return;
        }
        let mut sweeper = self.sweeping.resting.take().unwrap_or_default();
        if sweeper.at_start() {
            self.sweeping_changes = self.changes;
        }
        let (reader, farms) = (self.reader.clone(), self.enabled_farms());
        self.sweeping.task = Some(tokio::task::spawn_blocking(move || {
            let round = reader.sweep(&mut sweeper, farms);
            (sweeper, round)
        }));
    }

    /// Sweeps all there is, before anything else: a daemon that adopts must know whom connections belong to.
    pub(super) fn sweep_at_once(&mut self) {
        let mut sweeper = Box::<Sweeper>::default();
        self.sweep = self.reader.sweep_round(&mut sweeper, self.enabled_farms());
        self.sweeping.resting = Some(sweeper);
    }

    fn enabled_farms(&self) -> usize {
        self.config.farms.iter().filter(|farm| farm.enabled).count()
    }

    fn swept(&mut self, sweep: Sweep) {
        tracing::trace!(expired = sweep.expired, "swept the connection tables");
        let gone = |before: &Sweep| {
            before.tracked.keys().any(|id| !sweep.tracked.contains_key(id))
                || before.vips.keys().any(|id| !sweep.vips.contains_key(id))
        };
        let freed = gone(&self.sweep);
        self.sweep = sweep;
        // After a change the planner waits for a look at the connections before it gives numbers up.
        let first_look = self.swept_changes != self.sweeping_changes;
        self.swept_changes = self.sweeping_changes;
        if freed || first_look {
            self.follow();
        }
        if self.forget_departed() {
            self.watch_backends(false);
        }
        self.tell_of_crowds();
        self.publish();
    }

    /// Whether connections bear a number, or may.
    pub(super) fn is_borne(&self, number: Number) -> bool {
        self.swept_changes != self.changes
            || match number {
                Number::Backend(id) => self.sweep.tracked.contains_key(&id),
                Number::Vip(id) => self.sweep.vips.contains_key(&id),
            }
    }

    /// The tables, as of the last round.
    pub(super) fn tables(&self) -> Tables {
        let families = FAMILIES.iter().zip(&self.sweep.tables).enumerate();
        let families = families.map(|(number, (family, census))| {
            Table::new(family, census, self.datapath.maps.control.policy(number))
        });
        Tables {
            connections: sizing::connections(self.datapath.lines),
            bytes: self.datapath.table_bytes(),
            families: families.collect(),
        }
    }

    /// Tells once when a table is nearly full, and once when it no longer is.
    fn tell_of_crowds(&mut self) {
        let tables = self.tables();
        for (at, table) in tables.families.iter().enumerate() {
            let Some(was) = self.sweeping.crowded.get(at).copied() else { continue };
            let crowded = tables::is_crowded(was, table.load());
            if crowded == was {
                continue;
            }
            if let Some(place) = self.sweeping.crowded.get_mut(at) {
                *place = crowded;
            }
            let (family, load) = (table.family, table.load());
            let filled = format!(
                "the connection table of {family} is {load} % full: {} of {}",
                table.used,
                describe::count(table.lines, "line")
            );
            if crowded {
                let advice =
                    "new connections may find no room; a larger `connections` in [daemon] gives them more";
                let message = format!("{filled}; {advice}");
                self.tell(EventLevel::Warning, EventKind::ConnectionTable, None, None, message);
            } else {
                self.tell(EventLevel::Info, EventKind::ConnectionTable, None, None, filled);
            }
        }
    }
}
