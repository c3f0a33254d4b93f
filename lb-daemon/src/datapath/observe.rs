//! Reads what the maps hold: once at the start, to adopt what an earlier daemon left.

use anyhow::Context as _;
use lb_common::abi::{Admission, BACKENDS_MAX, BackendLabel, FARMS_MAX, Label, NO_TABLE};
use lb_core::diff::Observed;

use super::Datapath;

impl Datapath {
    /// What the maps hold.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub fn observe(&self) -> anyhow::Result<Observed> {
        let maps = &self.maps;
        let mut observed = Observed { filter: Box::new(maps.filter.get(&0, 0)?), ..Observed::default() };
        for entry in maps.addresses.iter() {
            let (address, flags) = entry.context("reading the addresses")?;
            observed.addresses.insert(address, flags);
        }
        for entry in maps.services.iter() {
            let (key, entry) = entry.context("reading the services")?;
            observed.services.insert(key, entry);
        }
        observed.vips = maps.vips.iter().collect();
        for id in 0..FARMS_MAX {
            let label = maps.farm_labels.get(&id, 0)?;
            if label != Label::default() {
                let farm = maps.farms.get(&id, 0)?;
                if farm.table != NO_TABLE {
                    let table = maps.tables.get(&farm.table, 0).context("reading a Maglev table")?;
                    observed.tables.insert(farm.table, Box::new(table));
                    observed.last_table = observed.last_table.max(farm.table);
                }
                observed.farms.insert(id as u16, (label, farm));
                observed.rules.extend(maps.affinities.rules(id as u16).map(|rules| (id as u16, rules)));
                let admission = maps.admissions.get(&id, 0)?;
                if admission != Admission::default() {
                    observed.admissions.insert(id as u16, admission);
                }
            }
        }
        for id in 0..BACKENDS_MAX {
            let label = maps.backend_labels.get(&id, 0)?;
            if label != BackendLabel::default() {
                let entry = maps.backends.get(id as u16).unwrap_or_default();
                observed.backends.insert(id as u16, (label, entry));
            }
        }
        Ok(observed)
    }
}
