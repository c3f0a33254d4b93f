//! What the benchmarks' programs and their user space share. No part of the data plane.

use crate::wire::eth::Mac;

/// The head of an IPv4 frame without options, split where a packet's way through a balancer or a router changes it, so that
/// nothing is put back in wider or narrower pieces than it is read: that would stall the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct HeadV4 {
    pub destination: Mac,
    pub source: Mac,
    pub to_fragment: [u8; 10],
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: [u8; 2],
    pub src: [u8; 4],
    pub dst: [u8; 4],
    pub src_port: [u8; 2],
    pub dst_port: [u8; 2],
    pub length: [u8; 2],
    /// In a TCP segment, a part of the sequence number; nothing changes it there.
    pub udp_checksum: [u8; 2],
    pub to_window: [u8; 8],
    /// In a datagram, payload; nothing changes it there.
    pub tcp_checksum: [u8; 2],
}

/// The head of an IPv6 frame, likewise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct HeadV6 {
    pub destination: Mac,
    pub source: Mac,
    pub to_next_header: [u8; 9],
    pub hop_limit: u8,
    pub src: [u8; 16],
    pub dst: [u8; 16],
    pub src_port: [u8; 2],
    pub dst_port: [u8; 2],
    pub length: [u8; 2],
    pub udp_checksum: [u8; 2],
    pub to_window: [u8; 8],
    pub tcp_checksum: [u8; 2],
}

/// What a benchmark's packets look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Pattern<H> {
    /// The packet of flow 0.
    pub head: H,
    /// How many flows, less one; their number is a power of 2.
    pub mask: u32,
    /// The number of the flow of the last packet, before the mask.
    pub state: u32,
    pub order: Order,
}

/// A flow's ports lie in a row of this many, from the pattern's source port; its addresses follow one another from the
/// pattern's source address.
pub const PORTS: u32 = 1 << 14;

/// In which order flows follow one another: each number below any power of 2 comes once in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Order {
    multiplier: u32,
    increment: u32,
}

impl Order {
    /// As they were opened: what lies in memory next to each other is used one after the other.
    pub const OPENED: Self = Self { multiplier: 1, increment: 1 };

    /// One that no prefetching foresees: a linear congruential sequence of full period (Knuth, The Art of Computer
    /// Programming, volume 2, section 3.2.1.2, theorem A).
    pub const SHUFFLED: Self = Self { multiplier: 0x915f_77f5, increment: 0x6d2b_79f5 };

    /// The next flow's number, before the mask.
    #[inline(always)]
    pub const fn next(self, state: u32) -> u32 {
        state.wrapping_mul(self.multiplier).wrapping_add(self.increment)
    }
}

const _: () = assert!(size_of::<HeadV4>() == 52 && size_of::<Pattern<HeadV4>>() == 68);
const _: () = assert!(size_of::<HeadV6>() == 72 && size_of::<Pattern<HeadV6>>() == 88);

/// A pattern whose head is a frame's own first bytes: as user space writes it.
#[cfg(feature = "user")]
pub type FramePattern<const N: usize> = Pattern<[u8; N]>;

#[cfg(feature = "user")]
// SAFETY: bytes and four u32, any bit pattern valid; no padding (52 + 16).
unsafe impl aya::Pod for FramePattern<52> {}
#[cfg(feature = "user")]
// SAFETY: as above (72 + 16).
unsafe impl aya::Pod for FramePattern<72> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_is_visited_once() {
        let mask = 0xffff;
        for order in [Order::OPENED, Order::SHUFFLED] {
            let mut seen = std::vec![false; mask as usize + 1];
            let mut state = 12345;
            for _ in 0..=mask {
                state = order.next(state);
                assert!(!std::mem::replace(&mut seen[(state & mask) as usize], true));
            }
        }
    }
}
