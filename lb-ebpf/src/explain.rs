//! What the instance that explains packets tells of its decisions; see [`lb_common::trace`].
//!
//! The verifier knows the value of [`EXPLAINS`] and removes all of this from the instance that forwards.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use lb_common::trace::{Decision, MADE, Paged, Trace};

/// Not 0: this instance explains. The daemon sets it before it loads one that does.
#[unsafe(no_mangle)]
static EXPLAINS: u32 = 0;

#[unsafe(no_mangle)]
static mut TRACE: Trace = Trace::EMPTY;

/// Whether this instance explains.
#[inline(always)]
pub fn is_on() -> bool {
    // SAFETY: a static; volatile, since the daemon sets another number before it loads the program.
    unsafe { (&raw const EXPLAINS).read_volatile() != 0 }
}

/// A decision was come to; `how` says how, in the words of [`Decision`].
#[inline(always)]
pub fn decided(what: Decision, how: u64) {
    if is_on() {
        // SAFETY: within the static; one packet is explained at a time.
        unsafe { (&raw mut TRACE.decisions[what as usize]).write_volatile(MADE | how) };
    }
}

/// What was looked up, if it is there. If it is not, that is noted, unless no map has such an entry.
#[inline(always)]
pub fn found<T>(value: Option<T>, map: Paged, key: u32) -> Option<T> {
    if value.is_none() && is_on() && key != u32::MAX {
        // SAFETY: as above.
        unsafe { (&raw mut TRACE.missing).write_volatile((map as u64) << 32 | u64::from(key)) };
    }
    value
}

/// A random number; the same row of them for each run of a packet that is explained.
#[inline(always)]
pub fn random() -> u32 {
    if is_on() {
        // SAFETY: as above.
        unsafe {
            let last = (&raw const TRACE.random).read_volatile();
            // Knuth's, of The Art of Computer Programming, volume 2, section 3.3.4.
            (&raw mut TRACE.random).write_volatile(last.wrapping_mul(6364136223846793005).wrapping_add(1));
            return (last >> 32) as u32;
        }
    }
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_prandom_u32() }
}
