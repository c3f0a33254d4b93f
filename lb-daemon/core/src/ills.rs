//! The daemon's own ills: what keeps it from judging, from telling, or from being what its configuration says. A look at all
//! signs, once a second, keeps the list; each turn is told once. The time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use crate::state::Histogram;

/// What counts of something are told for after the last one came.
const CALM: Duration = Duration::from_secs(30);
/// A loop that takes longer to answer is ill.
pub const LOOP_SLOW: Duration = Duration::from_secs(1);
/// A check that starts later than this after its time is late.
pub const CHECK_LATE: Duration = Duration::from_secs(2);

/// What is ill. In the order of how bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Organ {
    /// The loop answers late: what it decides waits.
    Loop,
    /// Checks start late: who is down is seen late.
    Checks,
    ConnectionTable,
    ConfigFile,
    /// Lines of the log are lost.
    Log,
    /// Events are lost to readers that are too slow.
    Events,
    /// Maps of another layout are pinned beside those in use.
    FormerMaps,
}

impl Organ {
    pub const ALL: [Self; 7] = [
        Self::Loop,
        Self::Checks,
        Self::ConnectionTable,
        Self::ConfigFile,
        Self::Log,
        Self::Events,
        Self::FormerMaps,
    ];

    /// Its name in metrics and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loop => "loop",
            Self::Checks => "checks",
            Self::ConnectionTable => "connection-table",
            Self::ConfigFile => "config-file",
            Self::Log => "log",
            Self::Events => "events",
            Self::FormerMaps => "former-maps",
        }
    }

    /// Whether somebody else tells its turns as events.
    fn is_told_elsewhere(self) -> bool {
        matches!(self, Self::ConnectionTable | Self::ConfigFile)
    }
}

/// Something that is wrong with the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ill {
    pub organ: Organ,
    pub since: SystemTime,
    /// What is wrong and what to do, for people.
    pub message: String,
}

/// How the daemon itself does.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// The worst first.
    pub ills: Vec<Ill>,
    /// How long the loop took to answer, a question a second.
    pub loop_latency: Histogram,
    pub log_written: u64,
    pub log_lost: u64,
    pub events_lost: u64,
}

/// What one look has seen. Counts are since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signs {
    pub loop_answered_in: Duration,
    /// Runs of checks that started later than [`CHECK_LATE`].
    pub late_checks: u64,
    pub log_lost: u64,
    /// Lines wait and nobody takes them.
    pub log_stuck: bool,
    pub log_trouble: Option<String>,
    pub events_lost: u64,
    /// What there is to say of each table that is nearly full.
    pub crowded_tables: Vec<String>,
    pub config_file: Option<String>,
    pub former_maps: Vec<String>,
}

/// An ill that has come, changed for the worse in no way that is told, or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub organ: Organ,
    pub came: bool,
    pub message: String,
}

/// The list, from look to look.
#[derive(Debug, Default)]
pub struct Watch {
    ills: BTreeMap<Organ, Ill>,
    /// The counts of the look before, and when each last grew.
    counts: BTreeMap<Organ, (u64, Option<Instant>)>,
}

impl Watch {
    /// Takes a look's signs; what has turned and is told by nobody else.
    pub fn look(&mut self, signs: &Signs, now: Instant, wall: SystemTime) -> Vec<Turn> {
        let found = self.found(signs, now);
        let mut turns = Vec::new();
        for organ in Organ::ALL {
            let turn = match (found.get(&organ), self.ills.get_mut(&organ)) {
                (Some(message), Some(known)) => {
                    known.message.clone_from(message);
                    continue;
                }
                (Some(message), None) => {
                    self.ills.insert(organ, Ill { organ, since: wall, message: message.clone() });
                    Turn { organ, came: true, message: message.clone() }
                }
                (None, Some(_)) => {
                    let Some(known) = self.ills.remove(&organ) else { continue };
                    Turn { organ, came: false, message: format!("over: {}", known.message) }
                }
                (None, None) => continue,
            };
            if !organ.is_told_elsewhere() {
                turns.push(turn);
            }
        }
        turns
    }

    /// The worst first.
    pub fn ills(&self) -> impl Iterator<Item = &Ill> {
        self.ills.values()
    }

    fn found(&mut self, signs: &Signs, now: Instant) -> BTreeMap<Organ, String> {
        let mut found = BTreeMap::new();
        let Signs { loop_answered_in: took, late_checks, log_lost, log_trouble, events_lost, .. } = signs;
        if *took >= LOOP_SLOW {
            let milliseconds = took.as_millis();
            let message =
                format!("the daemon's loop took {milliseconds} ms to answer: what it decides waits");
            found.insert(Organ::Loop, message);
        }
        if self.grew(Organ::Checks, *late_checks, now) {
            let (late, seconds) = (late_checks, CHECK_LATE.as_secs());
            let message = format!(
                "checks start late: {late} have begun more than {seconds} s after their time; they are too many for this \
                 machine, or too many of them hang"
            );
            found.insert(Organ::Checks, message);
        }
        if self.grew(Organ::Log, *log_lost, now) || signs.log_stuck {
            let trouble = log_trouble.as_deref().filter(|_| !signs.log_stuck);
            let why = trouble.unwrap_or("nobody takes the lines that are written");
            let lost = if *log_lost > 0 {
                format!("{log_lost} lines of it are lost")
            } else {
                "it waits".to_owned()
            };
            let message = format!(
                "the log cannot be written ({why}): {lost}; see where the daemon's standard error goes"
            );
            found.insert(Organ::Log, message);
        }
        if self.grew(Organ::Events, *events_lost, now) {
            let message =
                format!("{events_lost} events were lost to readers of the stream that are too slow");
            found.insert(Organ::Events, message);
        }
        if !signs.crowded_tables.is_empty() {
            found.insert(Organ::ConnectionTable, signs.crowded_tables.join("; "));
        }
        if let Some(advice) = &signs.config_file {
            found.insert(Organ::ConfigFile, format!("configuration file: {advice}"));
        }
        if !signs.former_maps.is_empty() {
            let names = signs.former_maps.join(" ");
            let message =
                format!("maps of another version of Drover are still pinned and take memory: rm -r {names}");
            found.insert(Organ::FormerMaps, message);
        }
        found
    }

    /// Whether a count has grown lately.
    fn grew(&mut self, organ: Organ, count: u64, now: Instant) -> bool {
        let (before, grew_at) = self.counts.entry(organ).or_insert((0, None));
        if count > *before {
            *grew_at = Some(now);
        }
        *before = count;
        grew_at.is_some_and(|at| now.saturating_duration_since(at) < CALM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn organs(watch: &Watch) -> Vec<Organ> {
        watch.ills().map(|ill| ill.organ).collect()
    }

    #[test]
    fn an_ill_is_told_when_it_comes_and_when_it_goes_and_not_between() {
        let (begin, wall) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let at = |seconds| (begin + Duration::from_secs(seconds), wall + Duration::from_secs(seconds));
        let mut watch = Watch::default();
        let mut look = |seconds, signs: &Signs| {
            let (now, wall) = at(seconds);
            let turns = watch.look(signs, now, wall);
            (turns.iter().map(|turn| (turn.organ, turn.came)).collect::<Vec<_>>(), organs(&watch))
        };
        let lost =
            |log_lost| Signs { log_lost, log_trouble: Some("disk full".to_owned()), ..Signs::default() };
        assert_eq!(look(0, &Signs::default()), (vec![], vec![]));
        assert_eq!(look(1, &lost(3)), (vec![(Organ::Log, true)], vec![Organ::Log]));
        assert_eq!(look(2, &lost(7)), (vec![], vec![Organ::Log]));
        assert_eq!(look(31, &lost(7)), (vec![], vec![Organ::Log]), "not calm for long enough");
        assert_eq!(look(32, &lost(7)), (vec![(Organ::Log, false)], vec![]));
        assert_eq!(look(33, &lost(8)), (vec![(Organ::Log, true)], vec![Organ::Log]));
        let (_, wall) = at(33);
        assert_eq!(watch.ills().next().unwrap().since, wall);
    }

    #[test]
    fn every_sign_is_an_ill_and_the_worst_is_first() {
        let signs = Signs {
            loop_answered_in: LOOP_SLOW,
            late_checks: 1,
            log_stuck: true,
            events_lost: 1,
            crowded_tables: vec!["it is 81 % full".to_owned()],
            config_file: Some("it is gone".to_owned()),
            former_maps: vec!["/sys/fs/bpf/drover/maps-v1".to_owned()],
            ..Signs::default()
        };
        let mut watch = Watch::default();
        let turns = watch.look(&signs, Instant::now(), SystemTime::UNIX_EPOCH);
        assert_eq!(organs(&watch), Organ::ALL);
        let told: Vec<Organ> = turns.iter().map(|turn| turn.organ).collect();
        assert_eq!(told, [Organ::Loop, Organ::Checks, Organ::Log, Organ::Events, Organ::FormerMaps]);
        let gone = watch.look(
            &Signs { late_checks: 1, events_lost: 1, ..Signs::default() },
            Instant::now(),
            SystemTime::UNIX_EPOCH,
        );
        assert_eq!(organs(&watch), [Organ::Checks, Organ::Events]);
        assert!(gone.iter().all(|turn| !turn.came && turn.message.starts_with("over: ")), "{gone:?}");
    }
}
