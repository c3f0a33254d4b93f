//! Hands a packet of a connection on whose backend answers its client itself (modes `dsr`, `ipip`, `gue`): as it came, but for the
//! hop that it takes. Where a tunnel leads to the backend, [`crate::wrap`] does the rest.
//!
//! It is found by the scratch space: line and first word; see [`note`]. The one place where such a packet finds its way.

use aya_ebpf::bindings::xdp_md;
use lb_common::abi::{INTERFACES_MAX, is_tunnel};
use lb_common::direct::{self, Known};
use lb_common::table::{Fields as _, Hop, Layout as _, Line as _, Meta, State};
use lb_common::tcp::{self, Action, Direction};
use lb_common::verdict::Verdict;
use lb_common::wire::{Ethernet, IpHeader as _, Tcp};

use crate::calls::Calls;
use crate::extended;
use crate::line::Line;
use crate::lookup::Found;
use crate::maps::{self, Leg};
use crate::step::{HANDS, WRAPS};
use crate::work::Work;

/// No line: the packet goes to whom the choice in the scratch space names.
const NO_LINE: u32 = u32::MAX;

/// Notes that a packet is to be handed on by this line, with `verdict` if that succeeds.
#[inline(always)]
pub fn note<F: Calls>(leg: Leg, found: &Found, verdict: Verdict) -> u64 {
    let Some(read) = maps::scratch::<F>() else { return Verdict::Inconsistent as u64 };
    (read.index, read.meta) = (found.index, found.meta);
    (read.leg.protocol, read.leg.ttl, read.leg.transport) = (leg.protocol, leg.ttl, leg.transport);
    read.verdict = verdict as u32;
    HANDS
}

/// The same of a segment that no line knows: it goes to whom the farm's table names.
#[inline(always)]
pub fn note_unknown<F: Calls>(work: &mut Work<F>) -> u64 {
    let meta = Meta::EMPTY.claimed(work.read.homes.tag as u16, 0, false);
    (work.read.index, work.read.meta) = (NO_LINE, meta.direct());
    work.read.verdict = Verdict::ByTable as u32;
    HANDS
}

/// Hands the packet on. A function of its own; see `main`.
#[inline(never)]
pub fn hand<F: Calls>(context: *mut xdp_md) -> u64 {
    let Some(mut work) = Work::<F>::of(context) else { return Verdict::Inconsistent as u64 };
    match try_hand(&mut work) {
        Ok(number) => number,
        Err(verdict) => verdict as u64,
    }
}

/// The verdict on the packet, and the interface it leaves by in the high half; or [`WRAPS`].
#[inline(always)]
fn try_hand<F: Calls>(work: &mut Work<F>) -> Result<u64, Verdict> {
    let meta = work.read.meta;
    let (number, client) = whose(work)?;
    if work.read.leg.ttl <= 1 {
        return Err(Verdict::TtlExpired);
    }
    if !meta.is_reverse() && is_tunnel(maps::backend(number).ok_or(Verdict::Inconsistent)?.mode) {
        work.read.backend = u32::from(number);
        return Ok(WRAPS);
    }
    let bytes = work.frame.len() as u64;
    let egress = if meta.is_reverse() { to_client(work, client)? } else { to_backend(work, number)? };
    Ok(handed(work, number, bytes, egress))
}

/// Counts a packet that has been handed on: the outcome.
#[inline(always)]
pub fn handed<F: Calls>(work: &mut Work<F>, number: u16, bytes: u64, egress: u32) -> u64 {
    maps::count(number, usize::from(work.read.meta.is_reverse()), bytes);
    if work.read.verdict == Verdict::Opened as u32 {
        // Whether it is answered nobody will see.
        maps::count_opened(number, false);
    }
    let sent = u64::from(work.read.verdict) | u64::from(egress) << 32;
    // Who follows by a line needs one.
    if work.read.index == NO_LINE { sent } else { extended::sent(work.read, work.read.meta, sent) }
}

/// The number of the packet's backend, and the way to its client, which only a reverse line knows.
#[inline(always)]
pub fn whose<F: Calls>(work: &Work<F>) -> Result<(u16, Hop), Verdict> {
    let (index, meta) = (work.read.index, work.read.meta);
    if index == NO_LINE {
        return Ok((work.read.choice.backend(), Hop(0)));
    }
    let line = F::line(index).ok_or(Verdict::Inconsistent)?;
    let read = (F::Addr::backend(line), line.hop());
    // Both are of one connection if the line has not changed hands meanwhile.
    if line.meta().version() == meta.version() { Ok(read) } else { Err(Verdict::Contended) }
}

/// A backend's answer, if its way leads by us.
#[inline(always)]
fn to_client<F: Calls>(work: &mut Work<F>, client: Hop) -> Result<u32, Verdict> {
    let number = u32::from(client.interface()) & (INTERFACES_MAX - 1);
    let interface = maps::interface(work.control, number).ok_or(Verdict::Inconsistent)?;
    if interface.ifindex == 0 {
        return Err(Verdict::NoNextHop);
    }
    take_hop(work)?;
    let ethernet = work.frame.edit::<Ethernet>(0).ok_or(Verdict::NotIp)?;
    ethernet.address(&client.mac(), &interface.mac);
    Ok(interface.ifindex)
}

/// To a backend that is a neighbour, and has the VIP itself.
#[inline(always)]
fn to_backend<F: Calls>(work: &mut Work<F>, number: u16) -> Result<u32, Verdict> {
    let backend = maps::backend(number).ok_or(Verdict::Inconsistent)?;
    let hop = maps::read_hop(F::hop(backend)).ok_or(Verdict::NoNextHop)?;
    if hop.ifindex == 0 {
        return Err(Verdict::NoNextHop);
    }
    take_hop(work)?;
    let ethernet = work.frame.edit::<Ethernet>(0).ok_or(Verdict::NotIp)?;
    ethernet.address(&hop.destination, &hop.source);
    Ok(hop.ifindex)
}

#[inline(always)]
pub fn take_hop<F: Calls>(work: &mut Work<F>) -> Result<(), Verdict> {
    work.frame.edit::<F::Header>(Ethernet::SIZE).ok_or(Verdict::TruncatedIp)?.take_hop();
    Ok(())
}

/// State and FINs of a connection after a packet of it, and what becomes of the packet; as [`crate::steer`] has it for others.
#[inline(always)]
pub fn judge<F: Calls>(
    work: &Work<F>,
    meta: Meta,
    line: Line,
    forward: Line,
    flags: u16,
) -> Result<((State, u8), Action), Verdict> {
    let before = (meta.state(), meta.fins());
    if !work.is_tcp() {
        let age = work.control.now.wrapping_sub(forward.created());
        let idle = work.control.now.wrapping_sub(line.last_seen());
        let (state, action) = direct::judge_udp(before.0, meta.direction(), age, idle, flags);
        return Ok(((state, 0), action));
    }
    if matches!(meta.direction(), Direction::Reverse) {
        return Ok((before, Action::Forward));
    }
    let header = work.frame.view_at::<Tcp>(work.transport()).ok_or(Verdict::TruncatedTransport)?;
    let known = Known { state: before.0, fins: before.1, opening: forward.opening() };
    let (after, action) = direct::judge_tcp(known, work.flags(), header.sequence(), flags);
    if after.opening != known.opening {
        forward.set_opening(after.opening);
    }
    if work.flags() & tcp::flag::ACK != 0 {
        let latest = tcp::acknowledged(forward.acknowledgment(), header.acknowledgment());
        forward.set_acknowledgment(latest);
    }
    Ok(((after.state, after.fins), action))
}
