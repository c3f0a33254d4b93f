//! From a backend's address to what stands in front of a frame for it.

use std::net::IpAddr;

use super::{Link, Neighbour, Route};

/// Where frames for an address go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    Resolved {
        ifindex: u32,
        /// Of the link that the frames leave by.
        source_mac: [u8; 6],
        destination_mac: [u8; 6],
        /// Bytes of the largest packet that link and route carry.
        mtu: u32,
        /// This host's own address towards it, if it has one that is no VIP.
        source: Option<IpAddr>,
        /// Whose hardware address it is: the address itself, or a gateway.
        via: IpAddr,
    },
    Unresolved {
        /// In words, as in `10.0.0.254 does not answer on eth0`.
        reason: String,
        /// The neighbour has been asked, and may still answer.
        asked: bool,
    },
}

/// What a route, its link and its neighbour make of an address, and whether to probe the neighbour.
pub fn resolution(route: &Route, link: Option<&Link>, neighbour: Option<&Neighbour>) -> (Resolution, bool) {
    let no = |reason: String, probe| (Resolution::Unresolved { reason, asked: false }, probe);
    if route.local {
        return no("it is an address of this host".to_owned(), false);
    }
    let Some(link) = link else { return no(format!("there is no link {}", route.ifindex), false) };
    let name = &link.name;
    if !link.up {
        return no(format!("{name} is down"), false);
    }
    if link.mac == [0; 6] {
        return no(format!("{name} has no MAC address"), false);
    }
    match neighbour {
        Some(Neighbour { mac: Some(mac), usable: true, idle }) => {
            let resolved = Resolution::Resolved {
                ifindex: link.index,
                source_mac: link.mac,
                destination_mac: *mac,
                mtu: route.mtu.filter(|mtu| *mtu != 0).map_or(link.mtu, |mtu| mtu.min(link.mtu)),
                source: route.source,
                via: route.via,
            };
            (resolved, *idle)
        }
        Some(Neighbour { idle, .. }) => {
            let reason = format!("{} does not answer on {name}", route.via);
            (Resolution::Unresolved { reason, asked: !idle }, *idle)
        }
        None => {
            let reason = format!("{} is not resolved yet on {name}", route.via);
            (Resolution::Unresolved { reason, asked: true }, true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_resolved_only_by_a_usable_neighbour_on_a_link_that_is_up() {
        const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
        const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];
        let via = "10.0.0.254".parse().unwrap();
        let source = Some("10.0.0.1".parse().unwrap());
        let route = Route { ifindex: 3, via, local: false, source, mtu: None };
        let local = Route { local: true, ..route };
        let smaller = Route { mtu: Some(1400), ..route };
        let larger = Route { mtu: Some(9000), ..route };
        let link = Link { name: "eth0".into(), index: 3, mac: OURS, mtu: 1500, up: true };
        let down = Link { up: false, ..link.clone() };
        let tunnel = Link { mac: [0; 6], ..link.clone() };
        let good = Neighbour { mac: Some(THEIRS), usable: true, idle: false };
        let stale = Neighbour { idle: true, ..good };
        let failed = Neighbour { mac: None, usable: false, idle: true };
        let asking = Neighbour { idle: false, ..failed };
        let table = [
            ("reachable", route, Some(&link), Some(&good), Ok(()), false),
            ("stale is used and confirmed", route, Some(&link), Some(&stale), Ok(()), true),
            ("failed", route, Some(&link), Some(&failed), Err("10.0.0.254 does not answer on eth0"), true),
            (
                "being asked",
                route,
                Some(&link),
                Some(&asking),
                Err("10.0.0.254 does not answer on eth0"),
                false,
            ),
            ("unknown", route, Some(&link), None, Err("10.0.0.254 is not resolved yet on eth0"), true),
            ("link down", route, Some(&down), Some(&good), Err("eth0 is down"), false),
            ("no MAC", route, Some(&tunnel), None, Err("eth0 has no MAC address"), false),
            ("no link", route, None, Some(&good), Err("there is no link 3"), false),
            ("a smaller route", smaller, Some(&link), Some(&good), Ok(()), false),
            ("a larger route", larger, Some(&link), Some(&good), Ok(()), false),
            ("our own", local, Some(&link), Some(&good), Err("it is an address of this host"), false),
        ];
        for (description, route, link, neighbour, expected, probe) in table {
            let expected = match expected {
                Ok(()) => {
                    let (source_mac, destination_mac) = (OURS, THEIRS);
                    let (ifindex, mtu) = (3, route.mtu.filter(|mtu| *mtu < 1500).unwrap_or(1500));
                    Resolution::Resolved { ifindex, source_mac, destination_mac, mtu, source, via }
                }
                Err(reason) => Resolution::Unresolved {
                    reason: reason.to_owned(),
                    asked: ["being asked", "unknown"].contains(&description),
                },
            };
            assert_eq!(resolution(&route, link, neighbour), (expected, probe), "{description}");
        }
    }
}
