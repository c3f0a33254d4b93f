//! What the benchmarks' programs and their user space share. No part of the data plane.

mod head;

pub use head::{Head, HeadV4, HeadV6, Segment, Transport};

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
    /// Where an exchange of three packets stands: how many of them have been made.
    pub step: u32,
}

impl<H: Head> Pattern<H> {
    /// Makes a frame's head that of the next flow.
    #[inline(always)]
    pub fn next(&mut self, head: &mut H) {
        self.state = self.order.next(self.state);
        self.again(head);
    }

    #[inline(always)]
    fn again(&self, head: &mut H) {
        head.set_flow(&self.head, self.state & self.mask);
    }

    /// Makes a frame's head the SYN of the next flow, whatever segment it was.
    #[inline(always)]
    pub fn open(&mut self, head: &mut H) {
        self.next(head);
        head.set_segment(Segment::SYN);
    }

    /// Makes a frame's head the next packet of a handshake, given the one before it as it has been forwarded: the client's
    /// SYN, the answer to that, the client's ACK; then the same of the next flow. Of datagrams likewise.
    #[inline(always)]
    pub fn lead(&mut self, head: &mut H) {
        match self.step {
            0 => self.open(head),
            1 => {
                head.turn();
                head.set_segment(Segment::SYN_ACK);
            }
            _ => {
                self.again(head);
                head.set_segment(Segment::ACK);
            }
        }
        self.step = if self.step >= EXCHANGE - 1 { 0 } else { self.step + 1 };
    }
}

/// Packets of a handshake, and of a datagram conversation until it counts as one.
pub const EXCHANGE: u32 = 3;

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

const _: () = assert!(size_of::<HeadV4>() == 52 && size_of::<Pattern<HeadV4>>() == 72);
const _: () = assert!(size_of::<HeadV6>() == 72 && size_of::<Pattern<HeadV6>>() == 92);

/// A pattern whose head is a frame's own first bytes: as user space writes it.
#[cfg(feature = "user")]
pub type FramePattern<const N: usize> = Pattern<[u8; N]>;

#[cfg(feature = "user")]
// SAFETY: bytes and five u32, any bit pattern valid; no padding (52 + 20).
unsafe impl aya::Pod for FramePattern<52> {}
#[cfg(feature = "user")]
// SAFETY: as above (72 + 20).
unsafe impl aya::Pod for FramePattern<72> {}

#[cfg(test)]
mod tests {
    use super::head::tests::{BACKEND, BALANCER, CLIENT, v4, v6};
    use super::*;
    use crate::tcp::flag;
    use crate::wire::protocol;

    fn pattern<H: Copy>(head: H) -> Pattern<H> {
        Pattern { head, mask: 0x00ff_ffff, state: u32::MAX, order: Order::OPENED, step: 0 }
    }

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

    /// Forwards the packet of a pattern's first flow as a balancer would, which answers lead back.
    fn forwarded(head: &mut HeadV4) {
        assert_eq!((head.destination, head.source, head.dst), (BALANCER, CLIENT, [192, 0, 2, 10]));
        (head.destination, head.source) = (BACKEND, BALANCER);
        (head.src, head.dst) = ([192, 0, 2, 10], [10, 0, 0, 7]);
        (head.transport.src_port, head.transport.dst_port) = ([4, 4], [0, 81]);
    }

    #[test]
    fn a_handshake_is_led_through_packet_by_packet() {
        let mut pattern = pattern(v4(protocol::TCP));
        let mut head = pattern.head;
        for client in [16384u16, 16385] {
            pattern.lead(&mut head);
            assert_eq!(head.transport.src_port, client.to_be_bytes());
            assert_eq!((head.transport.length, head.transport.udp_checksum), ([0, 0], [3, 231]));
            assert_eq!(head.transport.to_window, Segment::SYN.to_window());
            forwarded(&mut head);
            pattern.lead(&mut head);
            assert_eq!((head.destination, head.source), (BALANCER, BACKEND));
            assert_eq!((head.src, head.dst), ([10, 0, 0, 7], [192, 0, 2, 10]));
            assert_eq!((head.transport.src_port, head.transport.dst_port), ([0, 81], [4, 4]));
            assert_eq!(head.transport.to_window, Segment::SYN_ACK.to_window());
            pattern.lead(&mut head);
            assert_eq!((head.transport.src_port, head.src), (client.to_be_bytes(), [198, 18, 0, 1]));
            assert_eq!(head.transport.to_window, [0, 0, 0x13, 0x88, 0x50, flag::ACK, 0x10, 0]);
        }
    }

    #[test]
    fn a_datagram_stays_one() {
        let mut pattern = pattern(v6(protocol::UDP));
        let mut head = pattern.head;
        pattern.lead(&mut head);
        assert_eq!(head, pattern.head);
        pattern.lead(&mut head);
        assert_eq!((head.src, head.dst), (pattern.head.dst, pattern.head.src));
        assert_eq!((head.transport.length, head.transport.to_window), ([0, 30], [0; 8]));
        pattern.lead(&mut head);
        assert_eq!(head, pattern.head);
    }
}
