//! Who serves a new connection of a farm whose scheduler is not the flow's hash alone, or whose sources keep their backend. This
//! comes after the look for the flow's line, and not before as in [`crate::select`]: a repeated SYN takes nobody's turn.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::xdp_md;
use lb_common::abi::{
    FARM_AFFINE, NO_TABLE, SCHEDULER_LEAST_CONNECTIONS, SCHEDULER_SOURCE, SCHEDULER_TURNS, TABLE_SIZE,
};
use lb_common::hash;
use lb_common::trace::{Chosen, Decision};
use lb_common::verdict::Verdict;

use crate::affinity;
use crate::calls::Calls;
use crate::context::opaque;
use crate::direct;
use crate::explain;
use crate::family::Family;
use crate::load;
use crate::maps;
use crate::open;
use crate::select;
use crate::size;
use crate::step::OPENS;
use crate::work::{Outcome, Work};

/// Completes the choice for a packet that opens a connection. A function of its own; see `main`.
#[inline(never)]
pub fn settle<F: Calls>(context: *mut xdp_md) -> u64 {
    match Work::<F>::of(context) {
        Some(mut work) => match try_settle(&mut work) {
            Ok(()) if work.read.choice.is_unknown() => {
                let number = direct::note_unknown(&mut work);
                size::next(&mut work, number)
            }
            Ok(()) => size::next(&mut work, OPENS),
            Err(verdict) => verdict as u64,
        },
        None => Verdict::Inconsistent as u64,
    }
}

#[inline(always)]
fn try_settle<F: Calls>(work: &mut Work<F>) -> Outcome {
    let choice = work.read.choice;
    let farm = maps::farm(choice.farm()).ok_or(Verdict::Inconsistent)?;
    if farm.flags & FARM_AFFINE != 0
        && let Some(backend) = affinity::had(work, choice.farm())
    {
        return settle_on(work, backend, Chosen::Affinity);
    }
    if farm.table == NO_TABLE {
        return Err(select::nobody(farm));
    }
    if farm.scheduler == SCHEDULER_LEAST_CONNECTIONS {
        let backend = load::choose(farm.table).ok_or(Verdict::Inconsistent)?;
        return settle_on(work, backend, Chosen::Load);
    }
    let (slot, by) = match farm.scheduler {
        SCHEDULER_TURNS => (turn(work, choice.farm())?, Chosen::Turn),
        SCHEDULER_SOURCE => (source(work, choice.farm())?, Chosen::Source),
        _ => (hash::slot(hash::flow(&work.read.key, work.control.flow_seed), TABLE_SIZE), Chosen::Flow),
    };
    let backend = maps::backend_at(farm.table, slot).ok_or(Verdict::Inconsistent)?;
    explain::decided(Decision::Slot, u64::from(slot));
    settle_on(work, backend, by)
}

#[inline(always)]
fn settle_on<F: Calls>(work: &mut Work<F>, backend: u16, by: Chosen) -> Outcome {
    explain::decided(Decision::Backend, u64::from(backend) | (by as u64) << 32);
    let choice = work.read.choice.with(backend, select::check_hop::<F>(backend)?);
    work.read.choice = choice;
    open::prepare(work, choice);
    Ok(())
}

/// The next slot. All CPUs share the count, so that shares are exact; farms begin at different places.
#[inline(always)]
fn turn<F: Family>(work: &Work<F>, farm: u16) -> Result<u32, Verdict> {
    let schedule = maps::schedule(farm).ok_or(Verdict::Inconsistent)?;
    // SAFETY: a word of a map's value, aligned; nobody but this program writes it.
    let turn = unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(&raw mut (*schedule).turn, 1) };
    let start = hash::mix(work.control.flow_seed, u32::from(farm)) as u32;
    // The verifier does not know what the compiler does: that a remainder is below its divisor.
    Ok(opaque((turn.wrapping_add(start) % TABLE_SIZE) as usize) as u32)
}

/// The slot of the client's address, as far as that counts.
#[inline(always)]
fn source<F: Family>(work: &Work<F>, farm: u16) -> Result<u32, Verdict> {
    let words = maps::source(&work.read.key.src, farm, F::TABLE == 0).ok_or(Verdict::Inconsistent)?;
    Ok(hash::slot(hash::source(words, work.control.flow_seed), TABLE_SIZE))
}
