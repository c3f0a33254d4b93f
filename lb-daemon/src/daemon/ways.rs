//! The ways to backends: the next hops that are known, and what is missing of the others.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::SystemTime;

use lb_common::abi::NextHop;
use lb_core::config::model::{Addresses, Mode};
use lb_core::desired::{NextHops, Path, Paths};
use lb_core::standing::Reach;

use crate::netlink::{Link, Resolution};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// Last known: a backend keeps the one it had while another is looked for.
    hops: NextHops,
    /// The same of this host's own addresses, and of sizes.
    paths: Paths,
    /// Of those that have no next hop, or one by an interface that cannot be used.
    lacks: BTreeMap<IpAddr, Lack>,
    /// The same of those that a gateway leads to, in the mode that needs neighbours.
    routed: BTreeMap<IpAddr, Lack>,
}

/// Why packets for an address are dropped.
#[derive(Debug)]
struct Lack {
    reason: String,
    /// It has been asked for and may still answer; never again once that was in vain.
    asked: bool,
    since: SystemTime,
}

/// Of whom nothing is known yet.
const NOT_LOOKED_FOR: Reach<'_> = Reach::Sought("its next hop is not looked for yet");

impl Ways {
    /// `hops`: as the daemon before this one has left them.
    pub fn new(hops: NextHops) -> Self {
        Self { hops, ..Self::default() }
    }

    /// Takes over what was found of all addresses there are. `admits` says whether a hop leads by an interface that has the
    /// program.
    pub fn take(
        &mut self,
        resolutions: &HashMap<IpAddr, Resolution>,
        links: &[Link],
        now: SystemTime,
        admits: impl Fn(&NextHop) -> bool,
    ) {
        let up = |hop: &NextHop| links.iter().any(|link| link.index == hop.ifindex && link.up);
        let (before, routed) = (std::mem::take(&mut self.lacks), std::mem::take(&mut self.routed));
        for (address, resolution) in resolutions {
            let (reason, asked) = match next_hop(resolution, &admits, links) {
                Ok(hop) => {
                    if self.hops.insert(*address, hop) != Some(hop) {
                        tracing::debug!(%address, interface = hop.ifindex, "next hop of a backend");
                    }
                    self.paths.extend(path(resolution).map(|path| (*address, path)));
                    if let Some(reason) = gateway(*address, resolution) {
                        let since = routed.get(address).map_or(now, |lack| lack.since);
                        self.routed.insert(*address, Lack { reason, asked: false, since });
                    }
                    continue;
                }
                Err(lack) => lack,
            };
            tracing::debug!(%address, reason, "no next hop for a backend");
            // An old way is better than none, if it is one.
            if self.hops.get(address).is_some_and(|hop| admits(hop) && up(hop)) {
                continue;
            }
            let known = before.get(address);
            let asked = asked && known.is_none_or(|lack| lack.asked);
            let since = known.filter(|lack| lack.asked == asked).map_or(now, |lack| lack.since);
            self.lacks.insert(*address, Lack { reason, asked, since });
        }
        self.hops.retain(|address, _| resolutions.contains_key(address));
        self.paths.retain(|address, _| resolutions.contains_key(address));
    }

    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    pub fn hops(&self) -> &NextHops {
        &self.hops
    }

    /// Whether packets for a backend have somewhere to go.
    pub fn reach(&self, mode: Mode, addresses: &Addresses) -> Reach<'_> {
        let mut lacking = addresses.iter().filter_map(|address| self.lacking(mode, &address));
        let Some(reach) = lacking.next() else { return Reach::Whole };
        let (Reach::Sought(why) | Reach::None(why)) = reach else { return reach };
        if lacking.count() + 1 < addresses.iter().count() { Reach::Partly(why) } else { reach }
    }

    /// What is missing of the way to an address.
    fn lacking(&self, mode: Mode, address: &IpAddr) -> Option<Reach<'_>> {
        match self.lack(mode, address) {
            Some(Lack { reason, asked: true, .. }) => Some(Reach::Sought(reason)),
            Some(Lack { reason, asked: false, .. }) => Some(Reach::None(reason)),
            None => (!self.hops.contains_key(address)).then_some(NOT_LOOKED_FOR),
        }
    }

    fn lack(&self, mode: Mode, address: &IpAddr) -> Option<&Lack> {
        let routed = self.routed.get(address).filter(|_| mode == Mode::Dsr);
        routed.or_else(|| self.lacks.get(address))
    }

    /// Whether a way leads to a backend that would bring the packets of its farm's mode back to us.
    pub fn must_not_be_taken(&self, mode: Mode, addresses: &Addresses) -> bool {
        mode == Mode::Dsr && addresses.iter().any(|address| self.routed.contains_key(&address))
    }

    /// The addresses packets for which are dropped.
    pub fn unreached(&self, mode: Mode, addresses: &Addresses) -> Vec<IpAddr> {
        addresses.iter().filter(|address| self.lacking(mode, address).is_some()).collect()
    }

    /// Since when something is missing of the way to a backend.
    pub fn lack_since(&self, mode: Mode, addresses: &Addresses) -> Option<SystemTime> {
        addresses.iter().filter_map(|address| self.lack(mode, &address)).map(|lack| lack.since).min()
    }

    /// Whether nothing is missing of the way to anybody.
    pub fn are_all_known(&self) -> bool {
        self.lacks.is_empty()
    }
}

/// What outer headers of packets for an address say.
fn path(resolution: &Resolution) -> Option<Path> {
    let Resolution::Resolved { source: Some(source), mtu, .. } = resolution else { return None };
    Some(Path { source: *source, mtu: *mtu })
}

/// Why an address cannot be reached in mode `dsr` though there is a way to it.
fn gateway(address: IpAddr, resolution: &Resolution) -> Option<String> {
    let Resolution::Resolved { via, .. } = resolution else { return None };
    let reason =
        || format!("{address} is behind the gateway {via}, and mode dsr needs it on a link of this host");
    (*via != address).then(reason)
}

/// The next hop; or why there is none, and whether somebody may still answer.
fn next_hop(
    resolution: &Resolution,
    admits: impl Fn(&NextHop) -> bool,
    links: &[Link],
) -> Result<NextHop, (String, bool)> {
    match resolution {
        Resolution::Resolved { ifindex, source_mac, destination_mac, .. } => {
            let hop = NextHop { ifindex: *ifindex, destination: *destination_mac, source: *source_mac };
            if admits(&hop) {
                return Ok(hop);
            }
            let link = links.iter().find(|link| link.index == *ifindex);
            let name = link.map_or_else(|| format!("number {ifindex}"), |link| format!("'{}'", link.name));
            let reason = format!(
                "the way leads by interface {name}, which is not in `daemon.interfaces` or has no XDP program"
            );
            Err((reason, false))
        }
        Resolution::Unresolved { reason, asked } => Err((reason.clone(), *asked)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ADDRESS: &str = "10.0.0.2";

    fn resolved(ifindex: u32) -> Resolution {
        let via = ADDRESS.parse().unwrap();
        let (source_mac, destination_mac, source) = ([2; 6], [4; 6], Some("10.0.0.1".parse().unwrap()));
        Resolution::Resolved { ifindex, source_mac, destination_mac, mtu: 1500, source, via }
    }

    fn unresolved(reason: &str, asked: bool) -> Resolution {
        Resolution::Unresolved { reason: reason.to_owned(), asked }
    }

    fn link(up: bool) -> Link {
        Link { name: "eth0".to_owned(), index: 2, mac: [2; 6], mtu: 1500, up }
    }

    fn only(v4: &str) -> Addresses {
        Addresses { v4: Some(v4.parse().unwrap()), v6: None }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn take(ways: &mut Ways, found: Resolution, links: &[Link], seconds: u64) {
        let found = HashMap::from([(ADDRESS.parse().unwrap(), found)]);
        ways.take(&found, links, at(seconds), |hop| hop.ifindex == 2);
    }

    #[test]
    fn who_was_never_found_is_sought_and_then_unreached_until_he_is_found() {
        let (mut ways, address, links) = (Ways::default(), only(ADDRESS), [link(true)]);
        assert_eq!(ways.reach(Mode::Nat, &address), NOT_LOOKED_FOR);
        take(&mut ways, unresolved("asked", true), &links, 1);
        assert_eq!(ways.reach(Mode::Nat, &address), Reach::Sought("asked"));
        assert_eq!(ways.unreached(Mode::Nat, &address), [IpAddr::from([10, 0, 0, 2])]);
        take(&mut ways, unresolved("no answer", false), &links, 4);
        assert_eq!(ways.reach(Mode::Nat, &address), Reach::None("no answer"));
        take(&mut ways, unresolved("asked again", true), &links, 5);
        assert_eq!(ways.reach(Mode::Nat, &address), Reach::None("asked again"), "it does not flap");
        assert_eq!(ways.lack_since(Mode::Nat, &address), Some(at(4)));
        take(&mut ways, resolved(2), &links, 9);
        assert_eq!(
            (ways.reach(Mode::Nat, &address), ways.lack_since(Mode::Nat, &address)),
            (Reach::Whole, None)
        );
        assert!(ways.are_all_known() && ways.unreached(Mode::Nat, &address).is_empty());
    }

    #[test]
    fn an_old_way_holds_for_as_long_as_its_interface_can_be_used() {
        let (address, no_answer) = (only(ADDRESS), || unresolved("no answer", false));
        let hop = NextHop { ifindex: 2, destination: [4; 6], source: [2; 6] };
        let before = |hop| Ways::new(HashMap::from([(ADDRESS.parse().unwrap(), hop)]));
        let mut ways = before(hop);
        assert_eq!(ways.reach(Mode::Nat, &address), Reach::Whole, "the daemon before knew it");
        take(&mut ways, no_answer(), &[link(true)], 1);
        assert_eq!(ways.reach(Mode::Nat, &address), Reach::Whole);
        take(&mut ways, no_answer(), &[link(false)], 2);
        assert_eq!(ways.reach(Mode::Nat, &address), Reach::None("no answer"), "the interface is down");
        take(&mut ways, no_answer(), &[link(true)], 3);
        assert_eq!(ways.reach(Mode::Nat, &address), Reach::Whole);
        take(&mut ways, no_answer(), &[], 4);
        assert_eq!(ways.reach(Mode::Nat, &address), Reach::None("no answer"), "the interface is gone");
        let mut elsewhere = before(NextHop { ifindex: 3, ..hop });
        take(&mut elsewhere, resolved(3), &[link(true)], 1);
        assert!(
            matches!(elsewhere.reach(Mode::Nat, &address), Reach::None(why) if why.contains("has no XDP program"))
        );
    }

    #[test]
    fn a_backend_of_two_families_may_be_reached_by_one() {
        let both = Addresses { v6: Some("2001:db8::2".parse().unwrap()), ..only(ADDRESS) };
        let mut ways = Ways::default();
        let mut take = |v4: Resolution, v6: Resolution| {
            let found = both.iter().zip([v4, v6]).collect();
            ways.take(&found, &[link(true)], at(1), |_| true);
            (format!("{:?}", ways.reach(Mode::Nat, &both)), ways.unreached(Mode::Nat, &both).len())
        };
        let no = |reason| unresolved(reason, false);
        assert_eq!(take(no("a"), no("b")), ("None(\"a\")".to_owned(), 2));
        assert_eq!(take(resolved(2), no("b")), ("Partly(\"b\")".to_owned(), 1));
        assert_eq!(take(resolved(2), resolved(2)), ("Whole".to_owned(), 0));
    }

    #[test]
    fn who_is_behind_a_gateway_is_out_of_reach_in_mode_dsr_alone() {
        let (mut ways, address, links) = (Ways::default(), only(ADDRESS), [link(true)]);
        let behind = |via: &str| Resolution::Resolved {
            ifindex: 2,
            source_mac: [2; 6],
            destination_mac: [4; 6],
            mtu: 1500,
            source: None,
            via: via.parse().unwrap(),
        };
        take(&mut ways, behind("10.0.0.254"), &links, 1);
        take(&mut ways, behind("10.0.0.254"), &links, 2);
        assert!(matches!(ways.reach(Mode::Dsr, &address), Reach::None(why) if why.contains("10.0.0.254")));
        assert_eq!(ways.lack_since(Mode::Dsr, &address), Some(at(1)));
        assert!(ways.must_not_be_taken(Mode::Dsr, &address));
        assert_eq!(ways.reach(Mode::Dnat, &address), Reach::Whole);
        assert!(!ways.must_not_be_taken(Mode::Dnat, &address));
        take(&mut ways, behind(ADDRESS), &links, 3);
        assert_eq!(ways.reach(Mode::Dsr, &address), Reach::Whole);
        assert!(!ways.must_not_be_taken(Mode::Dsr, &address));
    }
}
