//! The map `LOADS` as the daemon has it: how many connections of each backend count ([`lb_common::load`]), set right by the sweep.

use std::sync::atomic::{AtomicU32, Ordering};

use lb_common::abi::{BACKEND_COUNTED, BACKENDS_MAX};
use lb_common::load::{CHANGES, SLICES, WAITING, WORDS, counts};
use lb_common::table::{Fields as _, Meta, State};

use super::flows::Family;
use super::mapping::{MappedLine, Memory, halves};
use super::numbers::Numbers;

/// The map.
pub struct Loads<M>(pub M);

impl<M: Memory> Loads<M> {
    /// A word of 32 bits of a backend's load. The program counts such words on their own.
    fn word(&self, backend: u16, at: usize) -> Option<&AtomicU32> {
        let at = usize::from(backend) * WORDS + at;
        Some(&halves(self.0.words().get(at / 2)?)[at % 2])
    }

    fn read(&self, backend: u16, at: usize) -> u32 {
        self.word(backend, at).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn set_base(&self, backend: u16, to: u32) {
        if let Some(word) = self.word(backend, 0) {
            word.store(to, Ordering::Relaxed);
        }
    }

    /// Has a backend begin with nothing to do: its number is new to it, and no connection bears it.
    pub fn begin(&self, backend: u16) {
        let changes =
            (0..SLICES).fold(0u32, |sum, slice| sum.wrapping_add(self.read(backend, CHANGES + slice)));
        self.set_base(backend, changes.wrapping_neg());
    }

    /// How many connections of a backend count.
    #[cfg(test)]
    pub fn of(&self, backend: u16) -> u32 {
        (0..SLICES)
            .fold(self.read(backend, 0), |sum, slice| sum.wrapping_add(self.read(backend, CHANGES + slice)))
    }
}

/// What the sweep remembers of loads.
pub struct Counted {
    /// Backends whose connections count, and what the program had counted of this slice when it was begun.
    watched: Vec<(u16, u32)>,
    /// By backend.
    backends: Vec<Found>,
}

/// What was found of a backend.
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
        Self { watched: Vec::new(), backends: vec![Found::default(); BACKENDS_MAX as usize] }
    }
}

impl Counted {
    /// Before a slice is looked at: what opens from now on is the program's to count. A connection that opens in the slice before
    /// the look comes to it is counted by both, until the next round.
    pub fn begin<M: Memory>(&mut self, slice: usize, loads: &Loads<M>, numbers: &Numbers<'_>) {
        self.watched.clear();
        for (number, found) in (0..).zip(&mut self.backends) {
            if numbers.flags(number) & BACKEND_COUNTED == 0 {
                found.seen = 0;
                continue;
            }
            found.here = 0;
            self.watched.push((number, loads.read(number, CHANGES + slice)));
        }
    }

    /// Counts a forward line.
    pub fn count<A: Family>(&mut self, line: MappedLine<'_>, meta: Meta, now: u32) {
        let given_up =
            meta.is(State::Unanswered) && now.wrapping_sub(line.created()) as i32 >= WAITING as i32;
        if counts(meta)
            && !given_up
            && let Some(found) = self.backends.get_mut(usize::from(A::backend(line)))
        {
            found.here += 1;
        }
    }

    /// After it was looked at. What stands is touched only when all of it is known.
    pub fn end<M: Memory>(&mut self, slice: usize, loads: &Loads<M>) {
        for &(number, changes) in &self.watched {
            let found = &mut self.backends[usize::from(number)];
            found.slices[slice] = found.here.wrapping_sub(changes);
            found.seen = (found.seen + 1).min(SLICES);
            if found.seen == SLICES {
                let base = found.slices.iter().fold(0u32, |sum, slice| sum.wrapping_add(*slice));
                loads.set_base(number, base);
            }
        }
    }
}
