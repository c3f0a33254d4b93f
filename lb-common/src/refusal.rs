//! Answers to packets that are refused, a TCP reset or an ICMP "port unreachable", and to SYNs that are challenged. They are made
//! from the packet alone.

use crate::abi::{Address, FlowKey};
use crate::checksum::Delta;
use crate::tcp::flag;

/// A TCP header without options. Aligned, for the verifier wants aligned accesses to the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Segment(pub [u8; 20]);
/// An ICMP header, with the four unused bytes of an error.
pub type IcmpHeader = [u8; 8];

/// What of a segment decides how it is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    pub sequence: u32,
    pub acknowledgment: u32,
    pub flags: u8,
    /// Bytes of payload.
    pub payload: u32,
}

/// The reset that answers a segment of the flow `key` (RFC 9293, section 3.10.7.1), from its destination to its source; `None`
/// for a reset, which is never answered.
#[inline(always)]
pub fn reset<A: Address>(key: &FlowKey<A>, refused: Refused, protocol: u8) -> Option<Segment> {
    if refused.flags & flag::RST != 0 {
        return None;
    }
    let (sequence, acknowledgment, flags) = if refused.flags & flag::ACK != 0 {
        (refused.acknowledgment, 0, flag::RST)
    } else {
        let syn = u32::from(refused.flags & flag::SYN != 0);
        let fin = u32::from(refused.flags & flag::FIN != 0);
        let end = refused.sequence.wrapping_add(refused.payload).wrapping_add(syn + fin);
        (0, end, flag::RST | flag::ACK)
    };
    Some(answer(key, sequence, acknowledgment, flags, protocol))
}

/// What asks the sender of a SYN whether it is there: a SYN-ACK that acknowledges what was never sent; see [`crate::challenge`].
/// Its window is the largest, for connection tracking in between measures the reset that answers by it.
#[inline(always)]
pub fn challenge<A: Address>(key: &FlowKey<A>, acknowledgment: u32, protocol: u8) -> Segment {
    let Segment(mut segment) = answer(key, 0, acknowledgment, flag::SYN | flag::ACK, protocol);
    segment[14..16].copy_from_slice(&[0xff; 2]);
    // A word of all ones is none in the ones' complement sum.
    Segment(segment)
}

/// A segment without payload and with no window, from the flow's destination to its source.
#[inline(always)]
fn answer<A: Address>(
    key: &FlowKey<A>,
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
    protocol: u8,
) -> Segment {
    let mut segment = [0; 20];
    segment[0..2].copy_from_slice(&key.dst_port);
    segment[2..4].copy_from_slice(&key.src_port);
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    segment[8..12].copy_from_slice(&acknowledgment.to_be_bytes());
    segment[12] = 0x50;
    segment[13] = flags;
    let sum = Delta::of(&segment).and(pseudo_header(key, protocol, 20));
    segment[16..18].copy_from_slice(&sum.checksum());
    Segment(segment)
}

/// The header of an ICMP error (RFC 792, RFC 4443) of this type and code; `body` is the sum of what it quotes, and of the
/// pseudo-header where there is one.
#[inline(always)]
pub fn icmp(kind: u8, code: u8, body: Delta) -> IcmpHeader {
    icmp_with_mtu(kind, code, 0, body)
}

/// The same with the size of the packets that would have passed, where there is one to tell: "fragmentation needed" (RFC 1191,
/// section 4) and "packet too big" (RFC 4443, section 3.2).
#[inline(always)]
pub fn icmp_with_mtu(kind: u8, code: u8, mtu: u16, body: Delta) -> IcmpHeader {
    let [high, low] = mtu.to_be_bytes();
    let sum = body.and(Delta::of(&[kind, code, high, low])).checksum();
    [kind, code, sum[0], sum[1], 0, 0, high, low]
}

/// The sum of the pseudo-header of the flow's answer; its order does not matter to the sum.
#[inline(always)]
pub fn pseudo_header<A: Address>(key: &FlowKey<A>, protocol: u8, length: u16) -> Delta {
    let [high, low] = length.to_be_bytes();
    key.src.sum().and(key.dst.sum()).and(Delta::of(&[0, protocol, high, low]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::checksum;

    const KEY: FlowKey<[u8; 4]> = FlowKey::new([198, 51, 100, 7], [192, 0, 2, 10], [0x9c, 0x40], [0, 80], 6);

    fn refused(flags: u8, payload: u32) -> Refused {
        Refused { sequence: 1000, acknowledgment: 77, flags, payload }
    }

    #[test]
    fn resets_carry_the_numbers_that_the_other_side_accepts() {
        // flags and payload -> sequence, acknowledgment, flags
        let table = [
            (flag::SYN, 0, (0, 1001, flag::RST | flag::ACK)),
            (flag::SYN, 5, (0, 1006, flag::RST | flag::ACK)),
            (flag::FIN, 5, (0, 1006, flag::RST | flag::ACK)),
            (flag::ACK, 100, (77, 0, flag::RST)),
            (flag::ACK | flag::FIN, 0, (77, 0, flag::RST)),
        ];
        for (flags, payload, (sequence, acknowledgment, answer)) in table {
            let Segment(segment) = reset(&KEY, refused(flags, payload), 6).unwrap();
            let word = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
            assert_eq!((word(4), word(8), segment[13]), (sequence, acknowledgment, answer), "{flags:#x}");
            assert_eq!(segment[..4], [0, 80, 0x9c, 0x40], "turned round");
            let pseudo = [192, 0, 2, 10, 198, 51, 100, 7, 0, 6, 0, 20];
            assert_eq!(checksum(&[&pseudo, &segment]), [0, 0]);
        }
    }

    #[test]
    fn a_challenge_acknowledges_too_little_and_offers_the_largest_window() {
        let Segment(segment) = challenge(&KEY, 0x0102_0304, 6);
        assert_eq!(segment[..4], [0, 80, 0x9c, 0x40], "turned round");
        assert_eq!(segment[4..16], [0, 0, 0, 0, 1, 2, 3, 4, 0x50, flag::SYN | flag::ACK, 0xff, 0xff]);
        let pseudo = [192, 0, 2, 10, 198, 51, 100, 7, 0, 6, 0, 20];
        assert_eq!(checksum(&[&pseudo, &segment]), [0, 0]);
    }

    #[test]
    fn a_reset_is_not_answered() {
        assert_eq!(reset(&KEY, refused(flag::RST, 0), 6), None);
        assert_eq!(reset(&KEY, refused(flag::RST | flag::ACK, 0), 6), None);
    }
}
