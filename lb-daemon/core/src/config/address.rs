//! Addresses of VIPs and backends: what can be one, and what was meant by what cannot.

use std::net::{IpAddr, SocketAddr};

use super::fields::{Errors, Place, Spot};
use super::tree::quoted;

/// An address and where it stands.
#[derive(Debug, Clone)]
pub struct PlacedAddress {
    pub ip: IpAddr,
    pub spot: Spot,
}

/// Reads one address or a list of them. The flag is false if one was refused, so that rules about all of them
/// cannot be judged.
pub fn read_addresses(place: &Place<'_>, kind: Kind, errors: &mut Errors) -> (Vec<PlacedAddress>, bool) {
    let items = place.items();
    let mut whole = !items.is_empty();
    if items.is_empty() {
        errors.push(
            &place.spot,
            "must hold at least one address",
            format!("write \"{}\", for example", kind.example()),
        );
    }
    let mut addresses: Vec<PlacedAddress> = Vec::new();
    for item in items {
        let Some(ip) = read_address(&item, kind, errors) else {
            whole = false;
            continue;
        };
        if let Some(first) = addresses.iter().find(|first| first.ip == ip) {
            let hint = format!("remove it; the first is {}", first.spot.path);
            errors.push(&item.spot, format!("{ip} stands here twice"), hint);
            continue;
        }
        addresses.push(PlacedAddress { ip, spot: item.spot });
    }
    (addresses, whole)
}

/// Whose address it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Vip,
    Backend,
}

impl Kind {
    fn example(self) -> &'static str {
        match self {
            Self::Vip => "192.0.2.10",
            Self::Backend => "10.0.0.11",
        }
    }
}

fn read_address(item: &Place<'_>, kind: Kind, errors: &mut Errors) -> Option<IpAddr> {
    let text = item.string("an IP address", kind.example(), errors)?;
    let Ok(ip) = text.parse::<IpAddr>() else {
        errors.push(&item.spot, format!("must be an IP address, not {}", quoted(text)), hint(text, kind));
        return None;
    };
    let (what, hint) = match ip {
        _ if ip.is_unspecified() => ("the unspecified address", None),
        _ if ip.is_loopback() => ("a loopback address, which no packet from outside reaches", None),
        _ if ip.is_multicast() => ("a multicast address", None),
        IpAddr::V4(v4) if v4.is_broadcast() => ("the broadcast address", None),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            ("a link-local address, which means nothing without an interface", None)
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => ("an IPv4 address in IPv6 clothing", Some(format!("write \"{v4}\""))),
            None => return Some(ip),
        },
        IpAddr::V4(_) => return Some(ip),
    };
    let hint = hint.unwrap_or_else(|| match kind {
        Kind::Vip => "write the unicast address that clients connect to".to_owned(),
        Kind::Backend => "write the unicast address by which the backend is reached".to_owned(),
    });
    errors.push(&item.spot, format!("{ip} is {what}"), hint);
    None
}

/// What somebody meant who wrote `text` for an address.
fn hint(text: &str, kind: Kind) -> String {
    let trimmed = text.trim();
    if let Some((address, _)) = trimmed.split_once('/')
        && let Ok(ip) = address.parse::<IpAddr>()
    {
        return format!("write the address without the prefix length: \"{ip}\"");
    }
    if let Ok(socket) = trimmed.parse::<SocketAddr>() {
        let (ip, port) = (socket.ip(), socket.port());
        return match kind {
            Kind::Vip => format!("write \"{ip}\", and {port} in `ports`"),
            Kind::Backend => format!("write \"{ip}\", and port = {port} as a key of its own"),
        };
    }
    let inner = trimmed.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = inner.split('%').next().unwrap_or(inner).parse::<IpAddr>() {
        return format!("write \"{ip}\"");
    }
    if trimmed.contains(',') || trimmed.contains(char::is_whitespace) {
        return "write several addresses as a list: [\"...\", \"...\"]".to_owned();
    }
    let digits_and_dots = !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if digits_and_dots {
        return "an IPv4 address is four numbers from 0 to 255, without leading zeros".to_owned();
    }
    if trimmed.bytes().any(|b| b.is_ascii_alphabetic()) && !trimmed.contains(':') {
        return "names are not looked up: write the address itself".to_owned();
    }
    format!("write \"{}\" or \"2001:db8::10\", for example", kind.example())
}
