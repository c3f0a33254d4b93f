//! Turns a packet of one flow into a packet of the other side's.

use lb_common::rewrite::Translation;
use lb_common::verdict::Verdict;
use lb_common::wire::{Ethernet, protocol};

use crate::context::Frame;
use crate::maps::Family;
use crate::parse::Packet;

/// Rewrites addresses, ports, TTL and checksums. Headers are known to be whole; the verifier wants to see it again.
#[inline(always)]
pub fn translate<F: Family>(
    frame: &mut Frame,
    packet: &Packet<F::Addr>,
    to: &Translation<F::Addr>,
) -> Result<(), Verdict> {
    if packet.key.protocol == protocol::TCP {
        to.tcp(frame.edit(packet.transport).ok_or(Verdict::TruncatedTransport)?);
    } else {
        to.udp(frame.edit(packet.transport).ok_or(Verdict::TruncatedTransport)?);
    }
    to.ip::<F::Header>(frame.edit(Ethernet::SIZE).ok_or(Verdict::TruncatedIp)?);
    Ok(())
}
