//! How much work a backend has, for farms that give new connections to whoever has least.
//!
//! What counts is what a backend has to do with: a connection whose client has shown to be there, and a handshake that the backend has
//! not answered yet. One that it has answered and the client has not counts for nobody: it may be one of a flood, whose sender does not
//! exist, and would say nothing of the backend but that its kernel answers. So a flood leads no honest work anywhere, and a backend
//! that answers nothing does not look idle. A datagram with a forged source needs no more than itself, and of a backend that
//! answers its clients past the balancer no answer is seen: there nothing counts before the client goes on.
//!
//! The program counts up and down as it opens and closes, by slices of the connection table. It does not see all ends (a
//! connection that expires, one that is cut), so the daemon, which sweeps a slice after another, sets each right when it has
//! looked at it: what it has found there stands from then on, with what the program has counted since.

use crate::table::{Meta, State};

/// Slices of the connection tables.
pub const SLICES: usize = 10;

/// A backend's work. The sum of `base` and `changes`, which wraps, is the number of connections that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, align(64))]
pub struct Load {
    /// The daemon's: what its sweep has found, less what stood in `changes` of each slice when it looked.
    pub base: u32,
    pub reserved: [u32; 5],
    /// The program's: opened less closed, of each slice.
    pub changes: [u32; SLICES],
}

/// Words of 32 bits, and where the slices begin.
pub const WORDS: usize = size_of::<Load>() / 4;
pub const CHANGES: usize = WORDS - SLICES;

/// Whether a connection counts whose forward line has this first word.
#[inline(always)]
pub const fn counts(meta: Meta) -> bool {
    match meta.state() {
        State::OneSided | State::Established | State::HalfClosed => true,
        State::Unanswered => !meta.is_udp() && !meta.is_direct(),
        State::Empty | State::Claimed | State::Leaving | State::Answered | State::Closed | State::Cut => {
            false
        }
    }
}

/// Ticks after which a handshake counts no more that nobody has answered: health checks know better by then.
pub const WAITING: u32 = 30;

/// The slice of a line, of so many lines less one.
#[inline(always)]
pub const fn slice(line: u32, mask: u32) -> usize {
    (line as u64 * SLICES as u64 / (mask as u64 + 1)) as usize
}

/// Draws for somebody else to compare with: of two backends of equal weight one in 32 newcomers meets the same one each time.
const DRAWS: u32 = 4;

/// The backend that has less to do for its weight, of two that are drawn; the first if neither has. Draws are by weight, so where all
/// are idle, each gets its share. `appraise` gives a backend's [work](Load) and weight.
#[inline(always)]
pub fn choose(mut draw: impl FnMut() -> u64, appraise: impl Fn(u64) -> (u32, u32)) -> u64 {
    let first = draw();
    let mut second = first;
    for _ in 0..DRAWS {
        if second == first {
            second = draw();
        }
    }
    if second != first && is_less(appraise(first), appraise(second)) { second } else { first }
}

/// Whether the second of two has less to do, for its weight.
#[inline(always)]
const fn is_less(first: (u32, u32), second: (u32, u32)) -> bool {
    above_zero(second.0) * (first.1 as u64) < above_zero(first.0) * (second.1 as u64)
}

/// A load as a number. What the daemon has found and what the program has counted may not be of the same moment: less than nothing is nothing.
#[inline(always)]
pub const fn above_zero(load: u32) -> u64 {
    if (load as i32) < 0 { 0 } else { load as u64 }
}

const _: () = assert!(size_of::<Load>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_less_for_its_weight_gets_it() {
        for (first, second, expected) in [
            ((0, 1), (0, 1), false),
            ((1, 1), (0, 1), true),
            ((1, 1), (1, 1), false),
            ((10, 100), (4, 50), true),
            ((10, 100), (5, 50), false),
            ((10, 100), (6, 50), false),
            ((u32::MAX, 1), (0, 1), false),
            ((0, 1), (u32::MAX, 1), false),
            ((1 << 30, 25_600), (1 << 29, 1), false),
        ] {
            assert_eq!(is_less(first, second), expected, "{first:?} {second:?}");
        }
    }

    #[test]
    fn every_line_has_a_slice() {
        for mask in [15, 1023, (1 << 24) - 1] {
            assert_eq!((slice(0, mask), slice(mask, mask)), (0, SLICES - 1));
        }
    }

    #[test]
    fn what_a_forger_can_open_alone_does_not_count() {
        let (tcp, udp) = (Meta::EMPTY, Meta::EMPTY.of(crate::tcp::Direction::Forward, true, false));
        for (meta, state, expected) in [
            (tcp, State::Unanswered, true),
            (tcp.direct(), State::Unanswered, false),
            (udp, State::Unanswered, false),
            (tcp, State::Answered, false),
            (udp, State::Answered, false),
            (tcp, State::Established, true),
            (udp, State::Established, true),
            (tcp.direct(), State::OneSided, true),
            (tcp, State::HalfClosed, true),
            (tcp, State::Closed, false),
            (tcp, State::Cut, false),
        ] {
            assert_eq!(counts(meta.with_state(state)), expected, "{state:?}");
        }
    }
}
