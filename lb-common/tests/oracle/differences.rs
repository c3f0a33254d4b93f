//! Where the rules differ from Linux's connection tracking, and why.

use crate::Stage::{self, Closed, Established, HalfClosed, HalfOpen};
use crate::history::Kind;

/// A segment after which the two are not of one mind.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Of a repeated segment: what was repeated.
    pub kind: Kind,
    pub again: bool,
    pub before: Stage,
    pub ours: Stage,
    pub theirs: Stage,
    /// Before the connection was established, a stranger has sent a reset in the backend's name.
    pub early_reset: bool,
    /// The client has asked twice, by two numbers.
    pub asked_twice: bool,
    /// The server has answered twice, by two numbers.
    pub answered_twice: bool,
}

/// All that may differ.
pub const REASONS: [&str; 10] = [
    "a FIN sent twice counts for them as both sides'",
    "once a FIN was seen they believe any reset that is not old, here only the exact one",
    "a reset that may be genuine leaves the connection less time here, until the next packet",
    "they believe a reset right behind its sender's own last segment before that is acknowledged",
    "a FIN far above what was acknowledged counts here: nobody looks at windows",
    "a stranger's reset before the answer spoils the numbers that they go by",
    "a server may answer again by another number here",
    "after both FINs a SYN opens anew, here also before the last of them is acknowledged",
    "a client may ask again by another number here",
    "a backend's reset before its answer counts here only if it acknowledges the SYN",
];

/// Why this is as it should be; `None`: it is not.
pub fn reason(case: &Case) -> Option<&'static str> {
    let near = matches!(case.kind, Kind::Reset | Kind::NearReset);
    let reset = near || case.kind == Kind::BlindReset;
    let fin = matches!(case.kind, Kind::Fin | Kind::NearFin);
    let syn = matches!(case.kind, Kind::Syn | Kind::StraySyn);
    let number = match (case.before, case.ours, case.theirs) {
        (HalfClosed, HalfClosed, Closed) if fin && case.again => 0,
        (HalfClosed, HalfClosed, Closed) if reset => 1,
        (Established, HalfClosed, Established) if near => 2,
        (Established, HalfClosed, Closed) if near => 3,
        (_, HalfClosed | Closed, Established | HalfClosed) if case.kind == Kind::NearFin => 4,
        (_, _, HalfOpen) if case.early_reset => 5,
        (_, _, HalfOpen) if case.answered_twice => 6,
        (Closed, HalfOpen, Closed) if syn => 7,
        (_, _, HalfOpen) if case.asked_twice => 8,
        (HalfOpen, HalfOpen, Closed) if reset => 9,
        _ => return None,
    };
    Some(REASONS[number])
}
