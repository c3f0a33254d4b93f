//! Puts a packet into another one, to a backend that takes it out again (modes `ipip`, `gue`); see [`lb_common::tunnel`].

use aya_ebpf::bindings::xdp_md;
use lb_common::abi::{Address as _, BackendEntry, MODE_GUE};
use lb_common::tunnel::{Gue, Inner};
use lb_common::verdict::Verdict;
use lb_common::wire::{Ethernet, IpHeader as _, Ipv4, Ipv6, protocol};

use crate::calls::Calls;
use crate::context::Frame;
use crate::direct;
use crate::maps;
use crate::parse;
use crate::work::Work;

/// Hands the packet on in another one, to the backend that stands in the scratch space. A function of its own; see `main`.
#[inline(never)]
pub fn wrap<F: Calls>(context: *mut xdp_md) -> u64 {
    let Some(mut work) = Work::<F>::of(context) else { return Verdict::Inconsistent as u64 };
    match try_wrap(&mut work) {
        Ok(number) => number,
        Err(verdict) => verdict as u64,
    }
}

#[inline(always)]
fn try_wrap<F: Calls>(work: &mut Work<F>) -> Result<u64, Verdict> {
    let number = work.read.backend as u16;
    let backend = maps::backend(number).ok_or(Verdict::Inconsistent)?;
    let hop = maps::read_hop(F::hop(backend)).ok_or(Verdict::NoNextHop)?;
    if hop.ifindex == 0 {
        return Err(Verdict::NoNextHop);
    }
    let (in_v4, in_udp) = (F::wraps_in_v4(backend), backend.mode == MODE_GUE);
    let mtu = mtu(backend, in_v4).ok_or(Verdict::NotWrapped)?;
    let outer = if in_v4 { Ipv4::SIZE } else { Ipv6::SIZE };
    let overhead = outer + if in_udp { Gue::SIZE } else { 0 };
    let inner = parse::ip::<F>(&work.frame)?.inner();
    if usize::from(inner.length) + overhead > usize::from(mtu) {
        let fits = usize::from(mtu).saturating_sub(overhead).max(usize::from(F::LEAST_MTU));
        work.read.mtu = fits as u32;
        return Err(Verdict::TooBig);
    }
    direct::take_hop(work)?;
    let bytes = work.frame.len();
    if !work.frame.resize(overhead, bytes + overhead) {
        return Err(Verdict::NotWrapped);
    }
    write(&mut work.frame, backend, inner, in_v4, work.read.meta.tag()).ok_or(Verdict::NotWrapped)?;
    let ethernet = work.frame.edit::<Ethernet>(0).ok_or(Verdict::NotIp)?;
    ethernet.address(&hop.destination, &hop.source);
    ethernet.set_ethertype(if in_v4 { Ethernet::IPV4 } else { Ethernet::IPV6 });
    Ok(direct::handed(work, number, bytes as u64, hop.ifindex))
}

/// Bytes of the largest packet that the tunnel's way carries; `None`: nothing is known of that way.
#[inline(always)]
fn mtu(backend: &BackendEntry, in_v4: bool) -> Option<u16> {
    let path = &backend.path;
    let (mtu, has_source) = if in_v4 {
        (path.mtu_v4, path.source_v4 != [0; 4])
    } else {
        (path.mtu_v6, path.source_v6.words() != [0; 2])
    };
    if has_source && mtu != 0 { Some(mtu) } else { None }
}

/// Writes what stands between the frame's head and the packet.
#[inline(always)]
fn write(frame: &mut Frame, backend: &BackendEntry, inner: Inner, in_v4: bool, tag: u16) -> Option<()> {
    let path = &backend.path;
    let in_udp = backend.mode == MODE_GUE;
    let (protocol, length) = if in_udp {
        (protocol::UDP, inner.length + Gue::SIZE as u16)
    } else {
        (inner.protocol, inner.length)
    };
    let gue = Gue::around(inner, path.port, tag);
    if in_v4 {
        let header = Ipv4::around(inner.of_flow(tag), path.source_v4, backend.address_v4, protocol, length);
        *frame.edit(Ethernet::SIZE)? = header;
        if in_udp {
            *frame.edit(Ethernet::SIZE + Ipv4::SIZE)? = gue.0;
        }
    } else {
        *frame.edit(Ethernet::SIZE)? =
            Ipv6::around(inner, &path.source_v6, &backend.address_v6, protocol, length, tag);
        if in_udp {
            *frame.edit(Ethernet::SIZE + Ipv6::SIZE)? = gue.0;
        }
    }
    Some(())
}
