//! What a backend is, by all that is known of it: what an operator has set goes before what the traffic says, and that before
//! what its checks say. And what a new judgement makes of the one before.

use std::time::Duration;

use crate::health::Judgement;
use crate::state::{AdminState, BackendStatus};

/// How much of its weight counts at once when a backend starts slowly, in percent.
pub const RAMP_FROM: u8 = 10;
/// A slow start goes in steps of so many percent.
const RAMP_STEP: u8 = 10;

/// All that is known of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known<'a> {
    pub admin: AdminState,
    /// Why the traffic has it out, if it does.
    pub ejected: Option<&'a str>,
    pub farm_enabled: bool,
    /// Whether its farm has checks.
    pub checked: bool,
    /// What those hold of it, and why.
    pub held: Option<(Judgement, &'a str)>,
}

impl Known<'_> {
    /// Its status, not yet compared with those of the other backends.
    pub fn status(&self) -> BackendStatus {
        match (self.admin, self.ejected, self.checked, self.held) {
            (AdminState::Drain, ..) => BackendStatus::Draining,
            (AdminState::Maintenance, ..) => BackendStatus::Maintenance,
            (AdminState::Up, Some(_), ..) => BackendStatus::Down,
            (AdminState::Up, None, false, _) => BackendStatus::Unchecked,
            (AdminState::Up, None, true, None) => BackendStatus::Starting,
            (AdminState::Up, None, true, Some((held, _))) => match held {
                Judgement::Starting => BackendStatus::Starting,
                Judgement::Up => BackendStatus::Up,
                Judgement::Down => BackendStatus::Down,
                Judgement::Unchecked => BackendStatus::Unchecked,
            },
        }
    }

    /// Why `status` is what it is (it may be standing by, which the others decide); and whether that has been so since its last
    /// judgement, or else since somebody set it.
    pub fn reason(&self, status: BackendStatus) -> (String, bool) {
        let checks = self.held.map_or("not checked yet", |(_, reason)| reason);
        match status {
            BackendStatus::Draining => (format!("drained by an operator; {checks}"), false),
            BackendStatus::Maintenance => (format!("put into maintenance by an operator; {checks}"), false),
            BackendStatus::Unchecked if !self.checked => ("the farm has no checks".to_owned(), false),
            BackendStatus::Starting if !self.farm_enabled => ("the farm is disabled".to_owned(), false),
            BackendStatus::Up
            | BackendStatus::Down
            | BackendStatus::Starting
            | BackendStatus::Standby
            | BackendStatus::Unchecked => (self.ejected.unwrap_or(checks).to_owned(), true),
        }
    }
}

/// What a judgement is, beside the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It has come up for the first time, or was not looked at for a while.
    Up,
    /// It has come back from being down.
    Back,
    Down,
    Unchecked,
    /// It is to be judged anew.
    Starting,
}

/// What `now` is beside `before`; nothing, if nothing is new.
pub fn turn(before: Option<Judgement>, now: Judgement) -> Option<Turn> {
    if before == Some(now) {
        return None;
    }
    match (before, now) {
        (None, Judgement::Starting) => None,
        (Some(_), Judgement::Starting) => Some(Turn::Starting),
        (Some(Judgement::Down), Judgement::Up) => Some(Turn::Back),
        (_, Judgement::Up) => Some(Turn::Up),
        (_, Judgement::Down) => Some(Turn::Down),
        (_, Judgement::Unchecked) => Some(Turn::Unchecked),
    }
}

/// How much of its weight counts of a backend that has been back for `since`, in percent, and counted for `percent` until now;
/// its farm wants it back at full weight `over` that time.
pub fn ramp(since: Duration, over: Duration, percent: u8) -> u8 {
    let done = since.as_millis() * 100;
    let reached = done.checked_div(over.as_millis()).unwrap_or(100).min(100) as u8;
    (reached / RAMP_STEP * RAMP_STEP).max(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Known<'_> =
        Known { admin: AdminState::Up, ejected: None, farm_enabled: true, checked: true, held: None };

    #[test]
    fn operators_go_before_the_traffic_and_the_traffic_before_checks() {
        use BackendStatus as S;
        let up = Some((Judgement::Up, "connected"));
        let (drain, maintenance) = (AdminState::Drain, AdminState::Maintenance);
        let ejected = Some("ejected for 30s");
        let table = [
            (NOTHING, S::Starting, "not checked yet", true),
            (Known { held: Some((Judgement::Starting, "a")), ..NOTHING }, S::Starting, "a", true),
            (Known { held: up, ..NOTHING }, S::Up, "connected", true),
            (Known { held: Some((Judgement::Down, "refused")), ..NOTHING }, S::Down, "refused", true),
            (Known { held: Some((Judgement::Unchecked, "gone")), ..NOTHING }, S::Unchecked, "gone", true),
            (Known { checked: false, ..NOTHING }, S::Unchecked, "the farm has no checks", false),
            (Known { farm_enabled: false, ..NOTHING }, S::Starting, "the farm is disabled", false),
            (Known { ejected, held: up, ..NOTHING }, S::Down, "ejected for 30s", true),
            (Known { ejected, checked: false, ..NOTHING }, S::Down, "ejected for 30s", true),
            (
                Known { admin: drain, held: up, ..NOTHING },
                S::Draining,
                "drained by an operator; connected",
                false,
            ),
            (
                Known { admin: maintenance, ejected, ..NOTHING },
                S::Maintenance,
                "put into maintenance by an operator; not checked yet",
                false,
            ),
        ];
        for (known, status, reason, judged) in table {
            assert_eq!(known.status(), status, "{known:?}");
            assert_eq!(known.reason(status), (reason.to_owned(), judged), "{known:?}");
        }
        let waits = Known { held: up, ..NOTHING };
        assert_eq!(waits.reason(BackendStatus::Standby), ("connected".to_owned(), true));
    }

    #[test]
    fn a_judgement_turns_when_it_is_another() {
        use Judgement::{Down, Starting, Unchecked, Up};
        let table = [
            (None, Starting, None),
            (None, Up, Some(Turn::Up)),
            (None, Down, Some(Turn::Down)),
            (None, Unchecked, Some(Turn::Unchecked)),
            (Some(Starting), Up, Some(Turn::Up)),
            (Some(Starting), Down, Some(Turn::Down)),
            (Some(Down), Up, Some(Turn::Back)),
            (Some(Unchecked), Up, Some(Turn::Up)),
            (Some(Up), Down, Some(Turn::Down)),
            (Some(Up), Unchecked, Some(Turn::Unchecked)),
            (Some(Up), Starting, Some(Turn::Starting)),
            (Some(Up), Up, None),
            (Some(Down), Down, None),
            (Some(Starting), Starting, None),
        ];
        for (before, now, expected) in table {
            assert_eq!(turn(before, now), expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn a_slow_start_goes_up_in_steps_and_never_down() {
        let over = Duration::from_secs(100);
        for (since, percent, expected) in [
            (0, RAMP_FROM, 10),
            (9, 10, 10),
            (19, 10, 10),
            (20, 10, 20),
            (99, 20, 90),
            (100, 90, 100),
            (500, 90, 100),
            (5, 60, 60),
        ] {
            assert_eq!(ramp(Duration::from_secs(since), over, percent), expected, "{since} s");
        }
        assert_eq!(ramp(Duration::ZERO, Duration::ZERO, RAMP_FROM), 100, "the farm wants none any more");
    }
}
