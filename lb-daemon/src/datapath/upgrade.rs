//! From the maps of layout 1 to those of this version, once: a daemon that finds them pinned brings everything over, so that an
//! upgrade loses no connection.
//!
//! While it does, the old program goes on with the old maps. The daemon's loop calls [`Upgrade::begin`] before the links get the
//! new program: all that is established is there by then. Then [`Upgrade::finish`] brings over what opened in between, and the old
//! maps go. Until that is done packets that nobody knows are dropped and not answered: their senders repeat them.
//!
//! A daemon that is killed before the links change finds both sets of maps and begins anew; one that is killed after that
//! finds the old ones under [`LEFT`], and has only the rest to bring over.

mod enter;
mod former;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aya::maps::{Array, HashMap};
use lb_common::abi::{
    self, AddressFilter, BACKENDS_MAX, BackendLabel, FARMS_MAX, FarmEntry, Label, MaglevTable, MappedAddress,
    NO_TABLE, ServiceEntry, ServiceKey, interface_number,
};
use lb_core::diff::{MapOp, Observed};

use self::enter::{Brought, Ground};
use self::former::{Former, OldBackend, array, hash};
use super::mapping::Memory;
use super::maps::Vips;
use super::{Datapath, Reader};

/// Where the old maps are until the links change, and from then on.
const FORMER: &str = "maps-v1";
const LEFT: &str = "maps-v1-left";

/// Maps of layout 1 that are to be brought over.
pub struct Upgrade {
    dir: PathBuf,
    v4: Former<[u8; 4]>,
    v6: Former<[u8; 16]>,
    refusals: u32,
}

impl Upgrade {
    /// Whether maps of layout 1 under `dir` are in use, and those of this version, if there are any, not yet.
    pub fn is_due(dir: &Path) -> bool {
        dir.join(FORMER).join(abi::map::FARMS).exists()
    }

    /// Opens what is to be brought over, or what a daemon that was killed has left to be; `None` if nothing is.
    ///
    /// # Errors
    ///
    /// If the maps cannot be opened.
    pub fn open(dir: &Path, refusals: u32) -> anyhow::Result<Option<Self>> {
        let pins = if Self::is_due(dir) { dir.join(FORMER) } else { dir.join(LEFT) };
        if !pins.exists() {
            return Ok(None);
        }
        let v4 = Former::open(&pins, "CONNECTIONS_V4", "OPENING_V4")?;
        let v6 = Former::open(&pins, "CONNECTIONS_V6", "OPENING_V6")?;
        Ok(Some(Self { dir: dir.to_owned(), v4, v6, refusals }))
    }

    /// Brings over what the maps hold, and every connection there is. Interfaces are registered by now, the links have the old
    /// program.
    ///
    /// # Errors
    ///
    /// If a map cannot be read or written.
    pub fn begin(&self, datapath: &mut Datapath, observed: &mut Observed) -> anyhow::Result<()> {
        datapath.maps.control.set_refusals(0);
        let former = self.dir.join(FORMER);
        if former.exists() {
            let clock: Array<_, u32> = array(&former, "CLOCK")?;
            datapath.set_clock(clock.get(&0, 0)?);
            let old = self.read(&former).context("reading the maps of the version before")?;
            datapath.apply(observed, &operations(&old))?;
            let brought = self.bring_over(datapath, false)?;
            tracing::info!(connections = brought.over, "brought the data plane over to this version's maps");
            std::fs::rename(&former, self.dir.join(LEFT))
                .with_context(|| format!("cannot rename {}", former.display()))?;
        }
        Ok(())
    }

    /// Brings over what has opened since. The links have the new program.
    ///
    /// # Errors
    ///
    /// If a map cannot be read or the old ones not be removed.
    pub fn finish(self, datapath: &mut Datapath) -> anyhow::Result<()> {
        let brought = self.bring_over(datapath, true)?;
        if brought.lost > 0 {
            tracing::warn!(
                connections = brought.lost,
                "not all connections found room in this version's tables"
            );
        }
        datapath.maps.control.set_refusals(self.refusals);
        let left = self.dir.join(LEFT);
        std::fs::remove_dir_all(&left).with_context(|| format!("cannot remove {}", left.display()))
    }

    /// With `opening`, half-open ones too: the old program's table of them is read only while nobody works on it. Under a flood
    /// one would not come to its end.
    fn bring_over(&self, datapath: &Datapath, opening: bool) -> anyhow::Result<Brought> {
        let tables = Reader::open(&self.dir)?;
        let maps = &datapath.maps;
        let mut vips = VipNumbers::of(&maps.vips);
        // A look at a table copies the addresses that its lines need; so all are there before it.
        self.v6.each(opening, |key, _, _| vips.give(key.dst, &maps.vips))?;
        let (factor, there) = (maps.control.interface_factor(), maps.control.interfaces());
        let interface = |ifindex: u32| {
            let number = interface_number(ifindex, factor);
            there.get(number as usize).filter(|entry| entry.ifindex == ifindex).map(|_| number as u16)
        };
        let now = maps.control.now();
        let mut brought = Brought::default();
        let to = Ground { table: tables.v4(), interface: &interface, vip: &|_| Some(0), now };
        self.v4.each(opening, |key, forward, reverse| brought.add(to.enter(key, forward, reverse)))?;
        let vip = |address: [u8; 16]| vips.0.get(&address).copied();
        let to = Ground { table: tables.v6(), interface: &interface, vip: &vip, now };
        self.v6.each(opening, |key, forward, reverse| brought.add(to.enter(key, forward, reverse)))?;
        Ok(brought)
    }

    fn read(&self, pins: &Path) -> anyhow::Result<Observed> {
        let filter: Array<_, AddressFilter> = array(pins, "ADDRESS_FILTER")?;
        let mut old = Observed { filter: Box::new(filter.get(&0, 0)?), ..Observed::default() };
        let addresses: HashMap<_, MappedAddress, u32> = hash(pins, "ADDRESSES")?;
        old.addresses = addresses.iter().collect::<Result<_, _>>()?;
        let services: HashMap<_, ServiceKey, u32> = hash(pins, "SERVICES")?;
        let mut numbers = BTreeMap::new();
        for service in services.iter() {
            let (key, farm) = service?;
            let next = numbers.len() as u16;
            let vip = *numbers.entry(key.vip).or_insert(next);
            old.services.insert(key, ServiceEntry { farm: farm as u16, vip });
        }
        old.vips = numbers.into_iter().map(|(address, number)| (number, address)).collect();
        let farms: Array<_, FarmEntry> = array(pins, "FARMS")?;
        let labels: Array<_, Label> = array(pins, "FARM_LABELS")?;
        let tables: Array<_, MaglevTable> = array(pins, "MAGLEV")?;
        for id in 0..FARMS_MAX {
            let (label, farm) = (labels.get(&id, 0)?, farms.get(&id, 0)?);
            if label == Label::default() {
                continue;
            }
            if farm.table != NO_TABLE {
                old.tables.insert(farm.table, Box::new(tables.get(&farm.table, 0)?));
                old.last_table = old.last_table.max(farm.table);
            }
            old.farms.insert(id as u16, (label, farm));
        }
        let backends: Array<_, OldBackend> = array(pins, "BACKENDS")?;
        let labels: Array<_, BackendLabel> = array(pins, "BACKEND_LABELS")?;
        for id in 0..BACKENDS_MAX {
            let label = labels.get(&id, 0)?;
            if label != BackendLabel::default() {
                let farm = old.farms.iter().find(|(_, farm)| farm.0 == label.farm).map(|(id, _)| *id);
                old.backends.insert(id as u16, (label, backends.get(&id, 0)?.entry(farm.unwrap_or(0))));
            }
        }
        Ok(old)
    }
}

/// Numbers of IPv6 VIPs, of former ones too.
struct VipNumbers(BTreeMap<MappedAddress, u16>);

impl VipNumbers {
    fn of<M: Memory>(vips: &Vips<M>) -> Self {
        Self(vips.iter().map(|(number, address)| (address, number)).collect())
    }

    /// A VIP that no service names any more gets a number, too: the planner gives it up when nobody bears it.
    fn give<M: Memory>(&mut self, address: MappedAddress, vips: &Vips<M>) {
        if self.0.contains_key(&address) {
            return;
        }
        let free = (0..abi::VIPS_MAX as u16).find(|number| !self.0.values().any(|taken| taken == number));
        if let Some(number) = free {
            vips.set(number, &address);
            self.0.insert(address, number);
        }
    }
}

/// What makes empty maps hold what `old` says: what others refer to comes first.
fn operations(old: &Observed) -> Vec<MapOp> {
    let mut ops = vec![MapOp::Filter(old.filter.clone())];
    ops.extend(old.addresses.iter().map(|(address, flags)| MapOp::Address(*address, Some(*flags))));
    ops.extend(old.vips.iter().map(|(number, address)| MapOp::Vip(*number, Some(*address))));
    ops.extend(old.tables.iter().map(|(number, table)| MapOp::Table(*number, table.clone())));
    for (id, (label, entry)) in &old.backends {
        ops.extend([MapOp::BackendLabel(*id, Some(*label)), MapOp::Backend(*id, *entry)]);
    }
    for (id, (label, entry)) in &old.farms {
        ops.extend([MapOp::FarmLabel(*id, Some(*label)), MapOp::Farm(*id, *entry)]);
    }
    ops.extend(old.services.iter().map(|(key, entry)| MapOp::Service(*key, Some(*entry))));
    ops
}
