//! IPv6 (RFC 8200, section 3). Extension headers are recognised, not read.

use super::{IpHeader, Transport, protocol};
use crate::abi::Address as _;
use crate::checksum::Delta;
use crate::verdict::Verdict;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Ipv6 {
    version_class_flow: [u8; 4],
    payload_length: [u8; 2],
    next_header: u8,
    hop_limit: u8,
    src: [u8; 16],
    dst: [u8; 16],
}

impl Ipv6 {
    pub const SIZE: usize = size_of::<Self>();
    const FRAGMENT: u8 = 44;
}

impl IpHeader for Ipv6 {
    type Addr = [u8; 16];

    #[inline(always)]
    fn src(&self) -> [u8; 16] {
        self.src
    }
    #[inline(always)]
    fn dst(&self) -> [u8; 16] {
        self.dst
    }
    #[inline(always)]
    fn ttl(&self) -> u8 {
        self.hop_limit
    }

    #[inline(always)]
    fn transport(&self, available: usize) -> Result<Transport, Verdict> {
        let length = usize::from(u16::from_be_bytes(self.payload_length));
        if self.version_class_flow[0] >> 4 != 6 || length + Self::SIZE > available {
            return Err(Verdict::BadIpHeader);
        }
        match self.next_header {
            protocol @ (protocol::TCP | protocol::UDP) => {
                Ok(Transport { offset: Self::SIZE, protocol, length })
            }
            Self::FRAGMENT => Err(Verdict::Fragment),
            // Hop-by-hop, routing, AH, destination options, mobility, HIP, shim6 (IANA registry of RFC 8200's
            // extension headers). ESP hides what follows and is a protocol to us.
            0 | 43 | 51 | 60 | 135 | 139 | 140 => Err(Verdict::ExtensionHeader),
            _ => Err(Verdict::HostProtocol),
        }
    }

    #[inline(always)]
    fn is_bare(&self) -> bool {
        true
    }

    #[inline(always)]
    fn bare(src: [u8; 16], dst: [u8; 16], protocol: u8, length: u16) -> Self {
        Self {
            version_class_flow: [0x60, 0, 0, 0],
            payload_length: length.to_be_bytes(),
            next_header: protocol,
            hop_limit: 64,
            src,
            dst,
        }
    }

    #[inline(always)]
    fn redirect(&mut self, src: &[u8; 16], dst: &[u8; 16], _: Delta) {
        src.copy_to(&mut self.src);
        dst.copy_to(&mut self.dst);
        self.hop_limit -= 1;
    }
}

const _: () = assert!(Ipv6::SIZE == 40 && align_of::<Ipv6>() == 1);
