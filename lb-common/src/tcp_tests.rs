use super::{State::*, flag::*, *};
use crate::abi::{BACKEND_LISTED, BACKEND_SERVES};

const TAKES: u16 = BACKEND_TAKES | BACKEND_LIVES | BACKEND_LISTED | BACKEND_SERVES;
const DRAINED: u16 = BACKEND_LIVES | BACKEND_LISTED;
const DOWN: u16 = BACKEND_LISTED;

const CLIENT: u32 = 1000;
const SERVER: u32 = 0x7000_0000;

fn segment(direction: Direction, flags: u8, sequence: u32, acknowledgment: u32) -> Segment {
    Segment { direction, flags, sequence, acknowledgment, payload: 0 }
}
fn client(flags: u8, sequence: u32, acknowledgment: u32) -> Segment {
    segment(Direction::Forward, flags, sequence, acknowledgment)
}
fn backend(flags: u8, sequence: u32, acknowledgment: u32) -> Segment {
    segment(Direction::Reverse, flags, sequence, acknowledgment)
}

/// As it is entered for a client's SYN.
const OPENED: Known =
    Known { state: Unanswered, fins: 0, forward: 0, reverse: 0, silent: false, opening: CLIENT };

fn after(known: Known, segments: &[Segment]) -> Known {
    segments.iter().fold(known, |known, segment| judge(known, *segment, TAKES).known)
}

fn established() -> Known {
    let known = after(OPENED, &[backend(SYN | ACK, SERVER, CLIENT + 1), client(ACK, CLIENT + 1, SERVER + 1)]);
    assert_eq!(known.state, Established);
    known
}

#[test]
fn a_handshake_is_what_three_segments_say_in_turn() {
    let answered = after(OPENED, &[backend(SYN | ACK, SERVER, CLIENT + 1)]);
    assert_eq!(answered.state, Answered);
    for acknowledgment in [SERVER + 1, SERVER + 1 + 1460] {
        let step = judge(answered, client(ACK, CLIENT + 1, acknowledgment), TAKES);
        assert_eq!((step.known.state, step.action), (Established, Action::Forward));
    }
    for acknowledgment in [SERVER, 0, SERVER + 1 + (1 << 16)] {
        let step = judge(answered, client(ACK, CLIENT + 1, acknowledgment), TAKES);
        assert_eq!((step.known, step.action), (answered, Action::Stray), "{acknowledgment}");
    }
    let step = judge(OPENED, client(ACK, CLIENT + 1, SERVER + 1), TAKES);
    assert_eq!((step.known, step.action), (OPENED, Action::Stray), "nobody has answered");
}

#[test]
fn either_of_two_syn_acks_may_be_acknowledged() {
    let twice = after(OPENED, &[backend(SYN | ACK, SERVER, CLIENT + 1), backend(SYN | ACK, 99, CLIENT + 1)]);
    assert_eq!(after(twice, &[client(ACK, CLIENT + 1, SERVER + 1)]).state, Established);
    assert_eq!(after(twice, &[client(ACK, CLIENT + 1, 100)]).state, Established);
}

#[test]
fn numbers_wrap() {
    let opened = Known { opening: u32::MAX, ..OPENED };
    let known = after(opened, &[backend(SYN | ACK, u32::MAX, 0), client(ACK, 0, 0)]);
    assert_eq!(known.state, Established);
    assert_eq!(after(known, &[client(RST, 0, 0)]).state, Closed);
}

#[test]
fn the_first_segment_may_carry_the_last_word() {
    let answered = after(OPENED, &[backend(SYN | ACK, SERVER, CLIENT + 1)]);
    let last = Segment { payload: 100, ..client(ACK | FIN, CLIENT + 1, SERVER + 1) };
    let known = after(answered, &[last]);
    assert_eq!((known.state, known.fins), (HalfClosed, 0b01));
}

#[test]
fn a_connection_is_closed_when_both_have_sent_their_fin() {
    let half = after(established(), &[client(FIN | ACK, CLIENT + 1, SERVER + 1)]);
    assert_eq!((half.state, half.fins), (HalfClosed, 0b01));
    let half =
        after(half, &[client(FIN | ACK, CLIENT + 1, SERVER + 1), backend(ACK, SERVER + 1, CLIENT + 2)]);
    assert_eq!(half.state, HalfClosed, "repeated, and acknowledged");
    let closed = after(half, &[backend(FIN | ACK, SERVER + 1 + 5000, CLIENT + 2)]);
    assert_eq!((closed.state, closed.fins), (Closed, 0b11));
    assert_eq!(after(closed, &[client(ACK, CLIENT + 2, SERVER + 5002)]).state, Closed);
}

#[test]
fn only_an_exact_reset_closes() {
    let known = established();
    assert_eq!(after(known, &[client(RST, CLIENT + 1, 0)]).state, Closed);
    assert_eq!(after(known, &[backend(RST, SERVER + 1, 0)]).state, Closed);
    for blind in [0, CLIENT, CLIENT.wrapping_sub(5000), CLIENT + 2 + (1 << 23), SERVER] {
        let step = judge(known, client(RST, blind, 0), TAKES);
        assert_eq!((step.known, step.action), (known, Action::Forward), "{blind}");
    }
    let doubtful = after(known, &[client(RST | ACK, CLIENT + 1 + 1460, SERVER + 1)]);
    assert_eq!((doubtful.state, doubtful.fins), (HalfClosed, 0), "data may be on its way");
    assert_eq!(after(doubtful, &[backend(ACK, SERVER + 1, CLIENT + 1)]).state, Established);
    assert_eq!(after(doubtful, &[client(RST, CLIENT + 1, 0)]).state, Closed);
}

#[test]
fn a_fin_out_of_the_window_does_not_count() {
    let known = established();
    for blind in [0u32.wrapping_sub(1 << 20), CLIENT + 2 + (1 << 23)] {
        assert_eq!(after(known, &[client(FIN, blind, 0)]), known, "{blind}");
    }
}

#[test]
fn a_stranger_does_not_change_what_the_ends_are_judged_by() {
    let known = established();
    for blind in [SERVER + 2 + (1 << 23), SERVER - (1 << 23), 0, CLIENT] {
        assert_eq!(after(known, &[client(ACK, 5, blind)]), known, "{blind:#x}");
    }
    let forged = [client(ACK, 5, 99), client(FIN | ACK, 50_000_000, 77)];
    assert_eq!(after(known, &[forged[0], forged[1], backend(RST, SERVER + 1, 0)]).state, Closed);
    let adopted = Known { forward: 0, ..known };
    assert_eq!(after(adopted, &[client(ACK, CLIENT + 1, SERVER + 1)]).forward, SERVER + 1);
}

#[test]
fn half_open_connections_are_reset_by_those_who_know_their_numbers() {
    let refused = judge(OPENED, backend(RST | ACK, 0, CLIENT + 1), TAKES);
    assert_eq!((refused.known.state, refused.answer), (Closed, Answer::Reset));
    let given_up = after(OPENED, &[client(RST, CLIENT + 1, 0)]);
    assert_eq!((given_up.state, given_up.reverse), (Closed, 0));
    assert_eq!(refused.known.reverse, CLIENT + 1, "what tells the two apart");
    assert_eq!(judge(OPENED, backend(RST | ACK, 0, CLIENT + 2), TAKES).known, OPENED);
    assert_eq!(judge(OPENED, client(RST, 5, 0), TAKES).known, OPENED);
    let answered = after(OPENED, &[backend(SYN | ACK, SERVER, CLIENT + 1)]);
    assert_eq!(after(answered, &[client(RST, 5, 0)]), answered);
    assert_eq!(after(answered, &[client(RST, CLIENT + 1, 0)]).state, Closed);
    assert_eq!(after(answered, &[backend(RST, SERVER + 1, 0)]).state, Closed);
}

#[test]
fn a_reset_says_whether_the_connection_was_ever_established() {
    let answered = after(OPENED, &[backend(SYN | ACK, SERVER, CLIENT + 1)]);
    let half = after(established(), &[client(FIN | ACK, CLIENT + 1, SERVER + 1)]);
    for (known, reset, fins) in [
        (OPENED, client(RST, CLIENT + 1, 0), 0),
        (OPENED, backend(RST | ACK, 0, CLIENT + 1), 0),
        (answered, client(RST, CLIENT + 1, 0), 0),
        (answered, backend(RST, SERVER + 1, 0), 0),
        (established(), client(RST, CLIENT + 1, 0), 0b11),
        (established(), backend(RST, SERVER + 1, 0), 0b11),
        (half, client(RST, CLIENT + 1, 0), 0b11),
    ] {
        let known = after(known, &[reset]);
        assert_eq!((known.state, known.fins), (Closed, fins), "{reset:?}");
    }
}

#[test]
fn a_syn_goes_where_it_can_be_answered() {
    let known = established();
    let half = after(known, &[client(FIN | ACK, CLIENT + 1, SERVER + 1)]);
    let answered = after(OPENED, &[backend(SYN | ACK, SERVER, CLIENT + 1)]);
    let closed = Known { state: Closed, ..known };
    let cut = Known { state: Cut, ..known };
    // (state, backend) -> action
    for (known, backend, action) in [
        (OPENED, TAKES, Action::Forward),
        (OPENED, DRAINED, Action::Anew),
        (answered, TAKES, Action::Forward),
        (answered, DOWN, Action::Anew),
        (known, TAKES, Action::Forward),
        (known, DRAINED, Action::Probe),
        (known, BACKEND_LIVES, Action::Probe),
        (known, DOWN, Action::Anew),
        (half, TAKES, Action::Forward),
        (half, DRAINED, Action::Probe),
        (closed, TAKES, Action::Anew),
        (cut, TAKES, Action::Anew),
    ] {
        let step = judge(known, client(SYN, 123, 0), backend);
        assert_eq!((step.action, step.known.state), (action, known.state), "{known:?} {backend:#b}");
    }
}

#[test]
fn a_syn_that_a_drained_backend_does_not_answer_opens_anew_when_it_is_repeated() {
    let asked = judge(established(), client(SYN, 123, 0), DRAINED);
    assert_eq!(asked.action, Action::Probe);
    let answered = judge(asked.known, client(SYN, 123, 0), DRAINED);
    assert_eq!(answered.action, Action::Probe, "it has said something");
    let silent = Known { silent: true, ..asked.known };
    assert_eq!(judge(silent, client(SYN, 123, 0), DRAINED).action, Action::Anew);
    assert_eq!(judge(silent, client(SYN, 456, 0), DRAINED).action, Action::Probe, "another one");
    assert_eq!(judge(silent, client(SYN, 123, 0), TAKES).action, Action::Forward);
}

#[test]
fn a_backend_that_forgot_a_connection_takes_the_clients_next_one() {
    let known = after(established(), &[client(SYN, 500_000, 0), backend(SYN | ACK, 42, 500_001)]);
    assert_eq!(known.state, Answered);
    assert_eq!(after(known, &[client(ACK, 500_001, 43)]).state, Established);
    let repeated = after(established(), &[backend(SYN | ACK, SERVER, CLIENT + 1)]);
    assert_eq!(repeated.state, Established, "the client's acknowledgment was lost");
}

#[test]
fn whoever_speaks_on_a_cut_connection_is_told() {
    let cut = Known { state: Cut, ..established() };
    for segment in [client(ACK, 1, 1), backend(ACK, 1, 1), backend(SYN | ACK, 1, 1), client(RST, 1, 1)] {
        assert_eq!(judge(cut, segment, TAKES).action, Action::Refuse);
    }
}

#[test]
fn only_a_bare_syn_opens() {
    assert!(opens(SYN));
    assert!(opens(SYN | 0xc0), "ECN set-up (RFC 3168, section 6.1.1)");
    for flags in [0, ACK, SYN | ACK, SYN | FIN, SYN | RST, RST, FIN, FIN | ACK] {
        assert!(!opens(flags), "{flags:#x}");
    }
}
