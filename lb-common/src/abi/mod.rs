//! The layouts of the maps, one file a family. Every type is `repr(C)`, has no padding the compiler chose and a size
//! asserted at compile time; names of maps are constants here and nowhere else.

mod address;
mod backend;
mod connection;
mod farm;
mod service;

pub use address::{Address, FlowKey, MappedAddress, Port, map_ipv4};
pub use backend::{BackendCounters, BackendEntry, BackendLabel, Label, NextHop};
pub use connection::Connection;
pub use farm::{FarmEntry, MaglevTable, NO_TABLE, TABLE_SIZE};
pub use service::{ADDRESS_BACKEND, ADDRESS_MANAGED, ADDRESS_VIP, AddressFilter, ServiceKey, WILDCARD_PORT};

/// The version of everything in this module. Maps are pinned under it; a daemon adopts those of its own version.
pub const LAYOUT_VERSION: u32 = 1;

/// Names of the maps, as the kernel and the pins know them (at most 15 bytes).
pub mod map {
    /// `u32` index 0 -> [`super::AddressFilter`].
    pub const ADDRESS_FILTER: &str = "ADDRESS_FILTER";
    /// [`super::MappedAddress`] -> `u32` flags `ADDRESS_*`.
    pub const ADDRESSES: &str = "ADDRESSES";
    /// [`super::ServiceKey`] -> `u32` farm id.
    pub const SERVICES: &str = "SERVICES";
    /// farm id -> [`super::FarmEntry`].
    pub const FARMS: &str = "FARMS";
    /// farm id -> [`super::Label`]. User space alone reads it.
    pub const FARM_LABELS: &str = "FARM_LABELS";
    /// table number -> [`super::MaglevTable`].
    pub const MAGLEV: &str = "MAGLEV";
    /// backend id -> [`super::BackendEntry`].
    pub const BACKENDS: &str = "BACKENDS";
    /// backend id -> [`super::BackendLabel`]. User space alone reads it.
    pub const BACKEND_LABELS: &str = "BACKEND_LABELS";
    /// backend id -> [`super::BackendCounters`], per CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// verdict -> `u64` packets, per CPU.
    pub const VERDICTS: &str = "VERDICTS";
    /// `u32` index 0 -> `u32` time in ticks.
    pub const CLOCK: &str = "CLOCK";
    /// [`super::FlowKey`] -> [`super::Connection`], the ones with a complete handshake.
    pub const CONNECTIONS_V4: &str = "CONNECTIONS_V4";
    pub const CONNECTIONS_V6: &str = "CONNECTIONS_V6";
    /// The same, half open: a table of their own, where a flood can only evict its like.
    pub const OPENING_V4: &str = "OPENING_V4";
    pub const OPENING_V6: &str = "OPENING_V6";

    /// All of them.
    pub const ALL: &[&str] = &[
        ADDRESS_FILTER,
        ADDRESSES,
        SERVICES,
        FARMS,
        FARM_LABELS,
        MAGLEV,
        BACKENDS,
        BACKEND_LABELS,
        COUNTERS,
        VERDICTS,
        CLOCK,
        CONNECTIONS_V4,
        CONNECTIONS_V6,
        OPENING_V4,
        OPENING_V6,
    ];
}

/// The program's name in the object.
pub const PROGRAM: &str = "drover";

/// Most farms at once.
pub const FARMS_MAX: u32 = 512;
/// Maglev tables: one a farm, and spare ones so that a table is reused long after its last reader.
pub const TABLES_MAX: u32 = FARMS_MAX + 64;
/// Most backends at once, those included that no farm has any more but connections still use.
pub const BACKENDS_MAX: u32 = 16384;
/// Most `(VIP, protocol, port)` at once.
pub const SERVICES_MAX: u32 = 131_072;
/// Most VIPs and addresses of backends at once.
pub const ADDRESSES_MAX: u32 = 32_768;
/// Most half-open connections, per address family.
pub const OPENING_MAX: u32 = 65_536;

/// The unit of time in the maps. The daemon writes the clock; the kernel only reads it, which costs no helper.
pub const TICK_MILLISECONDS: u32 = 100;
