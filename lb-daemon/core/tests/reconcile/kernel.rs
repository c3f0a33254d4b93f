//! Maps as the kernel has them: zeros at first, changed by operations as the daemon carries them out, read back as it does.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::*;
use lb_core::diff::{MapOp, Observed};

/// What makes a backend the same server.
pub type Server = ([u8; 4], [u8; 16], [u8; 2], u8);

pub fn server(entry: &BackendEntry) -> Server {
    (entry.address_v4, entry.address_v6, entry.port, entry.mode)
}

#[derive(Clone)]
pub struct Kernel {
    pub filter: AddressFilter,
    pub addresses: BTreeMap<MappedAddress, u32>,
    pub vips: BTreeMap<u16, MappedAddress>,
    pub services: BTreeMap<ServiceKey, ServiceEntry>,
    pub farm_labels: BTreeMap<u16, Label>,
    farms: BTreeMap<u16, FarmEntry>,
    rules: BTreeMap<u16, Rules>,
    pub backend_labels: BTreeMap<u16, BackendLabel>,
    admissions: BTreeMap<u16, Admission>,
    /// Lists that are there to their last prefix.
    pub lists: BTreeSet<u64>,
    backends: BTreeMap<u16, BackendEntry>,
    tables: BTreeMap<u32, Box<MaglevTable>>,
    /// The backends that each table names.
    named: BTreeMap<u32, BTreeSet<u16>>,
    pub resets: Vec<u16>,
    pub farm_resets: Vec<u16>,
    /// Backends that clients had, and who those were.
    pub affinities: Vec<Affinity>,
}

/// A client that had a backend.
#[derive(Debug, Clone)]
pub struct Affinity {
    pub farm: u16,
    pub backend: u16,
    pub had: (BackendLabel, Server),
}

impl Kernel {
    pub fn new() -> Self {
        Self {
            filter: AddressFilter::EMPTY,
            addresses: BTreeMap::new(),
            vips: BTreeMap::new(),
            services: BTreeMap::new(),
            farm_labels: BTreeMap::new(),
            farms: BTreeMap::new(),
            rules: BTreeMap::new(),
            backend_labels: BTreeMap::new(),
            admissions: BTreeMap::new(),
            lists: BTreeSet::new(),
            backends: BTreeMap::new(),
            tables: BTreeMap::new(),
            named: BTreeMap::new(),
            resets: Vec::new(),
            affinities: Vec::new(),
            farm_resets: Vec::new(),
        }
    }

    pub fn farm(&self, id: u16) -> FarmEntry {
        self.farms.get(&id).copied().unwrap_or(FarmEntry { table: 0, ..FarmEntry::default() })
    }

    pub fn rules(&self, id: u16) -> Rules {
        self.rules.get(&id).copied().unwrap_or_default()
    }

    pub fn admission(&self, id: u16) -> Admission {
        self.admissions.get(&id).copied().unwrap_or_default()
    }

    /// The list that newcomers of the farm meet.
    pub fn list_of(&self, id: u16) -> u64 {
        if self.farm(id).flags & FARM_ADMITS != 0 { self.admission(id).list } else { 0 }
    }

    pub fn backend(&self, id: u16) -> BackendEntry {
        self.backends.get(&id).copied().unwrap_or_default()
    }

    pub fn table(&self, number: u32) -> Box<MaglevTable> {
        let zeros = || Box::new(MaglevTable { slots: [0; TABLE_SIZE as usize], reserved: [0; 3] });
        self.tables.get(&number).cloned().unwrap_or_else(zeros)
    }

    /// Carries out one operation. A table that a farm with services uses is never overwritten.
    pub fn apply(&mut self, op: &MapOp) {
        match op {
            MapOp::Filter(filter) => self.filter = **filter,
            MapOp::Address(address, flags) => set(&mut self.addresses, *address, *flags),
            MapOp::Vip(id, address) => {
                assert!(u32::from(*id) < VIPS_MAX);
                assert_ne!(*address, Some([0; 16]), "zeros say that a number is free");
                assert_ne!(address.is_some(), self.vips.contains_key(id), "number {id} passes through free");
                set(&mut self.vips, *id, *address);
            }
            MapOp::Service(key, entry) => set(&mut self.services, *key, *entry),
            MapOp::Rules(id, rules) => {
                assert!(self.farm_labels.contains_key(id), "rules are a farm's");
                self.rules.insert(*id, *rules);
            }
            MapOp::FarmLabel(id, label) => set(&mut self.farm_labels, *id, *label),
            MapOp::Farm(id, entry) => {
                self.farms.insert(*id, *entry);
            }
            MapOp::Admission(id, admission) => drop(self.admissions.insert(*id, *admission)),
            MapOp::ResetFarmCounters(id) => {
                assert!(!self.farm_labels.contains_key(id), "counters of a farm are reset under its feet");
                self.farm_resets.push(*id);
            }
            MapOp::BackendLabel(id, label) => set(&mut self.backend_labels, *id, *label),
            MapOp::Backend(id, entry) => {
                self.backends.insert(*id, *entry);
            }
            MapOp::ResetCounters(id) => {
                assert!(
                    !self.backend_labels.contains_key(id),
                    "counters of a backend are reset under its feet"
                );
                self.resets.push(*id);
                self.affinities.retain(|affinity| affinity.backend != *id);
            }
            MapOp::Table(number, table) => {
                assert!(*number < TABLES_MAX);
                let used = self.services.values().any(|entry| self.farm(entry.farm).table == *number);
                assert!(!used, "table {number} is overwritten while a farm uses it");
                self.named.insert(*number, table.slots.iter().copied().collect());
                self.tables.insert(*number, table.clone());
            }
        }
    }

    /// The clients that a farm leads to the backend that they had.
    pub fn returning(&self, farm: u16) -> Vec<&Affinity> {
        let comes = |affinity: &&Affinity| {
            let entry = self.backend(affinity.backend);
            affinity.farm == farm && entry.farm == farm && entry.flags & BACKEND_RETURNS != 0
        };
        let affine = self.farm(farm).flags & FARM_AFFINE != 0;
        self.affinities.iter().filter(|_| affine).filter(comes).collect()
    }

    pub fn forget_resets(&mut self) {
        self.resets.clear();
        self.farm_resets.clear();
    }

    /// What a daemon that starts finds.
    pub fn observe(&self) -> Observed {
        let mut observed = Observed { filter: Box::new(self.filter), ..Observed::default() };
        observed.addresses = self.addresses.clone();
        observed.vips = self.vips.clone();
        observed.services = self.services.clone();
        for (&id, &label) in &self.farm_labels {
            let farm = self.farm(id);
            if farm.table != NO_TABLE {
                observed.tables.insert(farm.table, self.table(farm.table));
                observed.last_table = observed.last_table.max(farm.table);
            }
            observed.farms.insert(id, (label, farm));
            observed.rules.insert(id, self.rules(id));
            if self.admission(id) != Admission::default() {
                observed.admissions.insert(id, self.admission(id));
            }
        }
        for (&id, &label) in &self.backend_labels {
            observed.backends.insert(id, (label, self.backend(id)));
        }
        observed
    }

    /// Whatever a packet may find leads somewhere.
    pub fn assert_consistent(&self) {
        for affinity in (0..FARMS_MAX).flat_map(|farm| self.returning(farm as u16)) {
            let is = (self.backend_labels[&affinity.backend], server(&self.backend(affinity.backend)));
            assert_eq!(is, affinity.had, "who has a number inherits nobody");
        }
        for (key, entry) in &self.services {
            assert_eq!(self.vips.get(&entry.vip), Some(&key.vip), "a service's VIP number names its address");
        }
        let addresses: BTreeSet<&MappedAddress> = self.vips.values().collect();
        assert_eq!(addresses.len(), self.vips.len(), "an address has one number");
        for (id, label) in &self.backend_labels {
            let entry = self.backend(*id);
            if entry != BackendEntry::default() {
                assert_eq!(
                    self.farm_labels.get(&entry.farm),
                    Some(&label.farm),
                    "a backend's farm is its own"
                );
            }
        }
        for id in self.admissions.keys().filter(|id| !self.farm_labels.contains_key(id)) {
            assert_eq!(self.admission(*id), Admission::default(), "a number that is free has no rules");
        }
        let farms: BTreeSet<u16> = self.services.values().map(|entry| entry.farm).collect();
        for id in farms {
            assert!(self.farm_labels.contains_key(&id), "a service leads to farm {id}, which has no label");
            let list = self.list_of(id);
            assert!(list == 0 || self.lists.contains(&list), "a farm's list is whole");
            let table = self.farm(id).table;
            if table == NO_TABLE {
                continue;
            }
            for backend in self.named.get(&table).expect("a farm's table has been written") {
                let label = self.backend_labels.get(backend).expect("a table's backend has a label");
                assert_eq!(
                    Some(&label.farm),
                    self.farm_labels.get(&id),
                    "a table names its own farm's backends"
                );
                let entry = self.backend(*backend);
                assert!(entry.address_v4 != [0; 4] || entry.address_v6 != [0; 16], "it has an address");
                assert_eq!(entry.farm, id, "and knows its farm");
            }
        }
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}
