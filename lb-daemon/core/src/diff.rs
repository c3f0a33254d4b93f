//! Desired state against what the maps hold: an ordered list of operations that leads from one to the other.
//!
//! Whatever happened before (a crash half-way, a second run, an older daemon), the same desired state ends in the same maps.
//! The order lets packets find every map complete at every moment: what others refer to comes first, references next,
//! and what is no longer referred to goes last.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use lb_common::abi::{
    ADDRESS_BACKEND, ADDRESS_MANAGED, ADDRESS_VIP, ADDRESSES_MAX, AddressFilter, BACKENDS_MAX, BackendEntry,
    BackendLabel, FARMS_MAX, FarmEntry, Label, MaglevTable, MappedAddress, NO_TABLE, NextHop, SERVICES_MAX,
    ServiceKey, TABLE_SIZE, TABLES_MAX,
};

use crate::config::model::{Addresses, FarmName};
use crate::desired::{Desired, DesiredBackend, DesiredFarm, NextHops, mapped};
use crate::maglev::{self, Member};

/// One change of one map.
#[derive(Clone, PartialEq, Eq)]
pub enum MapOp {
    Filter(Box<AddressFilter>),
    /// Set or delete.
    Address(MappedAddress, Option<u32>),
    Service(ServiceKey, Option<u16>),
    FarmLabel(u16, Option<Label>),
    Farm(u16, FarmEntry),
    BackendLabel(u16, Option<BackendLabel>),
    Backend(u16, BackendEntry),
    /// A backend's counters start from 0: the number had another owner.
    ResetCounters(u16),
    Table(u32, Box<MaglevTable>),
}

/// What the maps hold. The daemon alone writes them, so this stays true between two looks.
#[derive(Clone, PartialEq, Eq)]
pub struct Observed {
    pub filter: Box<AddressFilter>,
    pub addresses: BTreeMap<MappedAddress, u32>,
    pub services: BTreeMap<ServiceKey, u16>,
    pub farms: BTreeMap<u16, (Label, FarmEntry)>,
    pub backends: BTreeMap<u16, (BackendLabel, BackendEntry)>,
    /// Those that farms use.
    pub tables: BTreeMap<u32, Box<MaglevTable>>,
    /// The table written last: the next one is taken after it, so that each rests before it is written again.
    pub last_table: u32,
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            filter: Box::new(AddressFilter::EMPTY),
            addresses: BTreeMap::new(),
            services: BTreeMap::new(),
            farms: BTreeMap::new(),
            backends: BTreeMap::new(),
            tables: BTreeMap::new(),
            last_table: 0,
        }
    }
}

impl Observed {
    /// What the maps hold after `op`.
    pub fn apply(&mut self, op: &MapOp) {
        match op {
            MapOp::Filter(filter) => self.filter = filter.clone(),
            MapOp::Address(address, flags) => set(&mut self.addresses, *address, *flags),
            MapOp::Service(key, farm) => set(&mut self.services, *key, *farm),
            MapOp::FarmLabel(id, label) => {
                let label =
                    label.map(|label| (label, self.farms.get(id).map_or_else(FarmEntry::default, |f| f.1)));
                set(&mut self.farms, *id, label);
            }
            MapOp::Farm(id, entry) => {
                if let Some(farm) = self.farms.get_mut(id) {
                    farm.1 = *entry;
                }
                let used: BTreeSet<u32> = self.farms.values().map(|farm| farm.1.table).collect();
                self.tables.retain(|number, _| used.contains(number) || *number == self.last_table);
            }
            MapOp::BackendLabel(id, label) => {
                let entry = self.backends.get(id).map(|backend| backend.1).unwrap_or_default();
                set(&mut self.backends, *id, label.map(|label| (label, entry)));
            }
            MapOp::Backend(id, entry) => {
                if let Some(backend) = self.backends.get_mut(id) {
                    backend.1 = *entry;
                }
            }
            MapOp::ResetCounters(_) => {}
            MapOp::Table(number, table) => {
                self.tables.insert(*number, table.clone());
                self.last_table = *number;
            }
        }
    }

    /// The number of a farm.
    pub fn farm_id(&self, name: &FarmName) -> Option<u16> {
        let label = Label::new(name.as_str())?;
        self.farms.iter().find(|(_, farm)| farm.0 == label).map(|(id, _)| *id)
    }

    /// The number of the backend of that label, address and port.
    pub fn backend_id(&self, label: &BackendLabel, address: &Addresses, port: Option<u16>) -> Option<u16> {
        let same = |entry: &BackendEntry| identity(entry) == identity(&entry_of(address, port));
        self.backends.iter().find(|(_, (found, entry))| found == label && same(entry)).map(|(id, _)| *id)
    }

    /// The addresses of all backends, those included that only connections remember.
    pub fn backend_addresses(&self) -> BTreeSet<IpAddr> {
        self.backends.values().flat_map(|(_, entry)| addresses(entry).iter().collect::<Vec<_>>()).collect()
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

/// Why a desired state does not fit into the maps. Nothing is to be changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiffError {
    #[error("{wanted} {what} do not fit: at most {most}")]
    TooMany { what: &'static str, wanted: usize, most: u32 },
    #[error(
        "no number is free for another {what}: {most} are in use, by connections to former ones too; wait until those end, or cut them"
    )]
    NumbersExhausted { what: &'static str, most: u32 },
}

/// Makes plans, and remembers the tables it has computed.
#[derive(Default)]
pub struct Planner {
    tables: HashMap<FarmName, (Vec<Slot>, Option<Vec<usize>>)>,
}

/// What a table depends on, of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    name: String,
    weight: u16,
    serving: bool,
}

impl Planner {
    /// The operations that lead from `observed` to `desired`.
    ///
    /// Backends that `desired` does not name keep their number and next hop for as long as `in_use` says that connections
    /// refer to them. `hops` are the next hops known now; a backend whose next hop is not among them keeps the one it has.
    ///
    /// # Errors
    ///
    /// When `desired` does not fit into the maps.
    pub fn plan(
        &mut self,
        observed: &Observed,
        desired: &Desired,
        hops: &NextHops,
        in_use: impl Fn(u16) -> bool,
    ) -> Result<Vec<MapOp>, DiffError> {
        self.tables.retain(|name, _| desired.farms.iter().any(|farm| farm.name == *name));
        let mut plan = Plan::new(observed, desired, hops, in_use)?;
        let mut farms = BTreeSet::new();
        for farm in &desired.farms {
            let ids = farm
                .backends
                .iter()
                .map(|backend| plan.backend(farm, backend))
                .collect::<Result<Vec<_>, _>>()?;
            let owners = self.owners(farm);
            farms.insert(plan.farm(farm, &ids, owners)?);
        }
        plan.retire_services();
        plan.retire_farms(&farms);
        plan.retire_backends();
        plan.retire_addresses();
        Ok(plan.ops)
    }

    /// The farm's table, by indexes of its backends.
    fn owners(&mut self, farm: &DesiredFarm) -> Option<&[usize]> {
        let slots: Vec<Slot> = farm
            .backends
            .iter()
            .map(|backend| Slot {
                name: backend.name.as_str().to_owned(),
                weight: backend.weight,
                serving: backend.serving,
            })
            .collect();
        let cached = self.tables.entry(farm.name.clone()).or_default();
        if cached.0 != slots {
            let members: Vec<Member<'_>> = slots
                .iter()
                .map(|slot| Member { name: &slot.name, weight: slot.weight, serving: slot.serving })
                .collect();
            let table = maglev::build(&members);
            *cached = (slots, table);
        }
        cached.1.as_deref()
    }
}

/// A plan in the making.
struct Plan<'a> {
    observed: &'a Observed,
    /// Of the backends that are there.
    numbers: BTreeMap<(BackendLabel, Identity), u16>,
    hops: &'a NextHops,
    services: BTreeMap<ServiceKey, &'a FarmName>,
    ops: Vec<MapOp>,
    /// Numbers taken by this plan or by what is there.
    farm_ids: BTreeSet<u16>,
    backend_ids: BTreeSet<u16>,
    /// Numbers of backends that the desired state names, and of former ones that connections still use.
    current: BTreeSet<u16>,
    former: BTreeSet<u16>,
    tables: BTreeSet<u32>,
    last_table: u32,
    addresses: BTreeMap<MappedAddress, u32>,
}

impl<'a> Plan<'a> {
    fn new(
        observed: &'a Observed,
        desired: &'a Desired,
        hops: &'a NextHops,
        in_use: impl Fn(u16) -> bool,
    ) -> Result<Self, DiffError> {
        let mut services = BTreeMap::new();
        let (mut addresses, mut filter) =
            (BTreeMap::<MappedAddress, u32>::new(), Box::new(AddressFilter::EMPTY));
        let managed = if desired.manage_vips { ADDRESS_MANAGED } else { 0 };
        for farm in &desired.farms {
            services.extend(farm.services.iter().map(|key| (*key, &farm.name)));
            for vip in &farm.vips {
                *addresses.entry(*vip).or_default() |= ADDRESS_VIP | managed;
                admit(&mut filter, *vip);
            }
            for address in farm.backends.iter().flat_map(|backend| backend.address.iter()) {
                *addresses.entry(mapped(address)).or_default() |= ADDRESS_BACKEND;
                // Answers of these come with their own address as source and the client's as destination.
                if !farm.source_is_vip {
                    admit(&mut filter, mapped(address));
                }
            }
        }
        fits("farms", desired.farms.len(), FARMS_MAX)?;
        fits("VIP, protocol and port combinations", services.len(), SERVICES_MAX)?;
        fits("addresses", addresses.len(), ADDRESSES_MAX)?;
        let numbers: BTreeMap<_, _> =
            observed.backends.iter().map(|(id, (label, entry))| ((*label, identity(entry)), *id)).collect();
        let pairs =
            desired.farms.iter().flat_map(|farm| farm.backends.iter().map(move |backend| (farm, backend)));
        let current: BTreeSet<u16> = pairs
            .filter_map(|(farm, backend)| {
                let identity = identity(&entry_of(&backend.address, backend.port));
                numbers.get(&(label_of(farm, backend), identity)).copied()
            })
            .collect();
        let former =
            observed.backends.keys().copied().filter(|id| !current.contains(id) && in_use(*id)).collect();
        let mut plan = Self {
            observed,
            numbers,
            hops,
            services,
            ops: Vec::new(),
            farm_ids: observed.farms.keys().copied().collect(),
            backend_ids: observed.backends.keys().copied().collect(),
            current,
            former,
            tables: observed.farms.values().map(|farm| farm.1.table).collect(),
            last_table: observed.last_table,
            addresses,
        };
        plan.keep_former_backends_reachable(&mut filter);
        plan.admit_addresses(filter);
        Ok(plan)
    }

    /// A former `dnat` backend's answers must still be seen while connections last: what the filter let in stays in
    /// until the number is given up. Which of them were `dnat` nobody remembers; a bit too many costs a lookup.
    fn keep_former_backends_reachable(&mut self, filter: &mut AddressFilter) {
        let former = self.former.iter().filter_map(|id| self.observed.backends.get(id));
        for address in former.flat_map(|(_, entry)| addresses(entry).iter().collect::<Vec<_>>()) {
            let address = mapped(address);
            if contains(&self.observed.filter, address) {
                admit(filter, address);
            }
            *self.addresses.entry(address).or_default() |= ADDRESS_BACKEND;
        }
    }

    fn admit_addresses(&mut self, filter: Box<AddressFilter>) {
        for (address, flags) in &self.addresses {
            if self.observed.addresses.get(address) != Some(flags) {
                self.ops.push(MapOp::Address(*address, Some(*flags)));
            }
        }
        if filter != self.observed.filter {
            self.ops.push(MapOp::Filter(filter));
        }
    }

    /// A backend's number, and its entry brought up to date.
    fn backend(&mut self, farm: &DesiredFarm, backend: &DesiredBackend) -> Result<u16, DiffError> {
        let label = label_of(farm, backend);
        let mut entry = entry_of(&backend.address, backend.port);
        let (id, current) = match self.numbers.get(&(label, identity(&entry))) {
            Some(&id) => (id, self.observed.backends.get(&id).map(|backend| backend.1)),
            None => {
                let id = free(&self.backend_ids, BACKENDS_MAX)
                    .ok_or(DiffError::NumbersExhausted { what: "backend", most: BACKENDS_MAX })?;
                self.ops.push(MapOp::ResetCounters(id));
                (id, None)
            }
        };
        self.backend_ids.insert(id);
        let known = current.unwrap_or_default();
        (entry.hop_v4, entry.hop_v6) = self.hops_of(&backend.address, (known.hop_v4, known.hop_v6));
        entry.serving = u16::from(backend.serving);
        if current.is_none() {
            self.ops.push(MapOp::BackendLabel(id, Some(label)));
        }
        if current != Some(entry) {
            self.ops.push(MapOp::Backend(id, entry));
        }
        Ok(id)
    }

    fn hops_of(&self, address: &Addresses, known: (NextHop, NextHop)) -> (NextHop, NextHop) {
        let hop = |address: Option<IpAddr>, known| {
            address.and_then(|a| self.hops.get(&a)).copied().unwrap_or(known)
        };
        (hop(address.v4.map(IpAddr::V4), known.0), hop(address.v6.map(IpAddr::V6), known.1))
    }

    /// A farm's number; its table, entry and services.
    fn farm(
        &mut self,
        farm: &DesiredFarm,
        backends: &[u16],
        owners: Option<&[usize]>,
    ) -> Result<u16, DiffError> {
        let label = Label::new(farm.name.as_str()).unwrap_or_default();
        let (id, current) = match self.observed.farm_id(&farm.name) {
            Some(id) => (id, self.observed.farms.get(&id).map(|farm| farm.1)),
            None => {
                let exhausted = DiffError::NumbersExhausted { what: "farm", most: FARMS_MAX };
                (free(&self.farm_ids, FARMS_MAX).ok_or(exhausted)?, None)
            }
        };
        self.farm_ids.insert(id);
        if current.is_none() {
            self.ops.push(MapOp::FarmLabel(id, Some(label)));
        }
        let table = match owners {
            None => NO_TABLE,
            Some(owners) => {
                let mut table = Box::new(MaglevTable { slots: [0; TABLE_SIZE as usize], reserved: [0; 3] });
                for (slot, owner) in table.slots.iter_mut().zip(owners) {
                    *slot = backends.get(*owner).copied().unwrap_or_default();
                }
                self.table(current.map_or(NO_TABLE, |entry| entry.table), table)?
            }
        };
        let entry = FarmEntry { table, source_is_vip: u32::from(farm.source_is_vip) };
        if current != Some(entry) {
            self.ops.push(MapOp::Farm(id, entry));
        }
        for key in &farm.services {
            if self.observed.services.get(key) != Some(&id) {
                self.ops.push(MapOp::Service(*key, Some(id)));
            }
        }
        Ok(id)
    }

    /// The number of a table with that content: the current one if it has it, else the next free one, written.
    fn table(&mut self, current: u32, content: Box<MaglevTable>) -> Result<u32, DiffError> {
        if self.observed.tables.get(&current).is_some_and(|table| *table == content) {
            return Ok(current);
        }
        let next = (1..=TABLES_MAX)
            .map(|step| (self.last_table + step) % TABLES_MAX)
            .find(|number| !self.tables.contains(number))
            .ok_or(DiffError::NumbersExhausted { what: "Maglev table", most: TABLES_MAX })?;
        self.tables.insert(next);
        self.last_table = next;
        self.ops.push(MapOp::Table(next, content));
        Ok(next)
    }

    fn retire_services(&mut self) {
        for key in self.observed.services.keys().filter(|key| !self.services.contains_key(key)) {
            self.ops.push(MapOp::Service(*key, None));
        }
    }

    fn retire_farms(&mut self, wanted: &BTreeSet<u16>) {
        for (id, (_, entry)) in self.observed.farms.iter().filter(|(id, _)| !wanted.contains(id)) {
            if *entry != FarmEntry::default() {
                self.ops.push(MapOp::Farm(*id, FarmEntry::default()));
            }
            self.ops.push(MapOp::FarmLabel(*id, None));
        }
    }

    /// Former backends: those with connections keep a fresh next hop, the others give up their numbers.
    fn retire_backends(&mut self) {
        for (&id, (_, entry)) in &self.observed.backends {
            if self.current.contains(&id) {
                continue;
            }
            if !self.former.contains(&id) {
                self.ops.push(MapOp::Backend(id, BackendEntry::default()));
                self.ops.push(MapOp::BackendLabel(id, None));
                continue;
            }
            let mut fresh = BackendEntry { serving: 0, ..*entry };
            (fresh.hop_v4, fresh.hop_v6) = self.hops_of(&addresses(entry), (entry.hop_v4, entry.hop_v6));
            if fresh != *entry {
                self.ops.push(MapOp::Backend(id, fresh));
            }
        }
    }

    fn retire_addresses(&mut self) {
        for address in self.observed.addresses.keys().filter(|address| !self.addresses.contains_key(*address))
        {
            self.ops.push(MapOp::Address(*address, None));
        }
    }
}

fn label_of(farm: &DesiredFarm, backend: &DesiredBackend) -> BackendLabel {
    // Names that the model accepts fit.
    let name = |text: &str| Label::new(text).unwrap_or_default();
    BackendLabel { farm: name(farm.name.as_str()), name: name(backend.name.as_str()) }
}

fn fits(what: &'static str, wanted: usize, most: u32) -> Result<(), DiffError> {
    if wanted > most as usize { Err(DiffError::TooMany { what, wanted, most }) } else { Ok(()) }
}

fn free(taken: &BTreeSet<u16>, limit: u32) -> Option<u16> {
    (0..limit as u16).find(|id| !taken.contains(id))
}

fn admit(filter: &mut AddressFilter, address: MappedAddress) {
    match unmapped(&address) {
        Some(v4) => filter.insert(&v4),
        None => filter.insert(&address),
    }
}

fn contains(filter: &AddressFilter, address: MappedAddress) -> bool {
    match unmapped(&address) {
        Some(v4) => filter.may_contain(&v4),
        None => filter.may_contain(&address),
    }
}

fn unmapped(address: &MappedAddress) -> Option<[u8; 4]> {
    std::net::Ipv6Addr::from(*address).to_ipv4_mapped().map(|v4| v4.octets())
}

/// What makes a backend the same server: its addresses and port.
type Identity = ([u8; 4], MappedAddress, [u8; 2]);

fn identity(entry: &BackendEntry) -> Identity {
    (entry.address_v4, entry.address_v6, entry.port)
}

fn entry_of(address: &Addresses, port: Option<u16>) -> BackendEntry {
    BackendEntry {
        address_v4: address.v4.map_or([0; 4], |v4| v4.octets()),
        address_v6: address.v6.map_or([0; 16], |v6| v6.octets()),
        port: port.unwrap_or(0).to_be_bytes(),
        ..BackendEntry::default()
    }
}

fn addresses(entry: &BackendEntry) -> Addresses {
    Addresses {
        v4: (entry.address_v4 != [0; 4]).then(|| entry.address_v4.into()),
        v6: (entry.address_v6 != [0; 16]).then(|| entry.address_v6.into()),
    }
}
