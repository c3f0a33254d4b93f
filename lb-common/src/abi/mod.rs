//! The layouts of the maps, one file a family. Every type is `repr(C)`, has no padding the compiler chose and a size
//! asserted at compile time; names of maps are constants here and nowhere else.

mod address;
mod admission;
mod backend;
mod control;
mod farm;
mod schedule;
mod service;

pub use address::{Address, FlowKey, MappedAddress, Port, map_ipv4};
pub use admission::{
    Admission, FarmCounters, LIST_ALLOWS, LIST_BITS, LIST_DENIES, ListKey, Listed, OVER_DROPS, OVER_REFUSES,
    Turned,
};
pub use backend::{
    BACKEND_AFFINE, BACKEND_COUNTED, BACKEND_LISTED, BACKEND_LIVES, BACKEND_PACED, BACKEND_RETURNS,
    BACKEND_SERVES, BACKEND_TAKES, BACKEND_TRIED, BACKEND_UNCHECKED, BackendCounters, BackendEntry,
    BackendLabel, Label, NextHop, Path, TimeoutTicks,
};
pub use control::*;
pub use farm::{
    FARM_ADMITS, FARM_AFFINE, FARM_LATE, FARM_REFUSES, FarmEntry, MODE_DNAT, MODE_DSR, MODE_GUE, MODE_IPIP,
    MODE_NAT, MaglevTable, NO_TABLE, TABLE_SIZE, is_direct, is_tunnel,
};
pub use schedule::{
    Rules, SCHEDULER_LEAST_CONNECTIONS, SCHEDULER_MAGLEV, SCHEDULER_SOURCE, SCHEDULER_TURNS, Schedule,
    forgets,
};
pub use service::{
    ADDRESS_BACKEND, ADDRESS_ECHO, ADDRESS_MANAGED, ADDRESS_VIP, AddressFilter, ServiceEntry, ServiceKey,
    WILDCARD_PORT,
};

/// The version of everything in this module. Maps are pinned under it; a daemon adopts those of its own version.
pub const LAYOUT_VERSION: u32 = 2;

/// Names of the maps, as the kernel and the pins know them (at most 15 bytes).
pub mod map {
    /// `u32` index 0 -> [`super::AddressFilter`].
    pub const ADDRESS_FILTER: &str = "ADDRESS_FILTER";
    /// [`super::MappedAddress`] -> `u32` flags `ADDRESS_*`.
    pub const ADDRESSES: &str = "ADDRESSES";
    /// [`super::ServiceKey`] -> [`super::ServiceEntry`].
    pub const SERVICES: &str = "SERVICES";
    /// farm id -> [`super::FarmEntry`].
    pub const FARMS: &str = "FARMS";
    /// A hash -> [`crate::affinity::Bucket`].
    pub const AFFINITIES: &str = "AFFINITIES";
    /// backend id, or [`super::BACKENDS_MAX`] and a farm's -> [`crate::load::Load`].
    pub const LOADS: &str = "LOADS";
    /// farm id -> [`super::Schedule`].
    pub const SCHEDULES: &str = "SCHEDULES";
    /// farm id -> [`super::Label`]. User space alone reads it.
    pub const FARM_LABELS: &str = "FARM_LABELS";
    /// farm id -> [`super::Admission`].
    pub const ADMISSIONS: &str = "ADMISSIONS";
    /// Bits that count, [`super::Listed`] -> `u32` `LIST_*`: all lists' prefixes.
    pub const LISTS: &str = "LISTS";
    /// farm id -> [`super::FarmCounters`], per CPU.
    pub const FARM_COUNTERS: &str = "FARM_COUNTERS";
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
    /// `u32` index 0 -> [`super::Control`].
    pub const CONTROL: &str = "CONTROL";
    /// VIP's number -> [`super::MappedAddress`]; zeros: the number is free.
    pub const VIPS: &str = "VIPS";
    /// The connection table of a family: line's number -> [`crate::table::RawLine`].
    pub const CONNECTIONS_V4: &str = "CONNECTIONS_V4";
    pub const CONNECTIONS_V6: &str = "CONNECTIONS_V6";
    /// A [`super::PortSet`] for each backend's number modulo [`super::PORT_SETS`], one after another: a word an entry.
    pub const PORTS: &str = "PORTS";
    /// [`crate::table::Occurrence`] -> `u64`, per CPU.
    pub const OCCURRENCES: &str = "OCCURRENCES";

    /// All of them.
    pub const ALL: &[&str] = &[
        ADDRESS_FILTER,
        ADDRESSES,
        SERVICES,
        FARMS,
        SCHEDULES,
        AFFINITIES,
        LOADS,
        FARM_LABELS,
        ADMISSIONS,
        LISTS,
        FARM_COUNTERS,
        MAGLEV,
        BACKENDS,
        BACKEND_LABELS,
        COUNTERS,
        VERDICTS,
        CONTROL,
        VIPS,
        CONNECTIONS_V4,
        CONNECTIONS_V6,
        PORTS,
        OCCURRENCES,
    ];
}

/// The program's name in the object.
pub const PROGRAM: &str = "drover";
/// The name of the one that explains packets.
pub const EXPLAINING_PROGRAM: &str = "explain";

/// Most farms at once.
pub const FARMS_MAX: u32 = 512;
/// Maglev tables: one a farm, and spare ones so that a table is reused long after its last reader.
pub const TABLES_MAX: u32 = FARMS_MAX + 64;
/// Most backends at once, those included that no farm has any more but connections still use.
pub const BACKENDS_MAX: u32 = 16384;
/// Those whose load is known: backends, and room for farms.
pub const LOADS_MAX: u32 = BACKENDS_MAX + FARMS_MAX;
/// Most `(VIP, protocol, port)` at once.
pub const SERVICES_MAX: u32 = 131_072;
/// Most VIPs and addresses of backends at once.
pub const ADDRESSES_MAX: u32 = 32_768;
/// Most VIPs, those included that no farm has any more but connections still use.
pub const VIPS_MAX: u32 = 32_768;

/// Most prefixes in all lists together: those of a configuration twice, since the lists of the one to come are written beside
/// those in force.
pub const PREFIXES_MAX: u32 = 1 << 20;

/// Which source ports towards a backend established connections have, a bit each: a hint where to look for a free one.
/// The connection table is the truth.
pub type PortSet = [u64; 1024];
/// How many of them there are; backends share them if there are more.
pub const PORT_SETS: u32 = 512;

/// The unit of time in the maps. The daemon writes the clock; the kernel only reads it, which costs no helper.
pub const TICK_MILLISECONDS: u32 = 100;
