//! What the maps hold, as the daemon remembers it: read once at the start, carried along with every change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::abi::{
    AddressFilter, Admission, BackendEntry, BackendLabel, FarmEntry, Label, MODE_DSR, MODE_GUE, MODE_IPIP,
    MaglevTable, MappedAddress, Rules, ServiceEntry, ServiceKey,
};

use super::MapOp;
use crate::config::model::{Addresses, FarmName, Mode};
use crate::desired::NextHops;

/// What the maps hold. The daemon alone writes them, so this stays true between two looks.
#[derive(Clone, PartialEq, Eq)]
pub struct Observed {
    pub filter: Box<AddressFilter>,
    pub addresses: BTreeMap<MappedAddress, u32>,
    /// Numbers of VIPs, those included that only connections remember.
    pub vips: BTreeMap<u16, MappedAddress>,
    pub services: BTreeMap<ServiceKey, ServiceEntry>,
    pub farms: BTreeMap<u16, (Label, FarmEntry)>,
    /// Of the farms that are there.
    pub rules: BTreeMap<u16, Rules>,
    /// Of farms that do not take everybody, and of none that have no label.
    pub admissions: BTreeMap<u16, Admission>,
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
            vips: BTreeMap::new(),
            services: BTreeMap::new(),
            farms: BTreeMap::new(),
            rules: BTreeMap::new(),
            admissions: BTreeMap::new(),
            backends: BTreeMap::new(),
            tables: BTreeMap::new(),
            last_table: 0,
        }
    }
}

impl Observed {
    /// The next hops of backends, those included that only connections remember.
    pub fn hops(&self) -> NextHops {
        let entries = self.backends.values().map(|(_, entry)| entry);
        let hops = entries.flat_map(|entry| {
            let Addresses { v4, v6 } = addresses(entry);
            [(v4.map(IpAddr::V4), entry.hop_v4), (v6.map(IpAddr::V6), entry.hop_v6)]
        });
        hops.filter_map(|(address, hop)| Some((address?, hop))).filter(|(_, hop)| hop.ifindex != 0).collect()
    }

    /// What the maps hold after `op`.
    pub fn apply(&mut self, op: &MapOp) {
        match op {
            MapOp::Filter(filter) => self.filter = filter.clone(),
            MapOp::Address(address, flags) => set(&mut self.addresses, *address, *flags),
            MapOp::Vip(id, address) => set(&mut self.vips, *id, *address),
            MapOp::Service(key, entry) => set(&mut self.services, *key, *entry),
            MapOp::FarmLabel(id, label) => {
                let label =
                    label.map(|label| (label, self.farms.get(id).map_or_else(FarmEntry::default, |f| f.1)));
                if label.is_none() {
                    self.rules.remove(id);
                }
                set(&mut self.farms, *id, label);
            }
            MapOp::Rules(id, rules) => drop(self.rules.insert(*id, *rules)),
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
            MapOp::Admission(id, admission) => {
                set(&mut self.admissions, *id, (*admission != Admission::default()).then_some(*admission));
            }
            MapOp::ResetCounters(_) | MapOp::ResetFarmCounters(_) => {}
            MapOp::Table(number, table) => {
                self.tables.insert(*number, table.clone());
                self.last_table = *number;
            }
        }
    }

    /// The numbers of the lists that farms go by.
    pub fn lists(&self) -> BTreeSet<u64> {
        self.admissions.values().map(|admission| admission.list).filter(|list| *list != 0).collect()
    }

    /// The number of a farm.
    pub fn farm_id(&self, name: &FarmName) -> Option<u16> {
        let label = Label::new(name.as_str())?;
        self.farms.iter().find(|(_, farm)| farm.0 == label).map(|(id, _)| *id)
    }

    /// Whether a backend's farm has a table that names it.
    pub(super) fn leads_to(&self, id: u16, entry: &BackendEntry) -> bool {
        let table = self.farms.get(&entry.farm).and_then(|farm| self.tables.get(&farm.1.table));
        table.is_some_and(|table| table.slots.contains(&id))
    }

    /// The numbers of all backends, by what makes each the server it is.
    pub fn numbers(&self) -> Numbers {
        Numbers(self.backends.iter().map(|(id, (label, entry))| ((*label, identity(entry)), *id)).collect())
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

/// Numbers of backends, found by label, addresses, port and mode.
#[derive(Debug, Clone, Default)]
pub struct Numbers(BTreeMap<(BackendLabel, Identity), u16>);

impl Numbers {
    pub fn get(
        &self,
        label: &BackendLabel,
        address: &Addresses,
        port: Option<u16>,
        mode: Mode,
    ) -> Option<u16> {
        self.0.get(&(*label, identity(&entry_of(address, port, mode)))).copied()
    }
}

/// What makes a backend the same server: its addresses and port, and how packets reach it.
pub(super) type Identity = ([u8; 4], MappedAddress, [u8; 2], u8);

pub(super) fn identity(entry: &BackendEntry) -> Identity {
    (entry.address_v4, entry.address_v6, entry.port, entry.mode)
}

pub(super) fn entry_of(address: &Addresses, port: Option<u16>, mode: Mode) -> BackendEntry {
    BackendEntry {
        address_v4: address.v4.map_or([0; 4], |v4| v4.octets()),
        address_v6: address.v6.map_or([0; 16], |v6| v6.octets()),
        port: port.unwrap_or(0).to_be_bytes(),
        mode: match mode {
            Mode::Nat | Mode::Dnat => 0,
            Mode::Dsr => MODE_DSR,
            Mode::Ipip => MODE_IPIP,
            Mode::Gue => MODE_GUE,
        },
        ..BackendEntry::default()
    }
}

/// The mode of an entry, as far as it decides where its packets go.
pub(super) fn mode_of(entry: &BackendEntry) -> Mode {
    match entry.mode {
        MODE_GUE => Mode::Gue,
        MODE_IPIP => Mode::Ipip,
        MODE_DSR => Mode::Dsr,
        _ => Mode::Dnat,
    }
}

pub(super) fn addresses(entry: &BackendEntry) -> Addresses {
    Addresses {
        v4: (entry.address_v4 != [0; 4]).then(|| entry.address_v4.into()),
        v6: (entry.address_v6 != [0; 16]).then(|| entry.address_v6.into()),
    }
}
