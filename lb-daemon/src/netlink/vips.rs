//! VIPs on interfaces.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};

use super::routes::family;
use super::{Link, Netlink};

const FOREVER: u32 = u32::MAX;

impl Netlink {
    /// The interface for a VIP, of `interfaces`: the one with the narrowest subnet that contains the VIP, else the
    /// one that has the VIP already, else the first. `None` only if `interfaces` is empty.
    pub async fn vip_interface(&self, vip: IpAddr, interfaces: &[Link]) -> io::Result<Option<u32>> {
        let answers =
            self.ask(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP).await?;
        let prefix = |message| {
            if let RouteNetlinkMessage::NewAddress(message) = message { parse(&message) } else { None }
        };
        let prefixes: Vec<Prefix> = answers.into_iter().filter_map(prefix).collect();
        Ok(choose(vip, interfaces, &prefixes))
    }

    /// Puts a VIP on an interface; `false` if it was there already. It is never chosen as a source address, since
    /// it may move to another node at any moment; an IPv6 one is not held back by duplicate address detection,
    /// which would delay a takeover by a second.
    pub async fn add_vip(&self, ifindex: u32, vip: IpAddr) -> io::Result<bool> {
        let order = RouteNetlinkMessage::NewAddress(vip_message(ifindex, vip));
        match self.ask(order, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The addresses that look as [`Netlink::add_vip`] makes them, and where they are. One that an operator has set by
    /// himself does not: `ip address add` gives it the scope of the whole net, or a lifetime in which it is preferred.
    pub async fn own_vips(&self) -> io::Result<BTreeSet<(u32, IpAddr)>> {
        let answers =
            self.ask(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP).await?;
        let own = |message| {
            let RouteNetlinkMessage::NewAddress(message) = message else { return None };
            own_vip(&message)
        };
        Ok(answers.into_iter().filter_map(own).collect())
    }

    /// Takes a VIP off an interface; `false` if it was not there, or the interface is gone. An address with a wider
    /// prefix than the VIP's own is somebody else's and stays.
    pub async fn remove_vip(&self, ifindex: u32, vip: IpAddr) -> io::Result<bool> {
        let order = RouteNetlinkMessage::DelAddress(vip_message(ifindex, vip));
        match self.ask(order, NLM_F_ACK).await {
            Ok(_) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::EADDRNOTAVAIL | libc::ENODEV) => Ok(false),
                Some(_) | None => Err(error),
            },
        }
    }
}

fn vip_message(ifindex: u32, vip: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    (message.header.family, message.header.prefix_len) = family(vip);
    message.header.index = ifindex;
    message.attributes.push(AddressAttribute::Local(vip));
    message.attributes.push(AddressAttribute::Address(vip));
    match vip {
        // IPv4 has no deprecated addresses, but one of the scope of its link is no source for what is farther away
        // (and what is on the link has the address of its subnet as source). ARP answers for it all the same.
        IpAddr::V4(_) => message.header.scope = AddressScope::Link,
        // RFC 4862 section 5.5.4: a deprecated address is not for new communications.
        IpAddr::V6(_) => {
            message.header.flags = AddressHeaderFlags::Nodad;
            let mut lifetime = CacheInfo::default();
            (lifetime.ifa_preferred, lifetime.ifa_valid) = (0, FOREVER);
            message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        }
    }
    message
}

/// The address, if it is of the making of [`vip_message`].
fn own_vip(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let prefix = parse(message)?;
    let flags = message.header.flags;
    let own = match prefix.address {
        IpAddr::V4(_) => message.header.scope == AddressScope::Link,
        IpAddr::V6(_) => flags.contains(AddressHeaderFlags::Nodad | AddressHeaderFlags::Deprecated),
    };
    (own && prefix.is_vip(prefix.address)).then_some((prefix.ifindex, prefix.address))
}

/// An address of an interface with its subnet.
#[derive(Debug, Clone, Copy)]
struct Prefix {
    ifindex: u32,
    address: IpAddr,
    length: u8,
}

impl Prefix {
    fn contains(&self, other: IpAddr) -> bool {
        let first_bits = |bits: u128, width: u8| match self.length {
            0 => 0,
            length => bits >> width.saturating_sub(length),
        };
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                first_bits(a.to_bits().into(), 32) == first_bits(b.to_bits().into(), 32)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => first_bits(a.to_bits(), 128) == first_bits(b.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    fn is_vip(&self, vip: IpAddr) -> bool {
        self.address == vip && self.length == family(vip).1
    }
}

fn parse(message: &AddressMessage) -> Option<Prefix> {
    let (mut subnet, mut own) = (None, None);
    for attribute in &message.attributes {
        if let AddressAttribute::Address(address) = attribute {
            subnet = Some(*address);
        } else if let AddressAttribute::Local(address) = attribute {
            own = Some(*address);
        }
    }
    // Where both are given and differ, the first is the peer's on a point-to-point link: its prefix is the subnet.
    Some(Prefix {
        ifindex: message.header.index,
        address: subnet.or(own)?,
        length: message.header.prefix_len,
    })
}

fn choose(vip: IpAddr, interfaces: &[Link], prefixes: &[Prefix]) -> Option<u32> {
    let ours = |prefix: &&Prefix| interfaces.iter().any(|link| link.index == prefix.ifindex);
    let prefixes = || prefixes.iter().filter(ours);
    let rank = |prefix: &&Prefix| {
        let place = interfaces.iter().position(|link| link.index == prefix.ifindex);
        // Of equal subnets on two links, the link that was configured first.
        (prefix.length, std::cmp::Reverse(place))
    };
    let subnet = prefixes().filter(|p| !p.is_vip(vip) && p.contains(vip)).max_by_key(rank);
    let there = || prefixes().find(|p| p.is_vip(vip));
    subnet.or_else(there).map(|p| p.ifindex).or(interfaces.first().map(|link| link.index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_goes_where_its_subnet_is() {
        let link = |index| Link { name: format!("eth{index}"), index, mac: [2; 6], mtu: 1500, up: true };
        let links = [link(2), link(3)];
        let prefix =
            |ifindex, address: &str, length| Prefix { ifindex, address: address.parse().unwrap(), length };
        let table = [
            ("its subnet is on the second", "192.0.2.10", vec![prefix(3, "192.0.2.1", 24)], 3),
            ("the narrowest wins", "10.0.1.9", vec![prefix(2, "10.0.0.1", 8), prefix(3, "10.0.1.1", 24)], 3),
            (
                "of equals the first link",
                "10.0.1.9",
                vec![prefix(3, "10.0.1.2", 24), prefix(2, "10.0.1.1", 24)],
                2,
            ),
            ("no subnet: the first link", "198.51.100.1", vec![prefix(3, "192.0.2.1", 24)], 2),
            ("no subnet, but it is there already", "198.51.100.1", vec![prefix(3, "198.51.100.1", 32)], 3),
            (
                "its subnet before where it is",
                "192.0.2.10",
                vec![prefix(3, "192.0.2.10", 32), prefix(2, "192.0.2.1", 24)],
                2,
            ),
            ("links not configured do not count", "192.0.2.10", vec![prefix(9, "192.0.2.1", 24)], 2),
            (
                "families do not mix",
                "2001:db8::10",
                vec![prefix(3, "0.0.0.0", 0), prefix(2, "fe80::1", 64)],
                2,
            ),
            ("IPv6", "2001:db8::10", vec![prefix(2, "fe80::1", 64), prefix(3, "2001:db8::1", 64)], 3),
        ];
        for (description, vip, prefixes, expected) in table {
            assert_eq!(choose(vip.parse().unwrap(), &links, &prefixes), Some(expected), "{description}");
        }
        assert_eq!(choose("192.0.2.10".parse().unwrap(), &[], &[prefix(3, "192.0.2.1", 24)]), None);
    }
}
