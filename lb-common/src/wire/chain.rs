//! What stands between an IP header and the transport header: IPv4's options, IPv6's extension headers (RFC 8200, section 4), and
//! what a packet says of the datagram that it is a part of.

use super::{Head, Ipv6, Packet, Transport, protocol};
use crate::verdict::Verdict;

/// Extension headers that are passed over: each kind may come once, destination options twice (RFC 8200, section 4.1).
pub const HEADERS_MAX: usize = 5;
/// Bytes of them. A host may have such limits (RFC 8504, section 5.3); with more, the transport header would lie beyond what a
/// program can reach by one byte.
pub const BYTES_MAX: usize = 192;

/// Units of a fragment's offset.
pub const UNIT: usize = 8;

/// Which part of a datagram a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    pub id: u32,
    /// In bytes from the start of what was divided; a multiple of 8.
    pub offset: usize,
    /// More of the datagram follows.
    pub more: bool,
    /// Bytes of the datagram that are in this packet.
    pub length: usize,
}

impl Fragment {
    #[inline(always)]
    pub const fn is_whole(&self) -> bool {
        self.offset == 0 && !self.more
    }
    #[inline(always)]
    pub const fn is_later(&self) -> bool {
        self.offset != 0
    }

    /// Whether such a part can be: no part is empty, all but the last end at a unit (RFC 8200, section 4.5), and none ends beyond
    /// the longest packet. Nor does one begin within a TCP header of the least size, which the first must hold whole (RFC 3128).
    ///
    /// # Errors
    ///
    /// It cannot.
    #[inline(always)]
    pub const fn check(&self, protocol: u8) -> Result<(), Verdict> {
        let within = self.is_later() && protocol == protocol::TCP && self.offset < super::Tcp::SIZE;
        let ragged = self.more && !self.length.is_multiple_of(UNIT);
        if self.length == 0 || ragged || within || self.offset + self.length > u16::MAX as usize {
            return Err(Verdict::FragmentMalformed);
        }
        Ok(())
    }
}

/// Where the transport header is, and of what part of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// Bytes from the start of the IP header; of a later fragment that of its part, which has none.
    pub offset: usize,
    /// What the last header says that follows it.
    pub protocol: u8,
    /// Bytes from there on in this packet.
    pub length: usize,
    pub fragment: Fragment,
}

/// The first 8 bytes of an extension header; all of a fragment header.
#[repr(C)]
struct Extension {
    next: u8,
    /// In 8 bytes, less one; not of a fragment header.
    length: u8,
    /// A routing header's type, and how many more nodes it is to visit. A fragment header's offset and flag.
    third: u8,
    fourth: u8,
    id: [u8; 4],
}

/// Protocol numbers of IPv6's extension headers (IANA).
pub mod extension {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AUTHENTICATION: u8 = 51;
    pub const DESTINATION: u8 = 60;
    pub const MOBILITY: u8 = 135;
    pub const HIP: u8 = 139;
    pub const SHIM6: u8 = 140;

    /// ESP hides what follows and is a protocol to us.
    #[inline(always)]
    pub const fn is_one(number: u8) -> bool {
        is_passed_over(number) || matches!(number, AUTHENTICATION | MOBILITY | HIP | SHIM6)
    }
    /// What it says is for others, or for who gets the packet from us.
    #[inline(always)]
    pub const fn is_passed_over(number: u8) -> bool {
        matches!(number, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
    }
}

/// Reads the extension headers of the packet at `base` in the frame, whose fixed header says that `first` is the first of them, and
/// that it ends at `end`, bytes from its start.
///
/// # Errors
///
/// The verdict on the packet, if it is for a VIP.
#[inline(always)]
pub fn read<P: Packet>(packet: &P, base: usize, first: u8, end: usize) -> Result<Chain, Verdict> {
    let (mut next, mut at) = (first, Ipv6::SIZE);
    let mut fragment = Fragment { id: 0, offset: 0, more: false, length: 0 };
    let mut divided = 0;
    for place in 0..=HEADERS_MAX {
        if !extension::is_passed_over(next) {
            break;
        }
        if place == HEADERS_MAX {
            return Err(Verdict::HeadersTooMany);
        }
        let header: &Extension = packet.view_at(base + at).ok_or(Verdict::TruncatedTransport)?;
        match next {
            extension::FRAGMENT => {
                if divided != 0 {
                    return Err(Verdict::ExtensionHeader);
                }
                let word = u16::from_be_bytes([header.third, header.fourth]);
                fragment.id = u32::from_be_bytes(header.id);
                fragment.offset = (word & !7) as usize;
                fragment.more = word & 1 != 0;
                at += size_of::<Extension>();
                divided = at;
            }
            // It comes first (RFC 8200, section 4.1), or this is somebody's invention. A routing header that has been followed to its end
            // says nothing more (section 4.4); another one would have the packet leave for elsewhere.
            extension::HOP_BY_HOP if place != 0 => return Err(Verdict::ExtensionHeader),
            extension::ROUTING if header.fourth != 0 => return Err(Verdict::ExtensionHeader),
            _ => at += (header.length as usize + 1) * UNIT,
        }
        next = header.next;
        if at > Ipv6::SIZE + BYTES_MAX {
            return Err(Verdict::HeadersTooMany);
        }
        // What follows here are not headers.
        if fragment.is_later() {
            break;
        }
    }
    if at > end {
        // The first fragment has all headers (RFC 7112).
        return Err(if fragment.more { Verdict::FragmentMalformed } else { Verdict::BadIpHeader });
    }
    if divided != 0 {
        fragment.length = end - divided;
    }
    if extension::is_one(next) && !fragment.is_later() {
        return Err(Verdict::ExtensionHeader);
    }
    Ok(Chain { offset: at, protocol: next, length: end - at, fragment })
}

/// Where the transport header is behind the IPv6 header at `base`, which an ICMP error quotes with `available` bytes of its packet. One
/// extension header of 8 bytes is passed over, as a first fragment has it.
///
/// # Errors
///
/// The verdict on the error, if it is for a VIP.
#[inline(always)]
pub fn quoted<P: Packet>(packet: &P, base: usize, first: u8, available: usize) -> Result<Transport, Verdict> {
    let at = Ipv6::SIZE + size_of::<Extension>();
    if !extension::is_passed_over(first) || available < at + Head::SIZE {
        return Err(Verdict::IcmpUnknown);
    }
    let header: &Extension = packet.view_at(base + Ipv6::SIZE).ok_or(Verdict::IcmpMalformed)?;
    let later = u16::from_be_bytes([header.third, header.fourth]) & !7 != 0;
    let known = header.next == protocol::TCP || header.next == protocol::UDP;
    if !known || if first == extension::FRAGMENT { later } else { header.length != 0 } {
        return Err(Verdict::IcmpUnknown);
    }
    Ok(Transport { offset: at, protocol: header.next, length: available - at })
}

const _: () = assert!(size_of::<Extension>() == 8 && align_of::<Extension>() == 1);
// By one byte, tags of a VLAN not counted.
const _: () = assert!(super::Ethernet::SIZE + Ipv6::SIZE + BYTES_MAX < 256);

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
