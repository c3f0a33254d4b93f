//! The programs that benchmarks measure by: a floor to compare with, wrappers that make every packet as good as new, a
//! generator and a sink. An object of its own; the daemon never loads it.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

#[allow(dead_code, reason = "the data plane's view of a frame; a benchmark needs a part of it")]
mod context;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::programs::XdpContext;
use lb_common::bench::{Head, HeadV4, HeadV6, Pattern};
use lb_common::checksum::Delta;
use lb_common::wire::Ethernet;

use crate::context::Frame;

#[map]
static PATTERN_V4: Array<Pattern<HeadV4>> = Array::with_max_entries(1, 0);
#[map]
static PATTERN_V6: Array<Pattern<HeadV6>> = Array::with_max_entries(1, 0);
/// The program under measurement.
#[map]
static TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// Packets that reached the sink.
#[map]
static ARRIVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The least that a program can do to send a packet back: what everything else is compared with.
#[xdp]
pub fn floor(ctx: XdpContext) -> u32 {
    let mut frame = Frame::new(&ctx);
    let Some(ethernet) = frame.edit::<Ethernet>(0) else { return xdp_action::XDP_ABORTED };
    (ethernet.dst, ethernet.src) = (ethernet.src, ethernet.dst);
    xdp_action::XDP_TX
}

/// Makes the packet one of the pattern's next flow and hands it to the target, as if it had just come in.
#[xdp]
pub fn restore_v4(ctx: XdpContext) -> u32 {
    hand_over(&ctx, restore(&mut Frame::new(&ctx), PATTERN_V4.get_ptr_mut(0)))
}

#[xdp]
pub fn restore_v6(ctx: XdpContext) -> u32 {
    hand_over(&ctx, restore(&mut Frame::new(&ctx), PATTERN_V6.get_ptr_mut(0)))
}

/// Leads the pattern's flows through their opening packets, one flow after the other: makes of the packet, as the target
/// left it, the next one that a client or a backend would send, and hands it to the target.
#[xdp]
pub fn handshake_v4(ctx: XdpContext) -> u32 {
    hand_over(&ctx, lead(&mut Frame::new(&ctx), PATTERN_V4.get_ptr_mut(0)))
}

#[xdp]
pub fn handshake_v6(ctx: XdpContext) -> u32 {
    hand_over(&ctx, lead(&mut Frame::new(&ctx), PATTERN_V6.get_ptr_mut(0)))
}

/// As [`restore_v4`] for SYNs that were answered in their place.
#[xdp]
pub fn syn_v4(ctx: XdpContext) -> u32 {
    hand_over(&ctx, open(&mut Frame::new(&ctx), PATTERN_V4.get_ptr_mut(0)))
}

#[xdp]
pub fn syn_v6(ctx: XdpContext) -> u32 {
    hand_over(&ctx, open(&mut Frame::new(&ctx), PATTERN_V6.get_ptr_mut(0)))
}

/// Sends datagrams of the pattern's flows out by the interface that the test run names.
#[xdp]
pub fn generator(ctx: XdpContext) -> u32 {
    let mut frame = Frame::new(&ctx);
    if restore(&mut frame, PATTERN_V4.get_ptr_mut(0)).is_some()
        && let (Some(head), Some(pattern)) = (frame.edit::<HeadV4>(0), PATTERN_V4.get(0))
    {
        // Connection tracking looks at checksums; the data plane does not, and the wrappers spare themselves this.
        let from = &pattern.head;
        let ports = Delta::replace(&from.transport.src_port, &head.transport.src_port);
        let delta = Delta::replace(&from.src, &head.src).and(ports);
        head.transport.udp_checksum = delta.apply(from.transport.udp_checksum);
        return xdp_action::XDP_TX;
    }
    xdp_action::XDP_ABORTED
}

/// Counts what arrives for the pattern's destination; drops everything.
#[xdp]
pub fn sink(ctx: XdpContext) -> u32 {
    let frame = Frame::new(&ctx);
    if let (Some(head), Some(pattern)) = (frame.view::<HeadV4>(0), PATTERN_V4.get(0))
        && (head.dst, head.transport.dst_port) == (pattern.head.dst, pattern.head.transport.dst_port)
        && let Some(arrived) = ARRIVED.get_ptr_mut(0)
    {
        // SAFETY: this CPU's own entry; XDP programs of one CPU do not interrupt each other.
        unsafe { *arrived += 1 };
    }
    xdp_action::XDP_DROP
}

#[inline(always)]
fn restore<H: Head>(frame: &mut Frame, pattern: Option<*mut Pattern<H>>) -> Option<()> {
    // SAFETY: one CPU generates at a time.
    unsafe { &mut *pattern? }.next(frame.edit(0)?);
    Some(())
}

#[inline(always)]
fn open<H: Head>(frame: &mut Frame, pattern: Option<*mut Pattern<H>>) -> Option<()> {
    // SAFETY: as above.
    unsafe { &mut *pattern? }.open(frame.edit(0)?);
    Some(())
}

#[inline(always)]
fn lead<H: Head>(frame: &mut Frame, pattern: Option<*mut Pattern<H>>) -> Option<()> {
    // SAFETY: as above.
    unsafe { &mut *pattern? }.lead(frame.edit(0)?);
    Some(())
}

/// Jumps to the target if the packet is `ready`.
#[inline(always)]
fn hand_over(ctx: &XdpContext, ready: Option<()>) -> u32 {
    if ready.is_some() {
        // SAFETY: a tail call is a jump; nothing here waits to be dropped.
        unsafe { TARGET.tail_call(ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Not reachable: the verifier refuses a program that could come here.
    loop {}
}

/// As in the data plane's object.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
