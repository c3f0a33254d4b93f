//! Whether a farm takes one more connection: its limits. Only farms with [`FARM_ADMITS`](lb_common::abi::FARM_ADMITS) look, and only
//! for packets that open a connection: whoever is connected is not concerned.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};

use aya_ebpf::bindings::xdp_md;
use lb_common::abi::{Address as _, Admission, BACKENDS_MAX, FARM_ADMITS, FARMS_MAX, OVER_REFUSES, Turned};
use lb_common::bucket::{self, Bucket};
use lb_common::verdict::Verdict;

use crate::calls::Calls;
use crate::load;
use crate::maps;
use crate::step::CHOOSES;
use crate::work::{Outcome, Work};

/// How often another CPU may be first; then a connection costs no token.
const TRIES: u32 = 4;

/// A function of its own; see `main`.
#[inline(never)]
pub fn admit<F: Calls>(context: *mut xdp_md) -> u64 {
    match Work::<F>::of(context) {
        Some(work) => match try_admit(&work) {
            Ok(()) => CHOOSES,
            Err(verdict) => verdict as u64,
        },
        None => Verdict::Inconsistent as u64,
    }
}

#[inline(always)]
fn try_admit<F: Calls>(work: &Work<F>) -> Outcome {
    let choice = work.read.choice;
    let number = choice.farm();
    let farm = maps::farm(number).ok_or(Verdict::Inconsistent)?;
    if farm.flags & FARM_ADMITS == 0 || choice.is_unknown() {
        return Ok(());
    }
    let admission = maps::admission(number).ok_or(Verdict::Inconsistent)?;
    let most = admission.connections;
    if most != 0 && load::of_farm(number) >= u64::from(most) {
        return turn_away(number, admission, Turned::Connections);
    }
    if admission.rate != 0 && !pace(work, number, admission.rate) {
        return turn_away(number, admission, Turned::Rate);
    }
    Ok(())
}

#[inline(always)]
fn turn_away(farm: u16, admission: &Admission, why: Turned) -> Outcome {
    maps::count_turned(farm, why);
    Err(if admission.over == OVER_REFUSES { Verdict::Refused } else { Verdict::Limited })
}

/// Whether one more may come at this moment. A datagram takes its tokens at once, since nothing tells a forged one from others; a
/// handshake does so by [`came`].
#[inline(always)]
fn pace<F: Calls>(work: &Work<F>, farm: u16, rate: u32) -> bool {
    let (whole, own) = buckets(work, farm);
    let now = work.control.now;
    let may = bucket::may_come(look(whole, now, rate), look(own, now, bucket::share(rate)), rate);
    if may && !work.is_tcp() {
        limits_take(whole, now, rate);
        limits_take(own, now, bucket::share(rate));
    }
    may
}

/// The client of the farm's whose packet this is has completed a handshake.
#[inline(always)]
pub fn came<F: Calls>(work: &Work<F>, farm: u16) {
    let Some(admission) = maps::admission(farm) else { return };
    let (rate, now) = (admission.rate, work.control.now);
    if rate != 0 {
        let (whole, own) = buckets(work, farm);
        limits_take(whole, now, rate);
        limits_take(own, now, bucket::share(rate));
    }
}

/// The numbers of the farm's bucket and of the source's.
#[inline(always)]
fn buckets<F: Calls>(work: &Work<F>, farm: u16) -> (u32, u32) {
    let source = work.read.key.src.words();
    let seed = work.control.challenge_seed[0];
    (u32::from(farm), FARMS_MAX + bucket::place(source, F::TABLE == 0, farm, seed))
}

#[inline(always)]
fn look(number: u32, now: u32, rate: u32) -> Bucket {
    // SAFETY: a word of a map's value, aligned; every access to it is volatile or atomic.
    let word = maps::bucket(number).map_or(0, |bucket| unsafe { bucket.read_volatile() });
    Bucket::from_word(word).at(now, rate)
}

/// Takes a token. For the verifier, as the functions in `calls` are.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn limits_take(number: u32, now: u32, rate: u32) -> u64 {
    let Some(bucket) = maps::bucket(number) else { return 0 };
    for _ in 0..TRIES {
        // SAFETY: as above.
        let word = unsafe { bucket.read_volatile() };
        let next = Bucket::from_word(word).at(now, rate).taken(rate).word();
        // SAFETY: as above.
        let (_, done) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(bucket, word, next)
        };
        if done {
            return 1;
        }
    }
    0
}

const _: () = assert!(BACKENDS_MAX + FARMS_MAX == lb_common::abi::LOADS_MAX);
