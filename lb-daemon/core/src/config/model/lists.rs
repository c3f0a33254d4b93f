//! Whom a farm takes connections from.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use ipnet::IpNet;
use lb_common::abi::{MappedAddress, map_ipv4};

/// Prefixes that are allowed, and such that are denied: of those that hold an address the longest decides. Who is in none may
/// come if nobody is allowed by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lists {
    /// Of the content; 0: there is none. First, since most comparisons end with it.
    id: u64,
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

/// A prefix as the data plane's lists have it: of IPv4 in IPv6's clothes, and so many bits of it count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub address: MappedAddress,
    pub bits: u8,
    pub allowed: bool,
}

impl Lists {
    /// Everybody may come.
    pub const NONE: Self = Self { id: 0, allow: Vec::new(), deny: Vec::new() };

    /// Of prefixes without bits beyond their length, each of which stands there once.
    pub fn new(mut allow: Vec<IpNet>, mut deny: Vec<IpNet>) -> Self {
        allow.sort_unstable();
        deny.sort_unstable();
        let mut hasher = DefaultHasher::new();
        (&allow, &deny).hash(&mut hasher);
        let id = if allow.is_empty() && deny.is_empty() { 0 } else { hasher.finish().max(1) };
        Self { id, allow, deny }
    }

    /// In order.
    pub fn allow(&self) -> &[IpNet] {
        &self.allow
    }

    pub fn deny(&self) -> &[IpNet] {
        &self.deny
    }

    /// The number by which the data plane knows this content, whosever it is: lists that say the same are there once. 0: there is
    /// nothing to know.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How many prefixes they are.
    pub fn len(&self) -> usize {
        self.allow.len() + self.deny.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All that the data plane has to know, in an order in which what comes later counts. What becomes of each family as a whole
    /// is among it, said by the lists or not.
    pub fn rules(&self) -> impl Iterator<Item = Rule> + '_ {
        let others = self.allow.is_empty();
        let wholes = [[0; 4].into(), [0; 16].into()].map(|address| rule(address, 0, others));
        let allowed = self.allow.iter().map(|net| rule(net.addr(), net.prefix_len(), true));
        let denied = self.deny.iter().map(|net| rule(net.addr(), net.prefix_len(), false));
        wholes.into_iter().chain(allowed).chain(denied)
    }
}

/// Of a few hundred thousand prefixes their number is enough.
impl Hash for Lists {
    fn hash<H: Hasher>(&self, to: &mut H) {
        self.id.hash(to);
    }
}

fn rule(address: IpAddr, bits: u8, allowed: bool) -> Rule {
    match address {
        IpAddr::V4(v4) => Rule { address: map_ipv4(v4.octets()), bits: 96 + bits, allowed },
        IpAddr::V6(v6) => Rule { address: v6.octets(), bits, allowed },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(allow: &[&str], deny: &[&str]) -> Lists {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Lists::new(nets(allow), nets(deny))
    }

    /// What the data plane finds: of the prefixes that hold an address the longest.
    fn admits(lists: &Lists, address: &str) -> bool {
        let address = rule(address.parse().unwrap(), 0, true).address;
        let number = u128::from_be_bytes;
        let holds = |rule: &Rule| {
            let beyond = 128 - u32::from(rule.bits);
            (number(address) ^ number(rule.address)).checked_shr(beyond).unwrap_or(0) == 0
        };
        lists.rules().filter(holds).max_by_key(|rule| rule.bits).unwrap().allowed
    }

    #[test]
    fn the_longest_prefix_decides_and_who_is_in_none_comes_if_nobody_is_allowed_by_name() {
        /// Who is allowed, who is denied; who comes, and who does not.
        type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], &'a [&'a str]);
        let table: &[Case<'_>] = &[
            (
                &[],
                &["198.51.100.0/24"],
                &["198.51.101.0", "2001:db8::1"],
                &["198.51.100.0", "198.51.100.255"],
            ),
            (&["10.0.0.0/8"], &[], &["10.255.0.1"], &["11.0.0.0", "::1", "2001:db8::1"]),
            (
                &["10.0.0.0/8", "10.1.2.3/32"],
                &["10.1.0.0/16"],
                &["10.0.0.1", "10.1.2.3"],
                &["10.1.2.4", "9.9.9.9"],
            ),
            (&["0.0.0.0/0"], &["192.0.2.0/25"], &["192.0.2.128", "1.2.3.4"], &["192.0.2.127", "2001:db8::1"]),
            (&[], &["0.0.0.0/0"], &["2001:db8::1"], &["1.2.3.4", "255.255.255.255"]),
            (&[], &["::/0"], &["1.2.3.4"], &["2001:db8::1", "::"]),
            (&["2001:db8::/32"], &["2001:db8:7::/48"], &["2001:db8:8::1"], &["2001:db8:7::1", "2001:db9::"]),
        ];
        for (allow, deny, come, stay) in table {
            let lists = lists(allow, deny);
            for address in *come {
                assert!(admits(&lists, address), "{address}: {allow:?} {deny:?}");
            }
            for address in *stay {
                assert!(!admits(&lists, address), "{address}: {allow:?} {deny:?}");
            }
        }
    }

    #[test]
    fn lists_that_say_the_same_have_the_same_number_and_no_others() {
        let one = lists(&["10.0.0.0/8", "192.0.2.0/24"], &["10.1.0.0/16"]);
        assert_eq!(one, lists(&["192.0.2.0/24", "10.0.0.0/8"], &["10.1.0.0/16"]));
        let others = [
            lists(&["10.0.0.0/8"], &["192.0.2.0/24", "10.1.0.0/16"]),
            lists(&["10.0.0.0/8", "192.0.2.0/24"], &["10.1.0.0/17"]),
            lists(&["10.0.0.0/8", "192.0.2.0/24"], &[]),
            Lists::NONE,
        ];
        assert!(others.iter().all(|other| other.id() != one.id()));
        assert_eq!((lists(&[], &[]), Lists::NONE.id()), (Lists::NONE, 0));
    }
}
