//! Enters a new connection: both lines, and in mode `nat` a source port that nobody else has towards the backend.

use aya_ebpf::bindings::xdp_md;
use lb_common::abi::{POLICY_NO_EMPTY, POLICY_UDP_FULL, POLICY_UDP_ONLY, has_farm};
use lb_common::table::{Hop, Layout as _, Line as _, New, Occurrence, State, Table, opening};
use lb_common::tcp::Direction;
use lb_common::trace::Decision;
use lb_common::verdict::Verdict;
use lb_common::wire::{Ethernet, Tcp};

use crate::calls::{Calls, Claimed, NOWHERE};
use crate::explain;
use crate::forward;
use crate::line::{self, Connections};
use crate::lookup::Found;
use crate::maps::{self, LastResort, Scratch};
use crate::ports;
use crate::select::Choice;
use crate::step::ENTERS;
use crate::work::{Outcome, Work};

/// Ports that are tried for one connection: its client's own, then some that seem to be free.
const ATTEMPTS: u32 = 4;
/// An unanswered TCP connection's port is taken after so many ticks without a look at others: its SYN has been repeated by then
/// (RFC 6298, section 2: after a second), or never will be.
const STALE: u32 = 10;
/// Ticks after which nothing more is expected for a half-open connection.
const SILENCE: u32 = 20;

/// Opens a connection for the packet, by the choice that was made, and sends it on. A function of its own; see `main`.
#[inline(never)]
pub fn open<F: Calls>(context: *mut xdp_md) -> u64 {
    match Work::<F>::of(context) {
        Some(mut work) => match try_open(&mut work) {
            Ok(()) => ENTERS,
            Err(verdict) => verdict as u64,
        },
        None => Verdict::Inconsistent as u64,
    }
}

/// Writes both lines of a connection that [`open`] has claimed, and sends its first packet on. A function of its own; see `main`.
#[inline(never)]
pub fn enter<F: Calls>(context: *mut xdp_md) -> u64 {
    match Work::<F>::of(context) {
        Some(mut work) => match publish(&mut work) {
            Ok(found) => forward::first::<F>(&mut work, &found),
            Err(verdict) => verdict as u64,
        },
        None => Verdict::Inconsistent as u64,
    }
}

#[inline(always)]
fn try_open<F: Calls>(work: &mut Work<F>) -> Outcome {
    let choice = work.read.choice;
    if work.read.leg.ttl <= 1 {
        return Err(Verdict::TtlExpired);
    }
    let policy = policy(work, choice);
    // The forward line first: who has it is the only one who opens this connection, whatever the other CPU is doing.
    let forward = match Claimed::of(F::claim(&work.read.key, &work.read.homes, work.control.now, policy)) {
        Claimed::At(index, evicted) => {
            count_evicted(evicted);
            explain::decided(Decision::Forward, u64::from(index) | u64::from(evicted) << 32);
            index
        }
        Claimed::Taken => return Err(Verdict::Contended),
        Claimed::Full => {
            maps::occurred(Occurrence::Full);
            return Err(if policy & POLICY_NO_EMPTY != 0 { Verdict::FarmFull } else { Verdict::TableFull });
        }
    };
    // Who takes no empty line for the one direction has freed both lines of somebody by that, and takes one for the other.
    let reverse = match enter_reverse::<F>(work, choice, policy & !POLICY_NO_EMPTY) {
        Ok(index) => index,
        Err(verdict) => {
            F::give_back(forward, &work.read.homes);
            return Err(verdict);
        }
    };
    (work.read.index, work.read.reverse_index) = (forward, reverse);
    Ok(())
}

/// Builds up the flows of both directions, under the client's own port. `false` cannot be.
#[inline(always)]
pub fn prepare<F: Calls>(work: &mut Work<F>, choice: Choice) -> bool {
    let Some(entry) = maps::backend(choice.backend()) else { return false };
    let Scratch { key, to, reverse, back, reverse_homes, .. } = &mut *work.read;
    choice.translate::<F>(entry, key, to);
    reverse.set_reverse_of(to);
    back.set_reverse_of(key);
    match line::homes::<F>(reverse) {
        Some(homes) => *reverse_homes = homes,
        None => return false,
    }
    true
}

#[inline(always)]
fn count_evicted(evicted: bool) {
    if evicted {
        maps::occurred(Occurrence::Evicted);
    }
}

/// What the newcomer may take.
#[inline(always)]
fn policy<F: Calls>(work: &Work<F>, choice: Choice) -> u32 {
    let mut policy = work.control.policy[F::TABLE];
    if has_farm(&work.control.farms_full[F::TABLE], choice.farm()) {
        policy |= POLICY_NO_EMPTY;
    }
    if !work.is_tcp() && policy & POLICY_UDP_FULL != 0 {
        policy |= POLICY_NO_EMPTY | POLICY_UDP_ONLY;
    }
    policy
}

/// Claims a line for the reverse direction; the source port that it has then stands in `to` and `reverse`.
#[inline(always)]
fn enter_reverse<F: Calls>(work: &mut Work<F>, choice: Choice, policy: u32) -> Result<u32, Verdict> {
    let now = work.control.now;
    let mut full = true;
    work.read.last_resort = LastResort::NONE;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            // Such a flow keeps its port, and whoever is in the way is going.
            if choice.is_direct() {
                return Err(Verdict::Contended);
            }
            let port = ports::free(choice.backend(), explain::random());
            set_port(work.read, port.to_be_bytes());
            work.read.reverse_homes = line::homes::<F>(&work.read.reverse).ok_or(Verdict::Inconsistent)?;
        }
        match Claimed::of(F::claim(&work.read.reverse, &work.read.reverse_homes, now, policy)) {
            Claimed::At(index, evicted) => {
                count_evicted(evicted);
                decided_reverse(index, u64::from(evicted), attempt);
                return Ok(index);
            }
            Claimed::Full => continue,
            Claimed::Taken => full = false,
        }
        let index = F::find(&work.read.reverse, &work.read.reverse_homes);
        let Some(line) = F::line(index as u32) else { continue };
        let meta = line.meta();
        if index == NOWHERE || !meta.is_live() {
            continue;
        }
        // Another CPU's "now" may be a tick ahead: the youngest is not the oldest.
        let idle = (now.wrapping_sub(line.last_seen()) as i32).max(0) as u32;
        // What a backend still says to the one whose port it was is told from what it says to the newcomer by TCP's numbers
        // alone; datagrams have none, so their ports must have been silent for a while.
        let silent = work.is_tcp() || idle >= SILENCE;
        let old = idle >= if work.is_tcp() { STALE } else { SILENCE };
        if (meta.is(State::Unanswered) && old) || F::expired(index as u32, now) != 0 {
            if let Some(index) = take_over::<F>(index as u32, meta.0) {
                decided_reverse(index, TOOK_PORT, attempt);
                return Ok(index);
            }
            continue;
        }
        let half_open = meta.is(State::Unanswered) || meta.is(State::Answered);
        if (half_open || meta.state().is_over()) && silent && idle + 1 > work.read.last_resort.idle {
            let (index, port) = (index as u32, work.read.to.src_port);
            work.read.last_resort =
                LastResort { meta: meta.0, index, idle: idle + 1, port, reserved: [0; 3] };
        }
    }
    let LastResort { meta, index, port, .. } = work.read.last_resort;
    if meta != 0 {
        set_port(work.read, port);
        if let Some(index) = take_over::<F>(index, meta) {
            decided_reverse(index, TOOK_PORT, ATTEMPTS);
            return Ok(index);
        }
    }
    if full {
        maps::occurred(Occurrence::Full);
        return Err(Verdict::TableFull);
    }
    Err(Verdict::PortsExhausted)
}

/// See [`Decision::Reverse`].
const TOOK_PORT: u64 = 2;

#[inline(always)]
fn decided_reverse(index: u32, whose: u64, attempt: u32) {
    explain::decided(Decision::Reverse, u64::from(index) | whose << 32 | u64::from(attempt) << 40);
}

#[inline(always)]
fn take_over<F: Calls>(index: u32, meta: u64) -> Option<u32> {
    if F::take_over(index, meta) == 0 {
        return None;
    }
    maps::occurred(Occurrence::PortTaken);
    Some(index)
}

#[inline(always)]
fn set_port<A>(scratch: &mut Scratch<A>, port: [u8; 2]) {
    scratch.to.src_port = port;
    scratch.reverse.dst_port = port;
}

/// Writes both lines and lets them be found, the reverse one first: an answer cannot come before the question has left.
#[inline(always)]
fn publish<F: Calls>(work: &mut Work<F>) -> Result<Found, Verdict> {
    let choice = work.read.choice;
    let (forward, reverse) = (work.read.index, work.read.reverse_index);
    let (Some(line), Some(back)) = (F::line(forward), F::line(reverse)) else {
        return Err(Verdict::Inconsistent);
    };
    let ethernet = work.frame.view::<Ethernet>(0).ok_or(Verdict::NotIp)?;
    let hop = Hop::new(work.read.interface as u16, &ethernet.src);
    let mut sequence = 0;
    if work.is_tcp() {
        let tcp = work.frame.view_at::<Tcp>(work.transport()).ok_or(Verdict::TruncatedTransport)?;
        sequence = tcp.sequence();
    }
    let (now, read) = (work.control.now, &*work.read);
    let (udp, dnat, direct) = (!work.is_tcp(), !choice.source_is_vip(), choice.is_direct());
    let entry = |key, to, reverse, peer, tail| New {
        key,
        to,
        reverse,
        backend: choice.backend(),
        vip: choice.vip(),
        peer,
        now,
        acknowledgment: 0,
        tail,
    };
    F::Addr::write(line, &entry(&read.key, &read.to, false, reverse, opening(now, sequence)));
    F::Addr::write(back, &entry(&read.reverse, &read.back, true, forward, hop.0));
    let meta = |direction, line: line::Line| {
        let meta = line.meta().of(direction, udp, dnat).with_state(State::Unanswered);
        if direct { meta.direct() } else { meta }
    };
    let back_meta = meta(Direction::Reverse, back);
    let meta = meta(Direction::Forward, line);
    // In a flood somebody may have taken the one before the other was there to be taken, too.
    if !Table(Connections::<F>::new()).publish_pair(forward, meta, reverse, back_meta) {
        return Err(Verdict::Contended);
    }
    if !dnat {
        ports::taken(choice.backend(), u16::from_be_bytes(work.read.to.src_port));
    }
    Ok(Found { index: forward, line, meta })
}
