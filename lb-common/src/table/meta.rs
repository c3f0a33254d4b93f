//! The first word of a line: all that decides whose line it is, in one compare-and-swap.
//!
//! ```text
//! bits 0-3 state | 4-7 distance from its home | 8 at its second home | 9 reverse | 10 UDP | 11-12 FINs seen, by direction
//!      13 the client's own address goes to the backend (mode dnat) | 14 nothing is translated (dsr, ipip, gue; 13 then, too)
//!      16-31 tag | 32-63 version
//! ```

use crate::tcp::Direction;

/// What becomes of a line, and of the connection whose direction it holds. Eviction goes by rank; see [`Meta::rank`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    Empty = 0,
    /// Somebody is writing it. Its tag already stands.
    Claimed = 1,
    /// Somebody is taking it out.
    Leaving = 2,
    /// The backend has said nothing yet.
    Unanswered = 3,
    /// TCP: the backend has sent its SYN-ACK. UDP: it has answered, the client has not gone on.
    Answered = 4,
    /// The client goes on, and nobody can say whether it is answered. UDP without answers (syslog, flow records, one-way media); TCP
    /// whose backend answers past us.
    OneSided = 5,
    /// TCP: both sides have sent their FIN, or one has reset the connection.
    Closed = 6,
    /// Cut by the daemon: whoever sends another packet is told by a reset.
    Cut = 7,
    /// TCP: one side has sent its FIN, or a reset of which nobody can say whether it is genuine.
    HalfClosed = 8,
    /// TCP: the handshake is complete. UDP: the client has gone on after an answer.
    Established = 9,
}

impl State {
    /// All of them, by number.
    pub const ALL: [Self; 10] = [
        Self::Empty,
        Self::Claimed,
        Self::Leaving,
        Self::Unanswered,
        Self::Answered,
        Self::OneSided,
        Self::Closed,
        Self::Cut,
        Self::HalfClosed,
        Self::Established,
    ];

    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Claimed => "claimed",
            Self::Leaving => "leaving",
            Self::Unanswered => "unanswered",
            Self::Answered => "answered",
            Self::OneSided => "one-sided",
            Self::Closed => "closed",
            Self::Cut => "cut",
            Self::HalfClosed => "half-closed",
            Self::Established => "established",
        }
    }

    /// The line holds a direction of a connection.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        self as u8 >= Self::Unanswered as u8
    }

    /// Nothing more is expected of such a connection: a new one may take its place.
    #[inline(always)]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Closed | Self::Cut)
    }
}

/// A line is taken by a newcomer only if its rank is low enough.
pub mod rank {
    pub const EMPTY: u32 = 0;
    /// It and its peer have been idle for longer than their state allows.
    pub const EXPIRED: u32 = 1;
    pub const UNANSWERED: u32 = 2;
    pub const ANSWERED: u32 = 3;
    pub const ONE_SIDED: u32 = 4;
    /// Closed after it was established, cut, half-closed, established: never taken.
    pub const KEPT: u32 = 5;
}

/// See the module's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Meta(pub u64);

const STATE: u64 = 0xf;
const SECOND: u64 = 1 << 8;
const REVERSE: u64 = 1 << 9;
const UDP: u64 = 1 << 10;
const FINS: u64 = 3 << 11;
const DNAT: u64 = 1 << 13;
const DIRECT: u64 = 1 << 14;

impl Meta {
    pub const EMPTY: Self = Self(0);

    /// What a claim leaves of the line's former `self`: a new version, the tag, where the line lies from its home.
    #[inline(always)]
    pub const fn claimed(self, tag: u16, distance: u32, second: bool) -> Self {
        Self(
            (self.0 >> 32).wrapping_add(1) << 32
                | (tag as u64) << 16
                | if second { SECOND } else { 0 }
                | (distance as u64 & 15) << 4
                | State::Claimed as u64,
        )
    }

    /// On its way out: of a new version, so that nobody who has read it trusts what he read.
    #[inline(always)]
    pub const fn leaving(self) -> Self {
        Self((self.0 & !STATE | State::Leaving as u64).wrapping_add(1 << 32))
    }

    /// An empty line that remembers its version.
    #[inline(always)]
    pub const fn emptied(self) -> Self {
        Self(self.0 >> 32 << 32)
    }

    #[inline(always)]
    pub const fn with_state(self, state: State) -> Self {
        Self(self.0 & !STATE | state as u64)
    }

    /// Of a connection's nature, which stays as long as it does.
    #[inline(always)]
    pub const fn of(self, direction: Direction, udp: bool, dnat: bool) -> Self {
        let reverse = if matches!(direction, Direction::Reverse) { REVERSE } else { 0 };
        Self(self.0 | reverse | if udp { UDP } else { 0 } | if dnat { DNAT } else { 0 })
    }

    /// Packets reach the backend as they are, and it answers the client itself: nobody sees its part of the connection.
    #[inline(always)]
    pub const fn direct(self) -> Self {
        Self(self.0 | DIRECT | DNAT)
    }

    /// A bit by [`Direction`] for each side that has sent its FIN; both, once an established connection was reset.
    #[inline(always)]
    pub const fn with_fins(self, fins: u8) -> Self {
        Self(self.0 & !FINS | (fins as u64 & 3) << 11)
    }

    /// The state's number; cheaper than the state in a program that compares it.
    #[inline(always)]
    pub const fn raw_state(self) -> u8 {
        (self.0 & STATE) as u8
    }

    /// A number that no state has (a torn or foreign word) counts as closed, so that it ages.
    #[inline(always)]
    pub const fn state(self) -> State {
        match self.raw_state() {
            0 => State::Empty,
            1 => State::Claimed,
            2 => State::Leaving,
            3 => State::Unanswered,
            4 => State::Answered,
            5 => State::OneSided,
            7 => State::Cut,
            8 => State::HalfClosed,
            9 => State::Established,
            _ => State::Closed,
        }
    }

    #[inline(always)]
    pub const fn is_live(self) -> bool {
        self.raw_state() >= State::Unanswered as u8
    }
    #[inline(always)]
    pub const fn is(self, state: State) -> bool {
        self.raw_state() == state as u8
    }
    #[inline(always)]
    pub const fn distance(self) -> u32 {
        (self.0 >> 4 & 15) as u32
    }
    #[inline(always)]
    pub const fn is_second(self) -> bool {
        self.0 & SECOND != 0
    }
    #[inline(always)]
    pub const fn direction(self) -> Direction {
        if self.0 & REVERSE != 0 { Direction::Reverse } else { Direction::Forward }
    }
    #[inline(always)]
    pub const fn is_reverse(self) -> bool {
        self.0 & REVERSE != 0
    }
    #[inline(always)]
    pub const fn is_udp(self) -> bool {
        self.0 & UDP != 0
    }
    #[inline(always)]
    pub const fn is_dnat(self) -> bool {
        self.0 & DNAT != 0
    }
    #[inline(always)]
    pub const fn is_direct(self) -> bool {
        self.0 & DIRECT != 0
    }
    #[inline(always)]
    pub const fn fins(self) -> u8 {
        (self.0 >> 11 & 3) as u8
    }
    #[inline(always)]
    pub const fn tag(self) -> u16 {
        (self.0 >> 16) as u16
    }
    #[inline(always)]
    pub const fn version(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// A connection that was reset in its handshake: a sender who forges a SYN forges the reset after it, too.
    #[inline(always)]
    const fn was_never_established(self) -> bool {
        self.is(State::Closed) && !self.is_udp() && self.fins() != 0b11
    }

    /// TCP that has not been established: what a flood of forged segments consists of. Of a client alone nothing is known.
    #[inline(always)]
    pub const fn is_half_open(self) -> bool {
        let opening = matches!(self.state(), State::Unanswered | State::Answered) && !self.is_udp();
        opening || self.was_never_established() && !self.is_direct()
    }

    /// The rank of a line that is not expired.
    #[inline(always)]
    pub const fn rank(self) -> u32 {
        match self.raw_state() {
            0 => rank::EMPTY,
            3 => rank::UNANSWERED,
            4 => rank::ANSWERED,
            5 => rank::ONE_SIDED,
            // Closed by its client, of whom alone nobody knows whether he is there; or reset before it was established.
            _ if self.is_direct() || self.was_never_established() => rank::UNANSWERED,
            _ => rank::KEPT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_keeps_what_it_is_given() {
        let meta = Meta(7 << 32 | 0xffff_ffff).claimed(0xbeef, 11, true);
        assert_eq!(
            (meta.state(), meta.distance(), meta.is_second(), meta.tag(), meta.version()),
            (State::Claimed, 11, true, 0xbeef, 8)
        );
        let meta = meta.of(Direction::Reverse, true, true).with_state(State::Established).with_fins(0b10);
        assert_eq!(
            (meta.state(), meta.direction(), meta.fins()),
            (State::Established, Direction::Reverse, 2)
        );
        assert!(meta.is_udp() && meta.is_dnat() && meta.is_live());
        assert_eq!((meta.distance(), meta.is_second(), meta.tag(), meta.version()), (11, true, 0xbeef, 8));
        assert!(!meta.is_direct());
        let direct = Meta(1 << 32).direct();
        assert!(direct.is_direct() && direct.is_dnat(), "the backend sees its client");
        for (state, rank) in [(State::Unanswered, rank::UNANSWERED), (State::Closed, rank::UNANSWERED)] {
            assert_eq!(direct.with_state(state).rank(), rank);
        }
        let reset = Meta(1 << 32).with_state(State::Closed);
        assert_eq!((reset.rank(), reset.is_half_open()), (rank::UNANSWERED, true), "in its handshake");
        let over = reset.with_fins(0b11);
        assert_eq!((over.rank(), over.is_half_open()), (rank::KEPT, false));
        let leaving = meta.leaving();
        assert_eq!((leaving.state(), leaving.distance(), leaving.version()), (State::Leaving, 11, 9));
        assert_eq!(leaving.emptied(), Meta(9 << 32));
        assert_eq!(Meta(u64::MAX).claimed(0, 0, false).version(), 0, "versions wrap");
    }

    #[test]
    fn states_have_the_numbers_that_they_are_read_by() {
        for (number, state) in State::ALL.iter().enumerate() {
            assert_eq!(*state as usize, number);
            assert_eq!(Meta(number as u64).state(), *state);
            assert_eq!(Meta(number as u64).is_live(), state.is_live());
        }
        assert_eq!(Meta(15).state(), State::Closed);
    }
}
