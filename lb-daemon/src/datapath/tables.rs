//! Both families' connection tables, with the maps that say what their numbers mean: whatever is asked of them or done to them.
//!
//! Anybody may hold [`Tables`] and use them at any time; see [`super::flows`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use lb_common::abi::{BackendEntry, map};
use lb_core::quota::SLICES;
use lb_core::state::{self, ConnectionFilter};

use super::affinities::Affinities;
use super::control::Control;
use super::flows::{self, Family, Flows, View, Wanted};
use super::interfaces::Moves;
use super::loads::Loads;
use super::mapping::{Mapping, Memory, value_of};
use super::maps;
use super::numbers::Numbers;
use super::sweep::{Beside, Sweep, Sweeper};

pub struct Tables<M> {
    v4: Flows<[u8; 4], M>,
    v6: Flows<[u8; 16], M>,
    backends: M,
    vips: M,
    ports: M,
    affinities: Affinities<M>,
    loads: Loads<M>,
    control: Control<M>,
}

impl Tables<Mapping> {
    /// Maps what is pinned under `pins`.
    ///
    /// # Errors
    ///
    /// If something is not there, or has another layout.
    pub fn open(pins: &Path) -> anyhow::Result<Self> {
        Self::new(|name| maps::mapped(pins, name))
    }
}

impl<M: Memory> Tables<M> {
    /// On what `memory` gives for each map's name.
    pub fn new(mut memory: impl FnMut(&str) -> anyhow::Result<M>) -> anyhow::Result<Self> {
        Ok(Self {
            v4: Flows::new(memory(map::CONNECTIONS_V4)?)?,
            v6: Flows::new(memory(map::CONNECTIONS_V6)?)?,
            backends: memory(map::BACKENDS)?,
            vips: memory(map::VIPS)?,
            ports: memory(map::PORTS)?,
            affinities: Affinities::new(&mut memory)?,
            loads: Loads(memory(map::LOADS)?),
            control: Control::new(memory(map::CONTROL)?)?,
        })
    }

    pub fn v4(&self) -> View<'_, [u8; 4]> {
        self.v4.view(self.numbers(), self.control.table_seed())
    }
    pub fn v6(&self) -> View<'_, [u8; 16]> {
        self.v6.view(self.numbers(), self.control.table_seed())
    }
    fn numbers(&self) -> Numbers<'_> {
        Numbers::new(self.backends.words(), self.vips.words())
    }

    pub fn control(&self) -> &Control<M> {
        &self.control
    }

    /// A backend's entry, by number.
    pub fn backend(&self, number: u16) -> Option<BackendEntry> {
        const WORDS: usize = size_of::<BackendEntry>() / 8;
        let start = usize::from(number) * WORDS;
        let words: &[AtomicU64; WORDS] = self.backends.words().get(start..start + WORDS)?.try_into().ok()?;
        Some(value_of(words))
    }

    /// The map `PORTS`.
    #[cfg(test)]
    pub fn ports(&self) -> &[AtomicU64] {
        self.ports.words()
    }

    /// The connections that match, at most `limit` of them, and how many they are.
    pub fn list(&self, filter: &ConnectionFilter, limit: usize) -> (Vec<state::Connection>, u64) {
        let (now, mut found) = (self.control.now(), Vec::new());
        let v4 =
            Wanted::of(filter).map_or(0, |wanted| flows::list(&self.v4(), &wanted, now, limit, &mut found));
        let v6 =
            Wanted::of(filter).map_or(0, |wanted| flows::list(&self.v6(), &wanted, now, limit, &mut found));
        (found, v4 + v6)
    }

    /// Cuts the connections that match. Returns how many.
    pub fn cut(&self, filter: &ConnectionFilter) -> u64 {
        Wanted::of(filter).map_or(0, |wanted| flows::cut(&self.v4(), &wanted))
            + Wanted::of(filter).map_or(0, |wanted| flows::cut(&self.v6(), &wanted))
    }

    /// Cuts the connections that opened before the tick `before` and whose backend, by number, is `doomed`; it is asked once of
    /// each.
    pub fn cut_backends(&self, before: u32, mut doomed: impl FnMut(u16) -> bool) {
        flows::cut_backends(&self.v4(), before, &mut doomed);
        flows::cut_backends(&self.v6(), before, &mut doomed);
    }

    /// Cuts the connections to VIPs that are `gone`.
    pub fn cut_vips(&self, gone: &[IpAddr]) {
        let (v4, v6): (Vec<_>, Vec<_>) = (of_family(gone), of_family(gone));
        // Of a family without any, nothing is looked at.
        if !v4.is_empty() {
            flows::cut_vips(&self.v4(), &v4);
        }
        if !v6.is_empty() {
            flows::cut_vips(&self.v6(), &v6);
        }
    }

    /// How many of each backend's connections are to these VIPs, by its number; those that are over do not count.
    pub fn count_to_vips(&self, vips: &[IpAddr]) -> HashMap<u16, u64> {
        let (v4, v6): (Vec<_>, Vec<_>) = (of_family(vips), of_family(vips));
        let mut counts = HashMap::new();
        if !v4.is_empty() {
            flows::count_to_vips(&self.v4(), &v4, &mut counts);
        }
        if !v6.is_empty() {
            flows::count_to_vips(&self.v6(), &v6, &mut counts);
        }
        counts
    }

    /// Sweeps the next slice, and lets newcomers take what follows from it. `farms`: how many are enabled. The last slice of a
    /// round tells what the round has found.
    pub fn sweep(&self, sweeper: &mut Sweeper, farms: usize) -> Option<Sweep> {
        let now = self.control.now();
        let beside = Beside { ports: &self.ports, affinities: &self.affinities, loads: &self.loads };
        let (policies, round) = sweeper.slice(&self.v4(), &self.v6(), &beside, now, farms);
        for (family, policy) in policies.iter().enumerate() {
            self.control.set_policy(family, policy);
        }
        round
    }

    /// Sweeps a whole round at once.
    pub fn sweep_round(&self, sweeper: &mut Sweeper, farms: usize) -> Sweep {
        (0..SLICES).find_map(|_| self.sweep(sweeper, farms)).unwrap_or_default()
    }

    /// Makes every line that names an interface by number name what `moves` says.
    pub fn rewrite_interfaces(&self, moves: &Moves) {
        flows::rewrite_interfaces(&self.v4(), moves);
        flows::rewrite_interfaces(&self.v6(), moves);
    }
}

fn of_family<A: Family>(addresses: &[IpAddr]) -> Vec<A> {
    addresses.iter().filter_map(|&address| A::of(address)).collect()
}
