//! A table in memory as the program and the daemon have it: the real lines, on atomics.

use std::marker::PhantomData;
use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};

use lb_common::abi::{FlowKey, TimeoutTicks};
use lb_common::table::{Book, Homes, Layout, Lines, Meta, Raw, State};

use crate::invariants::Inspect;

/// A line of the processor's cache.
#[derive(Default)]
#[repr(C, align(64))]
pub struct Memory([AtomicU64; 8]);

/// A line, as whoever works in the table has it.
#[derive(Clone, Copy)]
pub struct LineAt<'a>(&'a Memory);

impl<'a> LineAt<'a> {
    fn half_at(self, at: usize) -> &'a AtomicU32 {
        assert!(at < 16);
        // SAFETY: inside the line, aligned, and it lives as long as the line. That the same bytes are accessed by eight and by
        // four is what program and daemon do, too: the processors allow it.
        unsafe { AtomicU32::from_ptr(self.0.0.as_ptr().cast_mut().cast::<u32>().add(at)) }
    }
}

impl Raw for LineAt<'_> {
    fn word(self, at: usize) -> u64 {
        self.0.0[at].load(Acquire)
    }
    fn set_word(self, at: usize, to: u64) {
        self.0.0[at].store(to, Release);
    }
    fn half(self, at: usize) -> u32 {
        self.half_at(at).load(Acquire)
    }
    fn set_half(self, at: usize, to: u32) {
        self.half_at(at).store(to, Release);
    }
    fn load(self) -> u64 {
        self.0.0[0].load(Acquire)
    }
    fn store(self, to: u64) {
        self.0.0[0].store(to, Release);
    }
    fn swap(self, from: u64, to: u64) -> bool {
        self.0.0[0].compare_exchange(from, to, SeqCst, SeqCst).is_ok()
    }
    fn or(self, bits: u32) -> u32 {
        self.half_at(2).fetch_or(bits, SeqCst)
    }
    fn and(self, bits: u32) {
        self.half_at(2).fetch_and(bits, SeqCst);
    }
    fn add(self, number: u32) {
        self.half_at(2).fetch_add(number, SeqCst);
    }
}

/// What stands behind the numbers in lines of IPv6.
pub struct Numbers {
    pub vips: Vec<[u8; 16]>,
    pub backends: Vec<[u8; 16]>,
}

impl Book for Numbers {
    fn vip(&self, number: u16) -> Option<&[u8; 16]> {
        self.vips.get(usize::from(number))
    }
    fn backend(&self, number: u16) -> Option<&[u8; 16]> {
        self.backends.get(usize::from(number))
    }
}

/// A family's table.
pub struct Mapping<A> {
    lines: Vec<Memory>,
    pub seed: [u64; 2],
    pub timeouts: TimeoutTicks,
    pub numbers: Numbers,
    family: PhantomData<A>,
}

impl<A: Layout> Mapping<A> {
    /// An empty one of `lines`, a power of two.
    pub fn new(lines: usize, seed: [u64; 2], timeouts: TimeoutTicks, numbers: Numbers) -> Self {
        assert!(lines.is_power_of_two());
        let lines = (0..lines).map(|_| Memory::default()).collect();
        Self { lines, seed, timeouts, numbers, family: PhantomData }
    }

    pub fn homes_of(&self, key: &FlowKey<A>) -> Homes {
        Homes::of(A::hash(key, &self.seed), self.lines.len() as u32 - 1)
    }
}

impl<'a, A: Layout> Lines for &'a Mapping<A> {
    type Line = LineAt<'a>;
    type Key = FlowKey<A>;

    fn at(&self, index: u32) -> Option<LineAt<'a>> {
        self.lines.get(index as usize).map(LineAt)
    }
    fn mask(&self) -> u32 {
        self.lines.len() as u32 - 1
    }
    fn holds(&self, line: LineAt<'a>, meta: Meta, key: &FlowKey<A>) -> bool {
        A::holds(line, meta, key, &self.numbers)
    }
    fn timeout(&self, _: LineAt<'a>, meta: Meta) -> u32 {
        if meta.is_udp() {
            return self.timeouts.udp;
        }
        match meta.state() {
            State::Unanswered | State::Answered => self.timeouts.syn,
            State::Established => self.timeouts.established,
            State::HalfClosed => self.timeouts.half_closed,
            State::Empty | State::Claimed | State::Leaving | State::OneSided | State::Closed | State::Cut => {
                self.timeouts.fin
            }
        }
    }
    fn first_home(&self, line: LineAt<'a>, meta: Meta) -> Option<u32> {
        A::key(line, meta, &self.numbers).map(|key| self.homes_of(&key).first)
    }
}

impl<A: Layout + std::hash::Hash + std::fmt::Debug> Inspect for &Mapping<A> {
    fn flow(&self, line: Self::Line, meta: Meta) -> Option<FlowKey<A>> {
        A::key(line, meta, &self.numbers)
    }
    fn homes(&self, key: &FlowKey<A>) -> Homes {
        self.homes_of(key)
    }
}
