//! Arrays of the kernel's as memory of this process: reading one is a load, and no system call. The only file of the data
//! plane's user side that touches memory which others write, the program first of all.
//!
//! A [`Mapping`] outlives its map's descriptor and pin. Everything above it takes any [`Memory`], so tests run on a vector.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use anyhow::Context as _;
use aya::Pod;
use aya::maps::MapData;
use lb_common::table::{Hop, Raw};

/// Words that somebody else may change at any time.
pub trait Memory: Send + Sync {
    fn words(&self) -> &[AtomicU64];
}

impl Memory for Vec<AtomicU64> {
    fn words(&self) -> &[AtomicU64] {
        self
    }
}

/// A map of the kind `BPF_MAP_TYPE_ARRAY` with `BPF_F_MMAPABLE`, mapped for reading and writing.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the memory belongs to no thread, and is read and written by atomics alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps all values of `map`, whose sizes must be whole words.
    ///
    /// # Errors
    ///
    /// If the map is not of that kind, or is empty.
    pub fn of(map: &MapData) -> anyhow::Result<Self> {
        let info = map.info()?;
        let size = info.value_size() as usize;
        anyhow::ensure!(size != 0 && size.is_multiple_of(8), "values of {size} bytes are no whole words");
        let words = info.max_entries() as usize * (size / 8);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let descriptor = map.fd().as_fd().as_raw_fd();
        // SAFETY: the kernel chooses the place, so nothing that exists is touched.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), words * 8, protection, libc::MAP_SHARED, descriptor, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("cannot map the map into memory");
        }
        let start = NonNull::new(start.cast()).context("the kernel has mapped the map to address 0")?;
        Ok(Self { start, words })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the same place and length as were mapped; every reference to it borrows from this value. It cannot fail then.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * 8) };
    }
}

impl Memory for Mapping {
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: that many words are mapped, on a page's border, for as long as this value lives. The kernel never takes
        // pages of such a map away. Any bit pattern is an integer, and atomics allow that others write.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

/// A value's words, in the order of memory. `N` of them are all of it.
pub fn words_of<T: Pod, const N: usize>(value: &T) -> [u64; N] {
    const { assert!(size_of::<T>() == N * 8) };
    // SAFETY: such types have no padding, and the words are of the value's size.
    unsafe { ptr::from_ref(value).cast::<[u64; N]>().read_unaligned() }
}

/// The value that `words` are, each as it is when it is read.
pub fn value_of<T: Pod, const N: usize>(words: &[AtomicU64; N]) -> T {
    const { assert!(size_of::<T>() == N * 8) };
    let words = words.each_ref().map(|word| word.load(Ordering::Relaxed));
    // SAFETY: for such types any bit pattern is a valid value, and the words are of its size.
    unsafe { ptr::from_ref(&words).cast::<T>().read_unaligned() }
}

/// A word's two halves, in the order of memory, for words whose halves are written on their own. Whoever uses this for a word
/// uses nothing else for it: atomic accesses of two sizes to one place are not defined among themselves.
pub fn halves(word: &AtomicU64) -> &[AtomicU32; 2] {
    // SAFETY: of the same size, aligned at least as well, and any bit pattern is valid; both allow changes through a shared
    // reference.
    unsafe { &*ptr::from_ref(word).cast() }
}

/// Which half of a word it is that holds its low 32 bits.
const LOW: usize = if cfg!(target_endian = "little") { 0 } else { 1 };

fn half_of(word: u64, half: usize) -> u32 {
    if half == LOW { word as u32 } else { (word >> 32) as u32 }
}

fn with_half(word: u64, half: usize, to: u32) -> u64 {
    let (to, shift) = (u64::from(to), if half == LOW { 0 } else { 32 });
    word & !(0xffff_ffff << shift) | to << shift
}

/// A line of the connection table in mapped memory.
///
/// The second word, the map of a home's entries and `last_seen`, is two atomics of 32 bits, as the program has it: its
/// and our `or` and `and` are single instructions of the processor on the same four bytes, so none of them is lost. All other
/// words are atomics of 64 bits. Where the program writes half of one of those, the processor still sees one coherent word: a
/// compare-and-swap of all 64 bits fails if the half has changed in between.
#[derive(Clone, Copy)]
pub struct MappedLine<'a>(&'a [AtomicU64; 8]);

/// The word that is used by halves.
const HALVES: usize = 1;
/// The word of a reverse line that has the client's next hop.
const HOP: usize = 7;

impl<'a> MappedLine<'a> {
    /// The line at `index`; `None` beyond the end.
    pub fn at(lines: &'a [AtomicU64], index: u32) -> Option<Self> {
        let start = index as usize * 8;
        Some(Self(lines.get(start..start + 8)?.try_into().ok()?))
    }

    /// Each line from the first on.
    pub fn each(lines: &'a [AtomicU64]) -> impl Iterator<Item = Self> {
        lines.as_chunks::<8>().0.iter().map(Self)
    }

    /// Replaces a reverse line's next hop, if it still is `from`; whether it was.
    pub fn replace_hop(self, from: Hop, to: Hop) -> bool {
        self.0[HOP].compare_exchange(from.0, to.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn hops(self) -> &'a AtomicU32 {
        &halves(&self.0[HALVES])[0]
    }
}

impl Raw for MappedLine<'_> {
    fn word(self, at: usize) -> u64 {
        self.0[at].load(Ordering::Relaxed)
    }
    fn set_word(self, at: usize, to: u64) {
        self.0[at].store(to, Ordering::Relaxed);
    }
    fn half(self, at: usize) -> u32 {
        if at / 2 == HALVES {
            return halves(&self.0[HALVES])[at % 2].load(Ordering::Relaxed);
        }
        half_of(self.word(at / 2), at % 2)
    }
    fn set_half(self, at: usize, to: u32) {
        if at / 2 == HALVES {
            return halves(&self.0[HALVES])[at % 2].store(to, Ordering::Relaxed);
        }
        let set = |word| Some(with_half(word, at % 2, to));
        // It is tried until it succeeds.
        self.0[at / 2].fetch_update(Ordering::Relaxed, Ordering::Relaxed, set).ok();
    }
    fn load(self) -> u64 {
        self.0[0].load(Ordering::Acquire)
    }
    fn store(self, to: u64) {
        self.0[0].store(to, Ordering::Release);
    }
    fn swap(self, from: u64, to: u64) -> bool {
        self.0[0].compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
    fn or(self, bits: u32) -> u32 {
        self.hops().fetch_or(bits, Ordering::SeqCst)
    }
    fn and(self, bits: u32) {
        self.hops().fetch_and(bits, Ordering::SeqCst);
    }
    fn add(self, number: u32) {
        self.hops().fetch_add(number, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_their_halves_are_the_same_memory() {
        let memory: Vec<AtomicU64> = (0..16).map(|_| AtomicU64::new(0)).collect();
        assert!(MappedLine::at(&memory, 2).is_none());
        let line = MappedLine::at(&memory, 1).unwrap();
        for at in 0..16 {
            line.set_half(at, 0x1000_0000 + at as u32);
        }
        for at in 0..8 {
            let halves = [0x1000_0000 + 2 * at as u32, 0x1000_0001 + 2 * at as u32];
            assert_eq!([line.half(2 * at), line.half(2 * at + 1)], halves);
            let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_ne_bytes()).collect();
            assert_eq!(line.word(at).to_ne_bytes(), bytes[..]);
        }
        assert!(memory[..8].iter().all(|word| word.load(Ordering::Relaxed) == 0), "the other line");
    }

    #[test]
    fn values_come_back_from_their_words() {
        let value = [0x0102_0304_0506_0708_u64, 9];
        assert_eq!(words_of::<_, 2>(&value), value);
        let words = words_of::<[u8; 16], 2>(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        let bytes: [u8; 16] = value_of(&words.map(AtomicU64::new));
        assert_eq!(bytes[..], (1..=16).collect::<Vec<u8>>()[..]);
    }

    #[test]
    fn a_homes_map_changes_beside_last_seen() {
        let memory: Vec<AtomicU64> = (0..8).map(|_| AtomicU64::new(0)).collect();
        let line = MappedLine::at(&memory, 0).unwrap();
        line.set_half(3, 77);
        assert_eq!(line.or(0b110), 0);
        line.and(!0b010);
        line.add(1 << 16);
        line.add((1u32 << 16).wrapping_neg());
        line.add(1 << 16);
        assert_eq!((line.half(2), line.half(3)), (1 << 16 | 0b100, 77));
        assert!(line.swap(0, 5) && !line.swap(0, 6) && line.load() == 5);
    }
}
