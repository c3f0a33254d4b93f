//! The programs that benchmarks measure by: a floor to compare with, wrappers that make every packet as good as new, a
//! generator and a sink. An object of its own; the daemon never loads it.

#![no_std]
#![no_main]

#[allow(dead_code, reason = "the data plane's view of a frame; a benchmark needs a part of it")]
mod context;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::programs::XdpContext;
use lb_common::abi::Address as _;
use lb_common::bench::{HeadV4, HeadV6, PORTS, Pattern};
use lb_common::checksum::Delta;
use lb_common::wire::{Ethernet, eth};

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
    if write_v4(&mut Frame::new(&ctx)).is_some() {
        // SAFETY: a tail call is a jump; nothing here waits to be dropped.
        unsafe { TARGET.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

#[xdp]
pub fn restore_v6(ctx: XdpContext) -> u32 {
    if write_v6(&mut Frame::new(&ctx)).is_some() {
        // SAFETY: as above.
        unsafe { TARGET.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// Sends datagrams of the pattern's flows out by the interface that the test run names.
#[xdp]
pub fn generator(ctx: XdpContext) -> u32 {
    let mut frame = Frame::new(&ctx);
    if write_v4(&mut frame).is_some()
        && let (Some(head), Some(pattern)) = (frame.edit::<HeadV4>(0), PATTERN_V4.get(0))
    {
        // Connection tracking looks at checksums; the data plane does not, and the wrappers spare themselves this.
        let from = &pattern.head;
        let delta = Delta::replace(&from.src, &head.src).and(Delta::replace(&from.src_port, &head.src_port));
        head.udp_checksum = delta.apply(from.udp_checksum);
        return xdp_action::XDP_TX;
    }
    xdp_action::XDP_ABORTED
}

/// Counts what arrives for the pattern's destination; drops everything.
#[xdp]
pub fn sink(ctx: XdpContext) -> u32 {
    let frame = Frame::new(&ctx);
    if let (Some(head), Some(pattern)) = (frame.view::<HeadV4>(0), PATTERN_V4.get(0))
        && (head.dst, head.dst_port) == (pattern.head.dst, pattern.head.dst_port)
        && let Some(arrived) = ARRIVED.get_ptr_mut(0)
    {
        // SAFETY: this CPU's own entry; XDP programs of one CPU do not interrupt each other.
        unsafe { *arrived += 1 };
    }
    xdp_action::XDP_DROP
}

#[inline(always)]
fn write_v4(frame: &mut Frame) -> Option<()> {
    let pattern = PATTERN_V4.get_ptr_mut(0)?;
    // SAFETY: one CPU generates at a time.
    let pattern = unsafe { &mut *pattern };
    pattern.state = pattern.order.next(pattern.state);
    let flow = pattern.state & pattern.mask;
    let (to, from) = (frame.edit::<HeadV4>(0)?, &pattern.head);
    eth::copy(&mut to.destination, &from.destination);
    eth::copy(&mut to.source, &from.source);
    to.ttl = from.ttl;
    to.checksum = from.checksum;
    to.src = (u32::from_be_bytes(from.src) + flow / PORTS).to_be_bytes();
    from.dst.copy_to(&mut to.dst);
    to.src_port = ((u32::from(u16::from_be_bytes(from.src_port)) + flow % PORTS) as u16).to_be_bytes();
    to.dst_port = from.dst_port;
    to.udp_checksum = from.udp_checksum;
    to.tcp_checksum = from.tcp_checksum;
    Some(())
}

#[inline(always)]
fn write_v6(frame: &mut Frame) -> Option<()> {
    let pattern = PATTERN_V6.get_ptr_mut(0)?;
    // SAFETY: one CPU generates at a time.
    let pattern = unsafe { &mut *pattern };
    pattern.state = pattern.order.next(pattern.state);
    let flow = pattern.state & pattern.mask;
    let (to, from) = (frame.edit::<HeadV6>(0)?, &pattern.head);
    eth::copy(&mut to.destination, &from.destination);
    eth::copy(&mut to.source, &from.source);
    to.hop_limit = from.hop_limit;
    // The interface identifier counts up; it is read by words of eight bytes.
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = from.src;
    let identifier = u64::from_be_bytes([i, j, k, l, m, n, o, p]).wrapping_add(u64::from(flow / PORTS));
    to.src[..8].copy_from_slice(&u64::from_ne_bytes([a, b, c, d, e, f, g, h]).to_ne_bytes());
    to.src[8..].copy_from_slice(&identifier.to_be_bytes());
    from.dst.copy_to(&mut to.dst);
    to.src_port = ((u32::from(u16::from_be_bytes(from.src_port)) + flow % PORTS) as u16).to_be_bytes();
    to.dst_port = from.dst_port;
    to.udp_checksum = from.udp_checksum;
    to.tcp_checksum = from.tcp_checksum;
    Some(())
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
