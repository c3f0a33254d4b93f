//! How much work backends have; see [`lb_common::load`].

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use lb_common::abi::{BACKENDS_MAX, TABLE_SIZE};
use lb_common::hash;
use lb_common::load::{self, CHANGES, SLICES, WORDS};

use crate::explain;
use crate::maps;

/// No backend.
const NOBODY: u64 = u64::MAX;

/// Counts a connection of a backend and of its farm that has opened or closed, by the line of its forward direction.
#[inline(always)]
pub fn change(backend: u16, farm: u16, line: u32, by: i32) {
    load_change(u32::from(backend), line, by as u32);
    load_change(BACKENDS_MAX + u32::from(farm), line, by as u32);
}

/// For the verifier, as the functions in `calls` are.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn load_change(number: u32, line: u32, by: u32) -> u64 {
    let slice = load::slice(line, maps::lines_mask());
    if let Some(words) = maps::load(number)
        && slice < SLICES
    {
        // SAFETY: a word of a map's value; aligned.
        unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(words.add(CHANGES + slice), by) };
    }
    0
}

/// The connections of a farm that count.
#[inline(always)]
pub fn of_farm(farm: u16) -> u64 {
    load_of(BACKENDS_MAX + u32::from(farm))
}

/// For the verifier, as the functions in `calls` are.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn load_of(number: u32) -> u64 {
    load::above_zero(of(number))
}

/// The connections that count, of a backend or a farm.
#[inline(always)]
fn of(number: u32) -> u32 {
    let Some(words) = maps::load(number) else { return 0 };
    // SAFETY: a map's value of that many words.
    let word = |at: usize| unsafe { words.add(at).read_volatile() };
    let mut sum = word(0);
    for slice in 0..SLICES {
        sum = sum.wrapping_add(word(CHANGES + slice));
    }
    const { assert!(CHANGES + SLICES == WORDS) };
    sum
}

/// The backend that is to have a new connection, by its farm's table.
#[inline(always)]
pub fn choose(table: u32) -> Option<u16> {
    let number = least_loaded(table);
    if number == NOBODY { None } else { Some(number as u16) }
}

/// For the verifier, as the functions in `calls` are.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn least_loaded(table: u32) -> u64 {
    load::choose(|| any_of(table), |number| appraise(number as u16))
}

/// What a backend has to do, and its weight; of a number that nobody has, nothing.
#[inline(always)]
fn appraise(backend: u16) -> (u32, u32) {
    (of(u32::from(backend)), maps::backend(backend).map_or(0, |entry| entry.weight))
}

/// For the verifier, as above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn any_of(table: u32) -> u64 {
    maps::backend_at(table, hash::slot(explain::random(), TABLE_SIZE)).map_or(NOBODY, u64::from)
}
