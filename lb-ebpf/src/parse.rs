//! From bytes to a flow: what kind of packet it is, whose it is, and whether it makes sense.

use lb_common::abi::{Control, FlowKey, interface_number};
use lb_common::verdict::Verdict;
use lb_common::wire::{Ethernet, IpHeader, Tcp, Udp, eth, protocol};

use crate::context::Frame;
use crate::family::Family;
use crate::maps;

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
pub fn ip<F: Family>(frame: &Frame) -> Result<&F::Header, Verdict> {
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

/// The number of the interface that the frame came in by, if the frame is addressed to it.
///
/// Broadcast, multicast and what a switch floods is not ours to serve; the host's stack knows what to do with it.
#[inline(always)]
pub fn own_interface(frame: &Frame, control: &'static Control) -> Result<u32, Verdict> {
    let ingress = frame.ingress();
    let number = interface_number(ingress, control.interface_factor);
    let interface = maps::interface(control, number).ok_or(Verdict::OtherHost)?;
    let ethernet = frame.view::<Ethernet>(0).ok_or(Verdict::NotIp)?;
    if interface.ifindex == ingress && eth::same(&interface.mac, &ethernet.dst) {
        Ok(number)
    } else {
        Err(Verdict::OtherHost)
    }
}
