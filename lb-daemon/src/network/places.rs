//! Which VIPs go where, and which go away: decided from what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::netlink::{Link, Prefix, choose};

/// What is to be done, and what is so already.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// By interface.
    pub add: Vec<(u32, IpAddr)>,
    pub remove: Vec<(u32, IpAddr)>,
    /// Where they belong and are.
    pub there: BTreeMap<IpAddr, u32>,
}

/// Places `wanted` VIPs on `interfaces`, where `prefixes` are. Of those that are there, only `ours` are taken away, and only
/// if they are of a daemon's making.
pub fn places(
    wanted: &BTreeSet<IpAddr>,
    ours: &BTreeSet<IpAddr>,
    interfaces: &[Link],
    prefixes: &[Prefix],
) -> Places {
    let mut places = Places::default();
    let single = prefixes.iter().filter(|prefix| prefix.is_single());
    let single: BTreeSet<(IpAddr, u32)> = single.map(|prefix| (prefix.address, prefix.ifindex)).collect();
    let others: Vec<Prefix> = prefixes.iter().filter(|prefix| !prefix.is_single()).copied().collect();
    for &vip in wanted {
        // Where it is counts only if its subnet is nowhere.
        let at = single.range((vip, 0)..=(vip, u32::MAX)).map(|(_, ifindex)| *ifindex);
        let Some(ifindex) = choose(vip, interfaces, &others, at) else { continue };
        if single.contains(&(vip, ifindex)) {
            places.there.insert(vip, ifindex);
        } else {
            places.add.push((ifindex, vip));
        }
    }
    let made = prefixes.iter().filter(|prefix| prefix.is_single() && prefix.own);
    for Prefix { address, ifindex, .. } in made {
        let belongs = places.there.get(address) == Some(ifindex);
        if !belongs && ours.contains(address) && interfaces.iter().any(|link| link.index == *ifindex) {
            places.remove.push((*ifindex, *address));
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32) -> Link {
        Link { name: format!("eth{index}"), index, mac: [2; 6], mtu: 1500, up: true }
    }

    fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    /// `2 10.0.0.1/24` is on interface 2; with a `*` behind it is of a daemon's making.
    fn prefixes(lines: &[&str]) -> Vec<Prefix> {
        let prefix = |line: &&str| {
            let (index, rest) = line.split_once(' ').unwrap();
            let (address, length) = rest.trim_end_matches('*').split_once('/').unwrap();
            Prefix {
                ifindex: index.parse().unwrap(),
                address: address.parse().unwrap(),
                length: length.parse().unwrap(),
                own: line.ends_with('*'),
            }
        };
        lines.iter().map(prefix).collect()
    }

    fn told(pairs: &[(u32, IpAddr)]) -> Vec<String> {
        pairs.iter().map(|(ifindex, address)| format!("{ifindex} {address}")).collect()
    }

    #[test]
    fn vips_are_put_where_they_belong_and_only_ours_are_taken_away() {
        struct Case {
            what: &'static str,
            wanted: &'static [&'static str],
            ours: &'static [&'static str],
            there: &'static [&'static str],
            add: &'static [&'static str],
            remove: &'static [&'static str],
        }
        let empty = Case { what: "", wanted: &[], ours: &[], there: &[], add: &[], remove: &[] };
        let cases = [
            Case {
                what: "a new one goes to its subnet",
                wanted: &["10.0.0.9"],
                there: &["2 192.0.2.1/24", "3 10.0.0.1/24"],
                add: &["3 10.0.0.9"],
                ..empty
            },
            Case {
                what: "one that is there stays",
                wanted: &["10.0.0.9"],
                there: &["3 10.0.0.1/24", "3 10.0.0.9/32"],
                ..empty
            },
            Case {
                what: "ours that nobody wants goes, another's stays, and so does what the operator made himself",
                ours: &["10.0.0.9", "10.0.0.7"],
                there: &["3 10.0.0.9/32*", "3 10.0.0.8/32*", "3 10.0.0.7/32"],
                remove: &["3 10.0.0.9"],
                ..empty
            },
            Case {
                what: "ours follows its subnet",
                wanted: &["10.0.0.9"],
                ours: &["10.0.0.9"],
                there: &["3 10.0.0.1/24", "2 10.0.0.9/32*"],
                add: &["3 10.0.0.9"],
                remove: &["2 10.0.0.9"],
            },
            Case {
                what: "without a subnet it stays where it is",
                wanted: &["203.0.113.9"],
                ours: &["203.0.113.9"],
                there: &["3 203.0.113.9/32*"],
                ..empty
            },
            Case {
                what: "an address with a subnet is no VIP's, and one on another interface nobody's business",
                wanted: &[],
                ours: &["10.0.0.1", "10.0.0.9"],
                there: &["3 10.0.0.1/24*", "7 10.0.0.9/32*"],
                ..empty
            },
        ];
        for case in cases {
            let found =
                places(&set(case.wanted), &set(case.ours), &[link(2), link(3)], &prefixes(case.there));
            assert_eq!(told(&found.add), case.add, "{}", case.what);
            assert_eq!(told(&found.remove), case.remove, "{}", case.what);
        }
        assert_eq!(places(&set(&["10.0.0.9"]), &set(&[]), &[], &[]), Places::default(), "no interface");
    }
}
