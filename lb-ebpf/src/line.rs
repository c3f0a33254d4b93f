//! Lines of the connection table as the program sees them: volatile accesses and BPF's atomics (kernel 5.12) on pointers
//! into the map. Loads and stores keep their order on x86-64, which is all that the protocol asks of them.

use core::intrinsics::{AtomicOrdering, atomic_and, atomic_cxchg, atomic_or, atomic_xadd};
use core::marker::PhantomData;

use lb_common::abi::{BACKENDS_MAX, FlowKey};
use lb_common::table::{Book, Homes, Layout, Line as _, Lines, Meta, Raw, RawLine};

use crate::calls::Calls;
use crate::family::Family;
use crate::maps;

/// A line. Made by [`Family::line`] alone, from a map's value, and used before the program ends.
#[derive(Clone, Copy)]
pub struct Line(*mut u64);

impl Line {
    #[inline(always)]
    pub fn new(line: *mut RawLine) -> Self {
        Self(line.cast())
    }
}

impl Raw for Line {
    #[inline(always)]
    fn word(self, at: usize) -> u64 {
        // SAFETY: `at` is below 8, and the pointer leads to the 8 words of a map's value, which lasts as long as the program runs.
        unsafe { self.0.add(at).read_volatile() }
    }
    #[inline(always)]
    fn set_word(self, at: usize, to: u64) {
        // SAFETY: as above.
        unsafe { self.0.add(at).write_volatile(to) }
    }
    #[inline(always)]
    fn half(self, at: usize) -> u32 {
        // SAFETY: as above; `at` is below 16.
        unsafe { self.0.cast::<u32>().add(at).read_volatile() }
    }
    #[inline(always)]
    fn set_half(self, at: usize, to: u32) {
        // SAFETY: as above.
        unsafe { self.0.cast::<u32>().add(at).write_volatile(to) }
    }
    #[inline(always)]
    fn load(self) -> u64 {
        self.word(0)
    }
    #[inline(always)]
    fn store(self, to: u64) {
        self.set_word(0, to);
    }
    #[inline(always)]
    fn swap(self, from: u64, to: u64) -> bool {
        // SAFETY: as in `word`; aligned as the map's values are.
        unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(self.0, from, to).1
        }
    }
    #[inline(always)]
    fn or(self, bits: u32) -> u32 {
        // SAFETY: as above.
        unsafe { atomic_or::<u32, u32, { AtomicOrdering::SeqCst }>(self.0.cast::<u32>().add(2), bits) }
    }
    #[inline(always)]
    fn and(self, bits: u32) {
        // SAFETY: as above.
        unsafe { atomic_and::<u32, u32, { AtomicOrdering::SeqCst }>(self.0.cast::<u32>().add(2), bits) };
    }
    #[inline(always)]
    fn add(self, number: u32) {
        // SAFETY: as above.
        unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(self.0.cast::<u32>().add(2), number) };
    }
}

/// The numbers' addresses, from the maps.
pub struct Numbers;

impl Book for Numbers {
    #[inline(always)]
    fn vip(&self, number: u16) -> Option<&[u8; 16]> {
        maps::vip(number)
    }
    #[inline(always)]
    fn backend(&self, number: u16) -> Option<&[u8; 16]> {
        const { assert!(BACKENDS_MAX <= 1 << 16) };
        maps::backend(number).map(|backend| &backend.address_v6)
    }
}

/// The table of one family. `NOTES`: an instance that explains notes which line is missing.
pub struct Connections<F, const NOTES: bool = true>(PhantomData<F>);

impl<F: Family> Connections<F, true> {
    #[inline(always)]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<F: Family> Connections<F, false> {
    /// For a look at windows that are known to be there. A look needs all the stack that there is.
    #[inline(always)]
    pub fn quiet() -> Self {
        Self(PhantomData)
    }
}

impl<F: Calls, const NOTES: bool> Lines for Connections<F, NOTES> {
    type Line = Line;
    type Key = FlowKey<F::Addr>;

    #[inline(always)]
    fn at(&self, index: u32) -> Option<Line> {
        if NOTES { F::line(index) } else { F::line_at(index) }
    }
    #[inline(always)]
    fn mask(&self) -> u32 {
        maps::lines_mask()
    }
    #[inline(always)]
    fn holds(&self, line: Line, meta: Meta, key: &FlowKey<F::Addr>) -> bool {
        F::Addr::holds(line, meta, key, &Numbers)
    }
    #[inline(always)]
    fn timeout(&self, line: Line, meta: Meta) -> u32 {
        maps::backend(F::Addr::backend(line)).map_or(0, |backend| backend.timeouts.of(meta))
    }
    #[inline(always)]
    fn first_home(&self, line: Line, meta: Meta) -> Option<u32> {
        let hash = F::Addr::line_hash(line, meta, &Numbers, &maps::control()?.table_seed)?;
        Some(Homes::of(hash, maps::lines_mask()).first)
    }
    #[inline(always)]
    fn search(&self, home: u32, now: u32, policy: u32) -> u64 {
        F::search(home, now, policy)
    }
    #[inline(always)]
    fn appraise(&self, index: u32, now: u32, policy: u32) -> u32 {
        F::appraise(index, now, policy) as u32
    }
    #[inline(always)]
    fn is_taken(&self, homes: &Homes, key: &FlowKey<F::Addr>, own: u32) -> bool {
        F::is_taken(key, homes, own) != 0
    }
    #[inline(always)]
    fn unlink(&self, index: u32, meta: Meta) {
        F::unlink(index, meta.0);
    }
}

/// Where a flow belongs; `None` cannot be.
#[inline(always)]
pub fn homes<F: Family>(key: &FlowKey<F::Addr>) -> Option<Homes> {
    Some(Homes::of(F::Addr::hash(key, &maps::control()?.table_seed), maps::lines_mask()))
}

/// Starts the load of a line that is going to be looked at.
#[inline(always)]
pub fn touch<F: Family>(index: u32) {
    if let Some(line) = F::line(index) {
        // A volatile load is done though nobody looks at what it gives; nothing waits for it.
        line.hops();
    }
}
