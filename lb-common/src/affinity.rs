//! Which backend a source had before: a table of fixed size, in buckets of one hash each.
//!
//! A source is entered when it has proven to be there, never by its first packet, so forged addresses enter nothing. Its place is
//! known by a tag that a secret makes of its farm and of what counts of its address; the address itself is not kept. A newcomer
//! to a full bucket takes the place of one whose time is over, else of the one with the least time left; but a farm that has half of
//! the bucket takes from itself alone. So whoever has very many addresses takes from his like, and other farms keep their half.
//!
//! A place is two words. Its tag is claimed by a compare-and-swap before its value is written, and its value is changed by one:
//! nobody gets the value of another tag, but if two change hands between two loads, and then one of the same farm.

use crate::challenge::siphash;

/// Buckets of the table.
pub const BUCKETS: u32 = 1 << 15;
/// Places of a bucket: two lines of the processor's cache.
pub const PLACES: usize = 8;

/// A bucket as memory: each place's tag and its [`Value`].
#[derive(Debug, Clone, Copy)]
#[repr(C, align(128))]
pub struct Bucket(pub [u64; 2 * PLACES]);

/// A tag that nobody has: the place is empty.
const EMPTY: u64 = 0;
/// A tag that nobody has: somebody is writing here.
const CLAIMED: u64 = 1;

/// A source's tag. `words`: what counts of its address.
#[inline(always)]
pub const fn tag(farm: u16, words: [u64; 2], secret: &[u64; 2]) -> u64 {
    siphash(words, &[secret[0] ^ (farm as u64 + 1), secret[1]]) | 2
}

/// Where a tag belongs.
#[inline(always)]
pub const fn bucket(tag: u64) -> u32 {
    (tag >> 32) as u32 & (BUCKETS - 1)
}

/// What stands beside a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    pub farm: u16,
    pub backend: u16,
    /// The last tick of its time.
    pub until: u32,
}

impl Value {
    #[inline(always)]
    pub const fn raw(self) -> u64 {
        (self.until as u64) << 32 | (self.backend as u64) << 16 | self.farm as u64
    }
    #[inline(always)]
    pub const fn from_raw(raw: u64) -> Self {
        Self { farm: raw as u16, backend: (raw >> 16) as u16, until: (raw >> 32) as u32 }
    }
    /// How much of its time is left; less than 0: none.
    #[inline(always)]
    const fn left(self, now: u32) -> i32 {
        self.until.wrapping_sub(now) as i32
    }
}

/// A bucket's memory. `at` is below [`PLACES`].
pub trait Memory: Copy {
    fn tag(self, at: usize) -> u64;
    fn value(self, at: usize) -> u64;
    fn set_tag(self, at: usize, to: u64);
    fn set_value(self, at: usize, to: u64);
    /// Compare and swap; whether it was `from`.
    fn swap_tag(self, at: usize, from: u64, to: u64) -> bool;
    fn swap_value(self, at: usize, from: u64, to: u64) -> bool;

    /// See [`places`]. The program has functions of their own for it and for the next one.
    #[inline(always)]
    fn places(self, farm: u16) -> u64 {
        places(self, farm)
    }
    /// See [`rank`].
    #[inline(always)]
    fn rank(self, at: usize, farm: u16, has_half: bool, now: u32) -> u64 {
        rank(self, at, farm, has_half, now)
    }
}

/// A source's place in its bucket, and what stands there; [`PLACES`]: none.
#[inline(always)]
fn position(bucket: impl Memory, tag: u64, farm: u16) -> (usize, Value) {
    let nobody = (PLACES, Value { farm, backend: 0, until: 0 });
    for at in 0..PLACES {
        if bucket.tag(at) == tag {
            let value = Value::from_raw(bucket.value(at));
            return if value.farm == farm && bucket.tag(at) == tag { (at, value) } else { nobody };
        }
    }
    nobody
}

/// The backend that a source had, unless its time is over.
#[inline(always)]
pub fn find(bucket: impl Memory, tag: u64, farm: u16, now: u32) -> Option<u16> {
    let (at, value) = position(bucket, tag, farm);
    if at < PLACES && value.left(now) >= 0 { Some(value.backend) } else { None }
}

/// Notes that a source is still connected to the backend that it has.
#[inline(always)]
pub fn refresh(bucket: impl Memory, tag: u64, new: Value) {
    let (at, value) = position(bucket, tag, new.farm);
    if at < PLACES && value.backend == new.backend && value.until != new.until {
        // Whoever has changed it meanwhile knows better.
        bucket.swap_value(at, value.raw(), new.raw());
    }
}

/// Notes that a source is connected to a backend. It keeps the one that it has while its time is not over and that `is_open` to it.
#[inline(always)]
pub fn note(bucket: impl Memory, tag: u64, new: Value, now: u32, is_open: impl Fn(u16) -> bool) {
    let (at, value) = position(bucket, tag, new.farm);
    if at < PLACES {
        let stays = value.left(now) >= 0 && is_open(value.backend);
        let backend = if stays { value.backend } else { new.backend };
        bucket.swap_value(at, value.raw(), Value { backend, ..new }.raw());
        return;
    }
    let at = victim(bucket, new.farm, now);
    let before = bucket.tag(at);
    if before != CLAIMED && bucket.swap_tag(at, before, CLAIMED) {
        bucket.set_value(at, new.raw());
        bucket.set_tag(at, tag);
    }
}

/// Whose place a newcomer takes; see the module.
#[inline(always)]
fn victim(bucket: impl Memory, farm: u16, now: u32) -> usize {
    let has_half = bucket.places(farm) >= PLACES as u64 / 2;
    let mut best = 0;
    for at in 0..PLACES {
        let rank = bucket.rank(at, farm, has_half, now);
        if rank > best {
            best = rank;
        }
    }
    best as usize & (PLACES - 1)
}

/// How many places of the bucket a farm has.
#[inline(always)]
pub fn places(bucket: impl Memory, farm: u16) -> u64 {
    let mut places = 0;
    for at in 0..PLACES {
        if bucket.tag(at) != EMPTY && Value::from_raw(bucket.value(at)).farm == farm {
            places += 1;
        }
    }
    places
}

/// How soon a newcomer of `farm`, which has half of the bucket or not, takes a place; its number is in the last bits.
#[inline(always)]
pub fn rank(bucket: impl Memory, at: usize, farm: u16, has_half: bool, now: u32) -> u64 {
    let value = Value::from_raw(bucket.value(at));
    let left = value.left(now);
    let class: u64 = if bucket.tag(at) == EMPTY {
        3
    } else if left < 0 {
        2
    } else {
        u64::from(!has_half || value.farm == farm)
    };
    class << 48 | ((i32::MAX as i64 - left as i64) as u64) << 8 | at as u64
}

/// Forgets whoever has one of these backends.
pub fn forget(bucket: impl Memory, is_gone: impl Fn(u16) -> bool) {
    for at in 0..PLACES {
        let tag = bucket.tag(at);
        if tag != EMPTY && tag != CLAIMED && is_gone(Value::from_raw(bucket.value(at)).backend) {
            bucket.swap_tag(at, tag, EMPTY);
        }
    }
}

const _: () = assert!(size_of::<Bucket>() == 128);

#[cfg(feature = "user")]
// SAFETY: u64 throughout.
unsafe impl aya::Pod for Bucket {}

#[cfg(test)]
#[path = "affinity_tests.rs"]
mod tests;
