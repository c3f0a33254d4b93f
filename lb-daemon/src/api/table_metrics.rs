//! The connection tables' part of the metrics.

use std::fmt;

use lb_core::state::tables::{Table, measures};
use lb_core::state::{Occurrences, Tables};

use super::metrics::Writer;

pub(super) fn write(tables: &Tables, occurrences: &Occurrences, to: &mut Writer<'_>) -> fmt::Result {
    let each = |value: fn(&Table) -> u64| {
        tables.families.iter().map(move |table| ([("family", table.family)], value(table)))
    };
    to.gauges("table_lines", "Lines of the connection table", each(|table| table.lines))?;
    let help = "Lines of the connection table that are used; a connection takes two";
    to.gauges("table_lines_used", help, each(|table| table.used))?;
    to.gauge("table_bytes", "Memory of the connection tables", tables.bytes)?;
    let in_force = tables.families.iter().flat_map(|table| {
        let labels = move |name| [("family", table.family), ("measure", name)];
        measures().map(move |(bit, name, _)| (labels(name), u64::from(table.policy & bit != 0)))
    });
    let help = "1 for what is done at present to keep room for new connections, 0 for the rest";
    to.gauges("table_measure", help, in_force)?;
    let help = "Look-ups that had to look away from a flow's home line";
    to.counter("table_lookups_away", help, occurrences.away)?;
    let help = "New connections for which there was no line in the connection table";
    to.counter("table_refused", help, occurrences.full)?;
    to.counter("table_evicted", "New connections that took another one's line", occurrences.evicted)?;
    let help = "New connections that took the source port of one that was half-open or closed";
    to.counter("table_ports_taken", help, occurrences.ports_taken)
}
