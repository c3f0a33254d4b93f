//! The connection table, as the status tells of it.

use lb_core::state::tables::{self, policy_words};
use lb_core::state::{Occurrences, Tables};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The connection table. Each address family has one of its own, of the same size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionTable {
    /// The most connections that each family's table is meant for.
    pub connections: u32,
    /// Of memory, both families' together.
    pub bytes: u64,
    pub families: Vec<FamilyTable>,
    /// Look-ups that had to look away from a flow's home line, since the program was loaded.
    pub lookups_away: u64,
    /// New connections for which there was no line.
    pub refused: u64,
    /// New connections that took another one's line.
    pub evicted: u64,
    /// New connections that took the source port of one that was half-open or closed.
    pub ports_taken: u64,
}

/// A family's table, as of the last sweep, which takes about a second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FamilyTable {
    /// `ipv4` or `ipv6`.
    pub family: String,
    pub lines: u64,
    /// A connection takes two lines.
    pub lines_used: u64,
    /// Lines that are used, of all. From 80 on there is a warning among the events.
    pub load_percent: u64,
    /// What is done at present to keep room for new connections, in words; none in quiet times.
    pub measures: Vec<String>,
}

impl ConnectionTable {
    pub fn new(tables: &Tables, occurrences: &Occurrences) -> Self {
        Self {
            connections: tables.connections,
            bytes: tables.bytes,
            families: tables.families.iter().map(FamilyTable::new).collect(),
            lookups_away: occurrences.away,
            refused: occurrences.full,
            evicted: occurrences.evicted,
            ports_taken: occurrences.ports_taken,
        }
    }
}

impl FamilyTable {
    fn new(of: &tables::Table) -> Self {
        Self {
            family: of.family.to_owned(),
            lines: of.lines,
            lines_used: of.used,
            load_percent: of.load(),
            measures: policy_words(of.policy).into_iter().map(str::to_owned).collect(),
        }
    }
}
