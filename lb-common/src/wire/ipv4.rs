//! IPv4 (RFC 791, section 3.1).

use super::{IpHeader, Transport, protocol};
use crate::abi::Address as _;
use crate::checksum::Delta;
use crate::verdict::Verdict;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Ipv4 {
    version_ihl: u8,
    tos: u8,
    total_length: [u8; 2],
    id: [u8; 2],
    flags_fragment: [u8; 2],
    ttl: u8,
    protocol: u8,
    checksum: [u8; 2],
    src: [u8; 4],
    dst: [u8; 4],
}

impl Ipv4 {
    /// Without options.
    pub const SIZE: usize = size_of::<Self>();
    /// "More fragments" and the offset: set in every fragment of a datagram.
    const FRAGMENT: u16 = 0x3fff;
}

impl IpHeader for Ipv4 {
    type Addr = [u8; 4];

    #[inline(always)]
    fn src(&self) -> [u8; 4] {
        self.src
    }
    #[inline(always)]
    fn dst(&self) -> [u8; 4] {
        self.dst
    }
    #[inline(always)]
    fn ttl(&self) -> u8 {
        self.ttl
    }

    #[inline(always)]
    fn transport(&self, available: usize) -> Result<Transport, Verdict> {
        let header = usize::from(self.version_ihl & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes(self.total_length));
        if self.version_ihl >> 4 != 4 || header < Self::SIZE || total < header || total > available {
            return Err(Verdict::BadIpHeader);
        }
        // A fragmented ping is the host's to put together.
        if self.protocol != protocol::TCP && self.protocol != protocol::UDP {
            return Err(Verdict::HostProtocol);
        }
        if u16::from_be_bytes(self.flags_fragment) & Self::FRAGMENT != 0 {
            return Err(Verdict::Fragment);
        }
        Ok(Transport { offset: header, protocol: self.protocol, length: total - header })
    }

    #[inline(always)]
    fn redirect(&mut self, src: &[u8; 4], dst: &[u8; 4], delta: Delta) {
        src.copy_to(&mut self.src);
        dst.copy_to(&mut self.dst);
        self.ttl -= 1;
        self.checksum = delta.and(Delta::TTL_DECREMENT).apply(self.checksum);
    }
}

const _: () = assert!(Ipv4::SIZE == 20 && align_of::<Ipv4>() == 1);
