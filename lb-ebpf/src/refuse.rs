//! Tells the sender of a packet that nobody serves it, in the place of whoever would have: a TCP reset, or an ICMP "port
//! unreachable" with the packet's head in it. Or asks it whether it is there. The answer is no longer than what it answers, or little
//! longer.

use aya_ebpf::bindings::xdp_md;
use lb_common::abi::{Address as _, FlowKey};
use lb_common::refusal::{self, IcmpHeader, Refused, Segment};
use lb_common::tcp::flag;
use lb_common::verdict::Verdict;
use lb_common::wire::{Ethernet, IpHeader, Tcp, protocol};

use crate::calls::Calls;
use crate::challenge;
use crate::context::Frame;
use crate::family::{Family, Quote as _, Told};
use crate::maps::{self, Scratch};
use crate::parse;
use crate::work::Work;

/// Makes the frame the answer to itself, if this CPU has not answered too many already. A function of its own; see `main`.
///
/// The verdict is that of [`challenge::meet`] for resets, which are never answered; [`Verdict::NoBackend`] for what cannot be: datagrams with IP
/// options, drivers without room in front of a frame. [`Verdict::RefusalLimited`].
#[inline(never)]
pub fn refuse<F: Calls>(context: *mut xdp_md) -> u64 {
    let Some(mut work) = Work::<F>::of(context) else { return Verdict::Inconsistent as u64 };
    if work.flags() & flag::RST != 0 {
        return challenge::meet::<F>(context);
    }
    // Answers cost a packet each, and their addressees may never have asked (RFC 4443, section 2.4 (f)).
    if !maps::may_refuse(work.control) {
        return Verdict::RefusalLimited as u64;
    }
    match write::<F>(&mut work.frame, work.read) {
        Ok(()) => Verdict::Refused as u64 | u64::from(work.frame.ingress()) << 32,
        Err(verdict) => verdict as u64,
    }
}

/// Makes a SYN the question to its sender; see [`crate::challenge`]. A function of its own, as above. There is no limit: each is as
/// long as what it answers, and is what a server would have answered.
#[inline(never)]
pub fn ask<F: Calls>(context: *mut xdp_md) -> u64 {
    let Some(mut work) = Work::<F>::of(context) else { return Verdict::Inconsistent as u64 };
    match try_ask(&mut work) {
        Ok(()) => Verdict::Challenged as u64 | u64::from(work.frame.ingress()) << 32,
        Err(verdict) => verdict as u64,
    }
}

#[inline(always)]
fn try_ask<F: Calls>(work: &mut Work<F>) -> Result<(), Verdict> {
    let number = challenge::number(work)?;
    let segment = refusal::challenge(&work.read.key, number, protocol::TCP);
    turn::<F>(&mut work.frame, |frame| put::<F>(frame, &work.read.key, segment))
}

/// By the way that the frame came.
#[inline(always)]
fn write<F: Calls>(frame: &mut Frame, packet: &Scratch<F::Addr>) -> Result<(), Verdict> {
    turn::<F>(frame, |frame| {
        if packet.key.protocol == protocol::TCP {
            reset::<F>(frame, packet)
        } else {
            error::<F>(frame, &packet.key, Told::PortUnreachable)
        }
    })
}

/// Makes a packet that has no hop left the answer that says so, by which `traceroute` finds the balancer, within the same limit. A function
/// of its own; see `main`. It gives the interface that the answer leaves by in the high half, or 0.
///
/// Who is answered by another address than he has asked learns nothing: what a backend sends to a client directly (mode `dnat`) is dropped
/// without a word.
#[inline(never)]
pub fn expire<F: Calls>(context: *mut xdp_md) -> u64 {
    let Some(mut work) = Work::<F>::of(context) else { return 0 };
    let Ok(header) = parse::ip::<F>(&work.frame) else { return 0 };
    work.read.key = FlowKey::new(header.src(), header.dst(), [0; 2], [0; 2], header.protocol());
    if !maps::is_vip(&work.read.key.dst) || !maps::may_refuse(work.control) {
        return 0;
    }
    let key = &work.read.key;
    match turn::<F>(&mut work.frame, |frame| error::<F>(frame, key, Told::TimeExceeded)) {
        Ok(()) => u64::from(work.frame.ingress()) << 32,
        Err(_) => 0,
    }
}

/// Makes a packet that is too large for its way the answer that says how large it may be (RFC 1191, RFC 8201), within a limit of its
/// own. A sender that has not asked for that by DF is told as well: nobody here takes packets apart, and it can. A function of its own;
/// see `main`. It gives the interface that the answer leaves by in the high half, or 0.
///
/// A VIP answers itself; for what a backend sends to a client directly, it is our own address towards that backend.
#[inline(never)]
pub fn tell_size<F: Calls>(context: *mut xdp_md) -> u64 {
    let Some(mut work) = Work::<F>::of(context) else { return 0 };
    let Ok(header) = parse::ip::<F>(&work.frame) else { return 0 };
    let (sender, mut teller, protocol) = (header.src(), header.dst(), header.protocol());
    if !maps::is_vip(&teller) {
        let Some(backend) = maps::backend(work.read.backend as u16) else { return 0 };
        teller = F::source(backend);
        if teller.words() == [0; 2] {
            return 0;
        }
    }
    let key = FlowKey::new(sender, teller, [0; 2], [0; 2], protocol);
    if !maps::may_tell_size(work.control) {
        return 0;
    }
    let told = Told::TooBig(work.read.mtu as u16);
    match turn::<F>(&mut work.frame, |frame| error::<F>(frame, &key, told)) {
        Ok(()) => u64::from(work.frame.ingress()) << 32,
        Err(_) => 0,
    }
}

/// Sends what `fill` makes of the frame back to where it came from.
#[inline(always)]
pub fn turn<F: Calls>(
    frame: &mut Frame,
    fill: impl FnOnce(&mut Frame) -> Result<(), Verdict>,
) -> Result<(), Verdict> {
    let ethernet = frame.view::<Ethernet>(0).ok_or(Verdict::NotIp)?;
    let (destination, source) = (ethernet.src, ethernet.dst);
    fill(frame)?;
    let ethernet = frame.edit::<Ethernet>(0).ok_or(Verdict::NotIp)?;
    ethernet.address(&destination, &source);
    ethernet.set_ethertype(F::ETHERTYPE);
    Ok(())
}

#[inline(always)]
fn reset<F: Family>(frame: &mut Frame, packet: &Scratch<F::Addr>) -> Result<(), Verdict> {
    let tcp =
        frame.view_at::<Tcp>(packet.leg.transport as usize & 0xff).ok_or(Verdict::TruncatedTransport)?;
    let refused = Refused {
        sequence: tcp.sequence(),
        acknowledgment: tcp.acknowledgment(),
        flags: tcp.flags,
        payload: packet.length.wrapping_sub(tcp.header_length() as u32),
    };
    let segment = refusal::reset(&packet.key, refused, protocol::TCP).ok_or(Verdict::NoConnection)?;
    put::<F>(frame, &packet.key, segment)
}

/// Makes the frame a packet of this segment, to the flow's source.
#[inline(always)]
fn put<F: Family>(frame: &mut Frame, key: &FlowKey<F::Addr>, segment: Segment) -> Result<(), Verdict> {
    let transport = Ethernet::SIZE + F::Header::BARE;
    if !frame.resize(0, transport + size_of::<Segment>()) {
        return Err(Verdict::NoBackend);
    }
    *frame.edit(Ethernet::SIZE).ok_or(Verdict::TruncatedIp)? =
        F::Header::bare(key.dst, key.src, protocol::TCP, size_of::<Segment>() as u16);
    *frame.edit(transport).ok_or(Verdict::TruncatedTransport)? = segment.0;
    Ok(())
}

/// The quoted packet keeps its place: a new head grows in front of it, and what is not quoted is cut off.
#[inline(always)]
fn error<F: Family>(frame: &mut Frame, key: &FlowKey<F::Addr>, told: Told) -> Result<(), Verdict> {
    let head = F::Header::BARE + size_of::<IcmpHeader>();
    let quoted = Ethernet::SIZE + head;
    // No fragment but the first is answered (RFC 1122, section 3.2.2).
    let may_quote = |header: &F::Header| header.is_bare() && !header.is_later_fragment();
    if !frame.view::<F::Header>(Ethernet::SIZE).is_some_and(may_quote)
        || !frame.resize(head, quoted + F::Quoted::SIZE)
    {
        return Err(Verdict::NoBackend);
    }
    let quote = frame.view::<F::Quoted>(quoted).ok_or(Verdict::TruncatedTransport)?.sum();
    let length = (size_of::<IcmpHeader>() + F::Quoted::SIZE) as u16;
    let icmp = F::error(told, key, quote, length);
    *frame.edit(Ethernet::SIZE).ok_or(Verdict::TruncatedIp)? =
        F::Header::bare(key.dst, key.src, F::ICMP, length);
    *frame.edit::<IcmpHeader>(Ethernet::SIZE + F::Header::BARE).ok_or(Verdict::TruncatedTransport)? = icmp;
    Ok(())
}
