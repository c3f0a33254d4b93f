//! The connection table: set-associative, in memory that several CPUs and the daemon share. One text for all of them.
//!
//! A connection takes two lines, one for each direction's flow. A flow has two *homes*, by its hash. Its line is the first
//! home or one of the [`WINDOW`] behind it; only if there is no room, the same at the second home. Each line, *as a home*,
//! has a word that says which lines of its window hold an entry of this home ([`Line::hops`]), so that a look-up reads the
//! home line and then only lines that can be the one.
//!
//! **Who may do what.** A line is owned by whoever has swapped its first word ([`Meta`]) to `Claimed` or `Leaving`; nobody waits for
//! him. He who has claimed a line makes it known at its home, then looks for another line of the same flow; if he finds
//! one, or somebody who claims one, he steps back. So of two who enter the same flow at most one stays. A reader reads the
//! first word, then the entry, then the word again: a version that differs means that he has read two entries' halves.
//!
//! Who is interrupted for ever (the daemon, killed) leaves a line `Leaving`; [`Table::free_stuck`] frees it. Sources: Robin
//! Hood and hopscotch hashing for the window's map (Herlihy, Shavit, Tzafrir 2008); the rest is in `docs/adr/0007`.

mod choice;
mod entry;
mod hash;
mod layout;
mod meta;
mod protocol;

pub use choice::{appraise, is_taken, search};
pub use entry::{Book, Fields, Hop, New, Raw, RawLine, Target, opening};
pub use layout::Layout;
pub use meta::{Meta, State, rank};
pub use protocol::{Claim, Table, unlink};

/// A flow's line is at most this many less one behind one of its homes.
pub const WINDOW: u32 = 16;
/// In [`Line::hops`]: one entry more of this home that lies at its second home.
const FAR: u32 = 1 << 16;

/// What the program counts of the table, per CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Occurrence {
    /// A look-up that had to look away from the home line.
    Away = 0,
    /// A newcomer found no line that he may take.
    Full = 1,
    /// A newcomer took somebody's line.
    Evicted = 2,
    /// A newcomer took a half-open or closed connection's source port.
    PortTaken = 3,
}

impl Occurrence {
    /// How many counters there are: some for occurrences to come, so that the map of counters keeps its size.
    pub const ROOM: u32 = 16;
}

/// Where a flow belongs. Aligned for a program's stack, which is written by words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, align(8))]
pub struct Homes {
    pub first: u32,
    pub second: u32,
    pub tag: u32,
}

impl Homes {
    /// By a flow's hash, in a table of `mask + 1` lines.
    #[inline(always)]
    pub const fn of(hash: u64, mask: u32) -> Self {
        let second = (hash.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) as u32 & mask;
        Self { first: (hash >> 32) as u32 & mask, second, tag: hash as u32 & 0xffff }
    }
}

/// One line, as the protocol needs it. In a program: volatile accesses and BPF's atomics; in the daemon: atomics on the
/// mapping; in a model: loom's.
pub trait Line: Copy {
    /// A load that later loads are not done before.
    fn meta(self) -> Meta;
    /// A store that earlier stores are done before.
    fn set_meta(self, to: Meta);
    /// A full barrier, whatever comes of it.
    fn swap_meta(self, from: Meta, to: Meta) -> bool;
    /// Bit `i` of 1 to 15: the line `i` behind this one holds an entry whose home is here. From bit 16 on: how many entries of
    /// this first home lie at their second.
    fn hops(self) -> u32;
    /// A full barrier; the word as it was.
    fn or_hops(self, bits: u32) -> u32;
    /// A full barrier.
    fn and_hops(self, bits: u32);
    /// A full barrier.
    fn add_hops(self, number: u32);
    /// Ticks.
    fn last_seen(self) -> u32;
    /// The number of the line that holds the other direction.
    fn peer(self) -> u32;
}

/// The lines of a table, and what is needed to know what stands in one.
pub trait Lines {
    type Line: Line;
    type Key;
    /// A model's is smaller.
    const WINDOW: u32 = WINDOW;
    /// `None` for a number beyond the table.
    fn at(&self, index: u32) -> Option<Self::Line>;
    /// The number of lines, a power of two, less one.
    fn mask(&self) -> u32;
    /// Whether a live line's flow is `key`.
    fn holds(&self, line: Self::Line, meta: Meta, key: &Self::Key) -> bool;
    /// How many ticks the line may be idle in its state.
    fn timeout(&self, line: Self::Line, meta: Meta) -> u32;
    /// The first home of the flow whose line this is; asked for by the owner of the line.
    fn first_home(&self, line: Self::Line, meta: Meta) -> Option<u32>;
    /// The best line of a window; a program may make [`search`] a function of its own, as with those below.
    #[inline(always)]
    fn search(&self, home: u32, now: u32, policy: u32) -> u64 {
        search(self, home, now, policy)
    }
    /// How willingly a newcomer takes a line.
    #[inline(always)]
    fn appraise(&self, index: u32, now: u32, policy: u32) -> u32 {
        appraise(self, index, now, policy)
    }
    /// Whether a line other than `own` holds the flow or is being claimed for it.
    #[inline(always)]
    fn is_taken(&self, homes: &Homes, key: &Self::Key, own: u32) -> bool {
        is_taken(self, homes, key, own)
    }
    /// Takes what a line stood for out of its homes' words; asked for by the owner of the line, whose first word was `meta`.
    #[inline(always)]
    fn unlink(&self, index: u32, meta: Meta) {
        unlink(self, index, meta);
    }
}
