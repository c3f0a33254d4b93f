//! Who may open connections to a farm: what only farms with [`FARM_ADMITS`](super::FARM_ADMITS) have.

use super::MappedAddress;

/// What newcomers of a farm have to meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Admission {
    /// The list that says who may come; 0: everybody. One word, so that nobody ever meets two lists' halves.
    pub list: u64,
    /// New connections a second; 0: as many as come.
    pub rate: u32,
    /// `OVER_*`: what becomes of more.
    pub over: u32,
    /// Connections at a time; 0: as many as come.
    pub connections: u32,
    pub reserved_too: u32,
    pub reserved: [u64; 5],
}

/// They are dropped.
pub const OVER_DROPS: u32 = 0;
/// They are answered as whoever finds nobody to serve him.
pub const OVER_REFUSES: u32 = 1;

/// One prefix of one list, as the kernel's trie has it. The list comes first: of another list nothing ever matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Listed(pub [u8; 24]);

impl Listed {
    pub const fn new(list: u64, address: MappedAddress) -> Self {
        let [a, b, c, d, e, f, g, h] = list.to_ne_bytes();
        let [i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x] = address;
        Self([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x])
    }

    pub const fn list(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }
}

/// Bits of a [`Listed`] before its address.
pub const LIST_BITS: u32 = 64;

/// A whole key of the trie: how many bits count, and a [`Listed`]; in words, since the program writes it for each newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct ListKey {
    pub bits: u32,
    pub words: [u32; 6],
}

impl ListKey {
    /// For a look at what a list says of one address.
    #[inline(always)]
    pub const fn of(list: u64, address: MappedAddress) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
        let words = [
            list as u32,
            (list >> 32) as u32,
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ];
        Self { bits: LIST_BITS + 128, words }
    }
}

/// What a list says of a prefix.
pub const LIST_DENIES: u32 = 0;
pub const LIST_ALLOWS: u32 = 1;

/// What a farm has turned away, on one CPU, by [`Turned`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct FarmCounters {
    pub turned: [u64; Turned::ROOM],
}

/// Why a newcomer was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Turned {
    /// By the farm's lists.
    Denied = 0,
    /// More come in a second than may.
    Rate = 1,
    /// It has as many connections as it may.
    Connections = 2,
}

impl Turned {
    /// How many counters there are: some for reasons to come.
    pub const ROOM: usize = 8;
    /// All of them, in the order of their numbers.
    pub const ALL: &[Self] = &[Self::Denied, Self::Rate, Self::Connections];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Rate => "limit_rate",
            Self::Connections => "limit_connections",
        }
    }
}

const _: () = assert!(size_of::<Admission>() == 64 && size_of::<FarmCounters>() == 64);
const _: () = assert!(size_of::<Listed>() + 4 == size_of::<ListKey>());

#[cfg(feature = "user")]
// SAFETY: u64 and u32, no padding (8+4+4+4+4+40).
unsafe impl aya::Pod for Admission {}
#[cfg(feature = "user")]
// SAFETY: bytes.
unsafe impl aya::Pod for Listed {}
#[cfg(feature = "user")]
// SAFETY: u64 throughout.
unsafe impl aya::Pod for FarmCounters {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_key_is_what_the_daemon_writes() {
        let address = core::array::from_fn(|i| i as u8 + 1);
        let key = ListKey::of(0x0102_0304_0506_0708, address);
        let listed = Listed::new(0x0102_0304_0506_0708, address);
        let bytes: std::vec::Vec<u8> = key.words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(bytes, listed.0);
        assert_eq!(listed.list(), 0x0102_0304_0506_0708);
        assert_eq!(key.bits, 8 * 24);
    }
}
