//! One round: reads what has changed, puts VIPs in place, and finds the backends' next hops.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;

use super::places::places;
use super::{News, Wanted};
use crate::netlink::{Change, Link, Netlink, Resolution, Route, RouteError, resolution};

/// What is to be read again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dirty {
    pub links: bool,
    pub addresses: bool,
    pub routes: bool,
    pub neighbours: bool,
}

impl Dirty {
    pub const ALL: Self = Self { links: true, addresses: true, routes: true, neighbours: true };

    pub fn add(&mut self, change: Change) {
        match change {
            Change::Lost => *self = Self::ALL,
            // A link that comes or goes takes its addresses and its routes along.
            Change::Links => *self = Self::ALL,
            Change::Addresses => (self.addresses, self.routes) = (true, true),
            Change::Routes => self.routes = true,
            Change::Neighbours => self.neighbours = true,
        }
    }
}

/// What the task remembers between two rounds.
#[derive(Debug, Default)]
pub struct Known {
    links: Vec<Link>,
    routes: HashMap<IpAddr, Result<Route, Cow<'static, str>>>,
    ours: BTreeSet<IpAddr>,
    placed: BTreeMap<IpAddr, u32>,
    refused: BTreeMap<IpAddr, String>,
    /// VIPs that were handed out to be announced, and by which interface.
    announced: BTreeMap<IpAddr, u32>,
}

/// VIPs that are to be announced, and where.
pub type Announcements = Vec<(Link, IpAddr)>;

impl Known {
    /// `ours`: what a daemon before this one has put in place.
    pub fn new(ours: BTreeSet<IpAddr>) -> Self {
        Self { ours, ..Self::default() }
    }

    /// Looks at what is dirty and does what is to be done. What it could not read stays dirty for the caller, who gets an
    /// error.
    pub async fn round(&mut self, netlink: &Netlink, wanted: &Wanted, dirty: Dirty) -> io::Result<News> {
        if dirty.links {
            self.links = netlink.links().await?;
        }
        if dirty.addresses {
            self.place(netlink, wanted).await?;
        }
        if dirty.routes {
            self.routes.clear();
        }
        let resolutions = self.resolve(netlink, wanted).await?;
        Ok(News {
            of: wanted.number,
            links: self.links.clone(),
            resolutions,
            placed: self.placed.clone(),
            ours: self.ours.clone(),
            problems: self.refused.values().cloned().collect(),
        })
    }

    /// The VIPs that have come to their places and were not handed out by this before. To be asked for after each round,
    /// whatever became of it: it may have failed when they were in place already.
    pub fn take_announcements(&mut self) -> Announcements {
        self.announced.retain(|vip, ifindex| self.placed.get(vip) == Some(ifindex));
        let new = self.placed.iter().filter(|(vip, _)| !self.announced.contains_key(*vip));
        let new = new.filter_map(|(vip, ifindex)| {
            Some((self.links.iter().find(|link| link.index == *ifindex)?.clone(), *vip))
        });
        let new: Announcements = new.collect();
        self.announced.extend(new.iter().map(|(link, vip)| (*vip, link.index)));
        new
    }

    /// Brings the VIPs to their places.
    async fn place(&mut self, netlink: &Netlink, wanted: &Wanted) -> io::Result<()> {
        let links = wanted.interfaces.iter();
        let links = links.filter_map(|name| self.links.iter().find(|link| link.name == *name));
        let interfaces: Vec<Link> = links.cloned().collect();
        let prefixes = netlink.addresses().await?;
        let places = places(&wanted.vips, &self.ours, &interfaces, &prefixes);
        let mut placed = places.there;
        let mut refused = BTreeMap::new();
        for ((ifindex, vip), done) in netlink.add_vips(&places.add).await {
            match done {
                Ok(_) => drop(placed.insert(vip, ifindex)),
                Err(error) => drop(refused.insert(vip, format!("cannot put {vip} in place: {error}"))),
            }
        }
        for ((_, vip), done) in netlink.remove_vips(&places.remove).await {
            if let Err(error) = done {
                refused.insert(vip, format!("cannot take {vip} away: {error}"));
            }
        }
        for (vip, problem) in &refused {
            if self.refused.get(vip) != Some(problem) {
                tracing::warn!("{problem}");
            }
        }
        self.ours.extend(placed.keys());
        // What is gone is nobody's.
        self.ours.retain(|vip| wanted.vips.contains(vip) || refused.contains_key(vip));
        (self.placed, self.refused) = (placed, refused);
        Ok(())
    }

    /// Finds the next hops. Makes the kernel go on with neighbours that it has not resolved and confirm those that are
    /// stale, so that backends stay resolved though this host has no traffic of its own with them.
    async fn resolve(
        &mut self,
        netlink: &Netlink,
        Wanted { backends, vips, .. }: &Wanted,
    ) -> io::Result<HashMap<IpAddr, Resolution>> {
        self.routes.retain(|address, _| backends.contains(address));
        let unknown: Vec<IpAddr> =
            backends.iter().filter(|address| !self.routes.contains_key(*address)).copied().collect();
        for (address, route) in netlink.next_hops(&unknown).await {
            let route = match route {
                // A VIP is the backend's own, too, in the modes that need a source: it would drop such a packet.
                Ok(route) => Ok(Route { source: route.source.filter(|it| !vips.contains(it)), ..route }),
                Err(RouteError::Unreachable(reason)) => Err(reason),
                Err(RouteError::Netlink(error)) => return Err(error),
            };
            self.routes.insert(address, route);
        }
        let neighbours = netlink.neighbours().await?;
        let links: HashMap<u32, &Link> = self.links.iter().map(|link| (link.index, link)).collect();
        let (mut resolutions, mut probes) = (HashMap::new(), BTreeSet::new());
        for (address, route) in &self.routes {
            let found = match route {
                Ok(route) => {
                    let neighbour = neighbours.get(&(route.ifindex, route.via));
                    let (found, probe) = resolution(route, links.get(&route.ifindex).copied(), neighbour);
                    probes.extend(probe.then_some((route.ifindex, route.via)));
                    found
                }
                Err(reason) => Resolution::Unresolved { reason: reason.clone().into_owned(), asked: false },
            };
            resolutions.insert(*address, found);
        }
        let probes: Vec<_> = probes.into_iter().collect();
        for ((ifindex, via), done) in netlink.probes(&probes).await {
            // The link may have gone since it was read; that is a change of its own.
            if let Err(error) = done {
                tracing::debug!(ifindex, %via, %error, "cannot probe a neighbour");
            }
        }
        Ok(resolutions)
    }
}
