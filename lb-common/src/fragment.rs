//! Which ports the fragments of a datagram have that bear none: what its first one leaves for those that follow. With them a fragment
//! has a whole flow, and finds the line of its connection as any other packet does.
//!
//! A memory of fixed size, in buckets. A datagram's bucket follows from a secret hash of its addresses and from its number, so that
//! those of two hosts are spread over 16 buckets, and a place says whose it is: the 32 bits of its tag are the hash and the number
//! together, so two datagrams between the same hosts never have the same one. Who takes whose place:
//!
//! - The fragments of a datagram follow each other in milliseconds, so who comes last gets a place: an empty one, one whose time is
//!   over, else the oldest. A flood has to fill the whole memory between a datagram's first fragment and its last to do harm.
//! - Two hosts have half of a bucket at most, and take from themselves beyond that, by the same rules.
//! - Who opens a connection by a fragment has proven nothing, not even his address. He takes places of his like, and those of
//!   established connections only when they are 2 s old: such floods harm each other alone.
//! - A first fragment that names the number of another flow's datagram, less than a second old, between the same hosts, is somebody's
//!   attempt to lead that one's remainder astray.

use crate::abi::Port;
use crate::verdict::Verdict;

/// Buckets of the memory; 1 MiB in all.
pub const BUCKETS: u32 = 1 << 13;
/// Places of a bucket: two lines of the processor's cache.
pub const PLACES: usize = 8;
/// Places of a bucket that datagrams between the same hosts have at most.
const SHARE: u64 = PLACES as u64 / 2;
/// Buckets that datagrams between the same hosts are spread over.
const SPREAD: u32 = 16;

/// Ticks for which a datagram is remembered: as long as Linux waits for what is missing (RFC 791, section 3.2: at least 15 s; RFC 8200,
/// section 4.5: 60 s).
pub const TIMEOUT: u32 = 300;
/// Ticks before a number between the same hosts may be another flow's.
pub const REUSE: u32 = 10;
/// Ticks for which what is proven is not taken by what is not.
pub const KEPT: u32 = 20;

/// A bucket as memory: two words a place.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(128))]
pub struct Bucket(pub [u64; 2 * PLACES]);

const _: () = assert!(size_of::<Bucket>() == 128);

/// What a datagram is known by: a hash of its addresses, and of its protocol where that is part of its number's meaning, under a
/// secret; and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub hash: u64,
    pub id: u32,
}

impl Key {
    #[inline(always)]
    pub const fn bucket(self) -> u32 {
        ((self.hash >> 32) as u32).wrapping_add(self.id & (SPREAD - 1)) & (BUCKETS - 1)
    }
    /// Another for each number.
    #[inline(always)]
    pub const fn tag(self) -> u32 {
        self.hash as u32 ^ self.id
    }
    /// The same for all datagrams between two hosts.
    #[inline(always)]
    const fn hosts(self) -> u16 {
        (self.hash >> 48) as u16
    }
}

/// What is remembered of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    pub src_port: Port,
    pub dst_port: Port,
    pub tcp: bool,
    /// It is for the host itself.
    pub host: bool,
    /// Of a connection both of whose sides are known to be there.
    pub proven: bool,
    /// Where its first fragment ends, in bytes: a multiple of 8, and not 0.
    pub end: usize,
}

const TCP: u64 = 1 << 45;
const HOST: u64 = 1 << 46;
const PROVEN: u64 = 1 << 47;
/// Bits that make a flow: ports and protocol, and whose it is.
const FLOW: u64 = 0xffff_ffff | TCP | HOST;

impl Datagram {
    /// Ports | 32-44 end, in 8 bytes | flags | 48-63 whose; 0: none.
    #[inline(always)]
    pub const fn word(self, key: Key) -> u64 {
        let ([s0, s1], [d0, d1]) = (self.src_port, self.dst_port);
        u32::from_ne_bytes([s0, s1, d0, d1]) as u64
            | ((self.end as u64 / 8) & 0x1fff) << 32
            | if self.tcp { TCP } else { 0 }
            | if self.host { HOST } else { 0 }
            | if self.proven { PROVEN } else { 0 }
            | (key.hosts() as u64) << 48
    }
    #[inline(always)]
    const fn of(word: u64) -> Self {
        let [s0, s1, d0, d1] = (word as u32).to_ne_bytes();
        Self {
            src_port: [s0, s1],
            dst_port: [d0, d1],
            tcp: word & TCP != 0,
            host: word & HOST != 0,
            proven: word & PROVEN != 0,
            end: (word >> 32 & 0x1fff) as usize * 8,
        }
    }
}

/// A bucket's memory. `at` is below twice [`PLACES`].
pub trait Memory: Copy {
    fn load(self, at: usize) -> u64;
    fn store(self, at: usize, to: u64);

    /// See [`appraise`]. The program has a function of its own for it.
    #[inline(always)]
    fn appraise(self, named: u64, word: u64, new: u64, tag: u32, now: u32) -> u64 {
        appraise(named, word, new, tag, now)
    }
    /// The greater one.
    #[inline(always)]
    fn max(self, a: u64, b: u64) -> u64 {
        core::cmp::max(a, b)
    }
    /// See [`write`].
    #[inline(always)]
    fn write(self, at: usize, tag: u32, new: u64, now: u32) {
        write(self, at, tag, new, now);
    }
}

/// What is remembered of a datagram.
#[inline(always)]
pub fn find(bucket: impl Memory, key: Key, now: u32) -> Option<Datagram> {
    let mut found = 0;
    for at in 0..PLACES {
        let (word, named) = (bucket.load(2 * at + 1), bucket.load(2 * at));
        // Whoever writes a place empties it first.
        if named as u32 == key.tag()
            && (word >> 48) as u16 == key.hosts()
            && age(named, now) < TIMEOUT
            && bucket.load(2 * at + 1) == word
        {
            found = word;
        }
    }
    if found == 0 { None } else { Some(Datagram::of(found)) }
}

/// Remembers a datagram: `new` is its [word](Datagram::word).
///
/// # Errors
///
/// The verdict on its first fragment, which is not to be sent on.
#[inline(always)]
pub fn remember(bucket: impl Memory, key: Key, new: u64, now: u32) -> Result<(), Verdict> {
    let (mut best, mut best_own, mut same) = (0, 0, 0);
    let (mut own, mut overlaps) = (0, 0);
    for at in 0..PLACES {
        let (named, word) = (bucket.load(2 * at), bucket.load(2 * at + 1));
        let place = bucket.appraise(named, word, new, key.tag(), now);
        // What is compared first is in the high bits, where it is in the low ones.
        best = bucket.max(best, (place & RANK) << 3 | at as u64);
        own += place >> OWN & 1;
        best_own = bucket.max(best_own, (((place & RANK) * (place >> OWN & 1)) << 3) | at as u64);
        same = bucket.max(same, (place & SAME) | at as u64);
        overlaps |= place & OVERLAPS;
    }
    if overlaps != 0 {
        return Err(Verdict::FragmentOverlaps);
    }
    let mut at = if own >= SHARE { best_own } else { best };
    if same >= SAME {
        at = same;
    } else if at >> 3 == 0 {
        return Err(Verdict::FragmentsFull);
    }
    bucket.write(at as usize, key.tag(), new, now);
    Ok(())
}

/// Writes a place. Whoever reads it meanwhile sees nothing there.
#[inline(always)]
pub fn write(bucket: impl Memory, at: usize, tag: u32, new: u64, now: u32) {
    let at = at & (PLACES - 1);
    bucket.store(2 * at + 1, 0);
    bucket.store(2 * at, u64::from(now) << 32 | u64::from(tag));
    bucket.store(2 * at + 1, new);
}

/// Ticks since a place was written; another CPU may be one ahead.
#[inline(always)]
const fn age(named: u64, now: u32) -> u32 {
    let age = now.wrapping_sub((named >> 32) as u32);
    if age as i32 >= 0 { age } else { 0 }
}

/// How willingly a newcomer takes a place; 0: not at all.
const RANK: u64 = 0xffff_ffff;
/// This bit: it is the same hosts'. That it is no branch spares the verifier paths.
const OWN: u32 = 50;
/// It is the same datagram's.
const SAME: u64 = 1 << 48;
/// It is that of another flow's datagram of the same number.
const OVERLAPS: u64 = 1 << 49;

/// Of a place that holds nothing, or nothing any more.
const EMPTY: u32 = 1 << 24;
/// Of what is not proven: with its age.
const UNPROVEN: u32 = 1 << 16;

/// What a place is to a newcomer that is to be known by `tag` and `new`.
#[inline(always)]
pub const fn appraise(named: u64, word: u64, new: u64, tag: u32, now: u32) -> u64 {
    let age = age(named, now);
    if word == 0 || age >= TIMEOUT {
        return EMPTY as u64;
    }
    let rank = if word & PROVEN == 0 {
        UNPROVEN + age
    } else if new & PROVEN != 0 || age >= KEPT {
        1 + age
    } else {
        0
    };
    let mut place = rank as u64;
    if word >> 48 == new >> 48 {
        place |= 1 << OWN;
        if named as u32 == tag {
            let other = word & FLOW != new & FLOW && age < REUSE;
            place |= if other { OVERLAPS } else { SAME };
        }
    }
    place
}

#[cfg(test)]
#[path = "fragment_tests.rs"]
mod tests;
