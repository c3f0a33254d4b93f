//! Which farm serves a VIP, protocol and port; and which addresses concern Drover at all.

use super::{MappedAddress, Port};

/// In a [`ServiceKey`]: any port that has no key of its own.
pub const WILDCARD_PORT: Port = [0, 0];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(4))]
pub struct ServiceKey {
    pub vip: MappedAddress,
    pub port: Port,
    pub protocol: u8,
    zero: u8,
}

impl ServiceKey {
    #[inline(always)]
    pub const fn new(vip: MappedAddress, port: Port, protocol: u8) -> Self {
        Self { vip, port, protocol, zero: 0 }
    }
}

/// Who serves a [`ServiceKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct ServiceEntry {
    /// The farm's number.
    pub farm: u16,
    /// The VIP's number, by which connections of IPv6 name it.
    pub vip: u16,
}

/// The address is a VIP.
pub const ADDRESS_VIP: u32 = 1;
/// The address is a backend's.
pub const ADDRESS_BACKEND: u32 = 2;
/// The daemon has put the VIP on an interface and takes it away again.
pub const ADDRESS_MANAGED: u32 = 4;
/// Whoever asks the VIP for an echo gets one.
pub const ADDRESS_ECHO: u32 = 8;

/// Says quickly which addresses certainly do not concern Drover: a bit set by a hash of the address, without false
/// negatives. Packets of other services leave after reading two bits.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct AddressFilter {
    bits: [u64; Self::WORDS],
}

impl AddressFilter {
    const WORDS: usize = 1024;

    pub const EMPTY: Self = Self { bits: [0; Self::WORDS] };

    /// Word and bit of an address.
    #[inline(always)]
    fn place(hash: u64) -> (usize, u64) {
        let top = (hash >> 48) as u16;
        (usize::from(top >> 6), 1 << (top & 63))
    }

    #[inline(always)]
    pub fn may_contain<A: super::Address>(&self, address: &A) -> bool {
        let (word, bit) = Self::place(address.digest());
        self.bits[word] & bit != 0
    }

    pub fn insert<A: super::Address>(&mut self, address: &A) {
        let (word, bit) = Self::place(address.digest());
        self.bits[word] |= bit;
    }
}

const _: () = assert!(size_of::<ServiceKey>() == 20 && size_of::<ServiceEntry>() == 4);
const _: () = assert!(size_of::<AddressFilter>() == 8192);

#[cfg(feature = "user")]
// SAFETY: bytes, no padding (16+2+1+1).
unsafe impl aya::Pod for ServiceKey {}
#[cfg(feature = "user")]
// SAFETY: two u16, no padding.
unsafe impl aya::Pod for ServiceEntry {}
#[cfg(feature = "user")]
// SAFETY: u64 throughout.
unsafe impl aya::Pod for AddressFilter {}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6([a, b, c, d]: [u8; 4], [e, f]: [u8; 2]) -> [u8; 16] {
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, e, f]
    }

    #[test]
    fn the_filter_forgets_nobody_and_lets_few_others_in() {
        let mut filter = AddressFilter::EMPTY;
        for i in 0..100u8 {
            filter.insert(&[192, 0, 2, i]);
            filter.insert(&v6([0x20, 1, 0xd, 0xb8], [0, i]));
        }
        assert!((0..100u8).all(|i| filter.may_contain(&[192, 0, 2, i])));
        assert!((0..100u8).all(|i| filter.may_contain(&v6([0x20, 1, 0xd, 0xb8], [0, i]))));
        for prefix in [[0x20, 1, 0xd, 0xb8], [0xfd, 0, 0, 1], [0xfe, 0x80, 0, 0]] {
            let strangers = (0x100..=u16::MAX).filter(|i| filter.may_contain(&v6(prefix, i.to_be_bytes())));
            let strangers = strangers.count();
            assert!(strangers < 65536 / 200, "{prefix:?}: {strangers}");
        }
        let strangers = (0..=u16::MAX).filter(|i| {
            let [a, b] = i.to_be_bytes();
            filter.may_contain(&[10, 1, a, b])
        });
        assert!(strangers.count() < 65536 / 200);
    }
}
