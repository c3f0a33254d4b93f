//! Carries map operations out. The daemon's loop calls it; each operation is one system call, a few, or none.

use std::collections::BTreeSet;

use anyhow::Context as _;
use aya::Pod;
use aya::maps::{MapError, PerCpuValues};
use aya::util::nr_cpus;
use lb_common::abi::{BackendCounters, BackendLabel, FarmCounters, Label};
use lb_core::diff::{MapOp, Observed};

use super::Datapath;

impl Datapath {
    /// Carries `ops` out in order, and `observed` along.
    ///
    /// # Errors
    ///
    /// At the first operation that the kernel refuses; `observed` then says how far it came, so that another plan can lead
    /// back.
    pub fn apply(&mut self, observed: &mut Observed, ops: &[MapOp]) -> anyhow::Result<()> {
        // A number's new owner does not get the clients of the one before. Nobody enters more of those: no connection bears it.
        let new = |op: &MapOp| if let MapOp::ResetCounters(id) = op { Some(*id) } else { None };
        let new: BTreeSet<u16> = ops.iter().filter_map(new).collect();
        if !new.is_empty() {
            self.maps.affinities.forget(&new);
        }
        for op in ops {
            self.carry_out(op).context("the kernel refused a change of the maps")?;
            observed.apply(op);
        }
        Ok(())
    }

    fn carry_out(&mut self, op: &MapOp) -> anyhow::Result<()> {
        let maps = &mut self.maps;
        match op {
            MapOp::Filter(filter) => maps.filter.set(0, **filter, 0)?,
            MapOp::Address(address, Some(flags)) => maps.addresses.insert(address, flags, 0)?,
            MapOp::Address(address, None) => absent_is_fine(maps.addresses.remove(address))?,
            MapOp::Service(key, Some(entry)) => maps.services.insert(key, entry, 0)?,
            MapOp::Service(key, None) => absent_is_fine(maps.services.remove(key))?,
            MapOp::Vip(id, address) => maps.vips.set(*id, &address.unwrap_or([0; 16])),
            MapOp::FarmLabel(id, label) => {
                maps.farm_labels.set(u32::from(*id), label.unwrap_or(Label::default()), 0)?;
            }
            MapOp::Rules(id, rules) => maps.affinities.set_rules(*id, rules),
            MapOp::Farm(id, entry) => maps.farms.set(u32::from(*id), entry, 0)?,
            MapOp::Admission(id, admission) => maps.admissions.set(u32::from(*id), admission, 0)?,
            MapOp::ResetFarmCounters(id) => {
                maps.farm_counters.set(u32::from(*id), zeros::<FarmCounters>()?, 0)?;
                maps.loads.begin_farm(*id);
            }
            MapOp::BackendLabel(id, label) => {
                maps.backend_labels.set(u32::from(*id), label.unwrap_or(BackendLabel::default()), 0)?;
            }
            MapOp::Backend(id, entry) => maps.backends.set(*id, entry),
            MapOp::ResetCounters(id) => {
                maps.counters.set(u32::from(*id), zeros::<BackendCounters>()?, 0)?;
                maps.loads.begin(*id);
            }
            MapOp::Table(number, table) => maps.tables.set(*number, **table, 0)?,
        }
        Ok(())
    }

    /// Sets the data plane's clock.
    pub fn set_clock(&mut self, ticks: u32) {
        self.maps.control.set_now(ticks);
    }
}

/// Counters of all CPUs, at 0.
fn zeros<T: Pod + Default>() -> anyhow::Result<PerCpuValues<T>> {
    let cpus = nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
    Ok(PerCpuValues::try_from(vec![T::default(); cpus])?)
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
