//! IPv4 (RFC 791, section 3.1).

use super::{Chain, Ethernet, Fragment, Head, Icmp, IpHeader, Packet, Transport, protocol};
use crate::checksum::Delta;
use crate::tunnel::{self, Inner};
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
    /// The offset: 0 in the first fragment, which has the ports.
    const OFFSET: u16 = 0x1fff;
    /// "Don't fragment", in the first byte of the flags.
    const DONT_FRAGMENT: u8 = 0x40;
    /// "More fragments".
    const MORE: u16 = 0x2000;
    /// Of what we send.
    const TTL: u8 = 64;

    /// Bytes of the header, and of the packet.
    #[inline(always)]
    fn lengths(&self, available: usize) -> Result<(usize, usize), Verdict> {
        let header = usize::from(self.version_ihl & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes(self.total_length));
        if self.version_ihl >> 4 != 4 || header < Self::SIZE || total < header || total > available {
            return Err(Verdict::BadIpHeader);
        }
        Ok((header, total))
    }

    /// Sets both addresses and the TTL; what the addresses' change is to a checksum.
    #[inline(always)]
    fn set(&mut self, src: [u8; 4], dst: [u8; 4], ttl: u8) -> Delta {
        let addresses = Delta::replace(&self.src, &src).and(Delta::replace(&self.dst, &dst));
        let hops = Delta::replace(&[self.ttl, self.protocol], &[ttl, self.protocol]);
        (self.src, self.dst, self.ttl) = (src, dst, ttl);
        self.checksum = addresses.and(hops).apply(self.checksum);
        addresses
    }
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
        let (header, total) = self.lengths(available)?;
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
    fn chain<P: Packet>(packet: &P, available: usize) -> Result<Chain, Verdict> {
        let header: &Self = packet.view_at(Ethernet::SIZE).ok_or(Verdict::TruncatedIp)?;
        let (offset, total) = header.lengths(available)?;
        let (word, length) = (u16::from_be_bytes(header.flags_fragment), total - offset);
        let fragment = Fragment {
            id: u32::from(u16::from_be_bytes(header.id)),
            offset: usize::from(word & Self::OFFSET) * 8,
            more: word & Self::MORE != 0,
            length,
        };
        Ok(Chain { offset, protocol: header.protocol, length, fragment })
    }

    #[inline(always)]
    fn is_later_fragment(&self) -> bool {
        u16::from_be_bytes(self.flags_fragment) & Self::OFFSET != 0
    }

    #[inline(always)]
    fn take_hop(&mut self) {
        self.ttl -= 1;
        self.checksum = Delta::TTL_DECREMENT.apply(self.checksum);
    }

    #[inline(always)]
    fn is_bare(&self) -> bool {
        self.version_ihl == 0x45
    }

    #[inline(always)]
    fn bare(src: [u8; 4], dst: [u8; 4], protocol: u8, length: u16) -> Self {
        let total = (length + Self::SIZE as u16).to_be_bytes();
        let words = [0x45, 0, total[0], total[1], 0, 0, 0x40, 0, Self::TTL, protocol, 0, 0];
        let sum = Delta::of(&words).and(Delta::of(&src)).and(Delta::of(&dst));
        Self {
            version_ihl: 0x45,
            tos: 0,
            total_length: total,
            id: [0, 0],
            flags_fragment: [0x40, 0],
            ttl: Self::TTL,
            protocol,
            checksum: sum.checksum(),
            src,
            dst,
        }
    }

    /// Of a header with options, the part without them is not enough: it counts as right, and its receiver judges.
    #[inline(always)]
    fn is_intact(&self) -> bool {
        let [t0, t1] = self.total_length;
        let [i0, i1] = self.id;
        let [f0, f1] = self.flags_fragment;
        let [c0, c1] = self.checksum;
        let first = Delta::of(&[self.version_ihl, self.tos, t0, t1, i0, i1, f0, f1]);
        let second = Delta::of(&[self.ttl, self.protocol, c0, c1]);
        let addresses = Delta::of(&self.src).and(Delta::of(&self.dst));
        // One's complement of the sum of all is 0.
        !self.is_bare() || first.and(second).and(addresses).raw() == 0xffff
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Of a packet with options, and of fragments, the host makes what it likes.
    #[inline(always)]
    fn message(&self, available: usize) -> Result<usize, Verdict> {
        let total = usize::from(u16::from_be_bytes(self.total_length));
        if !self.is_bare() || u16::from_be_bytes(self.flags_fragment) & Self::FRAGMENT != 0 {
            return Err(Verdict::HostProtocol);
        }
        if total > available || total < Self::SIZE + Icmp::SIZE {
            return Err(Verdict::IcmpMalformed);
        }
        Ok(total - Self::SIZE)
    }

    #[inline(always)]
    fn quoted<P: Packet>(packet: &P, base: usize, available: usize) -> Result<Transport, Verdict> {
        let quoted: &Self = packet.view_at(base).ok_or(Verdict::IcmpMalformed)?;
        let header = usize::from(quoted.version_ihl & 0x0f) * 4;
        if quoted.version_ihl >> 4 != 4 || header < Self::SIZE || available < header + Head::SIZE {
            return Err(Verdict::IcmpMalformed);
        }
        if u16::from_be_bytes(quoted.flags_fragment) & Self::OFFSET != 0
            || (quoted.protocol != protocol::TCP && quoted.protocol != protocol::UDP)
        {
            return Err(Verdict::IcmpUnknown);
        }
        Ok(Transport { offset: header, protocol: quoted.protocol, length: available - header })
    }

    #[inline(always)]
    fn requote(&mut self, src: &[u8; 4], dst: &[u8; 4]) -> (Delta, Delta) {
        let before = self.checksum;
        let addresses = self.set(*src, *dst, self.ttl);
        (addresses, addresses.and(Delta::replace(&before, &self.checksum)))
    }

    #[inline(always)]
    fn pass_on(&mut self, src: Option<&[u8; 4]>, dst: &[u8; 4]) -> Delta {
        let src = src.copied().unwrap_or(self.src);
        self.set(src, *dst, self.ttl - 1);
        Delta::ZERO
    }

    #[inline(always)]
    fn inner(&self) -> Inner {
        Inner {
            length: u16::from_be_bytes(self.total_length),
            class: self.tos,
            whole: self.flags_fragment[0] & Self::DONT_FRAGMENT != 0,
            id: self.id,
            protocol: tunnel::IPV4,
        }
    }

    #[inline(always)]
    fn turn(&mut self) {
        let (src, dst) = (self.dst, self.src);
        self.set(src, dst, Self::TTL);
    }
}

impl Ipv4 {
    /// The header of a packet around another one, whose length is `length` without it.
    #[inline(always)]
    pub fn around(inner: Inner, src: [u8; 4], dst: [u8; 4], protocol: u8, length: u16) -> Self {
        let total = (length + Self::SIZE as u16).to_be_bytes();
        let flags = if inner.whole { Self::DONT_FRAGMENT } else { 0 };
        let [i0, i1] = inner.id;
        let words = [0x45, inner.class, total[0], total[1], i0, i1, flags, 0, Self::TTL, protocol, 0, 0];
        let sum = Delta::of(&words).and(Delta::of(&src)).and(Delta::of(&dst));
        Self {
            version_ihl: 0x45,
            tos: inner.class,
            total_length: total,
            id: inner.id,
            flags_fragment: [flags, 0],
            ttl: Self::TTL,
            protocol,
            checksum: sum.checksum(),
            src,
            dst,
        }
    }

    /// Sets both addresses and takes one from the TTL, which must not be 0. `delta` is that of the addresses.
    #[inline(always)]
    pub fn redirect(&mut self, src: [u8; 4], dst: [u8; 4], delta: Delta) {
        self.src = src;
        self.dst = dst;
        self.ttl -= 1;
        self.checksum = delta.and(Delta::TTL_DECREMENT).apply(self.checksum);
    }
}

const _: () = assert!(Ipv4::SIZE == 20 && align_of::<Ipv4>() == 1);
