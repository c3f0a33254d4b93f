//! TCP (RFC 9293, section 3.1), UDP (RFC 768) and ICMP (RFC 792, RFC 4443): what a load balancer reads and rewrites.

use crate::abi::Port;
use crate::checksum::Delta;
use crate::tcp::flag;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Tcp {
    pub src_port: Port,
    pub dst_port: Port,
    sequence: [u8; 4],
    acknowledgment: [u8; 4],
    offset_reserved: u8,
    pub flags: u8,
    window: [u8; 2],
    checksum: [u8; 2],
    urgent: [u8; 2],
}

impl Tcp {
    /// Without options.
    pub const SIZE: usize = size_of::<Self>();

    /// Bytes of the header, options included, as it says itself.
    #[inline(always)]
    pub fn header_length(&self) -> usize {
        usize::from(self.offset_reserved >> 4) * 4
    }
    #[inline(always)]
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes(self.sequence)
    }
    #[inline(always)]
    pub fn acknowledgment(&self) -> u32 {
        u32::from_be_bytes(self.acknowledgment)
    }
    #[inline(always)]
    pub fn redirect(&mut self, src_port: Port, dst_port: Port, delta: Delta) {
        self.src_port = src_port;
        self.dst_port = dst_port;
        self.checksum = delta.apply(self.checksum);
    }
    /// Turns any segment into an acknowledgment of `number`.
    #[inline(always)]
    pub fn set_bare_acknowledgment(&mut self, number: u32) {
        let flags = Delta::replace(&[self.offset_reserved, self.flags], &[self.offset_reserved, flag::ACK]);
        let number = number.to_be_bytes();
        let delta = flags.and(Delta::replace(&self.acknowledgment, &number));
        self.flags = flag::ACK;
        self.acknowledgment = number;
        self.checksum = delta.apply(self.checksum);
    }
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Udp {
    pub src_port: Port,
    pub dst_port: Port,
    length: [u8; 2],
    checksum: [u8; 2],
}

impl Udp {
    pub const SIZE: usize = size_of::<Self>();

    /// Bytes of header and payload, as it says itself.
    #[inline(always)]
    pub fn length(&self) -> usize {
        usize::from(u16::from_be_bytes(self.length))
    }

    /// A checksum of 0 means "none" and stays; one that comes out as 0 is sent as 0xffff (RFC 768).
    #[inline(always)]
    pub fn redirect(&mut self, src_port: Port, dst_port: Port, delta: Delta) {
        self.src_port = src_port;
        self.dst_port = dst_port;
        if self.checksum != [0, 0] {
            let updated = delta.apply(self.checksum);
            self.checksum = if updated == [0, 0] { [0xff, 0xff] } else { updated };
        }
    }
}

/// The first 8 bytes of a TCP or UDP header: all that an ICMP error must quote of it (RFC 792).
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Head {
    pub src_port: Port,
    pub dst_port: Port,
    /// TCP: the sequence number. UDP: length and checksum.
    rest: [u8; 4],
}

impl Head {
    pub const SIZE: usize = size_of::<Self>();

    /// TCP's.
    #[inline(always)]
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes(self.rest)
    }

    /// Sets both ports; what that is to a checksum.
    #[inline(always)]
    pub fn set_ports(&mut self, src_port: Port, dst_port: Port) -> Delta {
        let delta = Delta::replace(&self.src_port, &src_port).and(Delta::replace(&self.dst_port, &dst_port));
        (self.src_port, self.dst_port) = (src_port, dst_port);
        delta
    }

    /// Brings UDP's checksum up to date; what that is to another one over it.
    #[inline(always)]
    pub fn update_udp(&mut self, delta: Delta) -> Delta {
        let [l0, l1, c0, c1] = self.rest;
        let before = [c0, c1];
        if before == [0, 0] {
            return Delta::ZERO;
        }
        let updated = delta.apply(before);
        let after = if updated == [0, 0] { [0xff, 0xff] } else { updated };
        self.rest = [l0, l1, after[0], after[1]];
        Delta::replace(&before, &after)
    }
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    checksum: [u8; 2],
    rest: [u8; 4],
}

impl Icmp {
    pub const SIZE: usize = size_of::<Self>();

    /// Brings the checksum up to date: a wrong one stays wrong.
    #[inline(always)]
    pub fn update(&mut self, delta: Delta) {
        self.checksum = delta.apply(self.checksum);
    }

    #[inline(always)]
    pub fn set_kind(&mut self, kind: u8) {
        self.update(Delta::replace(&[self.kind, self.code], &[kind, self.code]));
        self.kind = kind;
    }
}

const _: () =
    assert!(Head::SIZE == 8 && align_of::<Head>() == 1 && Icmp::SIZE == 8 && align_of::<Icmp>() == 1);
const _: () = assert!(Tcp::SIZE == 20 && align_of::<Tcp>() == 1 && Udp::SIZE == 8 && align_of::<Udp>() == 1);
