//! Whether a farm that does not take everybody takes this newcomer. Only farms with [`FARM_ADMITS`](lb_common::abi::FARM_ADMITS)
//! come here, and only their packets that belong to no connection: what is established goes on.

use lb_common::abi::{Address, LIST_ALLOWS, ListKey, Turned};
use lb_common::trace::Decision;
use lb_common::verdict::Verdict;

use crate::explain;
use crate::maps;
use crate::work::Outcome;

/// Asks the farm's list, if it has one, for a packet's source: the longest prefix decides, and one of the whole family is always
/// there. `listed` is where the question is put: the stack is short.
#[inline(always)]
pub fn admit<A: Address>(source: &A, listed: &mut ListKey, farm: u16) -> Outcome {
    let list = maps::admission(farm).ok_or(Verdict::Inconsistent)?.list;
    if list == 0 {
        return Ok(());
    }
    *listed = ListKey::of(list, source.mapped());
    let said = maps::listed(listed).ok_or(Verdict::Inconsistent)?;
    explain::decided(Decision::Listed, u64::from(said));
    if said == LIST_ALLOWS {
        return Ok(());
    }
    maps::count_turned(farm, Turned::Denied);
    Err(Verdict::Denied)
}
