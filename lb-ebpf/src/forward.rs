//! Sends a packet of a known connection on: rewritten, addressed to its next hop, counted.

use aya_ebpf::bindings::xdp_md;
use lb_common::abi::{BACKEND_COUNTED, BackendEntry, Control, INTERFACES_MAX};
use lb_common::load::counts;
use lb_common::table::{Fields as _, Hop, Layout as _, Line as _, Meta, Target};
use lb_common::verdict::Verdict;
use lb_common::wire::{Ethernet, Tcp, Udp, protocol};

use crate::calls::Calls;
use crate::context::Frame;
use crate::direct;
use crate::extended;
use crate::load;
use crate::lookup::Found;
use crate::maps::{self, Leg};
use crate::step::HANDS;
use crate::work::Work;

/// Sends a packet on that took the slow way: by the line that was found there. A function of its own; see `main`.
#[inline(never)]
pub fn send<F: Calls>(context: *mut xdp_md) -> u64 {
    let Some(mut work) = Work::<F>::of(context) else { return Verdict::Inconsistent as u64 };
    let (index, meta) = (work.read.index, work.read.meta);
    let Some(line) = F::line(index) else { return Verdict::Inconsistent as u64 };
    let Some(backend) = maps::backend(F::Addr::backend(line)) else { return Verdict::Inconsistent as u64 };
    let (leg, control) = (work.read.leg, work.control);
    let found = Found { index, line, meta };
    let sent = deliver::<F>(&mut work.frame, leg, control, &found, backend, Verdict::Forwarded);
    if sent == HANDS { sent } else { extended::sent(work.read, meta, sent) }
}

/// Sends the packet on that has opened a connection.
#[inline(always)]
pub fn first<F: Calls>(work: &mut Work<F>, found: &Found) -> u64 {
    let number = F::Addr::backend(found.line);
    let Some(backend) = maps::backend(number) else { return Verdict::Inconsistent as u64 };
    let (leg, control) = (work.read.leg, work.control);
    let sent = deliver::<F>(&mut work.frame, leg, control, found, backend, Verdict::Opened);
    if sent >> 32 != 0 && sent != HANDS {
        maps::count_opened(number, work.is_tcp());
        if backend.flags & BACKEND_COUNTED != 0 && counts(found.meta) {
            load::change(number, backend.farm, found.index, 1);
        }
    }
    if sent == HANDS { sent } else { extended::sent(work.read, found.meta, sent) }
}

/// The verdict on the packet, and the interface it leaves by in the high half; or [`HANDS`].
#[inline(always)]
pub fn deliver<F: Calls>(
    frame: &mut Frame,
    leg: Leg,
    control: &'static Control,
    found: &Found,
    backend: &BackendEntry,
    verdict: Verdict,
) -> u64 {
    if found.meta.is_direct() {
        return direct::note::<F>(leg, found, verdict);
    }
    match try_deliver::<F>(frame, leg, control, found, backend) {
        Ok(egress) => verdict as u64 | u64::from(egress) << 32,
        Err(verdict) => verdict as u64,
    }
}

/// Rewrites the packet as its line says, and addresses it to its next hop.
#[inline(always)]
fn try_deliver<F: Calls>(
    frame: &mut Frame,
    leg: Leg,
    control: &'static Control,
    found: &Found,
    backend: &BackendEntry,
) -> Result<u32, Verdict> {
    let (line, meta) = (found.line, found.meta);
    let target = F::Addr::target(line);
    let number = F::Addr::backend(line);
    let client = line.hop();
    // All that was read is of one connection if the line has not changed hands meanwhile.
    if line.meta().version() != meta.version() {
        return Err(Verdict::Contended);
    }
    if leg.ttl <= 1 {
        return Err(Verdict::TtlExpired);
    }
    let bytes = frame.len() as u64;
    let egress = address::<F>(frame, control, meta, client, backend)?;
    translate::<F>(frame, leg, &target, meta, backend)?;
    maps::count(number, usize::from(meta.is_reverse()), bytes);
    Ok(egress)
}

/// Addresses the frame to its next hop: that of the client, or of the backend. The interface that leads there.
#[inline(always)]
pub fn address<F: Calls>(
    frame: &mut Frame,
    control: &'static Control,
    meta: Meta,
    client: Hop,
    backend: &BackendEntry,
) -> Result<u32, Verdict> {
    let egress = if meta.is_reverse() {
        let number = u32::from(client.interface()) & (INTERFACES_MAX - 1);
        let interface = maps::interface(control, number).ok_or(Verdict::Inconsistent)?;
        let ethernet = frame.edit::<Ethernet>(0).ok_or(Verdict::NotIp)?;
        ethernet.address(&client.mac(), &interface.mac);
        interface.ifindex
    } else {
        let hop = maps::read_hop(F::hop(backend)).ok_or(Verdict::NoNextHop)?;
        let ethernet = frame.edit::<Ethernet>(0).ok_or(Verdict::NotIp)?;
        ethernet.address(&hop.destination, &hop.source);
        hop.ifindex
    };
    // The interface is gone, or the neighbour is not known.
    if egress == 0 {
        return Err(Verdict::NoNextHop);
    }
    Ok(egress)
}

/// Rewrites addresses, ports, TTL and checksums. Headers are known to be whole; the verifier wants to see it again.
#[inline(always)]
fn translate<F: Calls>(
    frame: &mut Frame,
    leg: Leg,
    target: &Target,
    meta: Meta,
    backend: &BackendEntry,
) -> Result<(), Verdict> {
    let (source, destination) = target.ports();
    let delta = F::transport_delta(target);
    let transport = leg.transport as usize & 0xff;
    if leg.transport & Leg::LATER != 0 {
        // The checksum of the whole is in the first.
    } else if leg.protocol == u16::from(protocol::TCP) {
        let tcp = frame.edit_at::<Tcp>(transport).ok_or(Verdict::TruncatedTransport)?;
        tcp.redirect(source, destination, delta);
    } else {
        let udp = frame.edit_at::<Udp>(transport).ok_or(Verdict::TruncatedTransport)?;
        udp.redirect(source, destination, delta);
    }
    let header = frame.edit(Ethernet::SIZE).ok_or(Verdict::TruncatedIp)?;
    F::readdress(header, target, meta.is_reverse(), meta.is_dnat(), backend).ok_or(Verdict::Inconsistent)
}
