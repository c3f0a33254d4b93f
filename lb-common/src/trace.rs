//! What a second instance of the program, which explains packets and forwards none, tells the daemon: each decision that it comes to,
//! and what it would have to be given to go on.
//!
//! It finds in its own maps only what the daemon has copied there. The first thing that it misses is noted, and what follows is worth
//! nothing: the daemon copies that, too, and runs the packet again.

/// In a word: the decision was come to. The rest of the word says how.
pub const MADE: u64 = 1 << 63;

/// Decisions, in the order of a packet's way; each has a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Decision {
    /// Which farm serves the destination: its number, from bit 16 on the VIP's, bit 32: as one of all ports. Or [`NONE`].
    Service,
    /// What the farm's list said, `LIST_*`.
    Listed,
    /// The number of the line that held the flow.
    Line,
    /// That line's first word, as it is.
    Meta,
    /// Why it holds the flow no more; [`Over`].
    Over,
    /// The connection's state after the packet, from bit 8 on its FINs.
    State,
    /// Whether the sender of a SYN was asked in a flood, and bit 1: it was vouched for.
    Asked,
    /// The backend's number, from bit 32 on how it was chosen; [`Chosen`].
    Backend,
    /// The slot of the farm's table.
    Slot,
    /// The line that the flow gets; bit 32: it was another's.
    Forward,
    /// The line that its answers get; bit 32: it was another's; bit 33: and had the port; from bit 40 on which try it was.
    Reverse,
    /// The verdict, from bit 32 on the interface that the packet, or the answer to it, leaves by.
    Outcome,
}

/// How many there are.
pub const DECISIONS: usize = Decision::Outcome as usize + 1;

/// In a word: nobody, nothing.
pub const NONE: u64 = 1 << 62;

/// Why a line stopped holding a flow that it held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Over {
    /// It had been idle for too long.
    Expired = 1,
    /// Its other direction is gone.
    Half = 2,
    /// The packet ends it and may open another.
    Anew = 3,
}

/// How a backend was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Chosen {
    /// By the flow's hash.
    Flow = 1,
    /// It was its turn.
    Turn = 2,
    /// By the hash of the source's address.
    Source = 3,
    /// The source had it before.
    Affinity = 4,
    /// It has less to do than another one.
    Load = 5,
}

/// Maps of which the explaining instance has copies, entry by entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Paged {
    ConnectionsV4 = 1,
    ConnectionsV6 = 2,
    Affinities = 3,
    Schedules = 4,
    Ports = 5,
    Vouched = 6,
    Loads = 7,
}

impl Paged {
    pub const ALL: [Self; 7] = [
        Self::ConnectionsV4,
        Self::ConnectionsV6,
        Self::Affinities,
        Self::Schedules,
        Self::Ports,
        Self::Vouched,
        Self::Loads,
    ];
}

/// What is exchanged for one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Trace {
    /// The entry that was missed: a [`Paged`] map, from bit 32 on, and the key. 0: nothing was.
    pub missing: u64,
    /// In the place of a random number.
    pub random: u64,
    pub decisions: [u64; DECISIONS],
}

impl Trace {
    pub const EMPTY: Self = Self { missing: 0, random: 0, decisions: [0; DECISIONS] };

    /// What was missed.
    pub fn missing(&self) -> Option<(Paged, u32)> {
        let map = Paged::ALL.into_iter().find(|map| *map as u64 == self.missing >> 32)?;
        Some((map, self.missing as u32))
    }

    /// A decision's word without [`MADE`]; `None` if it was not come to.
    pub fn of(&self, decision: Decision) -> Option<u64> {
        let word = self.decisions[decision as usize];
        (word != 0).then_some(word & !MADE)
    }
}

#[cfg(feature = "user")]
// SAFETY: u64 throughout.
unsafe impl aya::Pod for Trace {}
