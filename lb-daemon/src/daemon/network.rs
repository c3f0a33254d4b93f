//! The host's network: next hops of backends, VIPs, interfaces that come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use lb_common::abi::{ADDRESS_MANAGED, MappedAddress, NextHop};
use lb_core::state::{EventKind, EventLevel};

use super::{DEBOUNCE, Daemon, RESOLVE_EVERY};
use crate::announce::announce;
use crate::clock;
use crate::datapath::Registered;
use crate::netlink::{Change, Link, Resolution};

/// An announcement may be lost; it is made again after so long.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(1);

impl Daemon {
    /// Something changed: looks at it all together, shortly.
    pub(super) fn network_changed(&mut self, change: Change) {
        tracing::trace!(?change, "the network changed");
        self.resolve_at = self.resolve_at.min(clock::now() + DEBOUNCE);
    }

    /// Brings interfaces, VIPs and next hops to what the network now is.
    pub(super) async fn settle_network(&mut self) {
        self.resolve_at = clock::now() + RESOLVE_EVERY;
        match self.netlink.links().await {
            Ok(links) => self.interfaces_changed(links),
            Err(error) => return tracing::warn!("cannot list the network interfaces: {error}"),
        }
        self.place_vips().await;
        self.resolve().await;
        self.follow();
        self.publish();
    }

    /// Attaches the program to interfaces that have come (back) under another number, and tells who went up or down.
    fn interfaces_changed(&mut self, links: Vec<Link>) {
        let before = std::mem::replace(&mut self.links, links);
        let config = self.config.clone();
        self.register_interfaces();
        for name in &config.daemon.interfaces {
            let old = before.iter().find(|link| link.name == *name);
            let new = self.links.iter().find(|link| link.name == *name).cloned();
            let told = match (old, &new) {
                (Some(_), None) => Some((EventLevel::Error, "is gone")),
                (Some(old), Some(new)) if old.up && !new.up => Some((EventLevel::Warning, "is down")),
                (Some(old), Some(new)) if !old.up && new.up => Some((EventLevel::Info, "is up")),
                (None, Some(_)) => Some((EventLevel::Info, "is back")),
                _ => None,
            };
            if let Some((level, what)) = told {
                self.tell(level, EventKind::Interface, None, None, format!("interface '{name}' {what}"));
            }
            let Some(link) = new else {
                self.attached.retain(|_, attached| attached.interface != *name);
                continue;
            };
            if self.attached.contains_key(&link.index) {
                continue;
            }
            self.attached.retain(|_, attached| attached.interface != *name);
            match self.datapath.attach(name, link.index, config.daemon.xdp_mode) {
                Ok(attached) => {
                    self.attached.insert(link.index, attached);
                }
                Err(error) => tracing::error!("interface '{name}' is without the XDP program: {error}"),
            }
        }
    }

    /// Tells the program of its interfaces if they are not what it was told.
    fn register_interfaces(&mut self) {
        let wanted = registrations(&self.config.daemon.interfaces, &self.links, &self.registered);
        let unchanged = wanted.iter().all(|(name, new)| {
            self.registered.get(name).is_some_and(|old| (old.ifindex, old.mac) == (new.ifindex, new.mac))
        });
        if unchanged {
            return;
        }
        match self.datapath.register(&wanted.values().copied().collect::<Vec<_>>()) {
            // One that is gone is remembered: it may come back under another index.
            Ok(()) => self.registered.extend(wanted),
            Err(error) => tracing::error!("the XDP program cannot be told of its interfaces: {error:#}"),
        }
    }

    /// Finds the next hop of every backend, of former ones too that connections still use.
    pub(super) async fn resolve(&mut self) {
        let mut addresses = self.observed.backend_addresses();
        let backends = self.config.farms.iter().flat_map(|farm| &farm.backends);
        addresses.extend(backends.flat_map(|backend| backend.address.iter()));
        let addresses: Vec<IpAddr> = addresses.into_iter().collect();
        let resolutions = match self.netlink.resolve(&addresses).await {
            Ok(resolutions) => resolutions,
            Err(error) => return tracing::warn!("cannot resolve the backends' next hops: {error}"),
        };
        let mut unresolved = BTreeMap::new();
        for (address, resolution) in resolutions {
            match self.next_hop(resolution) {
                Ok(hop) => {
                    if self.hops.insert(address, hop) != Some(hop) {
                        tracing::debug!(%address, interface = hop.ifindex, "next hop of a backend");
                    }
                }
                Err(reason) => {
                    tracing::debug!(%address, reason, "no next hop for a backend");
                    unresolved.insert(address, reason);
                }
            }
        }
        self.unresolved = unresolved;
    }

    fn next_hop(&self, resolution: Resolution) -> Result<NextHop, String> {
        match resolution {
            Resolution::Resolved { ifindex, source_mac, destination_mac, .. } => {
                if self.attached.contains_key(&ifindex) {
                    return Ok(NextHop { ifindex, destination: destination_mac, source: source_mac });
                }
                let link = self.links.iter().find(|link| link.index == ifindex);
                let name =
                    link.map_or_else(|| format!("number {ifindex}"), |link| format!("'{}'", link.name));
                Err(format!("is reached by interface {name}, which is not in `daemon.interfaces`"))
            }
            Resolution::Unresolved { reason } => Err(reason),
        }
    }

    /// Puts every VIP of an enabled farm on its interface, takes those away that are no longer wanted, and announces new ones.
    pub(super) async fn place_vips(&mut self) {
        self.remove_unwanted_vips().await;
        let (wanted, interfaces) = (self.wanted_vips(), self.vip_interfaces());
        let mut news = Vec::new();
        for vip in wanted {
            let placed = async {
                let Some(ifindex) = self.netlink.vip_interface(vip, &interfaces).await? else {
                    return Ok(None);
                };
                std::io::Result::Ok(Some((ifindex, self.netlink.add_vip(ifindex, vip).await?)))
            };
            match placed.await {
                Ok(Some((ifindex, added))) => {
                    if self.vips.insert(vip, ifindex) != Some(ifindex) || added {
                        news.push(vip);
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::warn!("cannot put {vip} in place: {error}"),
            }
        }
        for vip in &news {
            self.announce(*vip);
        }
        if !news.is_empty() {
            self.announce_again = Some(clock::now() + ANNOUNCE_AGAIN);
        }
    }

    fn wanted_vips(&self) -> BTreeSet<IpAddr> {
        let manage = self.config.daemon.manage_vips;
        let farms = self.config.farms.iter().filter(|farm| farm.enabled && manage);
        farms.flat_map(|farm| farm.vips.iter().copied()).collect()
    }

    fn vip_interfaces(&self) -> Vec<Link> {
        let names = &self.config.daemon.interfaces;
        let found = names.iter().filter_map(|name| self.links.iter().find(|link| link.name == *name));
        found.cloned().collect()
    }

    /// Takes away those that this daemon put in place, and those that one before it did and the maps tell of: before a
    /// plan makes the maps forget them.
    pub(super) async fn remove_unwanted_vips(&mut self) {
        let (wanted, interfaces) = (self.wanted_vips(), self.vip_interfaces());
        let mut unwanted: BTreeSet<(u32, IpAddr)> = BTreeSet::new();
        self.vips.retain(|vip, ifindex| {
            let keep = wanted.contains(vip);
            if !keep {
                unwanted.insert((*ifindex, *vip));
            }
            keep
        });
        let managed = self.observed.addresses.iter().filter(|(_, flags)| **flags & ADDRESS_MANAGED != 0);
        for vip in managed.map(|(address, _)| unmapped(address)).filter(|vip| !wanted.contains(vip)) {
            unwanted.extend(interfaces.iter().map(|link| (link.index, vip)));
        }
        self.take_vips_away(unwanted).await;
    }

    /// Takes VIPs off their interfaces, but for addresses that are none of the daemon's making: a VIP that the operator
    /// had put in place himself stays.
    pub(super) async fn take_vips_away(&self, unwanted: BTreeSet<(u32, IpAddr)>) {
        if unwanted.is_empty() {
            return;
        }
        let own = match self.netlink.own_vips().await {
            Ok(own) => own,
            Err(error) => return tracing::warn!("cannot list the addresses, and takes no VIP away: {error}"),
        };
        for (ifindex, vip) in unwanted.intersection(&own) {
            if let Err(error) = self.netlink.remove_vip(*ifindex, *vip).await {
                tracing::warn!("cannot take {vip} away: {error}");
            }
        }
    }

    pub(super) fn announce_all(&self) {
        self.vips.keys().for_each(|vip| self.announce(*vip));
    }

    fn announce(&self, vip: IpAddr) {
        let Some(ifindex) = self.vips.get(&vip) else { return };
        let Some(link) = self.links.iter().find(|link| link.index == *ifindex) else { return };
        match announce(link.index, link.mac, vip) {
            Ok(()) => tracing::debug!(%vip, interface = link.name, "announced"),
            Err(error) => tracing::warn!("cannot announce {vip} on '{}': {error}", link.name),
        }
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
        (link.name.clone(), Registered { ifindex: link.index, mac: link.mac, was })
    });
    registered.collect()
}

fn unmapped(address: &MappedAddress) -> IpAddr {
    IpAddr::from(*address).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, index: u32) -> Link {
        Link { name: name.to_owned(), index, mac: [2, 0, 0, 0, 0, index as u8], mtu: 1500, up: true }
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
