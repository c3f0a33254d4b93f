//! Whose packet it is: its line in the connection table.

use lb_common::abi::FlowKey;
use lb_common::table::{Homes, Layout as _, Line as _, Meta, Occurrence};

use crate::calls::{Calls, NOWHERE};
use crate::line::{Line, Numbers};
use crate::maps;

/// A line as it was when it held the packet's flow.
#[derive(Clone, Copy)]
pub struct Found {
    pub index: u32,
    pub line: Line,
    pub meta: Meta,
}

/// The line of a flow. The flow is copied to the scratch space if it has to be looked for away from home: a function of its own
/// wants it in memory, and the way of most packets needs it in registers alone.
#[inline(always)]
pub fn find_copying<F: Calls>(key: &FlowKey<F::Addr>, homes: &Homes) -> Option<Found> {
    let line = F::line(homes.first)?;
    if let Some(found) = at::<F>(homes.first, line, key) {
        return Some(found);
    }
    if line.hops() == 0 {
        return None;
    }
    let read = maps::scratch::<F>()?;
    (read.key, read.homes) = (*key, *homes);
    away::<F>(&read.key, &read.homes)
}

/// The line of a flow.
#[inline(always)]
pub fn find<F: Calls>(key: &FlowKey<F::Addr>, homes: &Homes) -> Option<Found> {
    let line = F::line(homes.first)?;
    if let Some(found) = at::<F>(homes.first, line, key) {
        return Some(found);
    }
    // Nothing of this home lies anywhere else.
    if line.hops() == 0 {
        return None;
    }
    away::<F>(key, homes)
}

#[inline(always)]
fn away<F: Calls>(key: &FlowKey<F::Addr>, homes: &Homes) -> Option<Found> {
    maps::occurred(Occurrence::Away);
    let index = F::find(key, homes);
    if index == NOWHERE {
        return None;
    }
    at::<F>(index as u32, F::line(index as u32)?, key)
}

#[inline(always)]
fn at<F: Calls>(index: u32, line: Line, key: &FlowKey<F::Addr>) -> Option<Found> {
    let meta = line.meta();
    if meta.is_live() && F::Addr::holds(line, meta, key, &Numbers) {
        Some(Found { index, line, meta })
    } else {
        None
    }
}
