//! The rise/fall machine of one target. [`super::Board`] owns one for each.

use std::time::Instant;

use super::{Judgement, Outcome};

/// Turns the results of one target's probes into a judgement.
///
/// The first result judges at once; after that it takes `rise` passes in a row to come up and `fall` failures in a
/// row to go down. When no probe has come to an end for too long ([`super::Board`] says when), what was up is unchecked: the
/// next pass makes it up again, and failures are counted as those of one that is up.
#[derive(Debug, Clone)]
pub struct Machine {
    rise: u32,
    fall: u32,
    judgement: Judgement,
    /// Results in a row that contradict `judgement`; always less than what would change it.
    against: u32,
    /// Why `judgement` is what it is: of an up target the words of the pass that brought it up (they carry a
    /// timing, and a fresh one after each probe would be noise), of a down target those of its latest failure.
    reason: String,
    since: Instant,
    /// Whether a probe of this daemon has passed since the target is up.
    confirmed: bool,
    /// When a probe last said something of the target, or since when one is waited for.
    heard: Instant,
    /// Why no probe could be made since then.
    hindrance: Option<String>,
    /// Whether it was told that no probe has said anything for too long.
    overdue: bool,
}

/// A change of the judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    pub from: Judgement,
    pub to: Judgement,
    pub at: Instant,
}

impl Machine {
    /// A target that nobody has judged. A `rise` or `fall` of 0 counts as 1.
    pub fn new(rise: u32, fall: u32, now: Instant) -> Self {
        Self {
            rise: rise.max(1),
            fall: fall.max(1),
            judgement: Judgement::Starting,
            against: 0,
            reason: "not checked yet".to_owned(),
            since: now,
            confirmed: false,
            heard: now,
            hindrance: None,
            overdue: false,
        }
    }

    /// A target of a backend of which an earlier daemon, or another check, held `judgement`: one that was up stays so until `fall` failures in a
    /// row.
    pub fn adopted(judgement: Judgement, rise: u32, fall: u32, now: Instant) -> Self {
        let reason = match judgement {
            Judgement::Starting => return Self::new(rise, fall, now),
            Judgement::Up => "was up before this check began",
            Judgement::Down => "was down before this check began",
            Judgement::Unchecked => "had not been checked before",
        };
        Self { judgement, reason: reason.to_owned(), ..Self::new(rise, fall, now) }
    }

    /// The same judgement under other thresholds, for a check whose settings were changed. The count starts anew.
    pub fn retuned(&self, rise: u32, fall: u32) -> Self {
        Self { rise: rise.max(1), fall: fall.max(1), against: 0, ..self.clone() }
    }

    pub fn judgement(&self) -> Judgement {
        self.judgement
    }
    pub fn reason(&self) -> &str {
        &self.reason
    }
    /// Since when the judgement is what it is.
    pub fn since(&self) -> Instant {
        self.since
    }
    /// How many results in a row have contradicted the judgement so far.
    pub fn against(&self) -> u32 {
        self.against
    }
    /// Whether the target is up and a probe of this daemon has passed since: then passes change nothing.
    pub fn is_confirmed(&self) -> bool {
        self.confirmed
    }
    /// When a probe last said something of the target, or since when one is waited for.
    pub fn heard(&self) -> Instant {
        self.heard
    }
    /// Whether the next results may change the judgement: it is not judged yet, or the last result contradicts it.
    pub fn is_between(&self) -> bool {
        self.judgement == Judgement::Starting || self.against > 0
    }

    /// A probe could not be made. It says nothing of the target, but why there is no judgement is worth telling.
    pub fn handle_untried(&mut self, reason: &str) {
        if matches!(self.judgement, Judgement::Starting | Judgement::Unchecked) {
            self.reason = format!("cannot be checked: {reason}");
        }
        self.hindrance = Some(reason.to_owned());
    }

    /// No probe has said anything for too long. What is down stays so, and takes no connections; its reason says more.
    pub fn handle_overdue(&mut self, now: Instant) -> Option<Transition> {
        if std::mem::replace(&mut self.overdue, true) {
            return None;
        }
        let why = match &self.hindrance {
            Some(reason) => format!("cannot be checked: {reason}"),
            None => "has had no check that came to an end in time".to_owned(),
        };
        match self.judgement {
            Judgement::Starting | Judgement::Unchecked => self.reason = why,
            Judgement::Down => self.reason = format!("{}; since then it {why}", self.reason),
            Judgement::Up => {
                self.reason = why;
                self.judgement = Judgement::Unchecked;
                self.since = now;
                self.confirmed = false;
                return Some(Transition { from: Judgement::Up, to: Judgement::Unchecked, at: now });
            }
        }
        None
    }

    pub fn handle_result(&mut self, outcome: &Outcome, now: Instant) -> Option<Transition> {
        self.heard = now;
        self.hindrance = None;
        self.overdue = false;
        let to = if outcome.passed { Judgement::Up } else { Judgement::Down };
        if to == self.judgement {
            self.against = 0;
            if to == Judgement::Down || !self.confirmed {
                self.reason.clone_from(&outcome.reason);
            }
            self.confirmed = outcome.passed;
            return None;
        }
        let needed = match self.judgement {
            Judgement::Starting => 1,
            Judgement::Unchecked if outcome.passed => 1,
            Judgement::Up | Judgement::Unchecked => self.fall,
            Judgement::Down => self.rise,
        };
        self.against += 1;
        if self.against < needed {
            return None;
        }
        let from = std::mem::replace(&mut self.judgement, to);
        self.against = 0;
        self.reason.clone_from(&outcome.reason);
        self.since = now;
        self.confirmed = outcome.passed;
        Some(Transition { from, to, at: now })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `p` (pass), `f` (failure), `x` (could not be made) and `o` (overdue); one letter of the answer for each: `u` came
    /// up, `d` went down, `?` is unchecked, `.` nothing.
    fn run(mut machine: Machine, results: &str) -> String {
        let now = machine.since;
        let mut said = String::new();
        for result in results.chars() {
            let outcome = Outcome { passed: result == 'p', reason: result.to_string() };
            let transition = match result {
                'x' => {
                    machine.handle_untried("no fork");
                    None
                }
                'o' => machine.handle_overdue(now),
                _ => machine.handle_result(&outcome, now),
            };
            said.push(match transition.map(|transition| transition.to) {
                None => '.',
                Some(Judgement::Up) => 'u',
                Some(Judgement::Down) => 'd',
                Some(Judgement::Unchecked) => '?',
                Some(Judgement::Starting) => panic!("nobody starts again"),
            });
            assert!(transition.is_none_or(|transition| transition.to == machine.judgement()));
        }
        said
    }

    #[test]
    fn transitions_follow_the_table() {
        let now = Instant::now();
        let fresh = || Machine::new(2, 3, now);
        let adopted = || Machine::adopted(Judgement::Up, 2, 3, now);
        let unchecked = || Machine::adopted(Judgement::Unchecked, 2, 3, now);
        let table: &[(&str, Machine, &str, &str)] = &[
            ("the first pass brings it up", fresh(), "p", "u"),
            ("the first failure takes it down", fresh(), "f", "d"),
            ("fall failures in a row take it down", fresh(), "pfff", "u..d"),
            ("a pass between failures starts the count anew", fresh(), "pffpff", "u....."),
            ("rise passes in a row bring it back", fresh(), "fpp", "d.u"),
            ("a failure between passes starts the count anew", fresh(), "fpfpp", "d...u"),
            ("an adopted target stays up until fall failures", adopted(), "fff", "..d"),
            ("an adopted target that passes says nothing", adopted(), "ppff", "...."),
            (
                "one that was down comes up after rise passes",
                Machine::adopted(Judgement::Down, 2, 3, now),
                "pp",
                ".u",
            ),
            ("probes that cannot be made change nothing by themselves", fresh(), "pxxxxxx", "u......"),
            ("overdue, what was up is unchecked, and told once", fresh(), "pxoo", "u.?."),
            ("one pass makes it up again", fresh(), "pop", "u?u"),
            ("failures take it down as if it were up", fresh(), "pofff", "u?..d"),
            ("failures from before count on", fresh(), "pffof", "u..?d"),
            ("up again, it may be unchecked again", fresh(), "popopo", "u?u?u?"),
            ("what is down or starting is not unchecked", fresh(), "ofo", ".d."),
            ("an adopted one may be unchecked", adopted(), "xo", ".?"),
            ("unchecked before the start: a pass", unchecked(), "op", ".u"),
            ("unchecked before the start: failures", unchecked(), "fff", "..d"),
            ("thresholds of one flip at each result", Machine::new(1, 1, now), "pfpf", "udud"),
            ("thresholds of zero are thresholds of one", Machine::new(0, 0, now), "pfpf", "udud"),
        ];
        for (description, machine, results, expected) in table {
            assert_eq!(&run(machine.clone(), results), expected, "{description}");
        }
    }

    #[test]
    fn the_reason_is_that_of_the_judgement_not_of_the_last_probe() {
        let now = Instant::now();
        let mut machine = Machine::adopted(Judgement::Up, 2, 2, now);
        let mut tell = |passed, reason: &str| {
            machine.handle_result(&Outcome { passed, reason: reason.to_owned() }, now);
            machine.reason().to_owned()
        };
        assert_eq!(tell(false, "refused"), "was up before this check began");
        assert_eq!(tell(true, "in 1 ms"), "in 1 ms");
        assert_eq!(tell(true, "in 2 ms"), "in 1 ms");
        assert_eq!(tell(false, "refused"), "in 1 ms");
        assert_eq!(tell(false, "refused"), "refused");
        assert_eq!(tell(false, "no answer"), "no answer");
        assert_eq!(tell(true, "in 3 ms"), "no answer");
    }

    #[test]
    fn why_nobody_checks_is_in_the_reason() {
        let now = Instant::now();
        let mut machine = Machine::new(1, 1, now);
        machine.handle_untried("there is no file /x");
        assert_eq!(machine.reason(), "cannot be checked: there is no file /x");
        machine.handle_result(&Outcome::passed("yes"), now);
        machine.handle_overdue(now);
        assert_eq!(machine.reason(), "has had no check that came to an end in time");
        machine.handle_untried("no fork");
        assert_eq!(machine.reason(), "cannot be checked: no fork");
        machine.handle_result(&Outcome::failed("refused"), now);
        machine.handle_untried("there is no file /x");
        assert_eq!(machine.reason(), "refused");
        machine.handle_overdue(now);
        assert_eq!(machine.reason(), "refused; since then it cannot be checked: there is no file /x");
    }

    #[test]
    fn changed_thresholds_keep_the_judgement() {
        let now = Instant::now();
        let mut machine = Machine::new(2, 3, now);
        machine.handle_result(&Outcome::passed("yes"), now);
        assert_eq!(run(machine.retuned(1, 2), "ffp"), ".du");
    }

    proptest! {
        #[test]
        fn every_transition_has_its_results_in_a_row(
            rise in 1u32..5, fall in 1u32..5, adopted: bool, results in prop::collection::vec(any::<bool>(), 0..200),
        ) {
            let now = Instant::now();
            let mut machine =
                if adopted { Machine::adopted(Judgement::Up, rise, fall, now) } else { Machine::new(rise, fall, now) };
            let mut row = (false, 0u32);
            for passed in results {
                row = if row.0 == passed { (passed, row.1 + 1) } else { (passed, 1) };
                let before = machine.judgement();
                let transition = machine.handle_result(&Outcome { passed, reason: String::new() }, now);
                prop_assert_eq!(transition.is_some(), before != machine.judgement());
                let contradicts = (before == Judgement::Up) != passed || before == Judgement::Starting;
                let enough = match before {
                    Judgement::Starting => true,
                    Judgement::Up | Judgement::Unchecked => row.1 >= fall,
                    Judgement::Down => row.1 >= rise,
                };
                prop_assert_eq!(transition.is_some(), contradicts && enough);
            }
        }
    }
}
