//! Desired state against what the maps hold: an ordered list of operations that leads from one to the other.
//!
//! Whatever happened before (a crash half-way, a second run, an older daemon), the same desired state ends in the same maps.
//! The order lets packets find every map complete at every moment: what others refer to comes first, references next,
//! and what is no longer referred to goes last.

mod filter;
mod limits;
mod observed;
mod plan;
mod vips;
mod ways;

use std::collections::{BTreeSet, HashMap};

use lb_common::abi::{
    AddressFilter, Admission, BackendEntry, BackendLabel, FarmEntry, Label, MaglevTable, MappedAddress,
    NO_TABLE, Rules, ServiceEntry, ServiceKey,
};

pub use observed::{Numbers, Observed};
use plan::Plan;

use crate::config::model::{FarmName, Scheduler};
use crate::desired::{Desired, DesiredFarm, NextHops};
use crate::maglev::{self, Member};
use crate::rotation;

/// One change of one map.
#[derive(Clone, PartialEq, Eq)]
pub enum MapOp {
    Filter(Box<AddressFilter>),
    /// Set or delete.
    Address(MappedAddress, Option<u32>),
    /// The address of a VIP's number; without one the number is free.
    Vip(u16, Option<MappedAddress>),
    Service(ServiceKey, Option<ServiceEntry>),
    FarmLabel(u16, Option<Label>),
    /// What its scheduler goes by.
    Rules(u16, Rules),
    Farm(u16, FarmEntry),
    /// What a farm's newcomers have to meet. The list that it names is in the maps already.
    Admission(u16, Admission),
    /// A farm's counters start from 0: the number had another owner.
    ResetFarmCounters(u16),
    BackendLabel(u16, Option<BackendLabel>),
    Backend(u16, BackendEntry),
    /// A backend's counters start from 0: the number had another owner.
    ResetCounters(u16),
    Table(u32, Box<MaglevTable>),
}

/// A number that connections bear: it is not given to another owner while one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Number {
    /// Its farm's number follows from it.
    Backend(u16),
    /// Connections of IPv6 alone bear it.
    Vip(u16),
}

/// Why a desired state does not fit into the maps. Nothing is to be changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiffError {
    #[error("{wanted} {what} do not fit: at most {most}")]
    TooMany { what: &'static str, wanted: usize, most: u32 },
    #[error(
        "no number is free for another {what}: {most} are in use, by former ones too while connections to them last; wait until those end, cut them, or change fewer at once"
    )]
    NumbersExhausted { what: &'static str, most: u32 },
}

/// Makes plans, and remembers the tables it has computed.
#[derive(Default)]
pub struct Planner {
    tables: HashMap<FarmName, Computed>,
}

/// A farm's table, and what it was computed from.
#[derive(Default)]
struct Computed {
    kind: Kind,
    slots: Vec<Slot>,
    /// By indexes of its backends.
    owners: Option<Vec<u16>>,
    /// The number under which it was last planned to be, and its backends' numbers. A table that a farm uses is never written
    /// again, so where both are the same, so is what stands there.
    written: Option<(u32, Vec<u16>)>,
}

/// What a table is filled by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Maglev,
    Rotation,
}

impl Kind {
    fn of(scheduler: Scheduler) -> Self {
        match scheduler {
            Scheduler::Maglev | Scheduler::LeastConnections | Scheduler::SourceHash => Self::Maglev,
            Scheduler::WeightedRoundRobin => Self::Rotation,
        }
    }
}

/// What a table depends on, of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    name: String,
    weight: u32,
    serving: bool,
}

impl Planner {
    /// The operations that lead from `observed` to `desired`.
    ///
    /// Backends that `desired` does not name keep their number and next hop for as long as `in_use` says that connections
    /// bear it; one that a table leads to keeps them until the next plan at least, since a connection may open until it
    /// is out. VIPs keep their numbers likewise. So `in_use` must know of every connection there was when the last plan had
    /// been applied: without a look at the tables since, it has to be `true` for all. A plan after each look gives numbers
    /// up. `hops` are the next hops known now; a backend whose next hop is not among them keeps the one it has.
    ///
    /// # Errors
    ///
    /// When `desired` does not fit into the maps.
    pub fn plan(
        &mut self,
        observed: &Observed,
        desired: &Desired,
        hops: &NextHops,
        in_use: impl Fn(Number) -> bool,
    ) -> Result<Vec<MapOp>, DiffError> {
        self.tables.retain(|name, _| desired.farms.iter().any(|farm| farm.name == *name));
        let mut plan = Plan::new(observed, desired, hops, in_use)?;
        let mut farms = BTreeSet::new();
        for farm in &desired.farms {
            let id = plan.farm_id(farm)?;
            let backends = farm
                .backends
                .iter()
                .map(|backend| plan.backend(id, farm, backend))
                .collect::<Result<Vec<_>, _>>()?;
            let computed = self.computed(farm);
            let table = match &computed.owners {
                None => NO_TABLE,
                Some(owners) => {
                    let current = plan.table_of(farm);
                    let same = |(number, of): &(u32, Vec<u16>)| *number == current && *of == backends;
                    if computed.written.as_ref().is_some_and(same) {
                        current
                    } else {
                        plan.table(current, owners, &backends)?
                    }
                }
            };
            computed.written = Some((table, backends));
            plan.farm(id, farm, table)?;
            farms.insert(id);
        }
        plan.retire_services();
        plan.retire_farms(&farms);
        plan.retire_backends();
        plan.retire_farm_labels(&farms);
        plan.retire_addresses();
        plan.retire_vips();
        Ok(plan.ops)
    }

    /// The farm's table.
    fn computed(&mut self, farm: &DesiredFarm) -> &mut Computed {
        let slots: Vec<Slot> = farm
            .backends
            .iter()
            .map(|backend| Slot {
                name: backend.name.as_str().to_owned(),
                weight: backend.weight,
                serving: backend.serving,
            })
            .collect();
        let kind = Kind::of(farm.scheduler);
        let computed = self.tables.entry(farm.name.clone()).or_default();
        if computed.slots != slots || computed.kind != kind {
            let members: Vec<Member<'_>> = slots
                .iter()
                .map(|slot| Member { name: &slot.name, weight: slot.weight, serving: slot.serving })
                .collect();
            let owners = match kind {
                Kind::Maglev => maglev::build(&members),
                Kind::Rotation => rotation::build(&members),
            };
            // A farm has fewer backends than there are numbers for them.
            let owners = owners.map(|owners| owners.into_iter().map(|owner| owner as u16).collect());
            *computed = Computed { kind, slots, owners, written: None };
        }
        computed
    }
}

/// The first number from `from` on that is not taken.
fn free(taken: &BTreeSet<u16>, from: u16, limit: u32) -> Option<u16> {
    (u32::from(from)..limit).filter_map(|id| u16::try_from(id).ok()).find(|id| !taken.contains(id))
}
