//! The numbers of VIPs: what services and connections name them by.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{MappedAddress, VIPS_MAX};

use super::{DiffError, MapOp, Number, Observed};

/// Numbers of VIPs, in a plan in the making.
pub(super) struct Vips {
    numbers: BTreeMap<MappedAddress, u16>,
    /// Numbers taken by this plan or by what is there.
    taken: BTreeSet<u16>,
    /// No number below this one is free.
    next: u16,
    /// Numbers that this plan's services name.
    current: BTreeSet<u16>,
    /// Numbers that connections bear or may come to bear.
    in_use: BTreeSet<u16>,
}

impl Vips {
    pub fn new(observed: &Observed, in_use: impl Fn(Number) -> bool) -> Self {
        // Between the look at the connections and the end of this plan, another client may come to a VIP that has a
        // service: its number is not given up before the plan after the one that takes it out.
        let served = observed.services.values().map(|entry| entry.vip);
        let bears = |id: &u16| in_use(Number::Vip(*id));
        Self {
            numbers: observed.vips.iter().map(|(id, address)| (*address, *id)).collect(),
            taken: observed.vips.keys().copied().collect(),
            next: 0,
            current: BTreeSet::new(),
            in_use: observed.vips.keys().copied().filter(bears).chain(served).collect(),
        }
    }

    /// The number of a VIP that a service is about to name; a new one's address is written at once.
    pub fn number(&mut self, vip: MappedAddress, ops: &mut Vec<MapOp>) -> Result<u16, DiffError> {
        let id = match self.numbers.get(&vip) {
            Some(&id) => id,
            None => {
                let id = super::free(&self.taken, self.next, VIPS_MAX)
                    .ok_or(DiffError::NumbersExhausted { what: "VIP", most: VIPS_MAX })?;
                self.next = id;
                self.taken.insert(id);
                self.numbers.insert(vip, id);
                ops.push(MapOp::Vip(id, Some(vip)));
                id
            }
        };
        self.current.insert(id);
        Ok(id)
    }

    /// Gives up the numbers that nobody bears and no service names any more.
    pub fn retire(&self, observed: &Observed, ops: &mut Vec<MapOp>) {
        let kept = |id: &u16| self.current.contains(id) || self.in_use.contains(id);
        ops.extend(observed.vips.keys().filter(|id| !kept(id)).map(|id| MapOp::Vip(*id, None)));
    }
}
