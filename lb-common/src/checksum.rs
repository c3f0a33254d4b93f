//! Incremental updates of the Internet checksum (RFC 1624, equation 3: `HC' = ~(~HC + ~m + m')`).
//!
//! All words are taken in the machine's own byte order: the one's-complement sum does not depend on it as long
//! as it is the same everywhere (RFC 1071, section 2).

/// The part of an update that does not depend on the old checksum: the one's-complement sum of `~m + m'` over every
/// word that changes. Deltas of independent changes add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Delta(u16);

impl Delta {
    /// What decrementing the TTL does to the header checksum of IPv4: the byte after it stays, whatever it is.
    pub const TTL_DECREMENT: Self = Self(u16::from_ne_bytes([0xfe, 0xff]));

    /// Nothing changes.
    pub const ZERO: Self = Self(0);

    /// As it is kept elsewhere, in the machine's own byte order.
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }
    #[inline(always)]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    /// Replacing `old` by `new`; `N` is 2 or a multiple of 4. Summing by wider words gives the same (RFC 1071, section 2).
    #[inline(always)]
    pub fn replace<const N: usize>(old: &[u8; N], new: &[u8; N]) -> Self {
        const { assert!(N == 2 || N.is_multiple_of(4)) };
        if N == 2 {
            let (old, new) = (u16::from_ne_bytes([old[0], old[1]]), u16::from_ne_bytes([new[0], new[1]]));
            return Self(fold(u32::from(!old) + u32::from(new)));
        }
        let mut sum = 0u64;
        let mut at = 0;
        while at < N {
            sum += u64::from(!u32::from_ne_bytes([old[at], old[at + 1], old[at + 2], old[at + 3]]));
            sum += u64::from(u32::from_ne_bytes([new[at], new[at + 1], new[at + 2], new[at + 3]]));
            at += 4;
        }
        let sum = (sum & 0xffff_ffff) + (sum >> 32);
        Self(fold((sum & 0xffff) as u32 + (sum >> 16 & 0xffff) as u32 + (sum >> 32) as u32))
    }

    /// The sum of `bytes`: as if they had been zeros before.
    #[inline(always)]
    pub fn of<const N: usize>(bytes: &[u8; N]) -> Self {
        Self::replace(&[0; N], bytes)
    }

    /// The checksum of everything summed, as it stands on the wire.
    #[inline(always)]
    pub fn checksum(self) -> [u8; 2] {
        (!self.0).to_ne_bytes()
    }

    /// Both changes together.
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        Self(fold(u32::from(self.0) + u32::from(other.0)))
    }

    /// The checksum field after the change.
    #[inline(always)]
    pub fn apply(self, field: [u8; 2]) -> [u8; 2] {
        let sum = u32::from(!u16::from_ne_bytes(field)) + u32::from(self.0);
        (!fold(sum)).to_ne_bytes()
    }
}

/// Folds a sum of 16-bit words, fewer than 2^16 of them, into one's complement.
#[inline(always)]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The Internet checksum (RFC 1071) of `parts` one after another, as it stands on the wire. Every part but the
/// last must be of even length.
pub fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0u64;
    for part in parts {
        let mut words = part.chunks_exact(2);
        for word in words.by_ref() {
            sum += u64::from(u16::from_be_bytes([word[0], word[1]]));
        }
        if let [last] = words.remainder() {
            sum += u64::from(*last) << 8;
        }
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_1624_section_4_example() {
        // HC = 0xDD2F, m = 0x5555, m' = 0x3285 gives 0x0000 by equation 3.
        let delta = Delta::replace(&[0x55, 0x55], &[0x32, 0x85]);
        assert_eq!(delta.apply([0xdd, 0x2f]), [0x00, 0x00]);
    }

    #[test]
    fn rfc_1071_section_3_example() {
        let sum = checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]);
        assert_eq!(sum, (!0xddf2u16).to_be_bytes());
    }

    proptest! {
        #[test]
        fn a_sum_of_parts_is_the_checksum(a in any::<[u8; 12]>(), b in any::<[u8; 16]>(), c in any::<[u8; 2]>()) {
            let parts = Delta::of(&a).and(Delta::of(&b)).and(Delta::of(&c));
            prop_assert_eq!(parts.checksum(), checksum(&[&a, &b, &c]));
        }

        #[test]
        fn an_update_equals_a_new_sum(
            mut packet in proptest::collection::vec(any::<u8>(), 40..=40),
            new in any::<[u8; 8]>(),
            ttl in 1u8..,
        ) {
            packet[8] = ttl;
            packet[10] = 0;
            packet[11] = 0;
            let before = checksum(&[&packet]);
            let old: [u8; 8] = packet[12..20].try_into().unwrap();
            packet[12..20].copy_from_slice(&new);
            packet[8] = ttl - 1;
            let delta = Delta::replace(&old, &new).and(Delta::TTL_DECREMENT);
            let after = checksum(&[&packet]);
            let updated = delta.apply(before);
            // 0x0000 and 0xffff are the same number in one's complement.
            let same = updated == after || (updated == [0xff, 0xff] && after == [0, 0])
                || (updated == [0, 0] && after == [0xff, 0xff]);
            prop_assert!(same, "{updated:?} {after:?}");
        }
    }
}
