//! Farms and their Maglev tables.

/// Slots of a Maglev table: a prime, as the algorithm asks, and enough that 100 backends differ by about 1%.
pub const TABLE_SIZE: u32 = 16381;

/// A farm without a table has no backend that serves.
pub const NO_TABLE: u32 = u32::MAX;

/// A farm as the data plane sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct FarmEntry {
    /// Its Maglev table, or [`NO_TABLE`].
    pub table: u32,
    /// 1 in mode `nat`: packets to backends carry the VIP as source. 0 in mode `dnat`.
    pub source_is_vip: u16,
    /// 1: while nobody serves, clients are told so (a reset, an ICMP error). 0: they get no answer.
    pub refuse: u16,
}

impl Default for FarmEntry {
    fn default() -> Self {
        Self { table: NO_TABLE, source_is_vip: 0, refuse: 0 }
    }
}

/// Which backend serves a flow, by the flow's hash: backend ids.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct MaglevTable {
    pub slots: [u16; TABLE_SIZE as usize],
    pub reserved: [u16; 3],
}

const _: () = assert!(size_of::<FarmEntry>() == 8 && size_of::<MaglevTable>() == 32768);

#[cfg(feature = "user")]
// SAFETY: a u32 and two u16, no padding.
unsafe impl aya::Pod for FarmEntry {}
#[cfg(feature = "user")]
// SAFETY: u16 throughout.
unsafe impl aya::Pod for MaglevTable {}
