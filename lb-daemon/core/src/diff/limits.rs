//! What of a farm's limits the program is to know.

use lb_common::abi::{Admission, OVER_DROPS, OVER_REFUSES};

use crate::config::model::{Limits, Over, Scheduler};
use crate::desired::DesiredFarm;

/// What a farm's newcomers have to meet; the default: nothing.
pub(super) fn admission(farm: &DesiredFarm) -> Admission {
    let Limits { connections, new_per_second, over } = farm.limits;
    let limited = farm.limits.are_some();
    Admission {
        list: farm.list,
        rate: new_per_second.unwrap_or(0),
        connections: connections.unwrap_or(0),
        over: if limited && over == Over::Refuse { OVER_REFUSES } else { OVER_DROPS },
        ..Admission::default()
    }
}

/// Whether it matters how many connections a farm and its backends have.
pub(super) fn counts(farm: &DesiredFarm) -> bool {
    farm.scheduler == Scheduler::LeastConnections || farm.limits.connections.is_some()
}
