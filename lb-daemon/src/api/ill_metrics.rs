//! What `/metrics` says of the daemon itself.

use std::fmt;

use lb_core::ills::Organ;

use super::metrics::Writer;
use crate::ills::Condition;

pub(super) fn write(condition: &Condition, to: &mut Writer<'_>) -> fmt::Result {
    let ills = Organ::ALL.map(|organ| {
        let ill = condition.ills.iter().any(|ill| ill.organ == organ);
        ([("ill", organ.as_str())], u64::from(ill))
    });
    to.gauges("ill", "1 for what is wrong with the daemon itself, 0 for the rest", ills)?;
    let help = "How long the daemon's loop took to answer, asked once a second";
    to.histogram("loop_latency_seconds", help, &condition.loop_latency)?;
    to.counter("log_lines_written", "Lines of the log that were written", condition.log_written)?;
    let help = "Lines of the log that were lost: they could not be written, or nobody took them";
    to.counter("log_lines_lost", help, condition.log_lost)?;
    let help = "Events that readers of the stream have missed, since they were too slow";
    to.counter("events_lost", help, condition.events_lost)?;
    let help = "Changes that hooks were not told of: too many waited, or the hook could not be run";
    to.counter("hooks_lost", help, condition.hooks_lost)?;
    let help = "How long ago the last sweep of the connection tables ended";
    to.gauge("sweep_age_seconds", help, condition.sweep_age.as_secs())
}
