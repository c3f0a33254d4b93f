//! The way to an address.

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Netlink;

/// The way to an address, as the kernel would send a packet of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub ifindex: u32,
    /// The gateway, or the address itself when it is on the link. A gateway may be of the other family.
    pub via: IpAddr,
    /// Whether the address is one of this host's own.
    pub local: bool,
    /// The address that a packet of this host's own would come from.
    pub source: Option<IpAddr>,
    /// What the route says of the size of packets, if it does.
    pub mtu: Option<u32>,
}

/// Why there is no way to an address.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// In words. Whatever the kernel says of an address is of that address alone.
    #[error("{0}")]
    Unreachable(Cow<'static, str>),
    #[error("the kernel does not answer: {0}")]
    Netlink(#[from] io::Error),
}

const NO_ROUTE: RouteError = RouteError::Unreachable(Cow::Borrowed("no route to it"));

impl Netlink {
    /// The way to `addr`.
    pub async fn next_hop(&self, addr: IpAddr) -> Result<Route, RouteError> {
        let (address_family, destination_prefix_length) = family(addr);
        let mut message = RouteMessage::default();
        message.header = RouteHeader { address_family, destination_prefix_length, ..RouteHeader::default() };
        message.attributes.push(RouteAttribute::Destination(addr.into()));
        let answers = match self.ask(RouteNetlinkMessage::GetRoute(message), 0).await {
            Ok(answers) => answers,
            Err(error) => return Err(unreachable(error)),
        };
        let route = |message| if let RouteNetlinkMessage::NewRoute(r) = message { Some(r) } else { None };
        parse(answers.into_iter().find_map(route).ok_or(NO_ROUTE)?, addr)
    }

    /// The ways to many.
    pub async fn next_hops(&self, to: &[IpAddr]) -> Vec<(IpAddr, Result<Route, RouteError>)> {
        self.each(to, |addr| self.next_hop(addr)).await
    }
}

/// The kernel's number of the family, and the length of a prefix that is one address.
pub(super) fn family(addr: IpAddr) -> (AddressFamily, u8) {
    match addr {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    }
}

fn unreachable(error: io::Error) -> RouteError {
    // What has no number did not come from the kernel: it is of the socket, and so of all addresses.
    let Some(code) = error.raw_os_error() else { return error.into() };
    let words = match code {
        libc::ENETUNREACH => return NO_ROUTE,
        libc::EHOSTUNREACH => "its route says unreachable",
        libc::EACCES => "its route says prohibited",
        // What the kernel says of a blackhole, and of addresses that nobody has, such as 0.0.0.0.
        libc::EINVAL => "its route says blackhole",
        // Of IPv6 where it is switched off at boot (`ipv6.disable=1`).
        libc::EOPNOTSUPP | libc::EAFNOSUPPORT => "this host's kernel does not speak its address family",
        _ => return RouteError::Unreachable(format!("the kernel finds no route to it: {error}").into()),
    };
    RouteError::Unreachable(words.into())
}

fn parse(message: RouteMessage, addr: IpAddr) -> Result<Route, RouteError> {
    let kind = message.header.kind;
    let local = kind == RouteType::Local;
    if !local && kind != RouteType::Unicast {
        return Err(RouteError::Unreachable("its route is not for unicast".into()));
    }
    let (mut ifindex, mut via, mut source, mut mtu) = (None, addr, None, None);
    for attribute in message.attributes {
        if let RouteAttribute::Oif(index) = attribute {
            ifindex = Some(index);
        } else if let RouteAttribute::PrefSource(RouteAddress::Inet(address)) = attribute {
            source = Some(address.into());
        } else if let RouteAttribute::PrefSource(RouteAddress::Inet6(address)) = attribute {
            source = Some(address.into());
        } else if let RouteAttribute::Metrics(metrics) = attribute {
            mtu = metrics
                .into_iter()
                .find_map(|it| if let RouteMetric::Mtu(mtu) = it { Some(mtu) } else { None });
        } else if let RouteAttribute::Gateway(RouteAddress::Inet(gateway)) = attribute {
            via = gateway.into();
        } else if let RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) = attribute {
            via = gateway.into();
        } else if let RouteAttribute::Via(RouteVia::Inet(gateway)) = attribute {
            via = gateway.into();
        } else if let RouteAttribute::Via(RouteVia::Inet6(gateway)) = attribute {
            via = gateway.into();
        }
    }
    let ifindex = ifindex.ok_or(RouteError::Unreachable("its route names no interface".into()))?;
    Ok(Route { ifindex, via, local, source, mtu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_kernel_says_of_one_address_is_of_no_other() {
        // 600 is none of Linux's errors: one that nobody has thought of.
        for code in [libc::EOPNOTSUPP, libc::EAFNOSUPPORT, libc::ENODEV, libc::ENOBUFS, libc::EXDEV, 600] {
            let said = unreachable(io::Error::from_raw_os_error(code));
            assert!(matches!(said, RouteError::Unreachable(_)), "{code}: {said:?}");
        }
        for kind in [io::ErrorKind::TimedOut, io::ErrorKind::BrokenPipe] {
            let said = unreachable(kind.into());
            assert!(matches!(said, RouteError::Netlink(_)), "{kind}: {said:?}");
        }
    }
}
