//! Drover's XDP program. A packet's way: `main -> parse -> lookup -> select -> rewrite -> forward`.
//!
//! This file holds the entry point, the order of the stages, and the only place where an outcome becomes an XDP action.
//! Stages do not know each other.

#![no_std]
#![no_main]

mod context;
mod forward;
mod lookup;
mod maps;
mod parse;
mod rewrite;
mod select;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use lb_common::abi::NextHop;
use lb_common::tcp::Direction;
use lb_common::verdict::{Disposition, Verdict};
use lb_common::wire::{Ethernet, IpHeader};

use crate::context::Frame;
use crate::lookup::Found;
use crate::maps::{Family, V4, V6};

#[xdp]
pub fn drover(ctx: XdpContext) -> u32 {
    let mut frame = Frame::new(&ctx);
    let outcome = match parse::ethertype(&frame) {
        Ok(Ethernet::IPV4) => process::<V4>(&mut frame),
        Ok(Ethernet::IPV6) => process::<V6>(&mut frame),
        Ok(Ethernet::VLAN | Ethernet::QINQ) => Err(Verdict::Tagged),
        Ok(_) => Err(Verdict::NotIp),
        Err(verdict) => Err(verdict),
    };
    let (verdict, egress) = match outcome {
        Ok((verdict, egress)) => (verdict, egress),
        Err(verdict) => (verdict, 0),
    };
    maps::count_verdict(verdict);
    if verdict == Verdict::Opened {
        debug!(&ctx, "connection opened, leaving by interface {}", egress);
    } else if matches!(verdict, Verdict::PortsExhausted | Verdict::TableFull | Verdict::Inconsistent) {
        debug!(&ctx, "dropped, verdict {}", verdict as u32);
    }
    match verdict.disposition() {
        Disposition::Pass => xdp_action::XDP_PASS,
        Disposition::Drop => xdp_action::XDP_DROP,
        Disposition::Forward if egress == frame.ingress() => xdp_action::XDP_TX,
        // SAFETY: a helper without pointers. It fails only for unknown flags.
        Disposition::Forward => unsafe { bpf_redirect(egress, 0) as u32 },
    }
}

/// Takes a packet through the stages: the verdict and the interface it leaves by, or the verdict that ended it.
#[inline(always)]
fn process<F: Family>(frame: &mut Frame) -> Result<(Verdict, u32), Verdict> {
    let header = parse::ip::<F>(frame)?;
    if !maps::may_concern(&header.src(), &header.dst()) {
        return Err(Verdict::NotForVip);
    }
    let ttl = header.ttl();
    let vip = header.dst();
    let packet = match parse::packet::<F>(frame, header) {
        Ok(packet) => packet,
        // Nothing is held against a packet before it is known to be for a VIP.
        Err(verdict) => return Err(if maps::is_vip(&vip) { verdict } else { Verdict::NotForVip }),
    };
    let now = maps::now();
    if let Some(connection) = lookup::established::<F>(&packet, now) {
        let hop = lookup::next_hop::<F>(connection)?;
        return finish::<F>(frame, &packet, connection, hop, ttl, Verdict::Forwarded);
    }
    unknown::<F>(frame, &packet, ttl, now)
}

/// The way of a packet that belongs to no established connection.
#[inline(always)]
fn unknown<F: Family>(
    frame: &mut Frame,
    packet: &parse::Packet<F::Addr>,
    ttl: u8,
    now: u32,
) -> Result<(Verdict, u32), Verdict> {
    if let Found::Connection(connection) = lookup::half_open::<F>(frame, packet, now)? {
        let hop = lookup::next_hop::<F>(connection)?;
        return finish::<F>(frame, packet, connection, hop, ttl, Verdict::Forwarded);
    }
    if ttl <= 1 && maps::is_vip(&packet.key.dst) {
        return Err(Verdict::TtlExpired);
    }
    let client_hop = parse::sender(frame)?;
    let connection = select::open::<F>(&packet.key, packet.flags, &client_hop, now)?;
    let hop = lookup::next_hop::<F>(connection)?;
    finish::<F>(frame, packet, connection, hop, ttl, Verdict::Opened)
}

/// Rewrites a packet of a known connection and addresses it to its next hop.
#[inline(always)]
fn finish<F: Family>(
    frame: &mut Frame,
    packet: &parse::Packet<F::Addr>,
    connection: &lb_common::abi::Connection<F::Addr>,
    hop: &NextHop,
    ttl: u8,
    verdict: Verdict,
) -> Result<(Verdict, u32), Verdict> {
    if ttl <= 1 {
        return Err(Verdict::TtlExpired);
    }
    let bytes = frame.len() as u64;
    rewrite::translate::<F>(frame, packet, &connection.translation)?;
    let egress = forward::address(frame, hop)?;
    let direction = if connection.direction == Direction::Forward as u8 { 0 } else { 1 };
    maps::count(connection.backend, direction, bytes, verdict == Verdict::Opened);
    Ok((verdict, egress))
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
