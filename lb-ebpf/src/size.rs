//! Packets that are too large for the interface that they are to leave by: the kernel drops such a frame and tells nobody
//! (`xdp_ok_fwd_dev` of include/linux/filter.h), and its sender would send it again and again (RFC 2923, section 2.1).

use aya_ebpf::bindings::xdp_md;
use lb_common::abi::{INTERFACES_MAX, interface_number, is_tunnel};
use lb_common::table::Hop;
use lb_common::verdict::Verdict;
use lb_common::wire::IpHeader as _;

use crate::calls::Calls;
use crate::direct;
use crate::maps;
use crate::parse;
use crate::step::{HANDS, MEASURES, NOTES, OPENS, SENDS};
use crate::work::Work;

/// The next step of a packet whose way is known: the same, or [`MEASURES`] before it. On the way of others nothing is larger than what
/// every interface carries.
#[inline(always)]
pub fn next<F: Calls>(work: &mut Work<F>, number: u64) -> u64 {
    let bytes = work.read.leg.transport + work.read.length;
    if !work.control.is_large(bytes) || ![OPENS, SENDS, NOTES, HANDS].contains(&number) {
        return number;
    }
    work.read.next = number;
    MEASURES
}

/// What becomes of a packet that is larger than what every interface carries: the step that is next, or [`Verdict::TooBig`], and then how
/// large it may be stands in the scratch space. A function of its own; see `main`.
#[inline(never)]
pub fn measure<F: Calls>(context: *mut xdp_md) -> u64 {
    let Some(mut work) = Work::<F>::of(context) else { return Verdict::Inconsistent as u64 };
    match try_measure(&mut work) {
        Ok(()) => work.read.next,
        Err(verdict) => verdict as u64,
    }
}

#[inline(always)]
fn try_measure<F: Calls>(work: &mut Work<F>) -> Result<(), Verdict> {
    let (number, client) = whither(work)?;
    let entry = maps::backend(number).ok_or(Verdict::Inconsistent)?;
    let place = match client {
        Some(hop) => u32::from(hop.interface()) & (INTERFACES_MAX - 1),
        // What comes out of a tunnel's beginning is measured there.
        None if is_tunnel(entry.mode) => return Ok(()),
        None => interface_number(F::hop(entry).ifindex, work.control.interface_factor),
    };
    let interface = maps::interface(work.control, place).ok_or(Verdict::Inconsistent)?;
    // Some other one, since that of the hop is not one of ours.
    if client.is_none() && interface.ifindex != F::hop(entry).ifindex {
        return Ok(());
    }
    // What came in by an interface fits out of it. In generic mode that may be several packets that the kernel has joined.
    let length = parse::ip::<F>(&work.frame)?.inner().length;
    if interface.mtu == 0 || length <= interface.mtu || interface.ifindex == work.frame.ingress() {
        return Ok(());
    }
    (work.read.mtu, work.read.backend) = (u32::from(interface.mtu), u32::from(number));
    Err(Verdict::TooBig)
}

/// The number of the packet's backend, and the way to its client if that is where it goes.
#[inline(always)]
fn whither<F: Calls>(work: &Work<F>) -> Result<(u16, Option<Hop>), Verdict> {
    if work.read.next == OPENS {
        return Ok((work.read.choice.backend(), None));
    }
    let (number, client) = direct::whose(work)?;
    Ok((number, if work.read.meta.is_reverse() { Some(client) } else { None }))
}
