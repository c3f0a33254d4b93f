//! Passive health: what the traffic itself says of a backend.
//!
//! The data plane counts handshakes, and those that the backend has answered; a look several times a second at these counters
//! shows within a fraction of a second that a backend has fallen silent or resets its clients. That is a suspicion: the
//! checks decide, at once. Only a farm that asks for it takes a backend out on the suspicion alone, for a while, and only if
//! several clients bear it out ([`Witnesses`]).

mod witness;

use std::time::{Duration, Instant};

pub use witness::{Fate, Witnesses};

use crate::config::model::{Eject, Passive as Policy};

/// How long handshakes may stay without any answer.
const SILENCE: Duration = Duration::from_millis(300);
/// So many resets between two looks, and more than answers, are no accident.
const RESETS: u64 = 3;
/// For how long everybody may hear nothing of a server that accepts.
const MUTENESS: Duration = Duration::from_secs(1);
/// So many must have been accepted meanwhile.
const MUTE: u64 = 3;
/// A frame without a payload: Ethernet, IP, TCP with timestamps; a SYN or SYN-ACK has 8 bytes more. The counters do not tell
/// the families apart, and where in doubt nobody is suspected of having said nothing.
const BARE_V4: u64 = 14 + 20 + 32;
const BARE_V6: u64 = 14 + 40 + 32;
/// Between two suspicions.
const PAUSE: Duration = Duration::from_secs(1);
/// An ejection so long after the last one starts from the configured hold again.
const FORGIVEN_AFTER: u32 = 10;
/// The longest hold is so many times the first.
const GROWTH_MAX: u32 = 64;

/// The data plane's counters of one backend, since it was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pulse {
    /// TCP connections opened towards it.
    pub handshakes: u64,
    /// Handshakes that it answered with a SYN-ACK.
    pub answered: u64,
    /// Handshakes that it answered with a reset.
    pub reset: u64,
    /// What clients have sent it.
    pub heard: Volume,
    /// What it has sent clients.
    pub said: Volume,
}

/// Frames, and what they had in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Volume {
    pub frames: u64,
    pub bytes: u64,
}

impl Volume {
    fn since(self, last: Self) -> Self {
        Self { frames: self.frames - last.frames, bytes: self.bytes - last.bytes }
    }
    /// Whether the frames, so many handshakes among them, are longer than bare ones.
    fn exceeds(self, bare: u64, handshakes: u64) -> bool {
        self.bytes > self.frames * bare + handshakes * 8
    }
}

impl Pulse {
    fn is_behind(&self, last: &Self) -> bool {
        let counters = |of: &Self| {
            let (heard, said) = (of.heard, of.said);
            [of.handshakes, of.answered, of.reset, heard.frames, heard.bytes, said.frames, said.bytes]
        };
        counters(self).iter().zip(counters(last)).any(|(now, last)| *now < last)
    }
}

/// Why a backend is suspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// So many handshakes have had no answer.
    Silent(u64),
    /// It has reset so many handshakes.
    Resets(u64),
    /// It has accepted so many connections, was sent something, and has said nothing.
    Mute(u64),
}

impl std::fmt::Display for Suspicion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silent(n) => write!(f, "{n} connections without an answer"),
            Self::Resets(n) => write!(f, "{n} connections reset while they opened"),
            Self::Mute(n) => write!(f, "{n} connections accepted, and nothing said on any"),
        }
    }
}

/// The watch over one backend's counters.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    last: Option<Pulse>,
    /// Since when handshakes wait, and how many were made before them.
    waiting: Option<(Instant, u64)>,
    /// Since when it has said nothing, and the counters then; `None` until it has said anything.
    mute: Option<(Instant, Pulse)>,
    suspected: Option<Instant>,
    ejected: Option<Ejection>,
}

#[derive(Debug, Clone)]
struct Ejection {
    until: Instant,
    growth: u32,
}

impl Watch {
    /// Looks at the counters. The answer is a suspicion, if there is one that was not told within the last second.
    pub fn handle_pulse(&mut self, pulse: Pulse, now: Instant) -> Option<Suspicion> {
        let last = self.last.replace(pulse)?;
        if pulse.is_behind(&last) {
            // The counters were reset: the number has a new owner.
            *self = Self { last: Some(pulse), ..Self::default() };
            return None;
        }
        let (answered, reset) = (pulse.answered - last.answered, pulse.reset - last.reset);
        if answered > 0 || reset > 0 {
            self.waiting = None;
        } else if pulse.handshakes > last.handshakes && self.waiting.is_none() {
            self.waiting = Some((now, last.handshakes));
        }
        if pulse.said.since(last.said).exceeds(BARE_V6, answered) {
            self.mute = Some((now, pulse));
        }
        let suspicion = if reset >= RESETS && reset > answered {
            Some(Suspicion::Resets(reset))
        } else {
            self.silence(pulse, now).or_else(|| self.muteness(pulse, now))
        };
        let fresh = self.suspected.is_none_or(|at| now.saturating_duration_since(at) >= PAUSE);
        let suspicion = suspicion.filter(|_| fresh)?;
        self.suspected = Some(now);
        Some(suspicion)
    }

    /// Whether something may follow from time alone, or of counters that were never read: else there is no need to look at them
    /// while they stand still.
    pub fn awaits(&self) -> bool {
        let Some(last) = self.last else { return true };
        self.waiting.is_some() || self.mute.is_some_and(|(_, before)| last.answered - before.answered >= MUTE)
    }

    fn silence(&self, pulse: Pulse, now: Instant) -> Option<Suspicion> {
        let (since, before) = self.waiting?;
        let long = now.saturating_duration_since(since) >= SILENCE;
        long.then(|| Suspicion::Silent(pulse.handshakes - before))
    }

    /// Its kernel accepts, clients ask, and for a while it has said nothing to anybody. Only one that used to say something that
    /// shows is suspected: of another it is not known how it speaks.
    fn muteness(&self, pulse: Pulse, now: Instant) -> Option<Suspicion> {
        let (since, before) = self.mute?;
        let accepted = pulse.answered - before.answered;
        let long = now.saturating_duration_since(since) >= MUTENESS;
        let asked = pulse.heard.since(before.heard).exceeds(BARE_V4, accepted);
        (long && asked && accepted >= MUTE).then_some(Suspicion::Mute(accepted))
    }

    /// Takes the backend out: for the configured hold, twice as long each time that follows soon.
    pub fn eject(&mut self, eject: &Eject, now: Instant) {
        let growth = match &self.ejected {
            Some(last) if now < last.until + eject.hold * FORGIVEN_AFTER => (last.growth * 2).min(GROWTH_MAX),
            Some(_) | None => 1,
        };
        self.ejected = Some(Ejection { until: now + eject.hold * growth, growth });
    }

    /// Until when the backend is out.
    pub fn ejected(&self, now: Instant) -> Option<Instant> {
        self.ejected.as_ref().map(|ejection| ejection.until).filter(|until| now < *until)
    }
}

/// Whether one more backend of a farm may be ejected, when `out` of `all` are ejected already.
pub fn may_eject(eject: &Eject, out: usize, all: usize) -> bool {
    (out + 1) * 100 <= all * usize::from(eject.at_most)
}

/// What follows from a suspicion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follows {
    /// The backend is checked at once.
    pub check: bool,
    /// Connections are asked for witnesses: it may be ejected if they bear the suspicion out.
    pub hear: bool,
}

/// What follows for a backend of a farm with that policy. `is_out`: it is ejected already; `out` of `all` backends are.
pub fn follows(policy: &Policy, is_out: bool, out: usize, all: usize) -> Follows {
    let hear = !is_out && policy.eject.as_ref().is_some_and(|eject| may_eject(eject, out, all));
    Follows { check: policy.suspect, hear }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse(handshakes: u64, answered: u64, reset: u64) -> Pulse {
        Pulse { handshakes, answered, reset, ..Pulse::default() }
    }

    /// Of a server that has been asked so often, each time with 100 bytes on 5 frames, and has answered so many of them with 500.
    fn talk(asked: u64, answered: u64) -> Pulse {
        let frames = asked * 5;
        Pulse {
            heard: Volume { frames, bytes: frames * BARE_V4 + asked * 100 },
            // Its kernel says something on every connection.
            said: Volume { frames, bytes: frames * BARE_V4 + answered * 500 },
            ..pulse(asked, asked, 0)
        }
    }

    /// What each pulse of a row, 100 ms apart, gives rise to.
    fn watch(pulses: &[Pulse]) -> Vec<Option<Suspicion>> {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let at = |i: usize| start + Duration::from_millis(100) * i as u32;
        pulses.iter().enumerate().map(|(i, &pulse)| watch.handle_pulse(pulse, at(i))).collect()
    }

    #[test]
    fn silence_after_handshakes_is_suspected_within_half_a_second() {
        let told = watch(&[pulse(5, 5, 0), pulse(9, 5, 0), pulse(9, 5, 0), pulse(12, 5, 0), pulse(12, 5, 0)]);
        assert_eq!(told, [None, None, None, None, Some(Suspicion::Silent(7))]);
    }

    #[test]
    fn one_lost_handshake_is_suspected_too_for_there_is_nothing_else_to_go_by() {
        let told = watch(&[pulse(5, 5, 0), pulse(6, 5, 0), pulse(6, 5, 0), pulse(6, 5, 0), pulse(6, 5, 0)]);
        assert_eq!(told.last(), Some(&Some(Suspicion::Silent(1))));
    }

    #[test]
    fn a_backend_that_answers_some_is_not_silent() {
        let pulses: Vec<Pulse> = (0..50).map(|i| pulse(10 * i, 4 * i, 0)).collect();
        assert!(watch(&pulses).iter().all(Option::is_none));
    }

    #[test]
    fn an_idle_backend_is_not_silent() {
        assert!(watch(&[pulse(5, 5, 0); 50]).iter().all(Option::is_none));
        assert!(watch(&[pulse(5, 2, 0); 50]).iter().all(Option::is_none), "whoever left long ago");
    }

    #[test]
    fn counters_that_start_again_are_another_backends() {
        // The new owner has been sent more than the old one, and has answered less.
        assert_eq!(watch(&[pulse(5, 5, 0), pulse(9, 1, 0)]), [None, None]);
        assert_eq!(watch(&[pulse(5, 1, 4), pulse(9, 5, 0)]), [None, None]);
        assert_eq!(watch(&[pulse(5, 5, 0), pulse(1, 1, 0)]), [None, None]);
    }

    #[test]
    fn resets_are_suspected_when_they_outnumber_the_answers() {
        assert_eq!(watch(&[pulse(5, 5, 0), pulse(9, 5, 4)]), [None, Some(Suspicion::Resets(4))]);
        assert_eq!(watch(&[pulse(5, 5, 0), pulse(105, 100, 5)]), [None, None]);
    }

    #[test]
    fn a_server_that_accepts_and_says_nothing_is_suspected_within_two_seconds() {
        let healthy = (0..10).map(|i| talk(i, i));
        let hung = (0..20).map(|i| talk(9 + i, 9));
        let told = watch(&healthy.chain(hung).collect::<Vec<_>>());
        let first = told.iter().position(Option::is_some);
        assert!(first.is_some_and(|at| (10..=20).contains(&(at - 9))), "{first:?}: {told:?}");
        assert!(matches!(told[first.unwrap()], Some(Suspicion::Mute(9..=11))), "{told:?}");
    }

    #[test]
    fn one_that_answers_now_and_then_or_is_not_asked_or_never_said_anything_is_not_mute() {
        let slow: Vec<Pulse> = (0..50).map(|i| talk(i, i / 5)).collect();
        assert!(watch(&slow).iter().all(Option::is_none), "slow");
        let idle: Vec<Pulse> = (0..50).map(|i| talk(10.min(i), 10.min(i))).collect();
        assert!(watch(&idle).iter().all(Option::is_none), "idle");
        let never: Vec<Pulse> = (0..50).map(|i| talk(i, 0)).collect();
        assert!(watch(&never).iter().all(Option::is_none), "it may have nothing to say");
        // Clients that connect and ask nothing.
        let unasked = (0..50).map(|i| match i {
            0..10 => talk(i, i),
            _ => {
                let it = talk(i, 9);
                Pulse { heard: Volume { bytes: it.heard.frames * BARE_V4, ..it.heard }, ..it }
            }
        });
        assert!(watch(&unasked.collect::<Vec<_>>()).iter().all(Option::is_none), "not asked");
    }

    proptest::proptest! {
        /// A row of looks, each after so many handshakes, answers and resets more; mostly nothing has happened.
        #[test]
        fn whom_nothing_is_awaited_of_need_not_be_looked_at_while_nothing_happens(
            steps in proptest::collection::vec((0u64..4, 0u64..4, 0u64..9, 0u64..40), 1..200)
        ) {
            let (mut all, mut some, now) = (Watch::default(), Watch::default(), Instant::now());
            let mut at = Pulse::default();
            for (i, (asked, answered, reset, idle)) in steps.into_iter().enumerate() {
                let before = at;
                if idle < 10 {
                    let counted = talk(at.handshakes + asked, at.answered + answered);
                    at = Pulse { answered: at.answered + answered, reset: at.reset + reset / 5, ..counted };
                }
                let now = now + Duration::from_millis(200) * i as u32;
                let told = all.handle_pulse(at, now);
                let looked = (at != before || some.awaits()).then(|| some.handle_pulse(at, now)).flatten();
                proptest::prop_assert_eq!(told, looked);
            }
        }
    }

    #[test]
    fn a_suspicion_is_told_once_a_second() {
        let pulses: Vec<Pulse> = (0..40).map(|i| pulse(5 * i, 0, 5 * i)).collect();
        assert_eq!(watch(&pulses).iter().flatten().count(), 4);
    }

    #[test]
    fn holds_grow_while_ejections_follow_each_other() {
        let eject = Eject { hold: Duration::from_secs(10), at_most: 50 };
        let (mut watch, mut now) = (Watch::default(), Instant::now());
        for expected in [10, 20, 40] {
            watch.eject(&eject, now);
            let until = watch.ejected(now).unwrap();
            assert_eq!(until - now, Duration::from_secs(expected));
            now = until;
            assert_eq!(watch.ejected(now), None);
        }
        now += Duration::from_secs(101);
        watch.eject(&eject, now);
        assert_eq!(watch.ejected(now), Some(now + Duration::from_secs(10)), "forgiven");
    }

    #[test]
    fn never_more_than_the_share_is_ejected() {
        let eject = Eject { hold: Duration::from_secs(10), at_most: 50 };
        assert!(may_eject(&eject, 0, 2));
        assert!(!may_eject(&eject, 1, 2));
        assert!(!may_eject(&eject, 0, 1));
        assert!(may_eject(&eject, 1, 4));
    }

    #[test]
    fn a_suspicion_has_the_backend_checked_and_heard_of_only_if_its_farm_wants_that_and_can_spare_it() {
        let eject = || Some(Eject { hold: Duration::from_secs(10), at_most: 50 });
        let policy = |suspect, eject| Policy { suspect, eject };
        let table = [
            (policy(true, None), false, 0, 4, (true, false)),
            (policy(false, None), false, 0, 4, (false, false)),
            (policy(false, eject()), false, 0, 4, (false, true)),
            (policy(true, eject()), false, 1, 4, (true, true)),
            (policy(true, eject()), false, 2, 4, (true, false)),
            (policy(true, eject()), true, 1, 4, (true, false)),
            (policy(true, eject()), false, 0, 1, (true, false)),
        ];
        for (policy, is_out, out, all, (check, hear)) in table {
            assert_eq!(
                follows(&policy, is_out, out, all),
                Follows { check, hear },
                "{policy:?} {is_out} {out}"
            );
        }
    }
}
