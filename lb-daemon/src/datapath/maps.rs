//! The pinned maps, typed.

use std::path::Path;

use anyhow::Context as _;
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use lb_common::abi::{
    AddressFilter, BackendCounters, BackendEntry, BackendLabel, FarmEntry, Label, MaglevTable, MappedAddress,
    ServiceKey, map,
};

/// Every map but the connection tables, which [`super::connections`] reads in batches.
pub struct Maps {
    pub filter: Array<MapData, AddressFilter>,
    pub addresses: HashMap<MapData, MappedAddress, u32>,
    pub services: HashMap<MapData, ServiceKey, u32>,
    pub farms: Array<MapData, FarmEntry>,
    pub farm_labels: Array<MapData, Label>,
    pub tables: Array<MapData, MaglevTable>,
    pub backends: Array<MapData, BackendEntry>,
    pub backend_labels: Array<MapData, BackendLabel>,
    pub counters: PerCpuArray<MapData, BackendCounters>,
    pub clock: Array<MapData, u32>,
}

impl Maps {
    pub(super) fn open(pins: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            filter: array(pins, map::ADDRESS_FILTER)?,
            addresses: hash(pins, map::ADDRESSES)?,
            services: hash(pins, map::SERVICES)?,
            farms: array(pins, map::FARMS)?,
            farm_labels: array(pins, map::FARM_LABELS)?,
            tables: array(pins, map::MAGLEV)?,
            backends: array(pins, map::BACKENDS)?,
            backend_labels: array(pins, map::BACKEND_LABELS)?,
            counters: per_cpu(pins, map::COUNTERS)?,
            clock: array(pins, map::CLOCK)?,
        })
    }
}

/// The map pinned under its name.
pub(super) fn pinned(pins: &Path, name: &str) -> anyhow::Result<MapData> {
    let path = pins.join(name);
    MapData::from_pin(&path).with_context(|| format!("cannot open the pinned map {}", path.display()))
}

fn array<V: Pod>(pins: &Path, name: &str) -> anyhow::Result<Array<MapData, V>> {
    Array::try_from(Map::Array(pinned(pins, name)?)).with_context(|| mismatch(name))
}

fn hash<K: Pod, V: Pod>(pins: &Path, name: &str) -> anyhow::Result<HashMap<MapData, K, V>> {
    HashMap::try_from(Map::HashMap(pinned(pins, name)?)).with_context(|| mismatch(name))
}

pub(super) fn per_cpu<V: Pod>(pins: &Path, name: &str) -> anyhow::Result<PerCpuArray<MapData, V>> {
    PerCpuArray::try_from(Map::PerCpuArray(pinned(pins, name)?)).with_context(|| mismatch(name))
}

fn mismatch(name: &str) -> String {
    format!("the pinned map {name} has another layout than this version's; stop the other version first")
}
