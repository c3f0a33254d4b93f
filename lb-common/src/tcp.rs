//! What a connection's segments say about its state (RFC 9293), and whom one may believe (RFC 5961): enough to know when an
//! entry may be forgotten, and no more than can be known from two numbers in each direction.
//!
//! The rules, and what they let through:
//! - a handshake is what client, backend and client have said in turn, by the numbers of the SYN-ACK;
//! - a reset closes only if its sequence number is the very one that the other side acknowledged last. One shortly above it may
//!   be genuine, with data before it that is still on its way: the connection then has the time-out of a half-closed one, until
//!   any other packet comes. A blind sender hits the one once in 2^32 tries, the other once in 512;
//! - a FIN counts if it lies in that window, too;
//! - a SYN in the middle of a connection changes nothing: the backend answers it, and what the ends then say closes it.
//!
//! Segments are sent on whether they are believed or not: the ends judge for themselves.

use crate::abi::{BACKEND_LIVES, BACKEND_TAKES};
use crate::table::State;

/// TCP flags as they stand in the 14th byte of the header (RFC 9293, section 3.1).
pub mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}

/// Which way a packet of a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// From the client to the backend.
    Forward = 0,
    /// From the backend to the client.
    Reverse = 1,
}

/// A packet that starts a connection: SYN alone among the flags that steer (ECN's and PSH do not count).
#[inline(always)]
pub const fn opens(flags: u8) -> bool {
    flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN
}

/// A flag that may change the state of an established connection; all other packets leave it alone.
#[inline(always)]
pub const fn steers(flags: u8) -> bool {
    flags & (flag::SYN | flag::RST | flag::FIN) != 0
}

/// Bytes that may be on their way at once: beyond any receive buffer that is usual.
pub(crate) const AHEAD: i32 = 1 << 23;
/// How far a repeated FIN may lie below what was acknowledged since.
pub(crate) const BEHIND: i32 = 1 << 16;

/// What of a segment counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub direction: Direction,
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgment: u32,
    /// Bytes of payload.
    pub payload: u32,
}

impl Segment {
    #[inline(always)]
    const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

/// What is kept of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub state: State,
    /// Sides that have sent their FIN, a bit set by [`Direction`]; both, once an established connection was reset.
    pub fins: u8,
    /// The client's last acknowledgment number; until the handshake is complete, the number of the backend's last SYN-ACK.
    pub forward: u32,
    /// The backend's last acknowledgment number.
    pub reverse: u32,
    /// The backend has not answered the client's last packet, though it would have by now.
    pub silent: bool,
    /// The number of the client's SYN; once it is answered, of the first SYN-ACK; in the middle of a connection, of the last SYN.
    pub opening: u32,
}

/// What becomes of a packet of a known connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Forward,
    /// Sent on as a bare acknowledgment of [`Known::forward`]: a SYN for a backend that takes no new connections asks it whether it still knows the
    /// old one. Both ends then find out, and the next SYN opens anew; so does its repetition if nobody has answered.
    Probe,
    /// It opens another connection: this one is to be forgotten.
    Anew,
    /// It is answered with a reset.
    Refuse,
    /// Nobody has asked for it.
    Stray,
}

/// How a backend has answered a handshake for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    None,
    SynAck,
    Reset,
}

/// What follows from a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub known: Known,
    pub action: Action,
    pub answer: Answer,
}

impl Step {
    #[inline(always)]
    const fn to(known: Known, action: Action) -> Self {
        Self { known, action, answer: Answer::None }
    }
}

/// The state of a connection after `segment`, and what becomes of it. `backend` is `BACKEND_*`.
#[inline(always)]
pub const fn judge(known: Known, segment: Segment, backend: u16) -> Step {
    let forward = matches!(segment.direction, Direction::Forward);
    if forward && opens(segment.flags) {
        return syn(known, segment, backend);
    }
    if matches!(known.state, State::Cut) {
        return Step::to(known, Action::Refuse);
    }
    if segment.has(flag::RST) {
        return if forward { client_resets(known, segment) } else { backend_resets(known, segment) };
    }
    if !forward && segment.has(flag::SYN | flag::ACK) {
        return syn_ack(known, segment);
    }
    ordinary(known, segment, forward)
}

#[inline(always)]
const fn syn(mut known: Known, segment: Segment, backend: u16) -> Step {
    let (lives, takes) = (backend & BACKEND_LIVES != 0, backend & BACKEND_TAKES != 0);
    if matches!(known.state, State::Unanswered) && takes {
        known.opening = segment.sequence;
        return Step::to(known, Action::Forward);
    }
    if matches!(known.state, State::Answered) && takes {
        return Step::to(known, Action::Forward);
    }
    if matches!(known.state, State::Established | State::HalfClosed) && lives {
        // A backend that lives has answered the first such SYN, and the client what it said.
        if !takes && known.silent && known.opening == segment.sequence {
            return Step::to(known, Action::Anew);
        }
        known.opening = segment.sequence;
        return Step::to(known, if takes { Action::Forward } else { Action::Probe });
    }
    Step::to(known, Action::Anew)
}

#[inline(always)]
const fn syn_ack(mut known: Known, segment: Segment) -> Step {
    let answers_syn = segment.acknowledgment == known.opening.wrapping_add(1);
    let first = matches!(known.state, State::Unanswered);
    let again = matches!(known.state, State::Answered);
    let later = matches!(known.state, State::Established | State::HalfClosed);
    // One that answers another SYN is for the client who had this port before.
    let repeated = (known.reverse.wrapping_sub(segment.acknowledgment) as i32) >= 0
        && (known.reverse.wrapping_sub(segment.acknowledgment) as i32) < BEHIND;
    if (first && !answers_syn)
        || (again && segment.acknowledgment != known.reverse)
        || (later && !answers_syn && !repeated)
    {
        return Step::to(known, Action::Stray);
    }
    // The backend knew nothing of the connection that a SYN came in the middle of.
    if first || (later && answers_syn) {
        (known.state, known.fins) = (State::Answered, 0);
        known.opening = segment.sequence;
    }
    // A server with SYN cookies may choose another number each time; the client may have taken either.
    if matches!(known.state, State::Answered) {
        known.forward = segment.sequence;
        known.reverse = segment.acknowledgment;
    }
    let answer = if first { Answer::SynAck } else { Answer::None };
    Step { known, action: Action::Forward, answer }
}

#[inline(always)]
const fn client_resets(known: Known, segment: Segment) -> Step {
    let expected =
        if matches!(known.state, State::Unanswered) { known.opening.wrapping_add(1) } else { known.reverse };
    let exact = segment.sequence == expected;
    Step::to(after_reset(known, exact, segment.sequence, known.reverse), Action::Forward)
}

#[inline(always)]
const fn backend_resets(known: Known, segment: Segment) -> Step {
    let unanswered = matches!(known.state, State::Unanswered);
    let exact = if unanswered {
        segment.has(flag::ACK) && segment.acknowledgment == known.opening.wrapping_add(1)
    } else if matches!(known.state, State::Answered) {
        segment.sequence == known.forward.wrapping_add(1) || segment.sequence == known.opening.wrapping_add(1)
    } else {
        segment.sequence == known.forward
    };
    if unanswered && !exact {
        // For the client who had this port before.
        return Step::to(known, Action::Stray);
    }
    let answer = if unanswered { Answer::Reset } else { Answer::None };
    let mut known = after_reset(known, exact, segment.sequence, known.forward);
    if unanswered {
        // So it is told from a client that has thought better of it.
        known.reverse = segment.acknowledgment;
    }
    Step { known, action: Action::Forward, answer }
}

#[inline(always)]
const fn after_reset(mut known: Known, exact: bool, sequence: u32, acknowledged: u32) -> Known {
    let ahead = sequence.wrapping_sub(acknowledged) as i32;
    if exact {
        // Both sides are done. Whoever resets what was never established has proved nothing, and his line is worth no more than a SYN's.
        if matches!(known.state, State::Established | State::HalfClosed) {
            known.fins = 0b11;
        }
        known.state = State::Closed;
    } else if matches!(known.state, State::Established) && ahead > 0 && ahead <= AHEAD {
        known.state = State::HalfClosed;
    }
    known
}

#[inline(always)]
const fn ordinary(mut known: Known, segment: Segment, forward: bool) -> Step {
    if matches!(known.state, State::Unanswered) {
        // What a backend says to a SYN that it takes for one in the middle of a connection is for the client.
        return Step::to(known, if forward { Action::Stray } else { Action::Forward });
    }
    if matches!(known.state, State::Answered) {
        if !forward {
            return Step::to(known, Action::Forward);
        }
        if !segment.has(flag::ACK)
            || !(completes_handshake(known.forward, segment.acknowledgment)
                || completes_handshake(known.opening, segment.acknowledgment))
        {
            return Step::to(known, Action::Stray);
        }
        known.state = State::Established;
    } else if matches!(known.state, State::HalfClosed) && known.fins == 0 {
        // Nobody had reset it.
        known.state = State::Established;
    }
    if segment.has(flag::ACK) {
        if forward {
            known.forward = acknowledged(known.forward, segment.acknowledgment);
        } else {
            known.reverse = acknowledged(known.reverse, segment.acknowledgment);
        }
    }
    if segment.has(flag::FIN) {
        known = fin(known, segment, if forward { known.reverse } else { known.forward });
    }
    Step::to(known, Action::Forward)
}

/// The acknowledgment number to keep when one is seen: one far from the last is a stranger's, who would have the ends' next
/// reset or FIN not believed. One that comes late is put right by the next. 0: none is known.
#[inline(always)]
pub const fn acknowledged(kept: u32, seen: u32) -> u32 {
    let near = seen.wrapping_sub(kept).wrapping_add(AHEAD as u32) <= 2 * AHEAD as u32;
    if near || kept == 0 { seen } else { kept }
}

#[inline(always)]
const fn fin(mut known: Known, segment: Segment, acknowledged: u32) -> Known {
    let at = segment.sequence.wrapping_add(segment.payload).wrapping_sub(acknowledged) as i32;
    if at > AHEAD || at < -BEHIND || !matches!(known.state, State::Established | State::HalfClosed) {
        return known;
    }
    known.fins |= 1 << segment.direction as u8;
    known.state = if known.fins == 0b11 { State::Closed } else { State::HalfClosed };
    known
}

/// Whether a client's `acknowledgment` answers a SYN-ACK of sequence number `synack`: it must lie just above it.
/// A sender that has not seen the SYN-ACK hits this window of 2^16 by chance once in 65,536 tries.
#[inline(always)]
const fn completes_handshake(synack: u32, acknowledgment: u32) -> bool {
    acknowledgment.wrapping_sub(synack.wrapping_add(1)) < 1 << 16
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
