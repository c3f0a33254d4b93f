//! Asks newcomers in a flood whether they are there, before anything is remembered of them; see [`lb_common::challenge`].

use aya_ebpf::bindings::xdp_md;
use lb_common::abi::{Address as _, POLICY_CHALLENGE, has_farm};
use lb_common::challenge::{self, PERIOD, Vouched};
use lb_common::trace::Decision;
use lb_common::verdict::Verdict;
use lb_common::wire::Tcp;

use crate::calls::Calls;
use crate::explain;
use crate::maps;
use crate::open;
use crate::size;
use crate::step::{CHOOSES, OPENS};
use crate::work::Work;

/// Whether newcomers to the farm are asked at present.
#[inline(always)]
pub fn is_on<F: Calls>(work: &Work<F>, farm: u16) -> bool {
    work.control.policy[F::TABLE] & POLICY_CHALLENGE != 0
        && has_farm(&work.control.farms_flooded[F::TABLE], farm)
}

/// What becomes of a SYN that opens a connection in a flood: it does, or its sender is asked. A function of its own; see `main`.
#[inline(never)]
pub fn admit<F: Calls>(context: *mut xdp_md) -> u64 {
    let Some(mut work) = Work::<F>::of(context) else { return Verdict::Inconsistent as u64 };
    let vouched = is_vouched_for(&work);
    explain::decided(Decision::Asked, u64::from(vouched) << 1 | 1);
    if !vouched {
        return Verdict::Challenged as u64;
    }
    let choice = work.read.choice;
    if choice.is_late() {
        return CHOOSES;
    }
    open::prepare(&mut work, choice);
    size::next(&mut work, OPENS)
}

/// Whether the sender of this SYN has shown of late that it is there; that it opens another connection is noted.
#[inline(always)]
fn is_vouched_for<F: Calls>(work: &Work<F>) -> bool {
    let now = work.control.now;
    may_open(source(work), now) || may_open(flow(work), now)
}

#[inline(always)]
fn may_open((place, tag): (u32, u32), now: u32) -> bool {
    let Some(vouched) = maps::vouched(place) else { return false };
    // SAFETY: a map's value of four words. Another CPU may write it: a count may be lost, or one source taken for another that
    // answered at the same moment.
    let vouched = unsafe { &mut *vouched };
    let may = vouched.may_open(tag, now);
    if may {
        vouched.opened += 1;
    }
    may
}

/// A reset that belongs to no connection, if it answers what its sender was asked, vouches for the sender. A function of its own, for
/// the sake of the stack.
#[inline(never)]
pub fn meet<F: Calls>(context: *mut xdp_md) -> u64 {
    let none = Verdict::NoConnection as u64;
    let Some(work) = Work::<F>::of(context) else { return none };
    // Nobody collects answers by guesses while nobody is asked.
    if work.control.policy[F::TABLE] & POLICY_CHALLENGE == 0 {
        return none;
    }
    let Some(tcp) = work.frame.view_at::<Tcp>(work.transport()) else { return none };
    let (now, secret) = (work.control.now, &work.control.challenge_seed);
    if !challenge::is_answer(tcp.sequence(), &work.read.homes, now, secret) {
        return none;
    }
    // The same answer, sent again, vouches for nobody.
    if vouch(flow(&work), now, true) {
        vouch(source(&work), now, false);
    }
    Verdict::ChallengeMet as u64
}

/// The number that the SYN is answered with.
#[inline(always)]
pub fn number<F: Calls>(work: &Work<F>) -> Result<u32, Verdict> {
    let tcp = work.frame.view_at::<Tcp>(work.transport()).ok_or(Verdict::TruncatedTransport)?;
    let code = challenge::code(&work.read.homes, work.control.now / PERIOD, &work.control.challenge_seed);
    Ok(challenge::acknowledgment(tcp.sequence(), code))
}

/// `false`: who has answered `once` is not to answer again so soon.
#[inline(always)]
fn vouch((place, tag): (u32, u32), now: u32, once: bool) -> bool {
    let Some(vouched) = maps::vouched(place) else { return false };
    // SAFETY: as above.
    let vouched = unsafe { &mut *vouched };
    if once && vouched.is_fresh(tag, now) {
        return false;
    }
    *vouched = Vouched::new(tag, now);
    true
}

#[inline(always)]
fn source<F: Calls>(work: &Work<F>) -> (u32, u32) {
    challenge::place(work.read.key.src.words(), &work.control.challenge_seed)
}

#[inline(always)]
fn flow<F: Calls>(work: &Work<F>) -> (u32, u32) {
    challenge::place_of_flow(&work.read.homes, &work.control.challenge_seed)
}
