//! The rules of a TCP connection beside those of Linux's connection tracking, on the same histories. The kernel's part is done in a
//! network namespace of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

mod differences;
mod history;
mod kernel;
#[path = "../common/random.rs"]
mod random;

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{BACKEND_LISTED, BACKEND_LIVES, BACKEND_TAKES};
use lb_common::table::State;
use lb_common::tcp::{Action, Direction, Known, Segment, judge};

use differences::{Case, REASONS, reason};
use history::{History, Kind};
use kernel::Tracker;

const HISTORIES: u16 = 3000;
/// Segments of each.
const STEPS: u32 = 16;
const FIRST_PORT: u16 = 1024;

/// How far a connection is, in words that both have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    HalfOpen,
    Established,
    HalfClosed,
    Closed,
}

fn ours(known: &Known) -> Stage {
    match known.state {
        State::Unanswered | State::Answered => Stage::HalfOpen,
        State::Established => Stage::Established,
        State::HalfClosed => Stage::HalfClosed,
        State::Empty | State::Claimed | State::Leaving | State::OneSided | State::Closed | State::Cut => {
            Stage::Closed
        }
    }
}

/// They forget a connection that was refused.
fn theirs(state: Option<&str>) -> Stage {
    match state {
        Some("SYN_SENT" | "SYN_RECV" | "SYN_SENT2") => Stage::HalfOpen,
        Some("ESTABLISHED") => Stage::Established,
        Some("FIN_WAIT" | "CLOSE_WAIT") => Stage::HalfClosed,
        Some("LAST_ACK" | "TIME_WAIT" | "CLOSE") | None => Stage::Closed,
        Some(other) => panic!("{other}: what is that?"),
    }
}

/// A connection that both watch.
struct Watched {
    port: u16,
    history: History,
    known: Option<Known>,
    before: Stage,
    log: Vec<(Kind, Segment)>,
    /// Where in the log the connection was opened, for the last time.
    opened: usize,
}

impl Watched {
    fn new(number: u16) -> Self {
        let history = History::new(u64::from(number) + 1);
        let port = FIRST_PORT + number;
        Self { port, history, known: None, before: Stage::HalfOpen, log: Vec::new(), opened: 0 }
    }

    fn step(&mut self, tracker: &mut Tracker) {
        let (kind, segment) = self.history.next();
        self.log.push((kind, segment));
        tracker.pass(self.port, &segment);
        let anew = Known {
            state: State::Unanswered,
            fins: 0,
            forward: 0,
            reverse: 0,
            silent: false,
            opening: segment.sequence,
        };
        let Some(known) = self.known else {
            self.known = Some(anew);
            return;
        };
        self.before = ours(&known);
        let step = judge(known, segment, BACKEND_LISTED | BACKEND_LIVES | BACKEND_TAKES);
        self.known = Some(if step.action == Action::Anew {
            self.opened = self.log.len() - 1;
            anew
        } else {
            step.known
        });
    }

    /// What is agreed, or why not.
    fn compare(&self, state: Option<&str>) -> Result<Stage, &'static str> {
        let (ours, theirs) = (ours(&self.known.unwrap()), theirs(state));
        if ours == theirs {
            return Ok(ours);
        }
        let case = self.case(ours, theirs);
        Err(reason(&case).unwrap_or_else(|| panic!("{case:?}, {state:?} after {:#?}", self.log)))
    }

    fn case(&self, ours: Stage, theirs: Stage) -> Case {
        let log = &self.log[self.opened..];
        let early_reset = log
            .iter()
            .take_while(|(kind, _)| *kind != Kind::Ack)
            .any(|(kind, segment)| *kind == Kind::BlindReset && segment.direction == Direction::Reverse);
        let asked_twice =
            log[1..].iter().any(|(kind, _)| matches!(kind, Kind::Syn | Kind::OtherSyn | Kind::StraySyn));
        let answered_twice = log.iter().any(|(kind, _)| *kind == Kind::OtherSynAck);
        let again = log.last().unwrap().0 == Kind::Again;
        let kind = log.iter().rev().find(|(kind, _)| *kind != Kind::Again).unwrap().0;
        Case { kind, again, before: self.before, ours, theirs, early_reset, asked_twice, answered_twice }
    }
}

#[test]
fn connections_go_as_linux_has_them_but_for_what_is_said() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "skipped, though nothing is to be: run it as root");
        eprintln!("skipped: only root can make a network namespace");
        return;
    }
    let mut tracker = Tracker::new();
    let mut watched: Vec<_> = (0..HISTORIES).map(Watched::new).collect();
    let (mut agreed, mut differences) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..STEPS {
        watched.retain(|watched| !watched.history.is_over());
        watched.iter_mut().for_each(|watched| watched.step(&mut tracker));
        let states = tracker.states();
        watched.retain(|watched| match watched.compare(states.get(&watched.port).map(String::as_str)) {
            Ok(stage) => {
                *agreed.entry(stage).or_insert(0) += 1;
                true
            }
            // From here on they go different ways.
            Err(reason) => {
                *differences.entry(reason).or_insert(0) += 1;
                false
            }
        });
    }
    eprintln!("agreed: {agreed:?}; not: {differences:#?}");
    assert!(agreed.len() == 4 && agreed.values().all(|&times| times > 500), "{agreed:?}");
    let seen: BTreeSet<&str> = differences.into_keys().collect();
    assert_eq!(seen, BTreeSet::from(REASONS), "a difference that there is no more");
}
