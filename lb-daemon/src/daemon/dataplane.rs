//! The data plane as the loop holds it: the maps and what they are known to hold, the interfaces with the program, and the
//! time that is kept for them. Nobody else in the daemon changes a map.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use lb_common::abi::{ADDRESS_MANAGED, BackendLabel, Label, MappedAddress};
use lb_core::config::model::{Backend, Config, Farm, FarmName, XdpMode};
use lb_core::desired::{Desired, NextHops};
use lb_core::diff::{Number, Numbers, Observed, Planner};
use lb_core::quota::Census;
use lb_core::sizing;
use lb_core::state::tables::{Table, Tables};

use super::interfaces::{Interfaces, registrations};
use crate::clock::{KeptTime, Passed};
use crate::datapath::{AttachError, Attached, Datapath, Lists, Reader, Registered};
use crate::netlink::{Link, Netlink};

/// The names of the families' tables, in the sweep's order.
const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

/// See the module.
pub(super) struct Dataplane {
    datapath: Datapath,
    reader: Arc<Reader>,
    observed: Observed,
    /// Of what is observed.
    numbers: Numbers,
    farms: BTreeMap<Label, u16>,
    planner: Planner,
    /// A change could not be brought into the maps; it is to be tried again.
    behind: bool,
    /// Counts changes of the maps.
    changes: u64,
    interfaces: Interfaces,
    clock: KeptTime,
}

impl Dataplane {
    /// Reads what the maps hold, and attaches the program to every interface of `config`. The links are told besides.
    ///
    /// # Errors
    ///
    /// What stands in the way, with the data plane as it then is.
    pub async fn prepare(
        config: &Config,
        mut datapath: Datapath,
        reader: Reader,
        netlink: &Netlink,
        now: Instant,
    ) -> Result<(Self, Vec<Link>), (anyhow::Error, Datapath)> {
        let (observed, links, registered, attached) = match prepare(config, &mut datapath, netlink).await {
            Ok(prepared) => prepared,
            Err(error) => return Err((error, datapath)),
        };
        let dataplane = Self {
            clock: KeptTime::new(datapath.maps.control.now(), now),
            // After an upgrade the maps have no time-outs yet but the defaults: nobody is to be forgotten by those.
            changes: u64::from(datapath.upgraded),
            datapath,
            reader: Arc::new(reader),
            numbers: observed.numbers(),
            farms: farms(&observed),
            observed,
            planner: Planner::default(),
            behind: false,
            interfaces: Interfaces::new(registered, attached),
        };
        Ok((dataplane, links))
    }

    /// For what is read, swept and cut beside the loop.
    pub fn reader(&self) -> Arc<Reader> {
        self.reader.clone()
    }

    pub fn adopted(&self) -> bool {
        self.datapath.adopted
    }

    pub fn upgraded(&self) -> bool {
        self.datapath.upgraded
    }

    /// Counts changes of the maps.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether the last change could not be brought in.
    pub fn is_behind(&self) -> bool {
        self.behind
    }

    pub fn set_behind(&mut self) {
        self.behind = true;
    }

    /// Brings the maps to what is desired.
    ///
    /// # Errors
    ///
    /// If it does not fit or the kernel refuses. The maps may then be anywhere on the way.
    pub fn reconcile(
        &mut self,
        desired: &Desired,
        hops: &NextHops,
        is_borne: impl Fn(Number) -> bool,
    ) -> anyhow::Result<()> {
        let ops = self.planner.plan(&self.observed, desired, hops, is_borne)?;
        if !ops.is_empty() {
            tracing::debug!(operations = ops.len(), "changing the maps");
            self.changes += 1;
        }
        let applied = self.datapath.apply(&mut self.observed, &ops);
        if !ops.is_empty() {
            (self.numbers, self.farms) = (self.observed.numbers(), farms(&self.observed));
        }
        applied?;
        self.behind = false;
        Ok(())
    }

    /// What writes and takes out lists beside the loop.
    pub fn lists(&self) -> Lists {
        self.datapath.maps.lists.clone()
    }

    /// Says which lists are to stay: those of `config`, and what farms go by now.
    pub fn want_lists(&self, config: &Config) {
        let wanted = config.farms.iter().map(|farm| farm.lists.id());
        self.datapath.maps.lists.want(wanted.chain(self.observed.lists()).collect());
    }

    /// The number by which the data plane knows a backend.
    pub fn backend_id(&self, farm: &Farm, backend: &Backend) -> Option<u16> {
        let label =
            BackendLabel { farm: Label::new(farm.name.as_str())?, name: Label::new(backend.name.as_str())? };
        self.numbers.get(&label, &backend.address, backend.port, farm.mode)
    }

    /// The number by which the data plane knows a farm.
    pub fn farm_id(&self, farm: &FarmName) -> Option<u16> {
        self.farms.get(&Label::new(farm.as_str())?).copied()
    }

    /// The flags that a backend has in the maps; none: it is not there.
    pub fn backend_flags(&self, farm: &Farm, backend: &Backend) -> u16 {
        let id = self.backend_id(farm, backend);
        id.and_then(|id| self.observed.backends.get(&id)).map_or(0, |(_, entry)| entry.flags)
    }

    /// The addresses of all backends, those included that only connections remember.
    pub fn backend_addresses(&self) -> BTreeSet<IpAddr> {
        self.observed.backend_addresses()
    }

    /// The next hops that stand in the maps.
    pub fn hops(&self) -> NextHops {
        self.observed.hops()
    }

    /// The VIPs that a daemon has put in place, as the maps tell.
    pub fn managed_vips(&self) -> BTreeSet<IpAddr> {
        let managed = self.observed.addresses.iter().filter(|(_, flags)| **flags & ADDRESS_MANAGED != 0);
        managed.map(|(address, _)| unmapped(address)).collect()
    }

    /// Sets the data plane's clock by the time that has passed; what is no time is told.
    pub fn keep_time(&mut self, now: Instant) {
        match self.clock.keep(now) {
            Passed::Ticks(0) => {}
            Passed::Ticks(_) => self.datapath.set_clock(self.clock.ticks()),
            Passed::Gap(gap) => {
                tracing::warn!(?gap, "the clock of the data plane stood still; connections age from now on");
            }
        }
    }

    pub fn ticks(&self) -> u32 {
        self.clock.ticks()
    }

    /// Brings the program to interfaces that have come (back) under another number.
    pub fn follow_links(&mut self, names: &[String], mode: XdpMode, links: &[Link]) {
        if let Some(wanted) = self.interfaces.to_register(names, links) {
            match self.datapath.register(&wanted.values().copied().collect::<Vec<_>>()) {
                Ok(()) => self.interfaces.note_registered(wanted),
                Err(error) => tracing::error!("the XDP program cannot be told of its interfaces: {error:#}"),
            }
        }
        for link in self.interfaces.follow(names, links) {
            match self.datapath.attach(&link.name, link.index, mode) {
                Ok(attached) => self.interfaces.note_attached(link.index, attached),
                Err(error) => {
                    tracing::error!("interface '{}' is without the XDP program: {error}", link.name)
                }
            }
        }
    }

    /// The interfaces that have the program, and those that should.
    pub fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// The connection tables, as of a round of the sweep.
    pub fn tables(&self, census: &[Census]) -> Tables {
        let families = FAMILIES.iter().zip(census).enumerate();
        let families = families.map(|(number, (family, census))| {
            Table::new(family, census, self.datapath.maps.control.policy(number))
        });
        Tables {
            connections: sizing::connections(self.datapath.lines),
            bytes: self.datapath.table_bytes(),
            families: families.collect(),
        }
    }

    /// Takes all of it away.
    pub fn remove(self) -> anyhow::Result<()> {
        self.datapath.remove()
    }

    pub fn into_datapath(self) -> Datapath {
        self.datapath
    }
}

/// What is there before the daemon changes anything.
type Prepared = (Observed, Vec<Link>, BTreeMap<String, Registered>, BTreeMap<u32, Attached>);

async fn prepare(config: &Config, datapath: &mut Datapath, netlink: &Netlink) -> anyhow::Result<Prepared> {
    let links = netlink.links().await.context("cannot list the network interfaces")?;
    let mut observed = datapath.observe()?;
    datapath.maps.lists.adopt(observed.lists());
    let registered = registrations(&config.daemon.interfaces, &links, &BTreeMap::new());
    // Before the first packet.
    datapath.register(&registered.values().copied().collect::<Vec<_>>())?;
    let upgrade = datapath.upgrade()?;
    if let Some(upgrade) = &upgrade {
        upgrade.begin(datapath, &mut observed)?;
    }
    let mut attached = BTreeMap::new();
    for name in &config.daemon.interfaces {
        // One that is missing may come later, as one that went may come back.
        let Some(link) = links.iter().find(|link| link.name == *name) else { continue };
        match datapath.attach(name, link.index, config.daemon.xdp_mode) {
            Ok(new) => drop(attached.insert(link.index, new)),
            Err(AttachError::NoInterface(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let all: Vec<Attached> = attached.values().cloned().collect();
    datapath.detach_others(&all)?;
    if let Some(upgrade) = upgrade {
        upgrade.finish(datapath)?;
    }
    datapath.pin_program()?;
    Ok((observed, links, registered, attached))
}

fn farms(observed: &Observed) -> BTreeMap<Label, u16> {
    observed.farms.iter().map(|(id, (label, _))| (*label, *id)).collect()
}

fn unmapped(address: &MappedAddress) -> IpAddr {
    IpAddr::from(*address).to_canonical()
}
