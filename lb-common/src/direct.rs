//! What a client's packets alone say of a connection whose backend answers past us (modes `dsr`, `ipip`, `gue`).
//!
//! Nobody can tell a client that is there from one that is forged: who forges a SYN forges the next segment, too. So no such
//! connection is ever held to be established. It is one-sided, ranks below all of which both sides are known, and when a newcomer
//! takes its line nothing is lost: a segment that no line knows goes to whom the farm's table names, who is the same for as long
//! as the backends are.
//!
//! FIN and RST are believed as they come, since no number is known to hold them against, and end nothing that the next segment does
//! not bring back. Linux' IPVS does the same in its direct modes (net/netfilter/ipvs/ip_vs_proto_tcp.c, `INPUT_ONLY`).

use crate::abi::{BACKEND_LIVES, BACKEND_TAKES};
use crate::table::State;
use crate::tcp::{self, Action, Direction, flag};
use crate::udp;

/// What is kept of a connection of TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub state: State,
    /// A bit by [`Direction`]: the client's alone is ever set.
    pub fins: u8,
    /// The number of the client's last SYN.
    pub opening: u32,
}

/// A connection after its client's segment, and what becomes of that. `backend` is `BACKEND_*`.
#[inline(always)]
pub const fn judge_tcp(mut known: Known, flags: u8, sequence: u32, backend: u16) -> (Known, Action) {
    if tcp::opens(flags) {
        return syn(known, sequence, backend);
    }
    if flags & flag::RST != 0 {
        known.state = State::Closed;
        return (known, Action::Forward);
    }
    // A client that goes on has been answered, or says so; had it reset the connection it would not.
    if flags & flag::ACK != 0 {
        known.state = State::OneSided;
        if flags & flag::FIN != 0 {
            known.fins |= 1 << Direction::Forward as u8;
        }
    }
    (known, Action::Forward)
}

#[inline(always)]
const fn syn(mut known: Known, sequence: u32, backend: u16) -> (Known, Action) {
    let (lives, takes) = (backend & BACKEND_LIVES != 0, backend & BACKEND_TAKES != 0);
    if matches!(known.state, State::Unanswered) && takes {
        known.opening = sequence;
        return (known, Action::Forward);
    }
    if !matches!(known.state, State::OneSided) || !lives {
        return (known, Action::Anew);
    }
    if known.fins != 0 && !takes {
        return (known, Action::Anew);
    }
    // In the middle of a connection it changes nothing: the backend answers it, one that is drained, too, for nobody else knows whether
    // the client is still there, and two forged SYNs would move him. After a FIN another one begins.
    known.opening = sequence;
    if known.fins != 0 {
        (known.state, known.fins) = (State::Unanswered, 0);
    }
    (known, Action::Forward)
}

/// The same for a datagram, as [`udp::judge`]. What the backend says on a way that leads by us says nothing of the client.
#[inline(always)]
pub const fn judge_udp(
    state: State,
    direction: Direction,
    age: u32,
    idle: u32,
    backend: u16,
) -> (State, Action) {
    match direction {
        Direction::Forward => udp::judge(state, direction, age, idle, backend),
        Direction::Reverse => (state, Action::Forward),
    }
}

#[cfg(test)]
mod tests {
    use super::{State::*, *};
    use crate::abi::BACKEND_LISTED;
    use flag::{ACK, FIN, RST, SYN};

    const TAKES: u16 = BACKEND_TAKES | BACKEND_LIVES | BACKEND_LISTED;
    const DRAINED: u16 = BACKEND_LIVES | BACKEND_LISTED;

    #[test]
    fn a_connection_follows_its_client_and_is_never_more_than_one_sided() {
        use Action::{Anew, Forward};
        // (state, FINs, flags, sequence, backend) -> (state, FINs, action), with 7 for the number of the last SYN.
        let table = [
            ((Unanswered, 0, SYN, 7, TAKES), (Unanswered, 0, Forward)),
            ((Unanswered, 0, SYN, 7, DRAINED), (Unanswered, 0, Anew)),
            ((Unanswered, 0, ACK, 8, TAKES), (OneSided, 0, Forward)),
            ((Unanswered, 0, 0, 8, TAKES), (Unanswered, 0, Forward)),
            ((Unanswered, 0, RST, 8, TAKES), (Closed, 0, Forward)),
            ((OneSided, 0, ACK, 8, TAKES), (OneSided, 0, Forward)),
            ((OneSided, 0, ACK, 8, 0), (OneSided, 0, Forward)),
            ((OneSided, 0, FIN | ACK, 8, TAKES), (OneSided, 1, Forward)),
            ((OneSided, 1, ACK, 9, TAKES), (OneSided, 1, Forward)),
            ((OneSided, 1, RST, 9, TAKES), (Closed, 1, Forward)),
            ((Closed, 0, ACK, 9, TAKES), (OneSided, 0, Forward)),
            ((Closed, 0, SYN, 99, TAKES), (Closed, 0, Anew)),
            ((OneSided, 0, SYN, 99, TAKES), (OneSided, 0, Forward)),
            ((OneSided, 0, SYN, 99, 0), (OneSided, 0, Anew)),
            ((OneSided, 1, SYN, 99, TAKES), (Unanswered, 0, Forward)),
            ((OneSided, 0, SYN, 99, DRAINED), (OneSided, 0, Forward)),
            ((OneSided, 0, SYN, 7, DRAINED), (OneSided, 0, Forward)),
            ((OneSided, 1, SYN, 99, DRAINED), (OneSided, 1, Anew)),
        ];
        for ((state, fins, flags, sequence, backend), expected) in table {
            let known = Known { state, fins, opening: 7 };
            let (after, action) = judge_tcp(known, flags, sequence, backend);
            let got = (after.state, after.fins, action);
            assert_eq!(got, expected, "{state:?} {fins} {flags:#x} {sequence} {backend}");
        }
    }

    #[test]
    fn what_a_backend_says_of_datagrams_proves_nothing() {
        for state in [Unanswered, OneSided] {
            assert_eq!(judge_udp(state, Direction::Reverse, 99, 1, TAKES), (state, Action::Forward));
        }
        assert_eq!(judge_udp(Unanswered, Direction::Forward, 20, 1, TAKES), (OneSided, Action::Forward));
        assert_eq!(judge_udp(OneSided, Direction::Forward, 99, 0, 0), (OneSided, Action::Anew));
    }
}
