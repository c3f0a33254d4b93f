//! Connections: one entry a direction, found by that direction's [`FlowKey`].

use super::{Address, FlowKey, NextHop};
use crate::rewrite::Translation;

/// What happens to the packets of one direction of a connection, and what is known of it.
///
/// The two entries of a connection find each other: the key of one is the translated, reversed flow of the other.
/// State and FINs are written to both; the time of the last packet is each direction's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Connection<A> {
    /// The client's side, learnt from the packet that opened the connection. Packets to the client go there; those
    /// to the backend go by its own entry, which follows its neighbour.
    pub client_hop: NextHop,
    pub translation: Translation<A>,
    pub farm: u16,
    pub backend: u16,
    /// In ticks.
    pub last_seen: u32,
    pub created: u32,
    /// Reverse and opening: the sequence number of the SYN-ACK, once `synack_seen`.
    pub synack: u32,
    /// [`crate::tcp::Direction`].
    pub direction: u8,
    /// [`crate::tcp::State`].
    pub state: u8,
    /// Sides that have sent FIN, a bit set by direction.
    pub fins: u8,
    pub synack_seen: u8,
}

impl<A: Address> Connection<A> {
    /// The key of the entry for the other direction of the flow `key`, whose entry this is.
    #[inline(always)]
    pub fn peer(&self, key: &FlowKey<A>) -> FlowKey<A> {
        let to = &self.translation;
        FlowKey::new(to.dst, to.src, to.dst_port, to.src_port, key.protocol)
    }
}

const _: () = assert!(size_of::<Connection<[u8; 4]>>() == 16 + 16 + 20);
const _: () = assert!(size_of::<Connection<[u8; 16]>>() == 16 + 40 + 20);

#[cfg(feature = "user")]
// SAFETY: integers and bytes, any bit pattern valid, no padding (sizes asserted above are the sums of the fields).
unsafe impl aya::Pod for Connection<[u8; 4]> {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Connection<[u8; 16]> {}
