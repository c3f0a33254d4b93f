//! Addresses, ports and the key of a flow.

use crate::checksum::Delta;
use crate::hash::{SPREAD, mix};

/// A port as it stands on the wire.
pub type Port = [u8; 2];

/// An IPv6 address, or an IPv4 address mapped into IPv6 (RFC 4291, section 2.5.5.2).
pub type MappedAddress = [u8; 16];

/// What the two families' addresses have in common. Addresses are bytes as they stand on the wire.
pub trait Address: Copy + Eq + 'static {
    fn mapped(&self) -> MappedAddress;
    /// Copies the address. To be used on the fast path: an assignment of 16 bytes may become a call in a BPF program.
    fn copy_to(&self, to: &mut Self);
    /// Mixes the address into a hash.
    fn mix(&self, hash: u64) -> u64;
    /// A hash of the address by itself, good in its high bits, and quick.
    fn digest(&self) -> u64;
    /// What replacing `old` by `new` does to a checksum.
    fn delta(old: &Self, new: &Self) -> Delta;
    /// Its sum, for a pseudo-header.
    fn sum(&self) -> Delta;
    /// An address that no packet may come from: unspecified, loopback, multicast (RFC 1122, section 3.2.1.3; RFC
    /// 4291, section 2.7), and IPv4's broadcast.
    fn is_impossible_source(&self) -> bool;
    /// The address in two words; an IPv4 address in the second.
    fn words(&self) -> [u64; 2];
    /// An IPv4 address in IPv6's clothes (RFC 4291, section 2.5.5.2): it has no business on a wire, and is no VIP there.
    fn is_mapped(&self) -> bool;
}

#[inline(always)]
pub const fn map_ipv4([a, b, c, d]: [u8; 4]) -> MappedAddress {
    // By words, each made at once: the compiler would make a call of the ten zeros.
    let high = u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d]) as u128;
    if cfg!(target_endian = "little") { (high << 64).to_le_bytes() } else { high.to_be_bytes() }
}

impl Address for [u8; 4] {
    #[inline(always)]
    fn mapped(&self) -> MappedAddress {
        map_ipv4(*self)
    }
    #[inline(always)]
    fn copy_to(&self, to: &mut Self) {
        *to = *self;
    }
    #[inline(always)]
    fn mix(&self, hash: u64) -> u64 {
        mix(hash, u32::from_be_bytes(*self))
    }
    #[inline(always)]
    fn digest(&self) -> u64 {
        mix(0, u32::from_be_bytes(*self))
    }
    #[inline(always)]
    fn delta(old: &Self, new: &Self) -> Delta {
        Delta::replace(old, new)
    }
    #[inline(always)]
    fn sum(&self) -> Delta {
        Delta::of(self)
    }
    #[inline(always)]
    fn is_impossible_source(&self) -> bool {
        matches!(self[0], 0 | 127 | 224..=239) || *self == [255; 4]
    }
    #[inline(always)]
    fn words(&self) -> [u64; 2] {
        [0, u64::from(u32::from_ne_bytes(*self))]
    }
    #[inline(always)]
    fn is_mapped(&self) -> bool {
        false
    }
}

impl Address for [u8; 16] {
    #[inline(always)]
    fn mapped(&self) -> MappedAddress {
        *self
    }
    #[inline(always)]
    fn copy_to(&self, to: &mut Self) {
        to[..8].copy_from_slice(&self[..8]);
        to[8..].copy_from_slice(&self[8..]);
    }
    #[inline(always)]
    fn mix(&self, mut hash: u64) -> u64 {
        let mut at = 0;
        while at < 16 {
            hash = mix(hash, u32::from_be_bytes([self[at], self[at + 1], self[at + 2], self[at + 3]]));
            at += 4;
        }
        hash
    }
    #[inline(always)]
    fn digest(&self) -> u64 {
        let [high, low] = self.words();
        (high.wrapping_mul(SPREAD).rotate_left(32) ^ low).wrapping_mul(SPREAD)
    }
    #[inline(always)]
    fn words(&self) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *self;
        [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
    }
    #[inline(always)]
    fn delta(old: &Self, new: &Self) -> Delta {
        Delta::replace(old, new)
    }
    #[inline(always)]
    fn sum(&self) -> Delta {
        Delta::of(self)
    }
    #[inline(always)]
    fn is_impossible_source(&self) -> bool {
        // ::/127 holds the unspecified address and the loopback address.
        self[0] == 0xff || (self[..15] == [0; 15] && self[15] < 2)
    }
    #[inline(always)]
    fn is_mapped(&self) -> bool {
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *self;
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]) == 0 && [i, j, k, l] == [0, 0, 0xff, 0xff]
    }
}

/// What tells one direction of one connection from all others. Key of the connection tables. Aligned, for the kernel hashes
/// it by words and the verifier wants aligned accesses to the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct FlowKey<A> {
    pub src: A,
    pub dst: A,
    pub src_port: Port,
    pub dst_port: Port,
    pub protocol: u8,
    // Two fields: of three bytes the compiler would make a call.
    zero: u8,
    zeros: u16,
}

impl<A: Address> FlowKey<A> {
    #[inline(always)]
    pub const fn new(src: A, dst: A, src_port: Port, dst_port: Port, protocol: u8) -> Self {
        Self { src, dst, src_port, dst_port, protocol, zero: 0, zeros: 0 }
    }

    /// Makes this the other direction of `flow`, in place: for a BPF program, whose stack is short.
    #[inline(always)]
    pub fn set_reverse_of(&mut self, flow: &Self) {
        self.src = flow.dst;
        self.dst = flow.src;
        self.src_port = flow.dst_port;
        self.dst_port = flow.src_port;
        self.protocol = flow.protocol;
        (self.zero, self.zeros) = (0, 0);
    }

    /// The flow in the other direction.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self::new(self.dst, self.src, self.dst_port, self.src_port, self.protocol)
    }
}

impl FlowKey<[u8; 4]> {
    /// As it stands in memory: both addresses; ports and protocol. A program that took it apart by bytes would need a register
    /// for each.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 2] {
        // SAFETY: of the same size, without padding, and any bit pattern is valid.
        unsafe { core::mem::transmute(*self) }
    }
}

impl FlowKey<[u8; 16]> {
    /// As it stands in memory: source 2, destination 2; ports and protocol.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 5] {
        // SAFETY: as above.
        unsafe { core::mem::transmute(*self) }
    }
}

const _: () = assert!(size_of::<FlowKey<[u8; 4]>>() == 16 && size_of::<FlowKey<[u8; 16]>>() == 40);

#[cfg(feature = "user")]
// SAFETY: bytes throughout, so any bit pattern is valid and there is no padding (sizes asserted above).
unsafe impl aya::Pod for FlowKey<[u8; 4]> {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for FlowKey<[u8; 16]> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_sources() {
        for address in [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [239, 1, 1, 1], [255; 4]]
        {
            assert!(address.is_impossible_source(), "{address:?}");
        }
        for address in [[10, 0, 0, 1], [192, 0, 2, 1], [223, 255, 255, 255]] {
            assert!(!address.is_impossible_source(), "{address:?}");
        }
        let v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        for address in ["::", "::1", "ff02::1"] {
            assert!(v6(address).is_impossible_source(), "{address}");
        }
        for address in ["2001:db8::1", "fe80::1", "::ffff:10.0.0.1"] {
            assert!(!v6(address).is_impossible_source(), "{address}");
        }
    }
}
