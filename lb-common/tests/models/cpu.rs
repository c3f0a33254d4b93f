//! The memory as one processor sees it, with the ordering that x86 has: loads acquire, stores release, a read-modify-write is a
//! full barrier. And faults that can be planted in it.

use std::cell::{Cell, RefCell};

use lb_common::table::{Homes, Line, Lines, Meta, State};
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use loom::sync::atomic::{AtomicU32, fence};

use crate::invariants::Inspect;
use crate::memory::{Atomic, Flow, LINES, Memory, Slot, Word};

/// A line idle for longer is expired, in any state.
const TIMEOUT: u32 = 100;

/// Faults, each of which some model must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// A line is taken whatever stands in it.
    SwapsWithoutComparing,
    /// A line's version never changes.
    NoVersions,
    /// Whoever reads a first word a second time is given what he read the first time.
    RereadsFromMemory,
    /// Who has claimed a line does not look for another of the same flow.
    NoLook,
    /// A claimed line does not say what for.
    NoTag,
    /// A claimed line is made known at its home only after the look.
    BitAfterLook,
    /// That an entry goes to its second home is said only after the look.
    CountAfterLook,
    /// It is never said.
    NoCount,
    /// It is never taken back.
    CountStays,
    /// A freed line's bit is cleared when somebody else may have the line.
    BitAfterEmpty,
    /// It is never cleared.
    BitStays,
    /// A home's word is read, changed and written in three steps.
    TornHops,
    /// A read-modify-write lets later loads pass.
    NoBarrier,
    /// An entry's words may be seen later than its first word.
    PublishedTooEarly,
    /// An entry's words may be read before its first word is read, or after it is read again.
    ReadTooFreely,
    /// The two lines of a pair are published, and nobody looks whether both are there.
    PublishedByTwo,
}

/// What is done to a home's word.
#[derive(Clone, Copy)]
enum Change {
    And(u32),
    Or(u32),
    Add(u32),
}

impl Change {
    fn of(self, word: u32) -> u32 {
        match self {
            Self::And(bits) => word & bits,
            Self::Or(bits) => word | bits,
            Self::Add(number) => word.wrapping_add(number),
        }
    }
}

/// See the module's description.
pub struct Cpu {
    memory: Memory,
    number: usize,
    fault: Fault,
    /// All others have ended.
    alone: bool,
    /// The line that it has claimed and not yet given to anybody.
    claimed: Cell<Option<usize>>,
    /// How many it is about to empty.
    leaving: Cell<u32>,
    last_read: Cell<Option<(usize, Meta)>>,
    /// What a fault does later than it should.
    late: RefCell<Vec<(usize, Change)>>,
}

impl Cpu {
    pub fn new(memory: &Memory, number: usize, fault: Fault) -> Self {
        Self {
            memory: memory.clone(),
            number,
            fault,
            alone: false,
            claimed: Cell::new(None),
            leaving: Cell::new(0),
            last_read: Cell::new(None),
            late: RefCell::default(),
        }
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// Of somebody who looks at what all the others have left.
    pub fn alone(memory: &Memory) -> Self {
        Self { alone: true, ..Self::new(memory, 0, Fault::None) }
    }

    fn load<T>(&self, word: &Word<impl Atomic<T>>) -> T {
        if self.alone {
            return word.word.get_alone();
        }
        word.before_load(self.number);
        word.word.get(Acquire)
    }

    /// One of an entry's words.
    fn load_entry(&self, word: &Word<AtomicU32>) -> u32 {
        if self.fault != Fault::ReadTooFreely {
            return self.load(word);
        }
        word.before_load(self.number);
        word.word.get(Relaxed)
    }

    fn full_barrier<T>(&self, access: impl FnOnce() -> T) -> T {
        if self.fault == Fault::NoBarrier {
            return access();
        }
        let result = access();
        fence(SeqCst);
        result
    }

    fn change(&self, index: usize, change: Change) -> u32 {
        let hops = &self.memory.0[index].hops;
        if self.fault == Fault::TornHops {
            let before = self.load(hops);
            hops.before_store(self.number);
            hops.word.store(change.of(before), Release);
            return before;
        }
        hops.before_store(self.number);
        self.full_barrier(|| match change {
            Change::And(bits) => hops.word.fetch_and(bits, AcqRel),
            Change::Or(bits) => hops.word.fetch_or(bits, AcqRel),
            Change::Add(number) => hops.word.fetch_add(number, AcqRel),
        })
    }

    fn later(&self, index: usize, change: Change) {
        self.late.borrow_mut().push((index, change));
    }

    fn catch_up(&self) {
        for (index, change) in self.late.take() {
            self.change(index, change);
        }
    }
}

/// One line, as one processor sees it.
#[derive(Clone, Copy)]
pub struct At<'a> {
    cpu: &'a Cpu,
    index: usize,
}

impl<'a> At<'a> {
    fn slot(self) -> &'a Slot {
        &self.cpu.memory.0[self.index]
    }

    pub fn write(self, flow: Flow, peer: u32, now: u32, value: u32) {
        let order = if self.cpu.fault == Fault::PublishedTooEarly { Relaxed } else { Release };
        let store = |word: &Word<AtomicU32>, value| {
            word.before_store(self.cpu.number);
            word.word.store(value, order);
        };
        let slot = self.slot();
        store(&slot.flow, flow.word());
        store(&slot.peer, peer);
        slot.last_seen.store(now, Relaxed);
        store(&slot.values[0], value);
        store(&slot.values[1], value);
    }

    pub fn values(self) -> [u32; 2] {
        [self.cpu.load_entry(&self.slot().values[0]), self.cpu.load_entry(&self.slot().values[1])]
    }

    fn allow_for(self, meta: Meta) -> Meta {
        if self.cpu.fault == Fault::NoVersions {
            return Meta(self.cpu.load(&self.slot().meta) >> 32 << 32 | meta.0 & 0xffff_ffff);
        }
        if self.cpu.fault == Fault::NoTag && meta.is(State::Claimed) {
            return Meta(meta.0 & !0xffff_0000);
        }
        meta
    }
}

impl Line for At<'_> {
    fn meta(self) -> Meta {
        let claimed = self.cpu.claimed.get();
        if self.cpu.fault == Fault::NoLook && claimed.is_some_and(|index| index != self.index) {
            return Meta::EMPTY;
        }
        if self.cpu.fault == Fault::RereadsFromMemory
            && let Some((index, meta)) = self.cpu.last_read.get()
            && index == self.index
        {
            return meta;
        }
        let meta = Meta(self.cpu.load(&self.slot().meta));
        self.cpu.last_read.set(Some((self.index, meta)));
        meta
    }

    fn set_meta(self, to: Meta) {
        self.cpu.last_read.set(None);
        let late = self.cpu.fault == Fault::BitAfterEmpty;
        if !late {
            self.cpu.catch_up();
        }
        let order = if self.cpu.fault == Fault::PublishedTooEarly { Relaxed } else { Release };
        let (meta, word) = (&self.slot().meta, self.allow_for(to).0);
        meta.before_store(self.cpu.number);
        meta.word.store(word, order);
        if late {
            self.cpu.catch_up();
        }
        if self.cpu.claimed.get() == Some(self.index) {
            self.cpu.claimed.set(None);
        }
        self.cpu.leaving.set(self.cpu.leaving.get().saturating_sub(1));
    }

    fn swap_meta(self, from: Meta, to: Meta) -> bool {
        self.cpu.last_read.set(None);
        let (from, word) = (from.0, self.allow_for(to).0);
        let meta = &self.slot().meta;
        meta.before_store(self.cpu.number);
        let done = if self.cpu.fault == Fault::SwapsWithoutComparing {
            meta.word.store(word, Release);
            true
        } else {
            self.cpu.full_barrier(|| meta.word.compare_exchange(from, word, AcqRel, Acquire).is_ok())
        };
        if done && to.is(State::Claimed) {
            self.cpu.claimed.set(Some(self.index));
        }
        self.cpu.leaving.set(self.cpu.leaving.get() + u32::from(done && to.is(State::Leaving)));
        done
    }

    fn hops(self) -> u32 {
        self.cpu.load(&self.slot().hops)
    }

    fn or_hops(self, bits: u32) -> u32 {
        if self.cpu.fault == Fault::BitAfterLook {
            self.cpu.later(self.index, Change::Or(bits));
            return 0;
        }
        self.cpu.change(self.index, Change::Or(bits))
    }

    fn and_hops(self, bits: u32) {
        if self.cpu.fault == Fault::BitStays {
            return;
        }
        if self.cpu.fault == Fault::BitAfterEmpty && self.cpu.leaving.get() > 0 {
            return self.cpu.later(self.index, Change::And(bits));
        }
        self.cpu.change(self.index, Change::And(bits));
    }

    fn add_hops(self, number: u32) {
        let never = if (number as i32) > 0 { Fault::NoCount } else { Fault::CountStays };
        if self.cpu.fault == never {
            return;
        }
        if self.cpu.fault == Fault::CountAfterLook && never == Fault::NoCount {
            return self.cpu.later(self.index, Change::Add(number));
        }
        self.cpu.change(self.index, Change::Add(number));
    }

    fn last_seen(self) -> u32 {
        self.slot().last_seen.load(Relaxed)
    }

    fn peer(self) -> u32 {
        self.cpu.load_entry(&self.slot().peer)
    }
}

impl<'a> Lines for &'a Cpu {
    type Line = At<'a>;
    type Key = Flow;
    const WINDOW: u32 = 2;

    fn at(&self, index: u32) -> Option<At<'a>> {
        let index = index as usize;
        (index < self.memory.0.len()).then_some(At { cpu: self, index })
    }
    fn mask(&self) -> u32 {
        LINES - 1
    }
    fn holds(&self, line: At<'a>, _: Meta, key: &Flow) -> bool {
        line.cpu.load_entry(&line.slot().flow) == key.word()
    }
    fn timeout(&self, _: At<'a>, _: Meta) -> u32 {
        TIMEOUT
    }
    fn first_home(&self, line: At<'a>, meta: Meta) -> Option<u32> {
        self.flow(line, meta).map(|flow| flow.first.into())
    }
}

impl Inspect for &Cpu {
    fn flow(&self, line: Self::Line, _: Meta) -> Option<Flow> {
        Some(Flow::of_word(line.cpu.load_entry(&line.slot().flow)))
    }
    fn homes(&self, flow: &Flow) -> Homes {
        flow.homes()
    }
}
