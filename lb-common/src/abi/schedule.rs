//! What choosing a backend takes beyond a farm's table.

/// [`FarmEntry::scheduler`](super::FarmEntry::scheduler): the slot of the flow's hash.
pub const SCHEDULER_MAGLEV: u8 = 0;
/// The slots in turn.
pub const SCHEDULER_TURNS: u8 = 1;
/// The slot of the source's hash.
pub const SCHEDULER_SOURCE: u8 = 2;
/// Of two slots drawn at random, that of whoever has less to do.
pub const SCHEDULER_LEAST_CONNECTIONS: u8 = 3;

/// Whether nothing but a connection's line says whose it is.
#[inline(always)]
pub const fn forgets(scheduler: u8) -> bool {
    scheduler == SCHEDULER_TURNS || scheduler == SCHEDULER_LEAST_CONNECTIONS
}

/// What a farm's scheduler goes by. Mapped into the daemon, which writes the rules word by word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, align(64))]
pub struct Schedule {
    /// The daemon's.
    pub rules: Rules,
    /// Turns taken so far, counted by the program over every change of the table: no table begins with the same backend each time.
    pub turn: u32,
    pub reserved: [u32; 9],
}

/// What of a source's address counts, as masks in the order of the wire, and how long it keeps its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Rules {
    pub mask_v6: [u64; 2],
    pub mask_v4: u32,
    /// How long a source keeps the backend it had, in ticks; 0: a connection only.
    pub affinity: u32,
}

impl Rules {
    /// For so many leading bits of an address of IPv4, and of IPv6.
    pub const fn new(prefix_v4: u8, prefix_v6: u8) -> Self {
        // Leading bits of a number; all of it is shifted away for a prefix of 0.
        let (v4, v6) = (u32::MAX as u64, u128::MAX);
        let v4 = !(v4 >> prefix_v4) as u32;
        let v6 = if prefix_v6 >= 128 { v6 } else { !(v6 >> prefix_v6) };
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = v6.to_be_bytes();
        let first = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        let second = u64::from_ne_bytes([i, j, k, l, m, n, o, p]);
        Self { mask_v6: [first, second], mask_v4: v4.to_be(), affinity: 0 }
    }

    /// The mask for an address's [words](super::Address::words).
    #[inline(always)]
    pub const fn mask(&self, v4: bool) -> [u64; 2] {
        if v4 { [0, self.mask_v4 as u64] } else { self.mask_v6 }
    }
}

const _: () = assert!(size_of::<Schedule>() == 64 && size_of::<Rules>() == 24);

#[cfg(feature = "user")]
// SAFETY: integers, no padding (16+4+4).
unsafe impl aya::Pod for Rules {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Address as _;

    #[test]
    fn a_prefix_is_what_is_left_of_an_address() {
        let (v4, v6) = ([198u8, 51, 100, 0xff], [0xffu8; 16]);
        // (prefixes) -> what is left of the last byte of the one, and how many bits of the other.
        for (prefix_v4, prefix_v6, last, bits) in
            [(32, 128, 0xff, 128), (31, 127, 0xfe, 127), (24, 64, 0, 64), (25, 65, 0x80, 65), (0, 0, 0, 0)]
        {
            let rules = Rules::new(prefix_v4, prefix_v6);
            let [_, word] = v4.words();
            let [_, mask] = rules.mask(true);
            let bytes = ((word & mask) as u32).to_ne_bytes();
            assert_eq!(bytes[3], last, "/{prefix_v4}");
            assert_eq!(bytes[0], if prefix_v4 == 0 { 0 } else { 198 }, "/{prefix_v4}");
            let masked = [0, 1].map(|at: usize| v6.words()[at] & rules.mask(false)[at]);
            let leading = masked.iter().flat_map(|word| word.to_ne_bytes()).collect::<std::vec::Vec<u8>>();
            let number = u128::from_be_bytes(leading.try_into().unwrap());
            assert_eq!((number.leading_ones(), number.count_ones()), (bits, bits), "/{prefix_v6}");
        }
    }
}
