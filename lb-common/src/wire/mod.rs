//! Views of headers as they stand on the wire. Every type is made of bytes (alignment 1), so a view may lie at any
//! address; accessors speak host order.

pub mod chain;
pub mod eth;
pub mod ipv4;
pub mod ipv6;
pub mod l4;

pub use chain::{Chain, Fragment};
pub use eth::Ethernet;
pub use ipv4::Ipv4;
pub use ipv6::Ipv6;
pub use l4::{Head, Icmp, Tcp, Udp};

use crate::checksum::Delta;
use crate::tunnel::Inner;
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

    /// The same of a packet with options or extension headers, or of which this is a fragment: a part that has a transport header, if
    /// it is not a later one.
    ///
    /// # Errors
    ///
    /// As in [`IpHeader::transport`].
    fn chain<P: Packet>(packet: &P, available: usize) -> Result<Chain, Verdict>;

    /// Whether it is a fragment that has no transport header. Of IPv6 only [`IpHeader::chain`] tells.
    fn is_later_fragment(&self) -> bool;

    /// Takes one from TTL or hop limit, which must not be 0.
    fn take_hop(&mut self);

    /// Whether the header has no options or extension headers, so that the transport header follows it at once.
    fn is_bare(&self) -> bool;

    /// A header without options for `length` bytes of `protocol`.
    fn bare(src: Self::Addr, dst: Self::Addr, protocol: u8, length: u16) -> Self;

    /// Whether the header's own checksum is right; always, where there is none.
    fn is_intact(&self) -> bool;

    /// The protocol of what follows, or of the first extension header.
    fn protocol(&self) -> u8;

    /// Bytes of the ICMP message that follows. `available` as in [`IpHeader::transport`].
    ///
    /// # Errors
    ///
    /// The verdict on a packet for a VIP in which there is no such message, or a part of one.
    fn message(&self, available: usize) -> Result<usize, Verdict>;

    /// Where the transport header is behind the one at `base` in the frame, which an ICMP error quotes; `length` says how much of it is quoted. What the
    /// header says of its packet's length does not matter: what counts is what is there, and some stacks spoil it.
    ///
    /// # Errors
    ///
    /// The verdict on the error, if it is for a VIP.
    fn quoted<P: Packet>(packet: &P, base: usize, available: usize) -> Result<Transport, Verdict>;

    /// Gives a quoted header other addresses: what that is to a checksum over the addresses, and to one over the header.
    fn requote(&mut self, src: &Self::Addr, dst: &Self::Addr) -> (Delta, Delta);

    /// Gives the header another destination, and another source if there is one, and takes a hop, of which there must be one: what that is
    /// to an ICMP checksum.
    fn pass_on(&mut self, src: Option<&Self::Addr>, dst: &Self::Addr) -> Delta;

    /// What an outer header takes over from it.
    fn inner(&self) -> Inner;

    /// Makes it the header of the answer to its packet, but for lengths and protocol.
    fn turn(&mut self);
}

/// A frame, or what stands for one in a test.
pub trait Packet {
    /// The `T` at an offset that was read from memory, as below.
    fn view_at<T>(&self, offset: usize) -> Option<&T>;
    /// The `T` at `offset`, which is made of bytes; `None` if the frame ends before it does.
    fn edit<T>(&mut self, offset: usize) -> Option<&mut T>;
    /// The same at an offset that was read from memory.
    fn edit_at<T>(&mut self, offset: usize) -> Option<&mut T>;
}
