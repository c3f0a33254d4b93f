//! ICMP (RFC 792) and ICMPv6 (RFC 4443): what a balancer makes of a message, and how an error about a connection becomes one
//! about what its receiver has sent.
//!
//! An error quotes the head of the packet that it is about. That packet was translated on its way, so what is quoted is turned
//! back, and the error itself takes the way of the packets that go in its direction: to its line's destination, from the source
//! that the line gives. A source that the line does not change stays, so that a `dnat` backend sees which router complains; all
//! others would have no way back, or give away what the network inside looks like (RFC 5508, REQ-4 and REQ-5; Linux'
//! connection tracking does the same).
//!
//! All checksums are brought up to date and none is computed anew: a wrong one stays wrong, and is its receiver's to judge.

use crate::abi::FlowKey;
use crate::tcp::{AHEAD, BEHIND};
use crate::wire::{Ethernet, Head, Icmp, IpHeader, Packet, Transport, protocol};

/// What a message is to a balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    EchoRequest,
    /// It quotes a packet, and is for that packet's sender.
    Error,
    /// Neighbours, routers, groups, answers, redirects, what is obsolete (RFC 6633) or not known: the host's.
    Other,
}

/// By the family's protocol and the message's type.
#[inline(always)]
pub const fn kind(protocol: u8, kind: u8) -> Kind {
    match (protocol, kind) {
        (protocol::ICMP, 8) | (protocol::ICMPV6, 128) => Kind::EchoRequest,
        // Unreachable, "fragmentation needed" among it, time exceeded, parameter problem; unreachable, too big, time exceeded,
        // parameter problem.
        (protocol::ICMP, 3 | 11 | 12) | (protocol::ICMPV6, 1..=4) => Kind::Error,
        _ => Kind::Other,
    }
}

/// The type of the answer to an echo request.
#[inline(always)]
pub const fn echo_reply(protocol: u8) -> u8 {
    if protocol == protocol::ICMP { 0 } else { 129 }
}

/// Where the quoted IP header is in a frame whose own has no options.
#[inline(always)]
pub const fn quote<H: IpHeader>() -> usize {
    Ethernet::SIZE + H::BARE + Icmp::SIZE
}

/// Whether an error about a segment of this sequence number can be genuine, by what the other side acknowledged last; 0: that is not
/// known. Who does not see the connection hits the window once in 500 tries (RFC 5927, section 4.1); the segment's sender, who
/// knows better, looks again.
#[inline(always)]
pub const fn is_plausible(sequence: u32, acknowledged: u32) -> bool {
    let ahead = sequence.wrapping_sub(acknowledged) as i32;
    acknowledged == 0 || (ahead <= AHEAD && ahead >= -BEHIND)
}

/// Makes an error about a packet that was sent one about the packet that it was before, and sends it on; its headers' addresses
/// and checksums, that is. `to` is the flow that packets in the error's direction get, `changes_source` whether it has another source
/// than theirs. `quoted` says where in the frame the quoted transport header is, and how much of it. `None`: the frame is too short.
#[inline(always)]
pub fn translate<H: IpHeader, P: Packet>(
    packet: &mut P,
    quoted: Transport,
    to: &FlowKey<H::Addr>,
    changes_source: bool,
) -> Option<()> {
    let (addresses, mut sum) = packet.edit::<H>(quote::<H>())?.requote(&to.dst, &to.src);
    let head = packet.edit_at::<Head>(quoted.offset)?;
    let ports = head.set_ports(to.dst_port, to.src_port);
    let pseudo_header = addresses.and(ports);
    sum = sum.and(ports);
    if quoted.protocol == protocol::UDP {
        sum = sum.and(head.update_udp(pseudo_header));
    } else if quoted.length >= TCP_CHECKSUM + 2 {
        let checksum = packet.edit_at::<Checksum>(quoted.offset + TCP_CHECKSUM)?;
        sum = sum.and(checksum.update(pseudo_header));
    }
    let source = if changes_source { Some(&to.src) } else { None };
    sum = sum.and(packet.edit::<H>(Ethernet::SIZE)?.pass_on(source, &to.dst));
    packet.edit::<Icmp>(Ethernet::SIZE + H::BARE)?.update(sum);
    Some(())
}

/// Where TCP's checksum is in its header: not always quoted.
const TCP_CHECKSUM: usize = 16;

#[repr(transparent)]
struct Checksum([u8; 2]);

impl Checksum {
    #[inline(always)]
    fn update(&mut self, delta: crate::checksum::Delta) -> crate::checksum::Delta {
        let before = self.0;
        self.0 = delta.apply(before);
        crate::checksum::Delta::replace(&before, &self.0)
    }
}

#[cfg(test)]
#[path = "icmp_tests.rs"]
mod tests;
