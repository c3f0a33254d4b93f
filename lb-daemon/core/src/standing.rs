//! What a backend is, by all that is known of it: what an operator has set goes before what the traffic says, that before
//! whether there is a way to it, and that before what its checks say. And what a new judgement makes of the one before.

use std::time::Duration;

use crate::health::Judgement;
use crate::state::{AdminState, BackendStatus};

/// How much of its weight counts at once when a backend starts slowly, in percent.
pub const RAMP_FROM: u8 = 10;
/// A slow start goes in steps of so many percent.
const RAMP_STEP: u8 = 10;

/// Whether packets for a backend have somewhere to go, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach<'a> {
    Whole,
    /// Those for one of its addresses do, those for another are dropped.
    Partly(&'a str),
    /// Its next hop has been asked for and nobody has answered yet.
    Sought(&'a str),
    None(&'a str),
}

/// What the reason of a status is about: since when it holds is known there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// The last judgement.
    Judgement,
    /// The way to it.
    Reach,
    /// What somebody has set.
    Setting,
}

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
    pub reach: Reach<'a>,
}

impl Known<'_> {
    /// Its status, not yet compared with those of the other backends.
    pub fn status(&self) -> BackendStatus {
        match (self.admin, self.ejected) {
            (AdminState::Drain, _) => BackendStatus::Draining,
            (AdminState::Maintenance, _) => BackendStatus::Maintenance,
            (AdminState::Up, Some(_)) => BackendStatus::Down,
            (AdminState::Up, None) => match (self.judged(), self.unreached()) {
                (judged, None) => judged,
                // Where some addresses are served and some are not, no check has judged the others.
                (_, Some(Reach::Whole | Reach::Partly(_))) => BackendStatus::Unchecked,
                (_, Some(Reach::Sought(_))) => BackendStatus::Starting,
                (_, Some(Reach::None(_))) => BackendStatus::Down,
            },
        }
    }

    /// Whether it would serve if there were a way to it. Where there is one, it does.
    pub fn lacks_only_a_way(&self) -> bool {
        self.admin == AdminState::Up
            && self.ejected.is_none()
            && matches!(self.unreached(), Some(Reach::None(_)))
    }

    /// What its checks say.
    fn judged(&self) -> BackendStatus {
        match (self.checked, self.held) {
            (false, _) => BackendStatus::Unchecked,
            (true, None | Some((Judgement::Starting, _))) => BackendStatus::Starting,
            (true, Some((Judgement::Up, _))) => BackendStatus::Up,
            (true, Some((Judgement::Down, _))) => BackendStatus::Down,
            (true, Some((Judgement::Unchecked, _))) => BackendStatus::Unchecked,
        }
    }

    /// What is missing of the way to one that would serve.
    fn unreached(&self) -> Option<Reach<'_>> {
        let lacks = self.farm_enabled && self.judged().serves() && self.reach != Reach::Whole;
        lacks.then_some(self.reach)
    }

    /// Why `status` is what it is (it may be standing by, which the others decide).
    pub fn reason(&self, status: BackendStatus) -> (String, Ground) {
        let checks = self.held.map_or("not checked yet", |(_, reason)| reason);
        match (status, self.ejected, self.unreached()) {
            (BackendStatus::Draining, ..) => (format!("drained by an operator; {checks}"), Ground::Setting),
            (BackendStatus::Maintenance, ..) => {
                (format!("put into maintenance by an operator; {checks}"), Ground::Setting)
            }
            (_, Some(ejected), _) => (ejected.to_owned(), Ground::Judgement),
            (_, None, Some(Reach::Sought(why) | Reach::None(why))) => {
                (format!("it cannot be reached: {why}"), Ground::Reach)
            }
            (_, None, Some(Reach::Partly(why))) => {
                (format!("one of its addresses cannot be reached: {why}"), Ground::Reach)
            }
            (BackendStatus::Unchecked, None, _) if !self.checked => {
                ("the farm has no checks".to_owned(), Ground::Setting)
            }
            (BackendStatus::Starting, None, _) if !self.farm_enabled => {
                ("the farm is disabled".to_owned(), Ground::Setting)
            }
            (
                BackendStatus::Up
                | BackendStatus::Down
                | BackendStatus::Starting
                | BackendStatus::Standby
                | BackendStatus::Unchecked,
                None,
                Some(Reach::Whole) | None,
            ) => (checks.to_owned(), Ground::Judgement),
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

/// What the checks of another configuration are to take a backend for, at an address of its: who was up stays up until they have
/// spoken against it. `held`: by those before, if it was there; `had`: whether it had that address.
pub fn after_change(held: Option<Judgement>, had: bool) -> Judgement {
    held.filter(|held| had && held.serves()).unwrap_or(Judgement::Starting)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Known<'_> = Known {
        admin: AdminState::Up,
        ejected: None,
        farm_enabled: true,
        checked: true,
        held: None,
        reach: Reach::Whole,
    };

    #[test]
    fn operators_go_before_the_traffic_and_the_traffic_before_checks() {
        use BackendStatus as S;
        let up = Some((Judgement::Up, "connected"));
        let (drain, maintenance) = (AdminState::Drain, AdminState::Maintenance);
        let ejected = Some("ejected for 30s");
        let table = [
            (NOTHING, S::Starting, "not checked yet", Ground::Judgement),
            (
                Known { held: Some((Judgement::Starting, "a")), ..NOTHING },
                S::Starting,
                "a",
                Ground::Judgement,
            ),
            (Known { held: up, ..NOTHING }, S::Up, "connected", Ground::Judgement),
            (
                Known { held: Some((Judgement::Down, "refused")), ..NOTHING },
                S::Down,
                "refused",
                Ground::Judgement,
            ),
            (
                Known { held: Some((Judgement::Unchecked, "gone")), ..NOTHING },
                S::Unchecked,
                "gone",
                Ground::Judgement,
            ),
            (Known { checked: false, ..NOTHING }, S::Unchecked, "the farm has no checks", Ground::Setting),
            (Known { farm_enabled: false, ..NOTHING }, S::Starting, "the farm is disabled", Ground::Setting),
            (Known { ejected, held: up, ..NOTHING }, S::Down, "ejected for 30s", Ground::Judgement),
            (Known { ejected, checked: false, ..NOTHING }, S::Down, "ejected for 30s", Ground::Judgement),
            (
                Known { admin: drain, held: up, ..NOTHING },
                S::Draining,
                "drained by an operator; connected",
                Ground::Setting,
            ),
            (
                Known { admin: maintenance, ejected, ..NOTHING },
                S::Maintenance,
                "put into maintenance by an operator; not checked yet",
                Ground::Setting,
            ),
        ];
        for (known, status, reason, ground) in table {
            assert_eq!(known.status(), status, "{known:?}");
            assert_eq!(known.reason(status), (reason.to_owned(), ground), "{known:?}");
        }
        let waits = Known { held: up, ..NOTHING };
        assert_eq!(waits.reason(BackendStatus::Standby), ("connected".to_owned(), Ground::Judgement));
    }

    #[test]
    fn who_cannot_be_reached_is_never_up() {
        use BackendStatus as S;
        let at = |held, reach| Known { held: Some((held, "checked")), reach, ..NOTHING };
        let (none, sought, partly) = (Reach::None("gone"), Reach::Sought("asked"), Reach::Partly("gone"));
        let (no_way, some_way) =
            ("it cannot be reached: gone", "one of its addresses cannot be reached: gone");
        let unchecked = Known { checked: false, ..NOTHING };
        let table = [
            (at(Judgement::Up, Reach::Whole), S::Up, "checked", Ground::Judgement),
            (at(Judgement::Up, none), S::Down, no_way, Ground::Reach),
            (at(Judgement::Up, sought), S::Starting, "it cannot be reached: asked", Ground::Reach),
            (at(Judgement::Up, partly), S::Unchecked, some_way, Ground::Reach),
            (at(Judgement::Unchecked, none), S::Down, no_way, Ground::Reach),
            (at(Judgement::Down, none), S::Down, "checked", Ground::Judgement),
            (at(Judgement::Starting, none), S::Starting, "checked", Ground::Judgement),
            (Known { reach: none, ..unchecked }, S::Down, no_way, Ground::Reach),
            (Known { reach: partly, ..unchecked }, S::Unchecked, some_way, Ground::Reach),
            (unchecked, S::Unchecked, "the farm has no checks", Ground::Setting),
            (
                Known { admin: AdminState::Drain, ..at(Judgement::Up, none) },
                S::Draining,
                "drained by an operator; checked",
                Ground::Setting,
            ),
            (Known { ejected: Some("out"), ..at(Judgement::Up, none) }, S::Down, "out", Ground::Judgement),
            (
                Known { farm_enabled: false, held: None, reach: none, ..NOTHING },
                S::Starting,
                "the farm is disabled",
                Ground::Setting,
            ),
        ];
        for (known, status, reason, ground) in table {
            assert_eq!(known.status(), status, "{known:?}");
            assert_eq!(known.reason(status), (reason.to_owned(), ground), "{known:?}");
            assert_eq!(known.lacks_only_a_way(), reason == no_way, "{known:?}");
        }
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
    fn who_was_up_stays_up_over_a_change_at_the_addresses_that_it_had() {
        use Judgement::{Down, Starting, Unchecked, Up};
        let table = [
            (Some(Up), true, Up),
            (Some(Unchecked), true, Unchecked),
            (Some(Down), true, Starting),
            (Some(Starting), true, Starting),
            (None, true, Starting),
            (Some(Up), false, Starting),
            (Some(Unchecked), false, Starting),
        ];
        for (held, had, expected) in table {
            assert_eq!(after_change(held, had), expected, "{held:?} {had}");
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
