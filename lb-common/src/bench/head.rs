//! The heads of frames, and what a client, a balancer and a backend make of them.

use super::PORTS;
use crate::abi::Address as _;
use crate::tcp::flag;
use crate::wire::eth::{self, Mac};
use crate::wire::protocol;

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
    pub transport: Transport,
}

/// The head of an IPv6 frame, likewise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct HeadV6 {
    pub destination: Mac,
    pub source: Mac,
    pub to_payload_length: [u8; 6],
    pub payload_length: [u8; 2],
    pub next_header: u8,
    pub hop_limit: u8,
    pub src: [u8; 16],
    pub dst: [u8; 16],
    pub transport: Transport,
}

/// The first bytes of a TCP or UDP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Transport {
    pub src_port: [u8; 2],
    pub dst_port: [u8; 2],
    /// In a TCP segment, the first half of the sequence number.
    pub length: [u8; 2],
    /// In a TCP segment, the other half; nothing changes it there.
    pub udp_checksum: [u8; 2],
    pub to_window: [u8; 8],
    /// In a datagram, payload; nothing changes it there.
    pub tcp_checksum: [u8; 2],
}

/// What tells the segments of a handshake from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub sequence: u32,
    pub acknowledgment: u32,
    pub flags: u8,
}

impl Segment {
    pub const SYN: Self = Self { sequence: 999, acknowledgment: 0, flags: flag::SYN };
    pub const SYN_ACK: Self = Self { sequence: 4999, acknowledgment: 1000, flags: flag::SYN | flag::ACK };
    pub const ACK: Self = Self { sequence: 1000, acknowledgment: 5000, flags: flag::ACK };
    /// A reset that answers nothing.
    pub const RST: Self = Self { sequence: 1000, acknowledgment: 0, flags: flag::RST };

    /// What follows the sequence number, the window included.
    pub const fn to_window(self) -> [u8; 8] {
        let [a, b, c, d] = self.acknowledgment.to_be_bytes();
        [a, b, c, d, 5 << 4, self.flags, 0x10, 0]
    }
}

impl Transport {
    /// The ports of `flow` and the checksums of `base`. Data planes do not verify the checksum, which is left as if the flow
    /// were the first.
    #[inline(always)]
    fn set_flow(&mut self, base: &Self, flow: u32) {
        self.src_port = ((u32::from(u16::from_be_bytes(base.src_port)) + flow % PORTS) as u16).to_be_bytes();
        self.dst_port = base.dst_port;
        self.udp_checksum = base.udp_checksum;
        self.tcp_checksum = base.tcp_checksum;
    }

    #[inline(always)]
    fn turn(&mut self) {
        (self.src_port, self.dst_port) = (self.dst_port, self.src_port);
    }

    #[inline(always)]
    fn set_segment(&mut self, segment: Segment) {
        let [a, b, c, d] = segment.sequence.to_be_bytes();
        (self.length, self.udp_checksum) = ([a, b], [c, d]);
        self.to_window = segment.to_window();
    }
}

/// A frame's head as the benchmarks' programs change it.
pub trait Head {
    /// Makes the frame that of `flow`, in the row of flows of which `base` is the first, as if nobody had forwarded it.
    fn set_flow(&mut self, base: &Self, flow: u32);
    /// Makes it a frame back to whoever sent it, by whoever received it.
    fn turn(&mut self);
    /// Makes a TCP segment this one; a datagram stays what it is.
    fn set_segment(&mut self, segment: Segment);
}

impl Head for HeadV4 {
    #[inline(always)]
    fn set_flow(&mut self, base: &Self, flow: u32) {
        eth::copy(&mut self.destination, &base.destination);
        eth::copy(&mut self.source, &base.source);
        let host = flow / PORTS;
        self.ttl = base.ttl;
        self.checksum = lessened(base.checksum, host as u16);
        self.src = (u32::from_be_bytes(base.src) + host).to_be_bytes();
        base.dst.copy_to(&mut self.dst);
        self.transport.set_flow(&base.transport, flow);
    }

    #[inline(always)]
    fn turn(&mut self) {
        turn(&mut self.destination, &mut self.source);
        (self.src, self.dst) = (self.dst, self.src);
        self.transport.turn();
    }

    #[inline(always)]
    fn set_segment(&mut self, segment: Segment) {
        if self.protocol == protocol::TCP {
            self.transport.set_segment(segment);
        }
    }
}

impl Head for HeadV6 {
    #[inline(always)]
    fn set_flow(&mut self, base: &Self, flow: u32) {
        eth::copy(&mut self.destination, &base.destination);
        eth::copy(&mut self.source, &base.source);
        self.hop_limit = base.hop_limit;
        // The interface identifier counts up; it is read by words of eight bytes.
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = base.src;
        let identifier = u64::from_be_bytes([i, j, k, l, m, n, o, p]).wrapping_add(u64::from(flow / PORTS));
        self.src[..8].copy_from_slice(&u64::from_ne_bytes([a, b, c, d, e, f, g, h]).to_ne_bytes());
        self.src[8..].copy_from_slice(&identifier.to_be_bytes());
        base.dst.copy_to(&mut self.dst);
        self.transport.set_flow(&base.transport, flow);
    }

    #[inline(always)]
    fn turn(&mut self) {
        turn(&mut self.destination, &mut self.source);
        let (src, dst) = (u128::from_ne_bytes(self.src), u128::from_ne_bytes(self.dst));
        (self.src, self.dst) = (dst.to_ne_bytes(), src.to_ne_bytes());
        self.transport.turn();
    }

    #[inline(always)]
    fn set_segment(&mut self, segment: Segment) {
        if self.next_header == protocol::TCP {
            self.transport.set_segment(segment);
        }
    }
}

/// Swaps two addresses by words; the compiler would make calls of assignments.
#[inline(always)]
fn turn(a: &mut Mac, b: &mut Mac) {
    let [c, d, e, f, g, h] = *a;
    let (high, low) = (u32::from_ne_bytes([c, d, e, f]), u16::from_ne_bytes([g, h]));
    eth::copy(a, b);
    b[..4].copy_from_slice(&high.to_ne_bytes());
    b[4..].copy_from_slice(&low.to_ne_bytes());
}

/// A checksum after what it sums has grown by `more` in one word (RFC 1624), the borrow brought round.
#[inline(always)]
const fn lessened(checksum: [u8; 2], more: u16) -> [u8; 2] {
    let (difference, borrow) = u16::from_be_bytes(checksum).overflowing_sub(more);
    difference.wrapping_sub(borrow as u16).to_be_bytes()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::checksum::checksum;

    pub const CLIENT: Mac = [2, 0, 0, 0, 0, 1];
    pub const BALANCER: Mac = [2, 0, 0, 0, 0, 2];
    pub const BACKEND: Mac = [2, 0, 0, 0, 0, 3];

    fn transport() -> Transport {
        Transport {
            src_port: 16384u16.to_be_bytes(),
            dst_port: [0, 80],
            length: [0, 30],
            udp_checksum: [1, 2],
            to_window: [0; 8],
            tcp_checksum: [3, 4],
        }
    }

    fn header(head: &HeadV4) -> std::vec::Vec<u8> {
        let mut bytes = head.to_fragment[2..].to_vec();
        bytes.extend([head.ttl, head.protocol]);
        bytes.extend(head.checksum.iter().chain(&head.src).chain(&head.dst));
        bytes
    }

    pub fn v4(protocol: u8) -> HeadV4 {
        let mut head = HeadV4 {
            destination: BALANCER,
            source: CLIENT,
            to_fragment: [8, 0, 0x45, 0, 0, 50, 0, 0, 0x40, 0],
            ttl: 64,
            protocol,
            checksum: [0, 0],
            src: [198, 18, 0, 1],
            dst: [192, 0, 2, 10],
            transport: transport(),
        };
        head.checksum = checksum(&[&header(&head)]);
        head
    }

    pub fn v6(protocol: u8) -> HeadV6 {
        HeadV6 {
            destination: BALANCER,
            source: CLIENT,
            to_payload_length: [0x86, 0xdd, 0x60, 0, 0, 0],
            payload_length: [0, 30],
            next_header: protocol,
            hop_limit: 64,
            src: [0xfd; 16],
            dst: [0xfe; 16],
            transport: transport(),
        }
    }

    #[test]
    fn every_flow_has_a_valid_ipv4_header() {
        let base = v4(protocol::TCP);
        let mut head = base;
        let mut borrowed = 0;
        for flow in (0..1 << 30).step_by(PORTS as usize * 7 + 5) {
            head.set_flow(&base, flow);
            assert_eq!(checksum(&[&header(&head)]), [0, 0], "flow {flow}");
            borrowed += u32::from(head.checksum > base.checksum);
        }
        assert!(borrowed > 0, "a borrow was among them");
    }

    #[test]
    fn what_forwarding_changes_is_put_back() {
        let base = v4(protocol::UDP);
        let mut head = base;
        (head.destination, head.source, head.ttl, head.checksum) = (BACKEND, BALANCER, 63, [9, 9]);
        (head.src, head.dst) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        head.transport.dst_port = [1, 1];
        (head.transport.udp_checksum, head.transport.tcp_checksum) = ([5, 5], [6, 6]);
        head.set_flow(&base, 0);
        assert_eq!(head, base);
    }
}
