//! What is read and cut beside the daemon's loop: counters and connections.
//!
//! [`Reader`] holds mappings and descriptors of its own, so API handlers and the sweep run beside the daemon's loop.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::Path;

use anyhow::Context as _;
use aya::maps::{MapData, PerCpuArray};
use lb_common::abi::{FarmCounters, Turned, map};
use lb_common::table::Occurrence;
use lb_common::verdict::{Disposition, Verdict};
use lb_core::explain::{Explanation, Question};
use lb_core::health::passive::Pulse;
use lb_core::state::{self, ConnectionFilter, Occurrences, Traffic};

use super::counters::{self, Counters};
use super::explain::Explainer;
use super::mapping::Mapping;
use super::tables::Tables;
use super::{maps, maps_dir};
use crate::handle::{DataplaneReader, TurnedAway};

/// Reads counters and connection tables, and cuts connections.
pub struct Reader {
    tables: Tables<Mapping>,
    counters: Counters,
    farm_counters: PerCpuArray<MapData, FarmCounters>,
    verdicts: PerCpuArray<MapData, u64>,
    occurrences: PerCpuArray<MapData, u64>,
    explainer: Option<Explainer>,
}

impl Reader {
    /// Opens the maps pinned under `dir`.
    ///
    /// # Errors
    ///
    /// If they are not there, or have another layout.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let pins = maps_dir(dir);
        Ok(Self {
            tables: Tables::open(&pins)?,
            counters: Counters::open(&pins)?,
            farm_counters: maps::per_cpu(&pins, map::FARM_COUNTERS)?,
            verdicts: maps::per_cpu(&pins, map::VERDICTS)?,
            occurrences: maps::per_cpu(&pins, map::OCCURRENCES)?,
            explainer: None,
        })
    }

    /// How many packets were dealt with in all, those left to the host apart: while this stands still, so do the counters of all
    /// backends.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub fn handled(&self) -> anyhow::Result<u64> {
        let ours = Verdict::ALL.iter().filter(|verdict| verdict.disposition() != Disposition::Pass);
        ours.map(|verdict| self.verdict(*verdict)).sum()
    }

    fn verdict(&self, of: Verdict) -> anyhow::Result<u64> {
        Ok(self.verdicts.get(&(of as u32), 0)?.iter().sum())
    }

    /// The same, for whom somebody explains packets.
    pub fn with_explainer(self, explainer: Explainer) -> Self {
        Self { explainer: Some(explainer), ..self }
    }

    /// How backends have taken their handshakes, by number.
    ///
    /// # Errors
    ///
    /// If a number is out of range.
    pub fn pulses(&self, backends: Vec<u16>) -> anyhow::Result<HashMap<u16, Pulse>> {
        let of = self.counters.of(backends)?;
        Ok(of.into_iter().map(|(id, counters)| (id, counters::pulse(&counters))).collect())
    }

    /// What a backend carried, by number.
    ///
    /// # Errors
    ///
    /// If the number is out of range.
    pub fn traffic(&self, backend: u16) -> anyhow::Result<Traffic> {
        Ok(counters::traffic(&self.counters.get(backend)?))
    }

    fn occurrence(&self, of: Occurrence) -> anyhow::Result<u64> {
        Ok(self.occurrences.get(&(of as u32), 0)?.iter().sum())
    }
}

impl Deref for Reader {
    type Target = Tables<Mapping>;

    fn deref(&self) -> &Tables<Mapping> {
        &self.tables
    }
}

impl DataplaneReader for Reader {
    fn connections(
        &self,
        filter: &ConnectionFilter,
        limit: usize,
    ) -> anyhow::Result<(Vec<state::Connection>, u64)> {
        Ok(self.tables.list(filter, limit))
    }

    fn verdicts(&self) -> anyhow::Result<Vec<(&'static str, u64)>> {
        let mut all = Vec::new();
        for verdict in Verdict::ALL {
            all.push((verdict.name(), self.verdict(*verdict)?));
        }
        Ok(all)
    }

    fn traffic_of(&self, backends: Vec<u16>) -> anyhow::Result<HashMap<u16, Traffic>> {
        let of = self.counters.of(backends)?;
        Ok(of.into_iter().map(|(id, counters)| (id, counters::traffic(&counters))).collect())
    }

    fn explain(&self, question: &Question) -> anyhow::Result<Explanation> {
        self.explainer.as_ref().context("nobody explains packets here")?.explain(self, question)
    }

    fn turned_away(&self, farm: u16) -> anyhow::Result<TurnedAway> {
        let of_cpus = self.farm_counters.get(&u32::from(farm), 0)?;
        let sum = |why: &Turned| of_cpus.iter().map(|counters| counters.turned[*why as usize]).sum();
        Ok(Turned::ALL.iter().map(|why| (why.name(), sum(why))).collect())
    }

    fn occurrences(&self) -> anyhow::Result<Occurrences> {
        Ok(Occurrences {
            away: self.occurrence(Occurrence::Away)?,
            full: self.occurrence(Occurrence::Full)?,
            evicted: self.occurrence(Occurrence::Evicted)?,
            ports_taken: self.occurrence(Occurrence::PortTaken)?,
        })
    }
}
