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
    /// `MODE_*`: how its packets reach a backend.
    pub mode: u8,
    /// `SCHEDULER_*`: how a backend is chosen for a new connection.
    pub scheduler: u8,
    /// `FARM_*`.
    pub flags: u16,
}

/// Packets to backends carry the client's address as source and the backend's as destination.
pub const MODE_DNAT: u8 = 0;
/// They carry the VIP as source and the backend's address as destination.
pub const MODE_NAT: u8 = 1;

/// They are as they came, in a frame for the backend, who has the VIP himself and answers the client. So in all modes from here on.
pub const MODE_DSR: u8 = 2;

/// They are in a packet to its own address, IP in IP (RFC 2003, RFC 2473, RFC 4213).
pub const MODE_IPIP: u8 = 3;
/// The same, with UDP and GUE (draft-ietf-intarea-gue, variant 0) in between.
pub const MODE_GUE: u8 = 4;

/// Whether packets are wrapped on their way to the backend.
#[inline(always)]
pub const fn is_tunnel(mode: u8) -> bool {
    mode >= MODE_IPIP
}

/// Whether the backend answers its clients itself: its part of a connection is not seen.
#[inline(always)]
pub const fn is_direct(mode: u8) -> bool {
    mode >= MODE_DSR
}

/// While nobody serves, clients are told so (a reset, an ICMP error). Without it they get no answer.
pub const FARM_REFUSES: u16 = 1;
/// Its backend is chosen only when it is known that no line holds the flow: choosing leaves a trace, or takes long.
pub const FARM_LATE: u16 = 2;
/// Its sources keep the backend that they had: so somebody may be served though it has no table. Such a farm is late, too.
pub const FARM_AFFINE: u16 = 4;

/// Not everybody may come: its newcomers have to meet an [`Admission`](super::Admission).
pub const FARM_ADMITS: u16 = 8;

const _: () = assert!(
    FARM_REFUSES + FARM_LATE + FARM_AFFINE + FARM_ADMITS
        == FARM_REFUSES | FARM_LATE | FARM_AFFINE | FARM_ADMITS,
    "each has a bit of its own"
);

impl Default for FarmEntry {
    fn default() -> Self {
        Self { table: NO_TABLE, mode: MODE_DNAT, scheduler: 0, flags: 0 }
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
// SAFETY: a u32, two u8 and a u16, no padding.
unsafe impl aya::Pod for FarmEntry {}
#[cfg(feature = "user")]
// SAFETY: u16 throughout.
unsafe impl aya::Pod for MaglevTable {}
