//! Limits of a whole configuration, and of what follows from it.

/// The most farms of a configuration.
pub const FARMS_MAX: usize = 512;
/// The most backends of a configuration, in all farms together.
pub const BACKENDS_MAX: usize = 8192;
/// The most combinations of VIP, protocol and port of a configuration; all ports (`"*"`) count as one.
pub const SERVICES_MAX: usize = 131_072;
/// The most prefixes in the lists of one farm.
pub const LIST_MAX: usize = 100_000;
/// The most prefixes of a configuration, in all lists that differ: the maps hold those of two configurations, and what is said of
/// each family.
pub const PREFIXES_MAX: usize = lb_common::abi::PREFIXES_MAX as usize / 2 - 2 * FARMS_MAX;
/// The most ports on which a farm's backends are checked unless a check names its port.
pub const CHECKED_PORTS_MAX: usize = 64;
