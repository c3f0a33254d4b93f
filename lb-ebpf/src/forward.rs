//! Addresses a frame to its next hop.

use lb_common::abi::NextHop;
use lb_common::verdict::Verdict;
use lb_common::wire::Ethernet;

use crate::context::Frame;

/// Sets the Ethernet addresses and returns the interface to leave by.
#[inline(always)]
pub fn address(frame: &mut Frame, hop: &NextHop) -> Result<u32, Verdict> {
    let ethernet = frame.edit::<Ethernet>(0).ok_or(Verdict::NotIp)?;
    ethernet.address(&hop.destination, &hop.source);
    Ok(hop.ifindex)
}
