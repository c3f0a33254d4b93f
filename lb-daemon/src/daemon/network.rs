//! The host's network: next hops of backends, VIPs, interfaces that come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use lb_common::abi::{ADDRESS_MANAGED, MappedAddress, NextHop};
use lb_core::state::{EventKind, EventLevel};

use super::{DEBOUNCE, Daemon, RESOLVE_EVERY};
use crate::announce::announce;
use crate::clock;
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
        for (ifindex, vip) in unwanted {
            if let Err(error) = self.netlink.remove_vip(ifindex, vip).await {
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

fn unmapped(address: &MappedAddress) -> IpAddr {
    IpAddr::from(*address).to_canonical()
}
