//! From bytes to a flow: what kind of packet it is, whose it is, and whether it makes sense.

use lb_common::abi::{FlowKey, NextHop};
use lb_common::verdict::Verdict;
use lb_common::wire::{Ethernet, IpHeader, Tcp, Udp, protocol};

use crate::context::Frame;
use crate::maps::Family;

/// A TCP or UDP packet whose headers are whole.
pub struct Packet<A> {
    pub key: FlowKey<A>,
    /// Where the transport header is in the frame.
    pub transport: usize,
    /// Bytes of transport header and payload.
    pub length: usize,
    /// TCP's; 0 for UDP.
    pub flags: u8,
}

#[inline(always)]
pub fn ethertype(frame: &Frame) -> Result<u16, Verdict> {
    frame.view::<Ethernet>(0).map(Ethernet::ethertype).ok_or(Verdict::NotIp)
}

#[inline(always)]
pub fn ip<'a, F: Family>(frame: &'a Frame) -> Result<&'a F::Header, Verdict> {
    frame.view(Ethernet::SIZE).ok_or(Verdict::TruncatedIp)
}

/// Reads on to the ports. The error is the verdict on the packet if it is for a VIP.
#[inline(always)]
pub fn packet<F: Family>(frame: &Frame, header: &F::Header) -> Result<Packet<F::Addr>, Verdict> {
    let found = header.transport(frame.len() - Ethernet::SIZE)?;
    let transport = Ethernet::SIZE + found.offset;
    let (src_port, dst_port, flags) = if found.protocol == protocol::TCP {
        let tcp = frame.view::<Tcp>(transport).ok_or(Verdict::TruncatedTransport)?;
        if found.length < Tcp::SIZE {
            return Err(Verdict::TruncatedTransport);
        }
        if tcp.header_length() < Tcp::SIZE || tcp.header_length() > found.length {
            return Err(Verdict::BadTransportHeader);
        }
        (tcp.src_port, tcp.dst_port, tcp.flags)
    } else {
        let udp = frame.view::<Udp>(transport).ok_or(Verdict::TruncatedTransport)?;
        if found.length < Udp::SIZE {
            return Err(Verdict::TruncatedTransport);
        }
        if udp.length() < Udp::SIZE || udp.length() > found.length {
            return Err(Verdict::BadTransportHeader);
        }
        (udp.src_port, udp.dst_port, 0)
    };
    let key = FlowKey::new(header.src(), header.dst(), src_port, dst_port, found.protocol);
    Ok(Packet { key, transport, length: found.length, flags })
}

/// The way back to whoever sent the frame.
#[inline(always)]
pub fn sender(frame: &Frame) -> Result<NextHop, Verdict> {
    let ethernet = frame.view::<Ethernet>(0).ok_or(Verdict::NotIp)?;
    Ok(NextHop { ifindex: frame.ingress(), destination: ethernet.src, source: ethernet.dst })
}
