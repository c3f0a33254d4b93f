//! What datagrams say about a conversation: who has answered, and who goes on.

use crate::abi::{BACKEND_LISTED, BACKEND_LIVES, BACKEND_TAKES};
use crate::table::State;
use crate::tcp::{Action, Direction};

/// A client that goes on for so long without any answer does not wait for one. In ticks.
pub const ONE_SIDED_AFTER: u32 = 20;
/// A pause after which a client may be led to another backend without breaking an exchange. In ticks.
pub const PAUSE: u32 = 20;

/// A conversation's state after a datagram, and what becomes of the datagram. `age` and `idle` (since the last one of this direction)
/// in ticks; `backend` is `BACKEND_*`.
///
/// One answer proves nothing: the question may have a forged source. The client's next datagram after it does.
#[inline(always)]
pub const fn judge(state: State, direction: Direction, age: u32, idle: u32, backend: u16) -> (State, Action) {
    let unanswered = matches!(state, State::Unanswered);
    if matches!(direction, Direction::Reverse) {
        let waits = unanswered || matches!(state, State::OneSided);
        return (if waits { State::Answered } else { state }, Action::Forward);
    }
    if matches!(state, State::Closed | State::Cut) || moves(idle, backend) {
        return (state, Action::Anew);
    }
    if unanswered && age as i32 >= ONE_SIDED_AFTER as i32 {
        return (State::OneSided, Action::Forward);
    }
    (if matches!(state, State::Answered) { State::Established } else { state }, Action::Forward)
}

/// Whether a client is led to another backend: at once from one that is down or that the configuration does not name any
/// more, at the next pause from one that is only to get no new clients.
#[inline(always)]
const fn moves(idle: u32, backend: u16) -> bool {
    if backend & BACKEND_TAKES != 0 {
        return false;
    }
    backend & (BACKEND_LIVES | BACKEND_LISTED) != BACKEND_LIVES | BACKEND_LISTED
        || idle as i32 >= PAUSE as i32
}

#[cfg(test)]
mod tests {
    use super::{State::*, *};

    const TAKES: u16 = BACKEND_TAKES | BACKEND_LIVES | BACKEND_LISTED;
    const DRAINED: u16 = BACKEND_LIVES | BACKEND_LISTED;

    #[test]
    fn conversations_follow_their_datagrams() {
        use Direction::{Forward, Reverse};
        // (state, direction, age, idle, backend) -> (state, action)
        let table = [
            ((Unanswered, Forward, 1, 1, TAKES), (Unanswered, Action::Forward)),
            ((Unanswered, Forward, 20, 1, TAKES), (OneSided, Action::Forward)),
            ((Unanswered, Reverse, 1, 1, TAKES), (Answered, Action::Forward)),
            ((OneSided, Reverse, 99, 1, TAKES), (Answered, Action::Forward)),
            ((Answered, Reverse, 99, 1, TAKES), (Answered, Action::Forward)),
            ((Answered, Forward, 99, 1, TAKES), (Established, Action::Forward)),
            ((Established, Forward, 99, 1, TAKES), (Established, Action::Forward)),
            ((Established, Forward, 99, 19, DRAINED), (Established, Action::Forward)),
            ((Established, Forward, 99, 20, DRAINED), (Established, Action::Anew)),
            ((Established, Reverse, 99, 20, DRAINED), (Established, Action::Forward)),
            ((Established, Forward, 99, 0, BACKEND_LISTED), (Established, Action::Anew)),
            ((Established, Forward, 99, 0, BACKEND_LIVES), (Established, Action::Anew)),
            ((Cut, Forward, 99, 0, TAKES), (Cut, Action::Anew)),
        ];
        for ((state, direction, age, idle, backend), expected) in table {
            assert_eq!(
                judge(state, direction, age, idle, backend),
                expected,
                "{state:?} {direction:?} {age} {idle} {backend:#b}"
            );
        }
    }
}
