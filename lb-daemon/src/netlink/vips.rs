//! VIPs on interfaces.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};

use super::routes::family;
use super::{Link, Netlink};

const FOREVER: u32 = u32::MAX;

impl Netlink {
    /// All addresses of all interfaces.
    pub async fn addresses(&self) -> io::Result<Vec<Prefix>> {
        let answers = self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default())).await?;
        let prefix = |message| {
            if let RouteNetlinkMessage::NewAddress(message) = message { parse(&message) } else { None }
        };
        Ok(answers.into_iter().filter_map(prefix).collect())
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

    /// [`Netlink::add_vip`] for many.
    pub async fn add_vips(&self, vips: &[(u32, IpAddr)]) -> Vec<((u32, IpAddr), io::Result<bool>)> {
        self.each(vips, |(ifindex, vip)| self.add_vip(ifindex, vip)).await
    }

    /// [`Netlink::remove_vip`] for many.
    pub async fn remove_vips(&self, vips: &[(u32, IpAddr)]) -> Vec<((u32, IpAddr), io::Result<bool>)> {
        self.each(vips, |(ifindex, vip)| self.remove_vip(ifindex, vip)).await
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

/// Whether an address looks as [`vip_message`] makes them. One that an operator has set by himself does not: `ip address add`
/// gives it the scope of the whole net, or a lifetime in which it is preferred.
fn is_own(message: &AddressMessage, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => message.header.scope == AddressScope::Link,
        IpAddr::V6(_) => {
            message.header.flags.contains(AddressHeaderFlags::Nodad | AddressHeaderFlags::Deprecated)
        }
    }
}

/// An address of an interface with its subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    pub ifindex: u32,
    pub address: IpAddr,
    /// Of the subnet, in bits.
    pub length: u8,
    /// Made as the daemon makes VIPs.
    pub own: bool,
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

    /// Whether it is an address without a subnet, as VIPs are.
    pub fn is_single(&self) -> bool {
        self.length == family(self.address).1
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
    let address = subnet.or(own)?;
    let (ifindex, length) = (message.header.index, message.header.prefix_len);
    Some(Prefix { ifindex, address, length, own: is_own(message, address) })
}

/// The interface for a VIP, of `interfaces`: the one with the narrowest of `subnets` that contains the VIP, else one that has
/// the VIP already (`at`), else the first. `None` only if `interfaces` is empty.
pub fn choose(
    vip: IpAddr,
    interfaces: &[Link],
    subnets: &[Prefix],
    at: impl IntoIterator<Item = u32>,
) -> Option<u32> {
    let place = |ifindex: u32| interfaces.iter().position(|link| link.index == ifindex);
    let subnets = subnets.iter().filter(|prefix| prefix.contains(vip) && place(prefix.ifindex).is_some());
    // Of equal subnets on two links, the link that was configured first.
    let narrowest = subnets.max_by_key(|prefix| (prefix.length, std::cmp::Reverse(place(prefix.ifindex))));
    let there = || at.into_iter().find(|ifindex| place(*ifindex).is_some());
    narrowest.map(|prefix| prefix.ifindex).or_else(there).or(interfaces.first().map(|link| link.index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_goes_where_its_subnet_is() {
        let link = |index| Link { name: format!("eth{index}"), index, mac: [2; 6], mtu: 1500, up: true };
        let links = [link(2), link(3)];
        let prefix = |ifindex, address: &str, length| Prefix {
            ifindex,
            address: address.parse().unwrap(),
            length,
            own: false,
        };
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
            assert_eq!(choose(vip.parse().unwrap(), &links, &prefixes, []), Some(expected), "{description}");
        }
        let (vip, subnet) = ("192.0.2.10".parse().unwrap(), [prefix(2, "192.0.2.1", 24)]);
        assert_eq!(choose(vip, &links, &[], [9, 3]), Some(3), "no subnet, but it is there already");
        assert_eq!(choose(vip, &links, &subnet, [3]), Some(2), "its subnet before where it is");
        assert_eq!(choose(vip, &[], &subnet, [2]), None);
    }
}
