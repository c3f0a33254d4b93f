//! What a packet has done to its connection's state, noted where others look: a step of its own, which only packets take that change
//! something, of farms that want to know.

use aya_ebpf::bindings::xdp_md;
use lb_common::abi::{BACKEND_AFFINE, BACKEND_COUNTED, BACKEND_PACED};
use lb_common::load::counts;
use lb_common::table::{Layout as _, Line as _, Meta, State};
use lb_common::verdict::Verdict;

use crate::affinity;
use crate::calls::Calls;
use crate::limits;
use crate::load;
use crate::maps;
use crate::step::SENDS;
use crate::work::Work;

/// The client has shown to be there.
const ESTABLISHED: u32 = 1;
/// The connection counts from now on, or counts no more.
const COUNTS: u32 = 2;
const COUNTS_NO_MORE: u32 = 4;
/// A handshake is complete.
const CAME: u32 = 8;

/// What is to be noted of a connection that goes from one state to another, for a backend of these flags: 0 is nothing.
/// `before` is of the packet's line; `changed`: it was this packet that changed the forward line.
#[inline(always)]
pub fn what(before: Meta, to: State, changed: bool, flags: u16) -> u32 {
    if flags & (BACKEND_AFFINE | BACKEND_COUNTED | BACKEND_PACED) == 0 {
        return 0;
    }
    let mut notes = 0;
    // By the client's packet: a backend's may lead back to this state, too.
    if flags & BACKEND_AFFINE != 0 && matches!(to, State::Established) && !before.is_reverse() {
        notes |= ESTABLISHED;
    }
    let (counted, counts) = (counts(before), counts(before.with_state(to)));
    if flags & BACKEND_COUNTED != 0 && changed && counted != counts {
        notes |= if counts { COUNTS } else { COUNTS_NO_MORE };
    }
    // Not by a backend's packet: whose source is the client's is a client's.
    if flags & BACKEND_PACED != 0 && changed && counts && !counted && !before.is_udp() && !before.is_reverse()
    {
        notes |= CAME;
    }
    notes
}

/// Notes it, and lets the packet go on. A function of its own; see `main`.
#[inline(never)]
pub fn note<F: Calls>(context: *mut xdp_md) -> u64 {
    let Some(work) = Work::<F>::of(context) else { return Verdict::Inconsistent as u64 };
    let (index, notes) = (work.read.index, work.read.notes);
    let Some(line) = F::line(index) else { return Verdict::Inconsistent as u64 };
    let backend = F::Addr::backend(line);
    let Some(entry) = maps::backend(backend) else { return Verdict::Inconsistent as u64 };
    if notes & ESTABLISHED != 0 {
        affinity::enter(&work, entry.farm, backend);
    }
    if notes & CAME != 0 {
        limits::came(&work, entry.farm);
    }
    if notes & (COUNTS | COUNTS_NO_MORE) != 0 {
        let forward = if work.read.meta.is_reverse() { line.peer() } else { index };
        load::change(backend, entry.farm, forward, if notes & COUNTS != 0 { 1 } else { -1 });
    }
    SENDS
}
