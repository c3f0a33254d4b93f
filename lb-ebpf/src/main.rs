//! Drover's XDP program. A packet's way: `main -> parse -> lookup -> steer -> forward`, and for one that opens a connection
//! `select -> open -> forward`.
//!
//! This file holds the entry point, the order of the stages, and the only place where an outcome becomes an XDP action.

#![no_std]
#![no_main]
#![feature(core_intrinsics, asm_experimental_arch)]
#![allow(
    internal_features,
    reason = "BPF's atomics: the stable ones offer no compare-and-swap on this target"
)]

mod admission;
mod affinity;
mod calls;
mod challenge;
mod context;
mod direct;
mod explain;
mod extended;
mod family;
mod forward;
mod icmp;
mod limits;
mod line;
mod load;
mod lookup;
mod maps;
mod note;
mod open;
mod parse;
mod ports;
mod refuse;
mod schedule;
mod scratch;
mod select;
mod size;
mod sockets;
mod steer;
mod step;
mod work;
mod wrap;

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use lb_common::abi::Address as _;
use lb_common::table::Layout as _;
use lb_common::tcp;
use lb_common::trace::Decision;
use lb_common::verdict::{Disposition, Verdict};
use lb_common::wire::{Ethernet, IpHeader as _, protocol};

use crate::calls::Calls;
use crate::context::Frame;
use crate::family::{V4, V6};
use crate::maps::Leg;
use crate::steer::Steered;
use crate::step::{
    ASKS, CHOOSES, ENTERS, EXTENDED, FOLLOWS, HANDS, ICMP, MEASURES, NOTES, OPENS, QUOTES, REMEMBERS, SENDS,
    SLOW, WRAPS,
};
use crate::work::{Work, pack};

#[xdp]
pub fn drover(ctx: XdpContext) -> u32 {
    let number = follow(&ctx);
    act(&ctx, number)
}

/// The same for the instance that explains packets and forwards none.
#[xdp]
pub fn explain(ctx: XdpContext) -> u32 {
    let number = follow(&ctx);
    explain::decided(Decision::Outcome, number);
    act(&ctx, number)
}

/// Leads a packet its way: the verdict, and the interface that it, or the answer to it, leaves by in the high half.
#[inline(always)]
fn follow(ctx: &XdpContext) -> u64 {
    let mut frame = Frame::new(ctx);
    match parse::ethertype(&frame) {
        Ok(Ethernet::IPV4) => {
            // No closures: with two entry points each would be a function of its own.
            let number = match concerned::<V4>(&frame) {
                Ok(()) => process::<V4>(&mut frame),
                Err(number) => number,
            };
            slowly::<V4>(ctx.ctx, number)
        }
        Ok(Ethernet::IPV6) => {
            let number = match concerned::<V6>(&frame) {
                Ok(()) => process_v6(ctx.ctx),
                Err(number) => number,
            };
            slowly::<V6>(ctx.ctx, number)
        }
        Ok(Ethernet::VLAN | Ethernet::QINQ) => Verdict::Tagged as u64,
        Ok(_) => Verdict::NotIp as u64,
        Err(verdict) => verdict as u64,
    }
}

/// Counts the outcome and makes it an XDP action.
#[inline(always)]
fn act(ctx: &XdpContext, number: u64) -> u32 {
    let (verdict, egress) = (Verdict::from_raw(number as u32), (number >> 32) as u32);
    maps::count_verdict(verdict);
    if matches!(verdict, Verdict::Opened) {
        debug!(ctx, "connection opened, leaving by interface {}", egress);
    } else if matches!(verdict, Verdict::PortsExhausted | Verdict::TableFull | Verdict::Inconsistent) {
        debug!(ctx, "found no room, verdict {}", verdict as u32);
    }
    // An answer may go out whatever became of the packet itself.
    let disposition = if egress != 0 { Disposition::Forward } else { verdict.disposition() };
    match disposition {
        Disposition::Pass => xdp_action::XDP_PASS,
        Disposition::Drop => xdp_action::XDP_DROP,
        Disposition::Forward if egress == Frame::new(ctx).ingress() => xdp_action::XDP_TX,
        // SAFETY: a helper without pointers. It fails only for unknown flags.
        Disposition::Forward => unsafe { bpf_redirect(egress, 0) as u32 },
    }
}

/// Most packets of a host that does other things, too, go no further than this. An ICMP error may concern us by what it quotes alone.
#[inline(always)]
fn concerned<F: Calls>(frame: &Frame) -> Result<(), u64> {
    let header = parse::ip::<F>(frame).map_err(|verdict| verdict as u64)?;
    if maps::may_concern(&header.src(), &header.dst()) {
        return Ok(());
    }
    Err(if header.protocol() == F::ICMP { ICMP } else { Verdict::NotForVip as u64 })
}

/// The way of packets of established connections.
#[inline(always)]
fn process<F: Calls>(frame: &mut Frame) -> u64 {
    match try_process::<F>(frame) {
        Ok(number) => number,
        Err(verdict) => verdict as u64,
    }
}

/// A function of its own: with both families in one there would be too little of the stack left for the slow way.
#[inline(never)]
fn process_v6(context: *mut xdp_md) -> u64 {
    process::<V6>(&mut Frame::of(context))
}

/// The way of all others, in steps that are functions of their own, one after another, so that none stands on another's stack.
#[inline(always)]
fn slowly<F: Calls>(context: *mut xdp_md, fast: u64) -> u64 {
    let mut number = fast;
    // Sent on, as most are: above all verdicts, and below all steps, which as signed numbers are negative.
    if number as i64 > i64::from(u32::MAX) {
        return number;
    }
    if number == ICMP {
        number = icmp::receive::<F>(context);
        if number == QUOTES {
            number = icmp::pass_on::<F>(context);
        }
        if number == HANDS {
            number = direct::hand::<F>(context);
        }
        // Nobody is told of what became of an error.
        return if number == WRAPS { wrap::wrap::<F>(context) } else { number };
    }
    if number == EXTENDED {
        number = extended::read::<F>(context);
    }
    if number == FOLLOWS {
        number = extended::follow::<F>(context);
    }
    if number == SLOW {
        number = known::<F>(context);
    }
    if number == ASKS {
        number = challenge::admit::<F>(context);
        if number == Verdict::Challenged as u64 {
            return refuse::ask::<F>(context);
        }
    }
    if number == CHOOSES {
        number = limits::admit::<F>(context);
    }
    if number == CHOOSES {
        number = schedule::settle::<F>(context);
    }
    if number == MEASURES {
        number = size::measure::<F>(context);
    }
    if number == OPENS {
        number = open::open::<F>(context);
    }
    if number == ENTERS {
        number = open::enter::<F>(context);
    }
    if number == NOTES {
        number = note::note::<F>(context);
    }
    if number == SENDS {
        number = forward::send::<F>(context);
    }
    if number == HANDS {
        number = direct::hand::<F>(context);
    }
    if number == WRAPS {
        number = wrap::wrap::<F>(context);
    }
    if number == Verdict::TooBig as u64 {
        number |= refuse::tell_size::<F>(context);
    }
    // The rest of a datagram of the host's is the host's, too.
    if number == REMEMBERS || number == Verdict::HostPort as u64 {
        number = extended::remember::<F>(context, number);
    }
    if number == Verdict::Refused as u64 {
        return refuse::refuse::<F>(context);
    }
    // Whoever finds no room is told so, too, and it is counted why.
    let full = [Verdict::TableFull as u64, Verdict::FarmFull as u64, Verdict::PortsExhausted as u64];
    if full.contains(&number) {
        number |= refuse::refuse::<F>(context) >> 32 << 32;
    }
    if number == Verdict::TtlExpired as u64 {
        number |= refuse::expire::<F>(context);
    }
    number
}

#[inline(always)]
fn try_process<F: Calls>(frame: &mut Frame) -> Result<u64, Verdict> {
    let header = parse::ip::<F>(frame)?;
    let control = maps::control().ok_or(Verdict::Inconsistent)?;
    let interface = parse::own_interface(frame, control)?;
    let (ttl, destination) = (header.ttl(), header.dst());
    let packet = match parse::packet::<F>(frame, header) {
        Ok(packet) => packet,
        Err(Verdict::HostProtocol) if header.protocol() == F::ICMP => return Ok(ICMP),
        Err(Verdict::ExtensionHeader | Verdict::Fragment) => return Ok(EXTENDED),
        // Nothing is held against a packet before it is known to be for a VIP.
        Err(verdict) => {
            let ours = !destination.is_mapped() && maps::is_vip(&destination);
            return Err(if ours { verdict } else { Verdict::NotForVip });
        }
    };
    let homes = line::homes::<F>(&packet.key).ok_or(Verdict::Inconsistent)?;
    let leg = Leg {
        transport: packet.transport as u32,
        protocol: u16::from(packet.key.protocol),
        ttl: u16::from(ttl),
    };
    let (is_tcp, now) = (packet.key.protocol == protocol::TCP, control.now);
    // A SYN is never simply one more packet, and its line is not looked at before its reverse one is being loaded, too.
    if !tcp::opens(packet.flags)
        && !control.is_large((packet.transport + packet.length) as u32)
        && let Some(found) = lookup::find_copying::<F>(&packet.key, &homes)
        && let Some(backend) = maps::backend(F::Addr::backend(found.line))
        && steer::is_plain(is_tcp, packet.flags, now, &found, backend)
    {
        if steer::comes_astray::<F>(frame.ingress(), found.meta, backend) {
            return Err(Verdict::WrongInterface);
        }
        if steer::note::<F>(now, &found, backend) {
            if is_tcp {
                steer::note_acknowledgment(frame.view(packet.transport), packet.flags, &found);
            }
            return Ok(forward::deliver::<F>(frame, leg, control, &found, backend, Verdict::Forwarded));
        }
    }
    let read = maps::scratch::<F>().ok_or(Verdict::Inconsistent)?;
    read.key = packet.key;
    (read.homes, read.leg, read.interface) = (homes, leg, interface);
    (read.length, read.flags) = (packet.length as u32, u32::from(packet.flags));
    Ok(SLOW)
}

/// A packet that opens a connection, changes its state, or belongs to none. What it is to open, if it is to, stands in the scratch
/// space.
#[inline(never)]
fn known<F: Calls>(context: *mut xdp_md) -> u64 {
    match Work::<F>::of(context) {
        Some(mut work) => match decide(&mut work) {
            Ok(number) => size::next(&mut work, number),
            Err(verdict) => verdict as u64,
        },
        None => Verdict::Inconsistent as u64,
    }
}

#[inline(always)]
fn decide<F: Calls>(work: &mut Work<F>) -> Result<u64, Verdict> {
    if work.read.key.dst.is_mapped() || work.read.key.src.is_mapped() {
        return Err(Verdict::NotForVip);
    }
    if !parse::ip::<F>(&work.frame)?.is_intact() {
        return Err(if maps::is_vip(&work.read.key.dst) { Verdict::BadIpHeader } else { Verdict::NotForVip });
    }
    let mut asked = false;
    if tcp::opens(work.flags()) {
        work.read.choice = select::choose(work);
        if let Ok(choice) = work.read.choice.check() {
            asked = challenge::is_on(work, choice.farm());
        }
        if let Ok(choice) = work.read.choice.check()
            && !asked
            && !choice.is_late()
            && open::prepare(work, choice)
        {
            // Both lines of a connection to be are loaded at once: neither waits for the other. One right after the other, since the
            // processor looks only so many instructions ahead of a load that it waits for.
            line::touch::<F>(work.read.homes.first);
            line::touch::<F>(work.read.reverse_homes.first);
        }
    }
    if let Some(found) = lookup::find::<F>(&work.read.key, &work.read.homes) {
        match steer::steer(work, &found) {
            Steered::Done(Ok(())) if work.read.notes != 0 => return Ok(NOTES),
            Steered::Done(outcome) => return Ok(pack(outcome)),
            Steered::Anew => {}
        }
    }
    // Read again: what is kept over a call takes room on the stack, of which there is none left.
    let early = tcp::opens(work.flags());
    if !early {
        work.read.choice = select::choose(work);
    }
    let choice = work.read.choice.check()?;
    if asked {
        return Ok(ASKS);
    }
    if choice.is_late() {
        return Ok(CHOOSES);
    }
    if choice.is_unknown() {
        return Ok(direct::note_unknown(work));
    }
    if !early {
        open::prepare(work, choice);
    }
    Ok(OPENS)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Not reachable: the verifier refuses a program that could come here.
    loop {}
}

/// The kernel lets programs that call GPL-only helpers declare a compatible licence; Drover's is dual MIT/Apache-2.0,
/// and MIT goes with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
