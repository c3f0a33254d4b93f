//! Sources that keep the backend they had; see [`lb_common::affinity`].

use core::intrinsics::{AtomicOrdering, atomic_cxchg};

use lb_common::abi::BACKEND_RETURNS;
use lb_common::affinity::{self, Bucket, Memory, PLACES, Value};

use crate::calls::Calls;
use crate::family::Family;
use crate::maps;
use crate::work::Work;

/// A bucket of the map.
#[derive(Clone, Copy)]
struct Places {
    words: *mut u64,
    /// One that belongs there.
    tag: u64,
}

impl Places {
    #[inline(always)]
    fn of(tag: u64) -> Option<Self> {
        let bucket: *mut Bucket = maps::affinities(affinity::bucket(tag))?;
        Some(Self { words: bucket.cast(), tag })
    }

    #[inline(always)]
    fn swap(self, word: usize, from: u64, to: u64) -> bool {
        // SAFETY: `word` is below that many words of a map's value, which lasts as long as the program runs; aligned.
        unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                self.words.add(word & (2 * PLACES - 1)),
                from,
                to,
            )
            .1
        }
    }
    #[inline(always)]
    fn load(self, word: usize) -> u64 {
        // SAFETY: as above.
        unsafe { self.words.add(word & (2 * PLACES - 1)).read_volatile() }
    }
    #[inline(always)]
    fn store(self, word: usize, to: u64) {
        // SAFETY: as above.
        unsafe { self.words.add(word & (2 * PLACES - 1)).write_volatile(to) }
    }
}

impl Memory for Places {
    #[inline(always)]
    fn tag(self, at: usize) -> u64 {
        self.load(2 * at)
    }
    #[inline(always)]
    fn value(self, at: usize) -> u64 {
        self.load(2 * at + 1)
    }
    #[inline(always)]
    fn set_tag(self, at: usize, to: u64) {
        self.store(2 * at, to);
    }
    #[inline(always)]
    fn set_value(self, at: usize, to: u64) {
        self.store(2 * at + 1, to);
    }
    #[inline(always)]
    fn swap_tag(self, at: usize, from: u64, to: u64) -> bool {
        self.swap(2 * at, from, to)
    }
    #[inline(always)]
    fn swap_value(self, at: usize, from: u64, to: u64) -> bool {
        self.swap(2 * at + 1, from, to)
    }
    #[inline(always)]
    fn places(self, farm: u16) -> u64 {
        affinity_places(self.tag, u32::from(farm))
    }
    #[inline(always)]
    fn rank(self, at: usize, farm: u16, has_half: bool, now: u32) -> u64 {
        affinity_rank(self.tag, at as u32, u32::from(farm), u32::from(has_half), now)
    }
}

/// For the verifier, as the functions in `calls` are.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn affinity_places(tag: u64, farm: u32) -> u64 {
    Places::of(tag).map_or(0, |bucket| affinity::places(bucket, farm as u16))
}

/// For the verifier, as above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn affinity_rank(tag: u64, at: u32, farm: u32, has_half: u32, now: u32) -> u64 {
    let at = at as usize & (PLACES - 1);
    Places::of(tag).map_or(0, |bucket| affinity::rank(bucket, at, farm as u16, has_half != 0, now))
}

/// The tag of the packet's source.
#[inline(always)]
fn tag<F: Family>(work: &Work<F>, farm: u16) -> Option<u64> {
    let [first, second] = maps::source(&work.read.key.src, farm, F::TABLE == 0)?;
    Some(affinity_tag(u32::from(farm), first, second))
}

/// For the verifier, as the functions in `calls` are.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn affinity_tag(farm: u32, first: u64, second: u64) -> u64 {
    maps::control().map_or(0, |control| affinity::tag(farm as u16, [first, second], &control.table_seed))
}

/// The backend that the packet's source had, if it may come back to it.
#[inline(always)]
pub fn had<F: Calls>(work: &Work<F>, farm: u16) -> Option<u16> {
    let number = affinity_find(tag(work, farm)?, u32::from(farm), work.control.now);
    if number == NOBODY { None } else { Some(number as u16) }
}

const NOBODY: u64 = u64::MAX;

/// For the verifier, as above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn affinity_find(tag: u64, farm: u32, now: u32) -> u64 {
    let (Some(bucket), farm) = (Places::of(tag), farm as u16) else { return NOBODY };
    match affinity::find(bucket, tag, farm, now) {
        Some(backend) if is_open(farm, backend) => u64::from(backend),
        Some(_) | None => NOBODY,
    }
}

/// Notes whom the packet's source is connected to, now that it has proven to be there.
#[inline(always)]
pub fn enter<F: Calls>(work: &Work<F>, farm: u16, backend: u16) {
    if let Some(tag) = tag(work, farm) {
        affinity_note(tag, u32::from(farm), u32::from(backend), work.control.now);
    }
}

/// For the verifier, as above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn affinity_note(tag: u64, farm: u32, backend: u32, now: u32) -> u64 {
    let Some(bucket) = Places::of(tag) else { return 0 };
    let timeout = maps::rules(farm as u16).map_or(0, |rules| rules.affinity);
    let new = Value { farm: farm as u16, backend: backend as u16, until: now.wrapping_add(timeout) };
    affinity::note(bucket, tag, new, now, |backend| is_open(new.farm, backend));
    0
}

/// Whether clients may come back to a backend of that farm. Numbers change hands: not everybody who has one is the one who had it.
#[inline(always)]
fn is_open(farm: u16, backend: u16) -> bool {
    maps::backend(backend).is_some_and(|entry| entry.farm == farm && entry.flags & BACKEND_RETURNS != 0)
}
