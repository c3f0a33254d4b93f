//! Views of headers as they stand on the wire. Every type is made of bytes (alignment 1), so a view may lie at any
//! address; accessors speak host order.

pub mod eth;
pub mod ipv4;
pub mod ipv6;
pub mod l4;

pub use eth::Ethernet;
pub use ipv4::Ipv4;
pub use ipv6::Ipv6;
pub use l4::{Tcp, Udp};

use crate::verdict::Verdict;

/// Protocol numbers (IANA).
pub mod protocol {
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMP: u8 = 1;
    pub const ICMPV6: u8 = 58;
}

/// Where the transport header is and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// Bytes from the start of the IP header.
    pub offset: usize,
    pub protocol: u8,
    /// Bytes of transport header and payload, as the IP header says.
    pub length: usize,
}

/// What the two versions of IP have in common for a load balancer.
pub trait IpHeader: Sized {
    type Addr: crate::abi::Address;

    /// Bytes without options or extension headers.
    const BARE: usize = size_of::<Self>();

    fn src(&self) -> Self::Addr;
    fn dst(&self) -> Self::Addr;
    /// TTL (RFC 791) or hop limit (RFC 8200).
    fn ttl(&self) -> u8;

    /// Where the transport header is. `available` counts the bytes of the frame from the start of this header.
    ///
    /// # Errors
    ///
    /// The verdict on a packet for a VIP whose header says no such thing.
    fn transport(&self, available: usize) -> Result<Transport, Verdict>;

    /// Whether the header has no options, so that the transport header follows it at once.
    fn is_bare(&self) -> bool;

    /// A header without options for `length` bytes of `protocol`.
    fn bare(src: Self::Addr, dst: Self::Addr, protocol: u8, length: u16) -> Self;

    /// Whether the header's own checksum is right; always, where there is none.
    fn is_intact(&self) -> bool;
}
