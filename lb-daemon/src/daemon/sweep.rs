//! The sweep of the connection tables: a slice each tick, beside the loop. What a whole round finds says which numbers
//! connections bear, and how full the tables are.

use std::collections::BTreeMap;
use std::sync::Arc;

use lb_core::config::model::FarmName;
use lb_core::diff::Number;
use lb_core::state::tables::{Table, is_crowded};

use super::jobs::{Done, Jobs};
use super::words;
use crate::datapath::{Reader, Sweep, Sweeper};

/// See the module.
#[derive(Default)]
pub(super) struct Sweeping {
    /// What the last round has found.
    found: Sweep,
    /// The sweeper, between two slices.
    resting: Option<Box<Sweeper>>,
    /// A slice is under way.
    under_way: bool,
    /// How many changes of the maps came before the last round, and before the one under way.
    swept: u64,
    sweeping: u64,
    /// Tables that are nearly full, by family.
    crowded: [bool; 2],
    /// Farms that were told of as flooded, and how many rounds ago they last were.
    flooded: BTreeMap<FarmName, u32>,
}

/// Rounds after which a flood is told to be over. It fills its share again each time that what it has left behind is forgotten.
const FLOOD_OVER: u32 = 120;

impl Sweeping {
    /// Sweeps the next slice, unless one is under way: one that takes longer than a tick delays nobody but the next.
    pub fn go_on(&mut self, jobs: &Jobs, reader: Arc<Reader>, farms: usize, changes: u64) {
        if self.under_way {
            return;
        }
        self.under_way = true;
        let mut sweeper = self.resting.take().unwrap_or_default();
        if sweeper.at_start() {
            self.sweeping = changes;
        }
        jobs.run(Done::SweepBroke, move || {
            let round = reader.sweep(&mut sweeper, farms);
            Done::Swept(sweeper, round.map(Box::new))
        });
    }

    /// Sweeps all there is, before anything else: a daemon that adopts must know whom connections belong to.
    pub fn at_once(&mut self, reader: &Reader, farms: usize) {
        let mut sweeper = Box::<Sweeper>::default();
        self.found = reader.sweep_round(&mut sweeper, farms);
        self.resting = Some(sweeper);
    }

    /// A slice has broken off; a new round begins.
    pub fn broke(&mut self) {
        self.under_way = false;
    }

    /// Takes a slice's end; whether a round is over, and if so whether numbers may have come free.
    pub fn take(&mut self, sweeper: Box<Sweeper>, round: Option<Box<Sweep>>) -> Option<bool> {
        (self.under_way, self.resting) = (false, Some(sweeper));
        let round = *round?;
        tracing::trace!(expired = round.expired, "swept the connection tables");
        let before = std::mem::replace(&mut self.found, round);
        let freed = before.tracked.keys().any(|id| !self.found.tracked.contains_key(id))
            || before.vips.keys().any(|id| !self.found.vips.contains_key(id));
        // After a change the planner waits for a look at the connections before it gives numbers up.
        let first_look = self.swept != self.sweeping;
        self.swept = self.sweeping;
        Some(freed || first_look)
    }

    /// Whether connections bear a number, or may: the maps have changed `changes` times.
    pub fn is_borne(&self, number: Number, changes: u64) -> bool {
        self.swept != changes
            || match number {
                Number::Backend(id) => self.found.tracked.contains_key(&id),
                Number::Vip(id) => self.found.vips.contains_key(&id),
            }
    }

    /// Connections of a backend, by number.
    pub fn live(&self, backend: u16) -> u64 {
        self.found.live.get(&backend).copied().unwrap_or(0)
    }

    pub fn found(&self) -> &Sweep {
        &self.found
    }

    /// What is to be told of tables that have become nearly full, or no longer are: once each. Whether it is a warning.
    pub fn crowds(&mut self, tables: &[Table]) -> Vec<(bool, String)> {
        let mut told = Vec::new();
        for (was, table) in self.crowded.iter_mut().zip(tables) {
            let crowded = is_crowded(*was, table.load());
            if std::mem::replace(was, crowded) == crowded {
                continue;
            }
            let filled = format!(
                "the connection table of {} is {} % full: {} of {}",
                table.family,
                table.load(),
                table.used,
                words::count(table.lines, "line")
            );
            let advice =
                "new connections may find no room; a larger `connections` in [daemon] gives them more";
            told.push((crowded, if crowded { format!("{filled}; {advice}") } else { filled }));
        }
        told
    }
}

/// What is told of a farm's flood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flood {
    Began,
    Ended,
}

impl Sweeping {
    /// What is to be told of floods of half-open connections: when one is seen first, and when it has not been seen for a while.
    pub fn floods<'a>(&mut self, farms: impl Iterator<Item = (u16, &'a FarmName)>) -> Vec<(FarmName, Flood)> {
        let mut told = Vec::new();
        for rounds in self.flooded.values_mut() {
            *rounds += 1;
        }
        for (_, farm) in farms.filter(|(id, _)| self.found.policy.is_flooded(*id)) {
            if self.flooded.insert(farm.clone(), 0).is_none() {
                told.push((farm.clone(), Flood::Began));
            }
        }
        let over = self.flooded.extract_if(.., |_, rounds| *rounds >= FLOOD_OVER);
        told.extend(over.map(|(farm, _)| (farm, Flood::Ended)));
        told
    }
}

#[cfg(test)]
mod tests {
    use lb_core::quota::Policy;

    use super::*;

    fn round(backends: &[u16]) -> Option<Box<Sweep>> {
        let tracked = backends.iter().map(|id| (*id, 1)).collect();
        Some(Box::new(Sweep { tracked, ..Sweep::default() }))
    }

    #[test]
    fn numbers_are_borne_until_a_round_that_began_after_the_last_change_has_not_met_them() {
        let mut sweeping = Sweeping { swept: 0, sweeping: 1, ..Sweeping::default() };
        let seven = Number::Backend(7);
        assert!(sweeping.is_borne(seven, 1), "nobody has looked since the change");
        assert_eq!(sweeping.take(Box::default(), None), None, "a slice is not a round");
        assert_eq!(sweeping.take(Box::default(), round(&[7])), Some(true), "the first look since the change");
        assert!(sweeping.is_borne(seven, 1));
        assert!(!sweeping.is_borne(Number::Backend(8), 1));
        assert!(sweeping.is_borne(Number::Backend(8), 2), "another change");
        assert_eq!(sweeping.take(Box::default(), round(&[7])), Some(false), "nothing new");
        assert_eq!(sweeping.take(Box::default(), round(&[])), Some(true), "its last connection is gone");
        assert!(!sweeping.is_borne(seven, 1));
    }

    #[test]
    fn a_flood_is_told_once_and_its_end_when_it_has_not_come_back_for_a_while() {
        let farm = FarmName::new("web").unwrap();
        let mut sweeping = Sweeping::default();
        let mut round = |flooded: bool| {
            let mut policy = Policy::default();
            policy.farms_flooded[0] = u64::from(flooded) << 7;
            sweeping.take(Box::default(), Some(Box::new(Sweep { policy, ..Sweep::default() })));
            sweeping.floods([(7, &farm)].into_iter())
        };
        assert_eq!(round(false), []);
        assert_eq!(round(true), [(farm.clone(), Flood::Began)]);
        assert_eq!(round(true), []);
        for _ in 1..FLOOD_OVER {
            assert_eq!(round(false), []);
        }
        assert_eq!(round(true), [], "it was not over");
        let told: Vec<_> = (0..FLOOD_OVER).flat_map(|_| round(false)).collect();
        assert_eq!(told, [(farm.clone(), Flood::Ended)]);
        assert_eq!(round(true), [(farm.clone(), Flood::Began)]);
    }

    #[test]
    fn a_crowd_is_told_once_and_so_is_its_end() {
        let mut sweeping = Sweeping::default();
        let table = |used| [Table { family: "ipv4", lines: 100, used, policy: 0 }];
        let mut told = |used| sweeping.crowds(&table(used)).into_iter().map(|(warning, _)| warning).next();
        assert_eq!(
            [79, 80, 81, 75, 74, 10].map(&mut told),
            [None, Some(true), None, None, Some(false), None]
        );
    }
}
