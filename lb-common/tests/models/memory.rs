//! A table's words as loom's atomics, and the flows that stand in them.

use std::array::from_fn;
use std::collections::HashSet;
use std::sync::atomic;
use std::sync::{Arc, Mutex};

use lb_common::table::Homes;
use loom::sync::atomic::Ordering;
use loom::sync::atomic::{AtomicU32, AtomicU64};

/// Lines of a model's table. Flows have windows of two.
pub const LINES: u32 = 8;
/// Processors at most.
const CPUS: usize = 3;

/// A flow, and where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    pub number: u8,
    pub first: u8,
    pub second: u8,
}

impl Flow {
    pub fn homes(self) -> Homes {
        Homes { first: self.first.into(), second: self.second.into(), tag: self.number.into() }
    }

    pub fn word(self) -> u32 {
        u32::from_be_bytes([0, self.number, self.first, self.second])
    }

    pub fn of_word(word: u32) -> Self {
        let [_, number, first, second] = word.to_be_bytes();
        Self { number, first, second }
    }
}

/// A line's words as they are when a model begins.
#[derive(Debug, Clone, Copy, Default)]
pub struct Words {
    pub meta: u64,
    pub hops: u32,
    pub last_seen: u32,
    pub peer: u32,
    pub flow: u32,
    pub values: [u32; 2],
}

/// An atomic word. Loom misses orders of accesses if somebody loads a word before he stores into it (its issues 166 and 392: it
/// remembers a word's last access alone, and that is his own). So each processor has a shadow of the word, which nobody ever
/// loads: he stores into it before he loads the word, and others before they store into the word. There a load competes with
/// the stores of all others, but not with their loads, and nothing in memory is ordered by it.
pub struct Word<A> {
    pub word: A,
    shadows: [AtomicU32; CPUS],
}

impl<A> Word<A> {
    fn new(word: A) -> Self {
        Self { word, shadows: from_fn(|_| AtomicU32::new(0)) }
    }

    /// Before the processor loads it.
    pub fn before_load(&self, cpu: usize) {
        self.shadows[cpu].store(0, Ordering::Relaxed);
    }

    /// Before the processor stores into it.
    pub fn before_store(&self, cpu: usize) {
        let others = self.shadows.iter().enumerate().filter(|&(other, _)| other != cpu);
        others.for_each(|(_, shadow)| shadow.store(0, Ordering::Relaxed));
    }
}

/// What loom's atomics of both sizes do.
pub trait Atomic<T> {
    fn get(&self, order: Ordering) -> T;
    fn get_alone(&self) -> T;
}

impl Atomic<u32> for AtomicU32 {
    fn get(&self, order: Ordering) -> u32 {
        self.load(order)
    }
    fn get_alone(&self) -> u32 {
        // SAFETY: only to be called when all other threads have ended.
        unsafe { self.unsync_load() }
    }
}

impl Atomic<u64> for AtomicU64 {
    fn get(&self, order: Ordering) -> u64 {
        self.load(order)
    }
    fn get_alone(&self) -> u64 {
        // SAFETY: as above.
        unsafe { self.unsync_load() }
    }
}

/// A line.
pub struct Slot {
    pub meta: Word<AtomicU64>,
    pub hops: Word<AtomicU32>,
    /// Says no more than who is evicted first, so loom need not play its orders.
    pub last_seen: atomic::AtomicU32,
    pub peer: Word<AtomicU32>,
    pub flow: Word<AtomicU32>,
    pub values: [Word<AtomicU32>; 2],
}

impl Slot {
    fn new(words: &Words) -> Self {
        let word = |value| Word::new(AtomicU32::new(value));
        Self {
            meta: Word::new(AtomicU64::new(words.meta)),
            hops: word(words.hops),
            last_seen: atomic::AtomicU32::new(words.last_seen),
            peer: word(words.peer),
            flow: word(words.flow),
            values: words.values.map(word),
        }
    }
}

/// The memory that all share.
#[derive(Clone)]
pub struct Memory(pub Arc<Vec<Slot>>);

impl Memory {
    pub fn new(words: &[Words]) -> Self {
        Self(Arc::new(words.iter().map(Slot::new).collect()))
    }

    /// All words, when nobody else is at work.
    pub fn words(&self) -> Vec<Words> {
        let words = |slot: &Slot| Words {
            meta: slot.meta.word.get_alone(),
            hops: slot.hops.word.get_alone(),
            last_seen: slot.last_seen.load(Ordering::Relaxed),
            peer: slot.peer.word.get_alone(),
            flow: slot.flow.word.get_alone(),
            values: [slot.values[0].word.get_alone(), slot.values[1].word.get_alone()],
        };
        self.0.iter().map(words).collect()
    }
}

/// Without the shadows loom never plays that the second is done before the first begins.
#[test]
fn loads_before_stores_are_played_in_every_order() {
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let results = Arc::clone(&seen);
    loom::model(move || {
        let word = Arc::new(Word::new(AtomicU32::new(0)));
        let load_and_store = |cpu: usize, word: &Word<AtomicU32>| {
            word.before_load(cpu);
            let loaded = word.word.load(Ordering::Acquire);
            word.before_store(cpu);
            word.word.store(cpu as u32 + 1, Ordering::Release);
            loaded
        };
        let others = Arc::clone(&word);
        let other = loom::thread::spawn(move || load_and_store(1, &others));
        let one = load_and_store(0, &word);
        let other = other.join().unwrap();
        results.lock().unwrap().insert((one, other, word.word.get_alone()));
    });
    let expected = [(0, 0, 1), (0, 0, 2), (0, 1, 2), (2, 0, 1)];
    assert_eq!(*seen.lock().unwrap(), HashSet::from(expected));
}
