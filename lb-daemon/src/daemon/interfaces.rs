//! The interfaces: which of them the program is to know and to be on, and which it is on.

use std::collections::BTreeMap;

use lb_common::abi::NextHop;
use lb_core::state::InterfaceState;

use crate::datapath::{Attached, Registered};
use crate::netlink::Link;

/// See the module.
pub(super) struct Interfaces {
    /// As the program last was told of them, by name.
    registered: BTreeMap<String, Registered>,
    /// Those that have it, by index.
    attached: BTreeMap<u32, Attached>,
}

impl Interfaces {
    pub fn new(registered: BTreeMap<String, Registered>, attached: BTreeMap<u32, Attached>) -> Self {
        Self { registered, attached }
    }

    /// What the program is to be told of the interfaces of those names, if it is not what it was told.
    pub fn to_register(&self, names: &[String], links: &[Link]) -> Option<BTreeMap<String, Registered>> {
        let wanted = registrations(names, links, &self.registered);
        let unchanged = wanted.iter().all(|(name, new)| {
            let what = |it: &Registered| (it.ifindex, it.mac, it.mtu);
            self.registered.get(name).is_some_and(|old| what(old) == what(new))
        });
        (!unchanged).then_some(wanted)
    }

    /// It has been told. One that is gone is remembered: it may come back under another index.
    pub fn note_registered(&mut self, told: BTreeMap<String, Registered>) {
        self.registered.extend(told);
    }

    /// Forgets those that are gone, or have another index, and says which are to get the program.
    pub fn follow<'a>(&mut self, names: &[String], links: &'a [Link]) -> Vec<&'a Link> {
        let mut wanted = Vec::new();
        for name in names {
            let link = links.iter().find(|link| link.name == *name);
            let has_it = |link: &&Link| self.attached.contains_key(&link.index);
            if link.as_ref().is_some_and(has_it) {
                continue;
            }
            self.attached.retain(|_, attached| attached.interface != *name);
            wanted.extend(link);
        }
        wanted
    }

    pub fn note_attached(&mut self, index: u32, attached: Attached) {
        self.attached.insert(index, attached);
    }

    /// The next hop, if it leads by an interface that has the program.
    pub fn admits(&self, hop: &NextHop) -> bool {
        self.attached.contains_key(&hop.ifindex)
    }

    /// `eth0 (native)` and so on.
    pub fn text(&self) -> String {
        let texts = self.attached.values().map(|it| format!("{} ({})", it.interface, it.mode()));
        let texts: Vec<String> = texts.collect();
        if texts.is_empty() { "no interface".to_owned() } else { texts.join(", ") }
    }

    /// Every interface that is wanted, those included that are missing.
    pub fn states(&self, names: &[String], links: &[Link]) -> Vec<InterfaceState> {
        let state = |name: &String| {
            let attached = self.attached.iter().find(|(_, attached)| attached.interface == *name);
            let link = links.iter().find(|link| link.name == *name);
            InterfaceState {
                name: name.clone(),
                index: link.map_or(0, |link| link.index),
                xdp_mode: attached.map_or("none", |(_, attached)| attached.mode()),
                up: link.is_some_and(|link| link.up),
                missing: link.is_none(),
                mtu: link.map_or(0, |link| link.mtu),
            }
        };
        names.iter().map(state).collect()
    }
}

/// The interfaces of those names that are there, as the program is to know them. `before`: as it was told last.
pub(super) fn registrations(
    names: &[String],
    links: &[Link],
    before: &BTreeMap<String, Registered>,
) -> BTreeMap<String, Registered> {
    let found = names.iter().filter_map(|name| links.iter().find(|link| link.name == *name));
    let registered = found.map(|link| {
        let was = before.get(&link.name).map(|old| old.ifindex).filter(|old| *old != link.index);
        let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
        (link.name.clone(), Registered { ifindex: link.index, mac: link.mac, mtu, was })
    });
    registered.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, index: u32) -> Link {
        Link { name: name.to_owned(), index, mac: [2, 0, 0, 0, 0, index as u8], mtu: 1500, up: true }
    }

    fn attached(name: &str) -> Attached {
        Attached { interface: name.to_owned(), native: true }
    }

    fn hop(ifindex: u32) -> NextHop {
        NextHop { ifindex, destination: [4; 6], source: [2; 6] }
    }

    #[test]
    fn one_that_comes_back_under_another_index_gets_the_program_again_and_until_then_leads_nowhere() {
        let names = ["eth0", "eth1"].map(str::to_owned);
        let mut interfaces = Interfaces::new(BTreeMap::new(), BTreeMap::new());
        assert_eq!(interfaces.text(), "no interface");
        let links = [link("eth0", 2), link("eth9", 4)];
        let wanted: Vec<u32> = interfaces.follow(&names, &links).iter().map(|link| link.index).collect();
        assert_eq!(wanted, [2], "one is not there, and one is not wanted");
        interfaces.note_attached(2, attached("eth0"));
        assert_eq!(interfaces.text(), "eth0 (native)");
        assert!(interfaces.follow(&names, &links).is_empty(), "it has it");
        assert!(interfaces.admits(&hop(2)) && !interfaces.admits(&hop(4)));
        assert!(interfaces.follow(&names, &[]).is_empty());
        assert!(!interfaces.admits(&hop(2)), "it is gone");
        interfaces.note_attached(2, attached("eth0"));
        let links = [link("eth0", 7)];
        let wanted: Vec<u32> = interfaces.follow(&names, &links).iter().map(|link| link.index).collect();
        assert_eq!((wanted, interfaces.admits(&hop(2))), (vec![7], false));
    }

    #[test]
    fn the_program_is_told_only_of_what_is_new() {
        let names = ["eth0".to_owned()];
        let mut interfaces = Interfaces::new(BTreeMap::new(), BTreeMap::new());
        let first = interfaces.to_register(&names, &[link("eth0", 2)]).unwrap();
        interfaces.note_registered(first);
        assert!(interfaces.to_register(&names, &[link("eth0", 2)]).is_none());
        assert!(interfaces.to_register(&names, &[]).is_none(), "it may come back");
        let back = interfaces.to_register(&names, &[link("eth0", 7)]).unwrap();
        assert_eq!(back["eth0"].was, Some(2));
        let other = Link { mac: [2; 6], ..link("eth0", 2) };
        assert!(interfaces.to_register(&names, &[other]).is_some(), "it has another address");
        let narrow = Link { mtu: 1300, ..link("eth0", 2) };
        assert!(interfaces.to_register(&names, &[narrow]).is_some(), "it carries less");
    }

    #[test]
    fn one_that_is_missing_is_said_to_be() {
        let names = ["eth0", "eth1"].map(str::to_owned);
        let on_eth0 = BTreeMap::from([(2, attached("eth0"))]);
        let states = Interfaces::new(BTreeMap::new(), on_eth0).states(&names, &[link("eth0", 2)]);
        let told: Vec<_> = states.iter().map(|it| (it.index, it.xdp_mode, it.missing, it.mtu)).collect();
        assert_eq!(told, [(2, "native", false, 1500), (0, "none", true, 0)]);
    }

    #[test]
    fn interfaces_are_told_with_the_index_that_they_had() {
        let names = ["eth0", "eth1"].map(str::to_owned);
        let first =
            registrations(&names, &[link("eth0", 2), link("eth1", 3), link("eth9", 4)], &BTreeMap::new());
        let told = |found: &BTreeMap<String, Registered>| {
            found.values().map(|found| (found.ifindex, found.mac[5], found.was)).collect::<Vec<_>>()
        };
        assert_eq!(told(&first), [(2, 2, None), (3, 3, None)]);
        let without = registrations(&names, &[link("eth0", 2)], &first);
        assert_eq!(told(&without), [(2, 2, None)]);
        let anew = registrations(&names, &[link("eth0", 2), link("eth1", 7)], &first);
        assert_eq!(told(&anew), [(2, 2, None), (7, 7, Some(3))]);
    }
}
