//! The link-layer addresses of those on our links.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use super::Netlink;
use super::routes::family;

/// An entry of the kernel's neighbour table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    pub mac: Option<[u8; 6]>,
    /// Whether packets may be sent to `mac`.
    pub usable: bool,
    /// Whether the kernel does nothing to resolve or confirm it unless asked: it has failed, or is stale.
    pub idle: bool,
}

impl Netlink {
    /// Every entry of the neighbour tables of both families, by interface and address.
    pub async fn neighbours(&self) -> io::Result<HashMap<(u32, IpAddr), Neighbour>> {
        let question = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let answers = self.dump(question).await?;
        let entry = |message| {
            if let RouteNetlinkMessage::NewNeighbour(message) = message { parse(&message) } else { None }
        };
        Ok(answers.into_iter().filter_map(entry).collect())
    }

    /// Makes the kernel resolve `addr` on a link, or confirm what it knows, as if this host had a packet for it. A
    /// confirmed or a permanent entry stays as it is. Does not wait for the outcome: the change is told.
    pub async fn probe(&self, ifindex: u32, addr: IpAddr) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(addr).0;
        message.header.ifindex = ifindex;
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::Destination(addr.into()));
        self.ask(RouteNetlinkMessage::NewNeighbour(message), NLM_F_ACK | NLM_F_CREATE).await?;
        Ok(())
    }

    /// The same for many.
    pub async fn probes(&self, of: &[(u32, IpAddr)]) -> Vec<((u32, IpAddr), io::Result<()>)> {
        self.each(of, |(ifindex, addr)| self.probe(ifindex, addr)).await
    }
}

fn parse(message: &NeighbourMessage) -> Option<((u32, IpAddr), Neighbour)> {
    use NeighbourState as S;
    let (mut addr, mut mac) = (None, None);
    for attribute in &message.attributes {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) = attribute {
            addr = Some(IpAddr::V4(*v4));
        } else if let NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) = attribute {
            addr = Some(IpAddr::V6(*v6));
        } else if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
            mac = <[u8; 6]>::try_from(bytes.as_slice()).ok();
        }
    }
    let state = message.header.state;
    let good = matches!(state, S::Reachable | S::Stale | S::Delay | S::Probe | S::Permanent | S::Noarp);
    let idle = matches!(state, S::Stale | S::Failed | S::None);
    Some(((message.header.ifindex, addr?), Neighbour { mac, usable: good && mac.is_some(), idle }))
}
