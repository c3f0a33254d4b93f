//! Limits of a whole configuration, and of what follows from it.

/// The most farms of a configuration.
pub const FARMS_MAX: usize = 512;
/// The most backends of a configuration, in all farms together.
pub const BACKENDS_MAX: usize = 8192;
/// The most combinations of VIP, protocol and port of a configuration; all ports (`"*"`) count as one.
pub const SERVICES_MAX: usize = 131_072;
/// The most ports on which a farm's backends are checked unless a check names its port.
pub const CHECKED_PORTS_MAX: usize = 64;
