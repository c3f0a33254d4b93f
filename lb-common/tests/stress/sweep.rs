//! What the daemon does with the table: it frees what is over, half pairs, and lines whose owner is gone, and cuts.

use std::sync::atomic::Ordering;
use std::thread;

use lb_common::table::{Line, Lines, State, Table};

use crate::mapped::Mapping;
use crate::random::Random;
use crate::traffic::{Shared, count};
use crate::world::Family;

pub struct Daemon<'a, A> {
    table: Table<&'a Mapping<A>>,
    shared: &'a Shared,
    random: Random,
    swept_at: u32,
}

impl<'a, A: Family> Daemon<'a, A> {
    pub fn new(table: Table<&'a Mapping<A>>, shared: &'a Shared, seed: u64) -> Self {
        Self { table, shared, random: Random::new(seed), swept_at: 0 }
    }

    /// Looks at every line, once, if there were as many packets since the last time.
    pub fn sweep(&mut self) {
        let packets = self.shared.packets.load(Ordering::Relaxed);
        if packets.wrapping_sub(self.swept_at) <= self.table.0.mask() {
            return thread::yield_now();
        }
        self.swept_at = packets;
        self.free_stuck();
        for index in 0..=self.table.0.mask() {
            self.look_at(index);
        }
    }

    fn look_at(&mut self, index: u32) {
        let table = &self.table;
        let line = table.0.at(index).unwrap();
        let meta = line.meta();
        if !meta.is_live() {
            return;
        }
        let counts = &self.shared.counts;
        if table.expired(index, line, meta, self.shared.now()) {
            if table.free_pair(index, meta) {
                count(&counts.expired);
            }
        } else if table.peer_at(line.peer(), index).is_none() {
            if table.free(index, meta) {
                count(&counts.rare.half);
            }
        } else if self.random.once_in(64) {
            let done = if self.random.once_in(2) {
                table.free_pair(index, meta)
            } else {
                line.swap_meta(meta, meta.with_state(State::Cut))
            };
            if done {
                count(&counts.cut);
            }
        } else if self.random.once_in(4096) && line.swap_meta(meta, meta.leaving()) {
            // Killed in the middle.
            self.shared.lose(index, meta.leaving());
        }
    }

    pub fn free_halves(&self) {
        let table = &self.table;
        for index in 0..=table.0.mask() {
            let line = table.0.at(index).unwrap();
            let meta = line.meta();
            if meta.is_live() && table.peer_at(line.peer(), index).is_none() {
                assert!(table.free(index, meta));
            }
        }
    }

    /// The daemon knows such lines by their first word, the same in two sweeps. Here a processor may be stopped for as long as the
    /// kernel likes, so it is told.
    pub fn free_stuck(&self) {
        for (index, meta) in self.shared.lost.lock().unwrap().drain(..) {
            assert!(self.table.free_stuck(index, meta), "somebody else has had line {index}");
            count(&self.shared.counts.freed_stuck);
        }
    }
}
