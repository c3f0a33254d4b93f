//! One plan in the making: numbers given, tables written, what is no longer wanted retired.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{
    ADDRESS_BACKEND, ADDRESS_ECHO, ADDRESS_MANAGED, ADDRESS_VIP, ADDRESSES_MAX, AddressFilter, Admission,
    BACKEND_AFFINE, BACKEND_COUNTED, BACKEND_LISTED, BACKEND_LIVES, BACKEND_PACED, BACKEND_RETURNS,
    BACKEND_SERVES, BACKEND_TAKES, BACKEND_TRIED, BACKEND_UNCHECKED, BACKENDS_MAX, BackendEntry,
    BackendLabel, FARM_ADMITS, FARM_AFFINE, FARM_LATE, FARM_REFUSES, FARMS_MAX, FarmEntry, Label, MODE_DNAT,
    MODE_DSR, MODE_GUE, MODE_IPIP, MODE_NAT, MaglevTable, MappedAddress, SCHEDULER_LEAST_CONNECTIONS,
    SCHEDULER_MAGLEV, SCHEDULER_SOURCE, SCHEDULER_TURNS, SERVICES_MAX, ServiceEntry, ServiceKey, TABLE_SIZE,
    TABLES_MAX,
};

use super::filter::{admit, contains};
use super::limits::{admission, counts};
use super::observed::{Numbers, addresses, entry_of};
use super::vips::Vips;
use super::ways::Ways;
use super::{DiffError, MapOp, Number, Observed, free};
use crate::config::model::{FarmName, Mode, Scheduler};
use crate::desired::{Desired, DesiredBackend, DesiredFarm, Ground, NextHops, mapped};

/// A plan in the making.
pub(super) struct Plan<'a> {
    observed: &'a Observed,
    /// Of the farms and the backends that are there.
    farms: BTreeMap<Label, (u16, FarmEntry)>,
    numbers: Numbers,
    ways: Ways<'a>,
    services: BTreeMap<ServiceKey, &'a FarmName>,
    pub ops: Vec<MapOp>,
    /// Numbers taken by this plan or by what is there.
    farm_ids: BTreeSet<u16>,
    backend_ids: BTreeSet<u16>,
    /// No number of a backend below this one is free.
    next_backend_id: u16,
    /// Numbers of backends that the desired state names, and of former ones that connections still use or may use.
    current: BTreeSet<u16>,
    former: BTreeSet<u16>,
    vips: Vips,
    /// Those that a farm uses at this point of the plan.
    tables: BTreeSet<u32>,
    last_table: u32,
    addresses: BTreeMap<MappedAddress, u32>,
}

impl<'a> Plan<'a> {
    pub fn new(
        observed: &'a Observed,
        desired: &'a Desired,
        hops: &'a NextHops,
        in_use: impl Fn(Number) -> bool,
    ) -> Result<Self, DiffError> {
        let mut services = BTreeMap::new();
        let (mut addresses, mut filter) =
            (BTreeMap::<MappedAddress, u32>::new(), Box::new(AddressFilter::EMPTY));
        let farms: BTreeMap<Label, (u16, FarmEntry)> =
            observed.farms.iter().map(|(id, (label, entry))| (*label, (*id, *entry))).collect();
        let managed = if desired.manage_vips { ADDRESS_MANAGED } else { 0 };
        for vip in &desired.leaving_vips {
            *addresses.entry(*vip).or_default() |= ADDRESS_MANAGED;
        }
        for vip in &desired.former_vips {
            *addresses.entry(*vip).or_default() |= ADDRESS_VIP;
            admit(&mut filter, *vip);
        }
        for farm in &desired.farms {
            services.extend(farm.services.iter().map(|key| (*key, &farm.name)));
            let echo = if farm.echo { ADDRESS_ECHO } else { 0 };
            for vip in &farm.vips {
                *addresses.entry(*vip).or_default() |= ADDRESS_VIP | managed | echo;
                admit(&mut filter, *vip);
            }
            // A farm that is `dnat` until this plan has changed it may get another such connection by then.
            let was_dnat = farms.get(&label(farm)).is_some_and(|(_, entry)| entry.mode == MODE_DNAT);
            for address in farm.backends.iter().flat_map(|backend| backend.address.iter()) {
                *addresses.entry(mapped(address)).or_default() |= ADDRESS_BACKEND;
                // Answers of these come with their own address as source and the client's as destination.
                if was_dnat || farm.mode == Mode::Dnat {
                    admit(&mut filter, mapped(address));
                }
            }
        }
        fits("farms", desired.farms.len(), FARMS_MAX)?;
        fits("VIP, protocol and port combinations", services.len(), SERVICES_MAX)?;
        fits("addresses", addresses.len(), ADDRESSES_MAX)?;
        let numbers = observed.numbers();
        let pairs =
            desired.farms.iter().flat_map(|farm| farm.backends.iter().map(move |backend| (farm, backend)));
        let current: BTreeSet<u16> = pairs
            .filter_map(|(farm, backend)| {
                numbers.get(&label_of(farm, backend), &backend.address, backend.port, farm.mode)
            })
            .collect();
        let vips = Vips::new(observed, &in_use);
        // Between the look at the connections and the new tables, another client may come to a backend that a table leads
        // to, or that it had before: its number is not given up before the plan after the one that takes it out.
        let leads_to = |id: u16, entry: &BackendEntry| {
            entry.flags & BACKEND_RETURNS != 0 || observed.leads_to(id, entry)
        };
        let may_come = |id: u16, entry| !current.contains(&id) && leads_to(id, entry);
        let in_use: BTreeSet<u16> = observed
            .backends
            .iter()
            .filter(|(id, (_, entry))| in_use(Number::Backend(**id)) || may_come(**id, entry))
            .map(|(id, _)| *id)
            .collect();
        let former = in_use.difference(&current).copied().collect();
        let mut plan = Self {
            observed,
            farms,
            numbers,
            ways: Ways { hops, paths: &desired.paths },
            services,
            ops: Vec::new(),
            farm_ids: observed.farms.keys().copied().collect(),
            backend_ids: observed.backends.keys().copied().collect(),
            next_backend_id: 0,
            current,
            former,
            vips,
            tables: observed.farms.values().map(|farm| farm.1.table).collect(),
            last_table: observed.last_table,
            addresses,
        };
        plan.keep_connections_reachable(&in_use, &mut filter);
        plan.admit_addresses(filter);
        Ok(plan)
    }

    /// Answers of a `dnat` backend must still be seen while connections last, though the backend is a former one or its
    /// farm is `nat` by now: what the filter let in stays in. Which connections are `dnat` nobody remembers; a bit too many
    /// costs a lookup.
    fn keep_connections_reachable(&mut self, in_use: &BTreeSet<u16>, filter: &mut AddressFilter) {
        for (_, entry) in in_use.iter().filter_map(|id| self.observed.backends.get(id)) {
            for address in addresses(entry).iter().map(mapped) {
                if contains(&self.observed.filter, address) {
                    admit(filter, address);
                }
                *self.addresses.entry(address).or_default() |= ADDRESS_BACKEND;
            }
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
    pub fn backend(
        &mut self,
        farm_id: u16,
        farm: &DesiredFarm,
        backend: &DesiredBackend,
    ) -> Result<u16, DiffError> {
        let label = label_of(farm, backend);
        let mut entry = entry_of(&backend.address, backend.port, farm.mode);
        let (id, current) = match self.numbers.get(&label, &backend.address, backend.port, farm.mode) {
            Some(id) => (id, self.observed.backends.get(&id).map(|backend| backend.1)),
            None => {
                let id = free(&self.backend_ids, self.next_backend_id, BACKENDS_MAX)
                    .ok_or(DiffError::NumbersExhausted { what: "backend", most: BACKENDS_MAX })?;
                self.next_backend_id = id;
                self.ops.push(MapOp::ResetCounters(id));
                (id, None)
            }
        };
        self.backend_ids.insert(id);
        self.ways.lead_to(&mut entry, &current.unwrap_or_default());
        if backend.unreachable {
            (entry.hop_v4, entry.hop_v6) = Default::default();
        }
        if farm.mode == Mode::Gue {
            entry.path.port = farm.gue_port.to_be_bytes();
        }
        entry.farm = farm_id;
        entry.flags = flags(farm, backend);
        entry.weight = if counts(farm) { backend.weight } else { 0 };
        entry.timeouts = farm.timeouts;
        if current.is_none() {
            self.ops.push(MapOp::BackendLabel(id, Some(label)));
        }
        if current != Some(entry) {
            self.ops.push(MapOp::Backend(id, entry));
        }
        Ok(id)
    }

    /// A farm's number, its own from now on.
    pub fn farm_id(&mut self, farm: &DesiredFarm) -> Result<u16, DiffError> {
        let label = label(farm);
        if let Some(&(id, _)) = self.farms.get(&label) {
            return Ok(id);
        }
        let exhausted = DiffError::NumbersExhausted { what: "farm", most: FARMS_MAX };
        let id = free(&self.farm_ids, 0, FARMS_MAX).ok_or(exhausted)?;
        self.farm_ids.insert(id);
        // Entries that nobody has written are zeros, and would name the first table.
        self.ops.push(MapOp::Farm(id, FarmEntry::default()));
        self.ops.push(MapOp::ResetFarmCounters(id));
        self.ops.push(MapOp::FarmLabel(id, Some(label)));
        Ok(id)
    }

    /// The table that a farm uses until this plan.
    pub fn table_of(&self, farm: &DesiredFarm) -> u32 {
        self.farms.get(&label(farm)).map_or_else(|| FarmEntry::default().table, |farm| farm.1.table)
    }

    /// A farm's entry and services.
    pub fn farm(&mut self, id: u16, farm: &DesiredFarm, table: u32) -> Result<(), DiffError> {
        let current = self.farms.get(&label(farm)).map(|farm| farm.1).unwrap_or_default();
        let mode = match farm.mode {
            Mode::Nat => MODE_NAT,
            Mode::Dnat => MODE_DNAT,
            Mode::Dsr => MODE_DSR,
            Mode::Ipip => MODE_IPIP,
            Mode::Gue => MODE_GUE,
        };
        let scheduler = match farm.scheduler {
            Scheduler::Maglev => SCHEDULER_MAGLEV,
            Scheduler::WeightedRoundRobin => SCHEDULER_TURNS,
            Scheduler::LeastConnections => SCHEDULER_LEAST_CONNECTIONS,
            Scheduler::SourceHash => SCHEDULER_SOURCE,
        };
        let admission = admission(farm);
        let admits = admission != Admission::default();
        let flag = |holds: bool, flag: u16| if holds { flag } else { 0 };
        let affine = farm.rules.affinity != 0;
        let flags = flag(farm.refuse, FARM_REFUSES)
            | flag(affine || scheduler != SCHEDULER_MAGLEV || farm.limits.are_some(), FARM_LATE)
            | flag(affine, FARM_AFFINE)
            | flag(admits, FARM_ADMITS);
        let entry = FarmEntry { table, mode, scheduler, flags };
        if self.observed.rules.get(&id) != Some(&farm.rules) {
            self.ops.push(MapOp::Rules(id, farm.rules));
        }
        // A farm that names its admission has one.
        if admits {
            self.admit(id, admission);
        }
        if current != entry {
            self.ops.push(MapOp::Farm(id, entry));
            self.release(current, entry);
        }
        if !admits {
            self.admit(id, admission);
        }
        for key in &farm.services {
            let entry = ServiceEntry { farm: id, vip: self.vips.number(key.vip, &mut self.ops)? };
            if self.observed.services.get(key) != Some(&entry) {
                self.ops.push(MapOp::Service(*key, Some(entry)));
            }
        }
        Ok(())
    }

    fn admit(&mut self, id: u16, admission: Admission) {
        if self.observed.admissions.get(&id).copied().unwrap_or_default() != admission {
            self.ops.push(MapOp::Admission(id, admission));
        }
    }

    /// The number of a table with that content, by indexes of backends and their numbers: the current one if it has it, else the next free one, written.
    pub fn table(&mut self, current: u32, owners: &[u16], backends: &[u16]) -> Result<u32, DiffError> {
        let slots = owners.iter().map(|owner| backends.get(usize::from(*owner)).copied().unwrap_or(0));
        if self
            .observed
            .tables
            .get(&current)
            .is_some_and(|table| slots.clone().eq(table.slots.iter().copied()))
        {
            return Ok(current);
        }
        let mut content = Box::new(MaglevTable { slots: [0; TABLE_SIZE as usize], reserved: [0; 3] });
        content.slots.iter_mut().zip(slots).for_each(|(to, slot)| *to = slot);
        let next = (1..=TABLES_MAX)
            .map(|step| (self.last_table + step) % TABLES_MAX)
            .find(|number| !self.tables.contains(number))
            .ok_or(DiffError::NumbersExhausted { what: "Maglev table", most: TABLES_MAX })?;
        self.tables.insert(next);
        self.last_table = next;
        self.ops.push(MapOp::Table(next, content));
        Ok(next)
    }

    /// A table that a farm no longer uses may be written again, by the same plan if need be: hundreds of farms may change at
    /// once. The spare ones make it rest for dozens of writes before.
    fn release(&mut self, before: FarmEntry, after: FarmEntry) {
        if before.table != after.table {
            self.tables.remove(&before.table);
        }
    }

    pub fn retire_services(&mut self) {
        for key in self.observed.services.keys().filter(|key| !self.services.contains_key(key)) {
            self.ops.push(MapOp::Service(*key, None));
        }
    }

    /// Former farms lead nowhere.
    pub fn retire_farms(&mut self, wanted: &BTreeSet<u16>) {
        for (id, (_, entry)) in self.observed.farms.iter().filter(|(id, _)| !wanted.contains(id)) {
            if *entry != FarmEntry::default() {
                self.ops.push(MapOp::Farm(*id, FarmEntry::default()));
            }
            self.admit(*id, Admission::default());
        }
    }

    /// Former farms give up their numbers, but for those whose backends have connections. After the backends, whose
    /// entries name them.
    pub fn retire_farm_labels(&mut self, wanted: &BTreeSet<u16>) {
        let former = self.former.iter().filter_map(|id| self.observed.backends.get(id));
        let connected: BTreeSet<Label> = former.map(|(label, _)| label.farm).collect();
        for (id, (label, _)) in self.observed.farms.iter().filter(|(id, _)| !wanted.contains(id)) {
            if !connected.contains(label) {
                self.ops.push(MapOp::FarmLabel(*id, None));
            }
        }
    }

    /// Former backends: those with connections keep a fresh next hop, the others give up their numbers.
    pub fn retire_backends(&mut self) {
        for (&id, (_, entry)) in &self.observed.backends {
            if self.current.contains(&id) {
                continue;
            }
            if !self.former.contains(&id) {
                self.ops.push(MapOp::Backend(id, BackendEntry::default()));
                self.ops.push(MapOp::BackendLabel(id, None));
                continue;
            }
            let mut fresh = BackendEntry { flags: entry.flags & (BACKEND_LIVES | BACKEND_COUNTED), ..*entry };
            self.ways.lead_to(&mut fresh, entry);
            if fresh != *entry {
                self.ops.push(MapOp::Backend(id, fresh));
            }
        }
    }

    pub fn retire_addresses(&mut self) {
        for address in self.observed.addresses.keys().filter(|address| !self.addresses.contains_key(*address))
        {
            self.ops.push(MapOp::Address(*address, None));
        }
    }

    pub fn retire_vips(&mut self) {
        self.vips.retire(self.observed, &mut self.ops);
    }
}

fn flags(farm: &DesiredFarm, backend: &DesiredBackend) -> u16 {
    let affine = farm.rules.affinity != 0;
    let flag = |holds: bool, flag: u16| if holds { flag } else { 0 };
    BACKEND_LISTED
        | flag(farm.limits.new_per_second.is_some(), BACKEND_PACED)
        | flag(backend.serving, BACKEND_SERVES)
        | flag(backend.takes(), BACKEND_TAKES)
        | flag(backend.lives, BACKEND_LIVES)
        | flag(affine, BACKEND_AFFINE)
        | flag(counts(farm), BACKEND_COUNTED)
        | flag(affine && backend.returns, BACKEND_RETURNS)
        | flag(backend.serving && backend.ground == Ground::Tried, BACKEND_TRIED)
        | flag(backend.serving && backend.ground == Ground::Unchecked, BACKEND_UNCHECKED)
}

// Names that the model accepts make labels.

fn label(farm: &DesiredFarm) -> Label {
    Label::new(farm.name.as_str()).unwrap_or_default()
}

fn label_of(farm: &DesiredFarm, backend: &DesiredBackend) -> BackendLabel {
    BackendLabel { farm: label(farm), name: Label::new(backend.name.as_str()).unwrap_or_default() }
}

fn fits(what: &'static str, wanted: usize, most: u32) -> Result<(), DiffError> {
    if wanted > most as usize { Err(DiffError::TooMany { what, wanted, most }) } else { Ok(()) }
}
