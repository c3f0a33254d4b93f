//! The maps `AFFINITIES` and `SCHEDULES` as the daemon has them: what each farm's scheduler goes by, and which backend each source
//! had ([`lb_common::affinity`]). Sources are entered by the program; here those are refreshed that are still connected, and those
//! forgotten whose backend's number is to get another owner.

use std::collections::BTreeSet;
use std::mem::offset_of;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use lb_common::abi::{Rules, Schedule, map};
use lb_common::affinity::{self, PLACES, Value};
use lb_common::table::Meta;

use super::flows::{Family, View, consistent};
use super::mapping::{MappedLine, Mapping, Memory, value_of, words_of};
use super::maps;

/// Words of a bucket.
const BUCKET: usize = 2 * PLACES;
/// Words of a farm's schedule, and of its rules, with which it begins. The rest is the program's.
const SCHEDULE: usize = size_of::<Schedule>() / 8;
const RULES: usize = size_of::<Rules>() / 8;
const _: () = assert!(offset_of!(Schedule, rules) == 0);

/// See the module.
pub struct Affinities<M> {
    buckets: M,
    schedules: M,
}

impl Affinities<Mapping> {
    pub(super) fn open(pins: &Path) -> anyhow::Result<Self> {
        Self::new(|name| maps::mapped(pins, name))
    }
}

impl<M: Memory> Affinities<M> {
    /// On what `memory` gives for each map's name.
    pub fn new(mut memory: impl FnMut(&str) -> anyhow::Result<M>) -> anyhow::Result<Self> {
        Ok(Self { buckets: memory(map::AFFINITIES)?, schedules: memory(map::SCHEDULES)? })
    }

    /// `None` for a number beyond the map.
    pub fn rules(&self, farm: u16) -> Option<Rules> {
        Some(value_of(self.words(farm)?))
    }

    pub fn set_rules(&self, farm: u16, rules: &Rules) {
        let Some(places) = self.words(farm) else { return };
        for (place, word) in places.iter().zip(words_of::<_, RULES>(rules)) {
            place.store(word, Ordering::Release);
        }
    }

    fn words(&self, farm: u16) -> Option<&[AtomicU64; RULES]> {
        let start = usize::from(farm) * SCHEDULE;
        self.schedules.words().get(start..start + RULES)?.try_into().ok()
    }

    /// Forgets whoever had one of these backends, by number.
    pub fn forget(&self, gone: &BTreeSet<u16>) {
        for bucket in self.buckets.words().as_chunks::<BUCKET>().0 {
            affinity::forget(Bucket(bucket), |backend| gone.contains(&backend));
        }
    }

    /// Notes that the client of a forward line is still connected to a backend of an affine farm.
    pub fn refresh<A: Family>(&self, table: &View<'_, A>, line: MappedLine<'_>, meta: Meta, now: u32) {
        let numbers = &table.0.numbers;
        let read = || Some((A::key(line, meta, numbers)?.src, A::backend(line)));
        let Some((source, backend)) = consistent(line, meta, read) else { return };
        let farm = numbers.settings(backend).1;
        let Some(rules) = self.rules(farm) else { return };
        let ([first, second], mask) = (source.words(), rules.mask(size_of::<A>() == 4));
        let tag = affinity::tag(farm, [first & mask[0], second & mask[1]], &table.0.seed());
        let new = Value { farm, backend, until: now.wrapping_add(rules.affinity) };
        let bucket = self.buckets.words().as_chunks::<BUCKET>().0.get(affinity::bucket(tag) as usize);
        if let Some(bucket) = bucket {
            affinity::refresh(Bucket(bucket), tag, new);
        }
    }
}

#[derive(Clone, Copy)]
struct Bucket<'a>(&'a [AtomicU64; BUCKET]);

impl Bucket<'_> {
    fn swap(self, word: usize, from: u64, to: u64) -> bool {
        self.0[word].compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl affinity::Memory for Bucket<'_> {
    fn tag(self, at: usize) -> u64 {
        self.0[2 * at].load(Ordering::Acquire)
    }
    fn value(self, at: usize) -> u64 {
        self.0[2 * at + 1].load(Ordering::Acquire)
    }
    fn set_tag(self, at: usize, to: u64) {
        self.0[2 * at].store(to, Ordering::Release);
    }
    fn set_value(self, at: usize, to: u64) {
        self.0[2 * at + 1].store(to, Ordering::Release);
    }
    fn swap_tag(self, at: usize, from: u64, to: u64) -> bool {
        self.swap(2 * at, from, to)
    }
    fn swap_value(self, at: usize, from: u64, to: u64) -> bool {
        self.swap(2 * at + 1, from, to)
    }
}
