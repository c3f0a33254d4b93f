//! TCP (RFC 9293, section 3.1) and UDP (RFC 768): what a load balancer reads and rewrites.

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

const _: () = assert!(Tcp::SIZE == 20 && align_of::<Tcp>() == 1 && Udp::SIZE == 8 && align_of::<Udp>() == 1);
