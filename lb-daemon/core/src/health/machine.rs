//! The rise/fall machine of one target. [`super::Board`] owns one for each.

use std::time::Instant;

use super::{Judgement, Outcome};

/// Turns the results of one target's probes into a judgement.
///
/// The first result judges at once; after that it takes `rise` passes in a row to come up and `fall` failures in a
/// row to go down.
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
        }
    }

    /// A target of a backend that an earlier daemon held to be up: it stays up until `fall` failures in a row.
    pub fn adopted_up(rise: u32, fall: u32, now: Instant) -> Self {
        let reason = "was up before the daemon started".to_owned();
        Self { judgement: Judgement::Up, reason, ..Self::new(rise, fall, now) }
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
    /// Whether the next results may change the judgement: it is not judged yet, or the last result contradicts it.
    pub fn is_between(&self) -> bool {
        self.judgement == Judgement::Starting || self.against > 0
    }

    /// A probe could not be made. It says nothing of the target, but why there is no judgement yet is worth telling.
    pub fn handle_untried(&mut self, reason: &str) {
        if self.judgement == Judgement::Starting {
            self.reason = format!("cannot be checked: {reason}");
        }
    }

    pub fn handle_result(&mut self, outcome: &Outcome, now: Instant) -> Option<Transition> {
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
            Judgement::Up => self.fall,
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

    /// Feeds `p` (pass) and `f` (failure); one letter of the answer for each: `u` came up, `d` went down, `.` nothing.
    fn run(mut machine: Machine, results: &str) -> String {
        let now = machine.since;
        let mut said = String::new();
        for result in results.chars() {
            let outcome = Outcome { passed: result == 'p', reason: result.to_string() };
            said.push(match machine.handle_result(&outcome, now) {
                None => '.',
                Some(transition) => {
                    assert_eq!(transition.to, machine.judgement());
                    if transition.to == Judgement::Up { 'u' } else { 'd' }
                }
            });
        }
        said
    }

    #[test]
    fn transitions_follow_the_table() {
        let now = Instant::now();
        let fresh = || Machine::new(2, 3, now);
        let adopted = || Machine::adopted_up(2, 3, now);
        let table: &[(&str, Machine, &str, &str)] = &[
            ("the first pass brings it up", fresh(), "p", "u"),
            ("the first failure takes it down", fresh(), "f", "d"),
            ("fall failures in a row take it down", fresh(), "pfff", "u..d"),
            ("a pass between failures starts the count anew", fresh(), "pffpff", "u....."),
            ("rise passes in a row bring it back", fresh(), "fpp", "d.u"),
            ("a failure between passes starts the count anew", fresh(), "fpfpp", "d...u"),
            ("an adopted target stays up until fall failures", adopted(), "fff", "..d"),
            ("an adopted target that passes says nothing", adopted(), "ppff", "...."),
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
        let mut machine = Machine::adopted_up(2, 2, now);
        let mut tell = |passed, reason: &str| {
            machine.handle_result(&Outcome { passed, reason: reason.to_owned() }, now);
            machine.reason().to_owned()
        };
        assert_eq!(tell(false, "refused"), "was up before the daemon started");
        assert_eq!(tell(true, "in 1 ms"), "in 1 ms");
        assert_eq!(tell(true, "in 2 ms"), "in 1 ms");
        assert_eq!(tell(false, "refused"), "in 1 ms");
        assert_eq!(tell(false, "refused"), "refused");
        assert_eq!(tell(false, "no answer"), "no answer");
        assert_eq!(tell(true, "in 3 ms"), "no answer");
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
                if adopted { Machine::adopted_up(rise, fall, now) } else { Machine::new(rise, fall, now) };
            let mut row = (false, 0u32);
            for passed in results {
                row = if row.0 == passed { (passed, row.1 + 1) } else { (passed, 1) };
                let before = machine.judgement();
                let transition = machine.handle_result(&Outcome { passed, reason: String::new() }, now);
                prop_assert_eq!(transition.is_some(), before != machine.judgement());
                let contradicts = (before == Judgement::Up) != passed || before == Judgement::Starting;
                let enough = match before {
                    Judgement::Starting => true,
                    Judgement::Up => row.1 >= fall,
                    Judgement::Down => row.1 >= rise,
                };
                prop_assert_eq!(transition.is_some(), contradicts && enough);
            }
        }
    }
}
