//! What stands in a line: 64 bytes, one line of the processor's cache, in both families.
//!
//! ```text
//!         IPv4                                        IPv6
//!  0  8   first word (see Meta)                       the same
//!  8  4   map of the entries of this home             the same
//! 12  4   last_seen, in ticks                         the same
//! 16      source 4, destination 4 of the flow         the client's address 16
//! 24      ports 2+2, protocol 1, 0, backend 2
//! 32      new source 4, new destination 4             ports 2+2, protocol 1, 0, backend 2
//! 40  4   new ports 2+2                               the same
//! 44  2   what new addresses do to the IP checksum    what the translation does to the transport checksum
//! 46  2   the translation to the transport checksum   the VIP's number
//! 48  4   the last acknowledgment number of this direction
//! 52  4   the peer's line
//! 56  8   forward: created, in ticks 4, a number of the opening 4. reverse: the client's next hop: interface's number 2, MAC 6
//! ```
//!
//! A handshake that the backend refuses leaves in the reverse line what the refusal acknowledged, one above that number.
//!
//! The opening's number is that of the client's SYN, then of the backend's first SYN-ACK; its last SYN-ACK's number stands
//! in the forward line's `acknowledgment` until the handshake is complete. Then the opening's number is that of the last SYN that
//! came in the middle of the connection.
//!
//! A line of IPv6 names VIP and backend by their numbers, which are not given to others while a connection bears them.

use super::{Line, Meta};
use crate::abi::{FlowKey, Port};
use crate::checksum::Delta;
use crate::wire::eth::Mac;

/// A line as memory.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct RawLine(pub [u64; 8]);

const _: () = assert!(size_of::<RawLine>() == 64);

#[cfg(feature = "user")]
// SAFETY: u64 throughout.
unsafe impl aya::Pod for RawLine {}

/// A line's memory, by words. Plain accesses may be reordered with each other, not torn.
pub trait Raw: Copy {
    /// The 8 bytes at `8 * at`.
    fn word(self, at: usize) -> u64;
    fn set_word(self, at: usize, to: u64);
    /// The 4 bytes at `4 * at`.
    fn half(self, at: usize) -> u32;
    fn set_half(self, at: usize, to: u32);

    // As [`Line`] describes them, on word 0 and half 2.
    fn load(self) -> u64;
    fn store(self, to: u64);
    fn swap(self, from: u64, to: u64) -> bool;
    fn or(self, bits: u32) -> u32;
    fn and(self, bits: u32);
    fn add(self, number: u32);
}

const HOPS: usize = 2;
pub(super) const LAST_SEEN: usize = 3;
pub(super) const ACKNOWLEDGMENT: usize = 12;
pub(super) const PEER: usize = 13;
const CREATED: usize = 14;
const OPENING: usize = 15;
pub(super) const NEW_PORTS: usize = 5;
pub(super) const TAIL: usize = 7;

impl<R: Raw> Line for R {
    #[inline(always)]
    fn meta(self) -> Meta {
        Meta(self.load())
    }
    #[inline(always)]
    fn set_meta(self, to: Meta) {
        self.store(to.0);
    }
    #[inline(always)]
    fn swap_meta(self, from: Meta, to: Meta) -> bool {
        self.swap(from.0, to.0)
    }
    #[inline(always)]
    fn hops(self) -> u32 {
        self.half(HOPS)
    }
    #[inline(always)]
    fn or_hops(self, bits: u32) -> u32 {
        self.or(bits)
    }
    #[inline(always)]
    fn and_hops(self, bits: u32) {
        self.and(bits);
    }
    #[inline(always)]
    fn add_hops(self, number: u32) {
        self.add(number);
    }
    #[inline(always)]
    fn last_seen(self) -> u32 {
        self.half(LAST_SEEN)
    }
    #[inline(always)]
    fn peer(self) -> u32 {
        self.half(PEER)
    }
}

/// The fields that both families have at the same places.
pub trait Fields: Raw {
    #[inline(always)]
    fn see(self, now: u32) {
        self.set_half(LAST_SEEN, now);
    }
    /// The last acknowledgment number sent in this direction.
    #[inline(always)]
    fn acknowledgment(self) -> u32 {
        self.half(ACKNOWLEDGMENT)
    }
    #[inline(always)]
    fn set_acknowledgment(self, number: u32) {
        self.set_half(ACKNOWLEDGMENT, number);
    }
    /// Forward: in ticks.
    #[inline(always)]
    fn created(self) -> u32 {
        self.half(CREATED)
    }
    /// Forward: see the module's description.
    #[inline(always)]
    fn opening(self) -> u32 {
        self.half(OPENING)
    }
    #[inline(always)]
    fn set_opening(self, number: u32) {
        self.set_half(OPENING, number);
    }
    /// Reverse: the way to the client.
    #[inline(always)]
    fn hop(self) -> Hop {
        Hop(self.word(TAIL))
    }
    #[inline(always)]
    fn set_hop(self, hop: Hop) {
        self.set_word(TAIL, hop.0);
    }
}

impl<R: Raw> Fields for R {}

/// The client's next hop: an interface's number and the neighbour's hardware address, in the order of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Hop(pub u64);

impl Hop {
    #[inline(always)]
    pub const fn new(interface: u16, mac: &Mac) -> Self {
        let [n0, n1] = interface.to_ne_bytes();
        Self(u64::from_ne_bytes([n0, n1, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]]))
    }
    #[inline(always)]
    pub const fn interface(self) -> u16 {
        let bytes = self.0.to_ne_bytes();
        u16::from_ne_bytes([bytes[0], bytes[1]])
    }
    #[inline(always)]
    pub const fn mac(self) -> Mac {
        let [_, _, a, b, c, d, e, f] = self.0.to_ne_bytes();
        [a, b, c, d, e, f]
    }
}

/// Numbers to addresses, for lines of IPv6.
pub trait Book {
    fn vip(&self, number: u16) -> Option<&[u8; 16]>;
    fn backend(&self, number: u16) -> Option<&[u8; 16]>;
}

/// What the translation of a direction's packets is, read from a line in two loads: together they are of one entry if the
/// line's version is the same before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// IPv4: the new source, then the new destination. IPv6: the client's address.
    pub addresses: [u64; 2],
    /// New ports, then the two fields at 44 and 46.
    pub(super) last: u64,
}

impl Target {
    #[inline(always)]
    pub const fn ports(&self) -> (Port, Port) {
        let [a, b, c, d, ..] = self.last.to_ne_bytes();
        ([a, b], [c, d])
    }
    #[inline(always)]
    const fn field(&self, at: usize) -> u16 {
        let bytes = self.last.to_ne_bytes();
        u16::from_ne_bytes([bytes[4 + 2 * at], bytes[5 + 2 * at]])
    }
    #[inline(always)]
    pub const fn new_source_v4(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.addresses[0].to_ne_bytes();
        [a, b, c, d]
    }
    #[inline(always)]
    pub const fn new_destination_v4(&self) -> [u8; 4] {
        let [_, _, _, _, a, b, c, d] = self.addresses[0].to_ne_bytes();
        [a, b, c, d]
    }
    /// IPv4: what the new addresses do to the header's checksum, and the translation to the transport's.
    #[inline(always)]
    pub const fn deltas_v4(&self) -> (Delta, Delta) {
        (Delta::from_raw(self.field(0)), Delta::from_raw(self.field(1)))
    }
    /// IPv6: what the translation does to the transport's checksum, and the VIP's number.
    #[inline(always)]
    pub const fn delta_and_vip_v6(&self) -> (Delta, u16) {
        (Delta::from_raw(self.field(0)), self.field(1))
    }
    #[inline(always)]
    pub fn client_v6(&self) -> [u8; 16] {
        join(self.addresses)
    }
}

/// One direction of a new connection, to be written into a line that its writer owns.
pub struct New<'a, A> {
    pub key: &'a FlowKey<A>,
    /// The flow that its packets get.
    pub to: &'a FlowKey<A>,
    pub reverse: bool,
    pub backend: u16,
    pub vip: u16,
    pub peer: u32,
    pub now: u32,
    pub acknowledgment: u32,
    /// The last 8 bytes; see [`opening`] and [`hop`].
    pub tail: u64,
}

/// The tail of a forward line.
#[inline(always)]
pub const fn opening(created: u32, number: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (created.to_ne_bytes(), number.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

#[inline(always)]
fn join([a, b]: [u64; 2]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&a.to_ne_bytes());
    bytes[8..].copy_from_slice(&b.to_ne_bytes());
    bytes
}
