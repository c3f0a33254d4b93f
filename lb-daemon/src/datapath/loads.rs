//! The map `LOADS` as the daemon has it: how many connections of each backend and farm count ([`lb_common::load`]), set right by the sweep.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use lb_common::abi::{BACKEND_COUNTED, BACKENDS_MAX, LOADS_MAX};
use lb_common::load::{CHANGES, SLICES, WAITING, WORDS, counts};
use lb_common::table::{Fields as _, Meta, State};

use super::flows::Family;
use super::mapping::{MappedLine, Memory, halves};
use super::numbers::Numbers;

/// The map.
pub struct Loads<M>(pub M);

impl<M: Memory> Loads<M> {
    /// A word of 32 bits of a backend's load. The program counts such words on their own.
    fn word(&self, number: u32, at: usize) -> Option<&AtomicU32> {
        let at = number as usize * WORDS + at;
        Some(&halves(self.0.words().get(at / 2)?)[at % 2])
    }

    fn read(&self, number: u32, at: usize) -> u32 {
        self.word(number, at).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn set_base(&self, number: u32, to: u32) {
        if let Some(word) = self.word(number, 0) {
            word.store(to, Ordering::Relaxed);
        }
    }

    /// Has a backend begin with nothing to do: its number is new to it, and no connection bears it.
    pub fn begin(&self, backend: u16) {
        self.zero(u32::from(backend));
    }

    /// The same of a farm.
    pub fn begin_farm(&self, farm: u16) {
        self.zero(BACKENDS_MAX + u32::from(farm));
    }

    fn zero(&self, number: u32) {
        let changes = (0..SLICES).map(|slice| self.read(number, CHANGES + slice));
        self.set_base(number, changes.fold(0u32, u32::wrapping_add).wrapping_neg());
    }
}

/// What the sweep remembers of loads.
pub struct Counted {
    /// Whose connections count, and what the program had counted of this slice when it was begun.
    watched: Vec<(u32, u32)>,
    /// By number: backends, then farms.
    loads: Vec<Found>,
}

/// What was found of a backend or a farm.
#[derive(Debug, Default, Clone, Copy)]
struct Found {
    /// Connections of this slice.
    here: u32,
    /// In each slice, less what the program had counted there.
    slices: [u32; SLICES],
    /// Slices that were looked at since its connections count.
    seen: usize,
}

impl Default for Counted {
    fn default() -> Self {
        Self { watched: Vec::new(), loads: vec![Found::default(); LOADS_MAX as usize] }
    }
}

impl Counted {
    /// Before a slice is looked at: what opens from now on is the program's to count. A connection that opens in the slice before
    /// the look comes to it is counted by both, until the next round.
    pub fn begin<M: Memory>(&mut self, slice: usize, loads: &Loads<M>, numbers: &Numbers<'_>) {
        let backends =
            (0..BACKENDS_MAX as u16).filter(|backend| numbers.flags(*backend) & BACKEND_COUNTED != 0);
        let mut watched = BTreeSet::new();
        for backend in backends {
            watched.insert(u32::from(backend));
            watched.insert(BACKENDS_MAX + u32::from(numbers.settings(backend).1));
        }
        for (number, found) in (0..).zip(&mut self.loads) {
            found.here = 0;
            if !watched.contains(&number) {
                found.seen = 0;
            }
        }
        self.watched = watched.iter().map(|number| (*number, loads.read(*number, CHANGES + slice))).collect();
    }

    /// Counts a forward line; `farm` is its backend's.
    pub fn count<A: Family>(&mut self, line: MappedLine<'_>, meta: Meta, farm: u16, now: u32) {
        let given_up =
            meta.is(State::Unanswered) && now.wrapping_sub(line.created()) as i32 >= WAITING as i32;
        if !counts(meta) || given_up {
            return;
        }
        for number in [usize::from(A::backend(line)), BACKENDS_MAX as usize + usize::from(farm)] {
            if let Some(found) = self.loads.get_mut(number) {
                found.here += 1;
            }
        }
    }

    /// After it was looked at. What stands is touched only when all of it is known.
    pub fn end<M: Memory>(&mut self, slice: usize, loads: &Loads<M>) {
        for &(number, changes) in &self.watched {
            let found = &mut self.loads[number as usize];
            found.slices[slice] = found.here.wrapping_sub(changes);
            found.seen = (found.seen + 1).min(SLICES);
            if found.seen == SLICES {
                loads.set_base(number, found.slices.iter().copied().fold(0u32, u32::wrapping_add));
            }
        }
    }
}
