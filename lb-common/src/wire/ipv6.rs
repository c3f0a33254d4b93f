//! IPv6 (RFC 8200, section 3). Extension headers are recognised here, and read in [`super::chain`].

use super::chain::{self, extension};
use super::{Chain, Ethernet, Head, Icmp, IpHeader, Packet, Transport, protocol};
use crate::abi::Address as _;
use crate::checksum::Delta;
use crate::tunnel::{self, Inner};
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
    /// What every way carries.
    pub const LEAST_MTU: u16 = 1280;
    /// Of what we send.
    const HOPS: u8 = 64;
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
            other if extension::is_one(other) => Err(Verdict::ExtensionHeader),
            _ => Err(Verdict::HostProtocol),
        }
    }

    #[inline(always)]
    fn chain<P: Packet>(packet: &P, available: usize) -> Result<Chain, Verdict> {
        let header: &Self = packet.view_at(Ethernet::SIZE).ok_or(Verdict::TruncatedIp)?;
        let end = usize::from(u16::from_be_bytes(header.payload_length)) + Self::SIZE;
        if header.version_class_flow[0] >> 4 != 6 || end > available {
            return Err(Verdict::BadIpHeader);
        }
        chain::read(packet, Ethernet::SIZE, header.next_header, end)
    }

    #[inline(always)]
    fn is_later_fragment(&self) -> bool {
        false
    }

    #[inline(always)]
    fn take_hop(&mut self) {
        self.hop_limit -= 1;
    }

    #[inline(always)]
    fn is_bare(&self) -> bool {
        !extension::is_one(self.next_header)
    }

    #[inline(always)]
    fn bare(src: [u8; 16], dst: [u8; 16], protocol: u8, length: u16) -> Self {
        Self {
            version_class_flow: [0x60, 0, 0, 0],
            payload_length: length.to_be_bytes(),
            next_header: protocol,
            hop_limit: Self::HOPS,
            src,
            dst,
        }
    }

    #[inline(always)]
    fn is_intact(&self) -> bool {
        true
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.next_header
    }

    #[inline(always)]
    fn message(&self, available: usize) -> Result<usize, Verdict> {
        let length = usize::from(u16::from_be_bytes(self.payload_length));
        if self.version_class_flow[0] >> 4 != 6 || length + Self::SIZE > available || length < Icmp::SIZE {
            return Err(Verdict::IcmpMalformed);
        }
        Ok(length)
    }

    #[inline(always)]
    fn quoted<P: Packet>(packet: &P, base: usize, available: usize) -> Result<Transport, Verdict> {
        let header: &Self = packet.view_at(base).ok_or(Verdict::IcmpMalformed)?;
        if header.version_class_flow[0] >> 4 != 6 || available < Self::SIZE + Head::SIZE {
            return Err(Verdict::IcmpMalformed);
        }
        let protocol = header.next_header;
        if protocol != protocol::TCP && protocol != protocol::UDP {
            return chain::quoted(packet, base, protocol, available);
        }
        Ok(Transport { offset: Self::SIZE, protocol, length: available - Self::SIZE })
    }

    #[inline(always)]
    fn requote(&mut self, src: &[u8; 16], dst: &[u8; 16]) -> (Delta, Delta) {
        let addresses = Delta::replace(&self.src, src).and(Delta::replace(&self.dst, dst));
        self.set_source(src);
        self.set_destination(dst);
        (addresses, addresses)
    }

    #[inline(always)]
    fn pass_on(&mut self, src: Option<&[u8; 16]>, dst: &[u8; 16]) -> Delta {
        let mut delta = Delta::replace(&self.dst, dst);
        self.set_destination(dst);
        if let Some(src) = src {
            delta = delta.and(Delta::replace(&self.src, src));
            self.set_source(src);
        }
        self.take_hop();
        delta
    }

    #[inline(always)]
    fn inner(&self) -> Inner {
        let [first, second, ..] = self.version_class_flow;
        let length = u16::from_be_bytes(self.payload_length).wrapping_add(Self::SIZE as u16);
        Inner {
            length,
            class: first << 4 | second >> 4,
            whole: length > Self::LEAST_MTU,
            id: [0, 0],
            protocol: tunnel::IPV6,
        }
    }

    #[inline(always)]
    fn turn(&mut self) {
        let ([high, low], destination) = (self.dst.words(), self.src.words());
        self.src[..8].copy_from_slice(&high.to_ne_bytes());
        self.src[8..].copy_from_slice(&low.to_ne_bytes());
        self.set_destination_words(destination);
        self.hop_limit = Self::HOPS;
    }
}

impl Ipv6 {
    /// The header of a packet around another one, whose length is `length` without it; `flow` is its label.
    #[inline(always)]
    pub fn around(
        inner: Inner,
        src: &[u8; 16],
        dst: &[u8; 16],
        protocol: u8,
        length: u16,
        flow: u16,
    ) -> Self {
        let [f0, f1] = flow.to_be_bytes();
        let mut header = Self {
            version_class_flow: [0x60 | inner.class >> 4, inner.class << 4, f0, f1],
            payload_length: length.to_be_bytes(),
            next_header: protocol,
            hop_limit: Self::HOPS,
            src: [0; 16],
            dst: [0; 16],
        };
        header.set_source(src);
        header.set_destination(dst);
        header
    }

    #[inline(always)]
    pub fn set_source(&mut self, to: &[u8; 16]) {
        to.copy_to(&mut self.src);
    }
    #[inline(always)]
    pub fn set_destination(&mut self, to: &[u8; 16]) {
        to.copy_to(&mut self.dst);
    }
    /// The same, from two words as they stand in memory.
    #[inline(always)]
    pub fn set_destination_words(&mut self, [high, low]: [u64; 2]) {
        self.dst[..8].copy_from_slice(&high.to_ne_bytes());
        self.dst[8..].copy_from_slice(&low.to_ne_bytes());
    }
}

const _: () = assert!(Ipv6::SIZE == 40 && align_of::<Ipv6>() == 1);
