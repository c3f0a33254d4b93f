//! What a change of the configuration comes to.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::handle;

/// What a change of the configuration did; for a dry run, what it would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changes {
    /// The generation in force afterwards (for a dry run: in force now).
    pub config_generation: u64,
    /// One line for people each; none: nothing changes.
    pub changes: Vec<String>,
    /// Live connections to backends that the configuration no longer has. They go on until they end.
    pub orphaned_connections: u64,
    /// Of a dry run: whose live connections would be orphaned or cut; whoever is not here keeps all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub affected: Vec<AffectedBackend>,
}

/// What would become of a backend's live connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AffectedBackend {
    pub farm: String,
    pub backend: String,
    /// They would go on until they end; datagrams' senders move at their next pause.
    pub orphaned: u64,
    /// They would be cut, since their VIP goes.
    pub cut: u64,
}

impl From<handle::Changes> for Changes {
    fn from(of: handle::Changes) -> Self {
        Self {
            config_generation: of.generation,
            changes: of.lines,
            orphaned_connections: of.orphaned_connections,
            affected: of.affected.into_iter().map(AffectedBackend::from).collect(),
        }
    }
}

impl From<handle::Affected> for AffectedBackend {
    fn from(of: handle::Affected) -> Self {
        let handle::Affected { farm, backend, orphaned, cut } = of;
        Self { farm: farm.to_string(), backend: backend.to_string(), orphaned, cut }
    }
}
