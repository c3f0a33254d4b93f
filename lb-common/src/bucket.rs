//! How many connections a farm may still take at this moment, of so many a second: a bucket of tokens in one word.
//!
//! Tokens come back with each tick, up to a second's worth. A token is taken when a handshake is complete, and not for a SYN: so
//! forged ones cost nobody a token. What opens in between makes debts, which are paid back before anybody else may come.
//!
//! Each source has a bucket of its own, by a hash, with a share of the farm's rate. Whoever takes more than that may go on while more
//! than half of the farm's tokens are left: one source alone may have all of them, and takes none from others who come.

use crate::abi::TICK_MILLISECONDS;
use crate::hash;

/// Ticks of a second. A token is as many parts, of which each tick brings one for each connection of the rate.
const TICKS: u32 = 1000 / TICK_MILLISECONDS;

/// The largest rate: so that a second's worth, in parts, is far from the ends of a word.
pub const RATE_MAX: u32 = 10_000_000;

/// Buckets of sources, by a hash of what counts of an address: [`place`].
pub const SOURCES: u32 = 1 << 16;

/// What a source may have of a farm's rate whatever the others do.
#[inline(always)]
pub const fn share(rate: u32) -> u32 {
    if rate < 8 { 1 } else { rate / 8 }
}

/// The bucket of a source of a farm. Of IPv6 a network of 64 bits is one source.
#[inline(always)]
pub const fn place([first, second]: [u64; 2], v4: bool, farm: u16, seed: u64) -> u32 {
    let counts = if v4 { second } else { first };
    let hash = hash::source([counts, farm as u64], seed);
    hash & (SOURCES - 1)
}

/// Whether somebody may come whose own bucket and whose farm's are these, by now.
#[inline(always)]
pub const fn may_come(farm: Bucket, source: Bucket, rate: u32) -> bool {
    farm.has_token() && (source.has_token() || farm.parts > (rate * TICKS / 2) as i32)
}

/// A bucket at some moment. All zeros: it has not been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// When it was last filled up.
    tick: u32,
    /// Parts of tokens; less than 0: debts.
    parts: i32,
}

impl Bucket {
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { tick: (word >> 32) as u32, parts: word as u32 as i32 }
    }

    #[inline(always)]
    pub const fn word(self) -> u64 {
        (self.tick as u64) << 32 | self.parts as u32 as u64
    }

    /// The bucket at the tick `now`.
    #[inline(always)]
    pub const fn at(self, now: u32, rate: u32) -> Self {
        let elapsed = now.wrapping_sub(self.tick);
        // Another CPU's "now" may be a tick ahead.
        if elapsed as i32 <= 0 && self.tick != 0 {
            return self;
        }
        let full = (rate * TICKS) as i32;
        // From the deepest debt it takes two seconds to fill up.
        if elapsed >= 2 * TICKS || self.tick == 0 {
            return Self { tick: now, parts: full };
        }
        let parts = self.parts + (elapsed * rate) as i32;
        // What is not yet a token is kept, or slow rates would lose a part each time.
        let most = full + TICKS as i32 - 1;
        Self { tick: now, parts: if parts > most { most } else { parts } }
    }

    /// Whether somebody may come.
    #[inline(always)]
    pub const fn has_token(self) -> bool {
        self.parts >= TICKS as i32
    }

    /// Somebody has come, whether or not there was a token.
    #[inline(always)]
    pub const fn taken(self, rate: u32) -> Self {
        let (parts, least) = (self.parts - TICKS as i32, -((rate * TICKS) as i32));
        Self { tick: self.tick, parts: if parts < least { least } else { parts } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many come at this tick until there is no token.
    fn drain(bucket: &mut Bucket, now: u32, rate: u32) -> u32 {
        let mut came = 0;
        *bucket = bucket.at(now, rate);
        while bucket.has_token() {
            *bucket = bucket.taken(rate);
            came += 1;
        }
        came
    }

    #[test]
    fn a_second_brings_as_many_as_the_rate_says_however_it_is_divided() {
        for rate in [1, 3, 7, 10, 50, 999, 5000, 1_000_000] {
            for step in [1, 2, 3, 10] {
                let mut bucket = Bucket::from_word(0);
                let start = 5;
                assert_eq!(drain(&mut bucket, start, rate), rate, "it is full at first");
                let came: u32 = (1..=600 / step).map(|i| drain(&mut bucket, start + i * step, rate)).sum();
                assert!(came <= rate * 60 && came + 1 >= rate * 60, "{rate} {step}: {came}");
            }
        }
    }

    #[test]
    fn it_holds_a_second_and_debts_are_paid_back() {
        let rate = 20;
        let mut bucket = Bucket::from_word(0).at(100, rate);
        (0..30).for_each(|_| bucket = bucket.taken(rate));
        assert!(!bucket.has_token());
        assert_eq!(drain(&mut bucket, 105, rate), 0, "half of a second's worth was owed");
        assert_eq!(drain(&mut bucket, 106, rate), 2);
        (0..10_000).for_each(|_| bucket = bucket.taken(rate));
        assert_eq!(drain(&mut bucket, 116, rate), 0, "nobody owes more than a second's worth");
        assert_eq!(drain(&mut bucket, 117, rate), 2);
        assert_eq!(drain(&mut bucket, 100_000, rate), rate);
    }

    #[test]
    fn a_clock_that_wraps_or_is_a_tick_behind_brings_nothing() {
        let rate = 10;
        let mut bucket = Bucket::from_word(0).at(u32::MAX, rate);
        assert_eq!(drain(&mut bucket, u32::MAX, rate), 10);
        assert_eq!(drain(&mut bucket, u32::MAX - 1, rate), 0);
        // The tick 0 means "never" to a word of zeros, and brings a second's worth once in 13 years.
        assert_eq!(drain(&mut bucket, 1, rate), 2);
        let bucket = Bucket::from_word(0).at(7, RATE_MAX);
        assert_eq!(Bucket::from_word(bucket.word()), bucket);
        assert!(bucket.has_token());
        (0..3).fold(bucket, |bucket, _| bucket.taken(RATE_MAX));
    }
}
