//! Clients that keep the backend that they had.

use std::time::Duration;

/// A source keeps the backend it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Affinity {
    /// After its last connection.
    pub timeout: Duration,
    /// Sources are one if so many leading bits of their addresses are the same: 1 to 32, and 1 to 128.
    pub prefix_v4: u8,
    pub prefix_v6: u8,
}

impl Default for Affinity {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30 * 60), prefix_v4: 32, prefix_v6: 128 }
    }
}
