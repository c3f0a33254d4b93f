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
/// A round of the sweep takes a second where the machine has time for it.
pub const SWEEP_LATE: Duration = Duration::from_secs(10);
/// Connections are cut in hundredths of a second.
pub const CUT_LATE: Duration = Duration::from_secs(5);

/// What is ill. In the order of how bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Organ {
    /// The loop answers late: what it decides waits.
    Loop,
    /// The maps do not follow: packets go by an older state than the one that is told.
    DataPlane,
    /// No round of the sweep ends: connections do not age.
    Sweep,
    /// Connections that are to be cut are not.
    Cut,
    /// Checks start late: who is down is seen late.
    Checks,
    ConnectionTable,
    /// What operators have set was not to be read at a start.
    Overrides,
    ConfigFile,
    /// Hooks are not told of changes.
    Hooks,
    /// Lines of the log are lost.
    Log,
    /// Events are lost to readers that are too slow.
    Events,
    /// The control socket is not for whom it is meant.
    Socket,
    /// Maps of another layout are pinned beside those in use.
    FormerMaps,
}

impl Organ {
    pub const ALL: [Self; 13] = [
        Self::Loop,
        Self::DataPlane,
        Self::Sweep,
        Self::Cut,
        Self::Checks,
        Self::ConnectionTable,
        Self::Overrides,
        Self::ConfigFile,
        Self::Hooks,
        Self::Log,
        Self::Events,
        Self::Socket,
        Self::FormerMaps,
    ];

    /// Its name in metrics and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loop => "loop",
            Self::DataPlane => "data-plane",
            Self::Sweep => "sweep",
            Self::Cut => "cut",
            Self::Checks => "checks",
            Self::ConnectionTable => "connection-table",
            Self::Overrides => "overrides",
            Self::ConfigFile => "config-file",
            Self::Hooks => "hooks",
            Self::Log => "log",
            Self::Events => "events",
            Self::Socket => "socket",
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
    /// Changes that hooks were not told of.
    pub hooks_lost: u64,
    /// Since the last round of the sweep ended.
    pub sweep_age: Duration,
}

/// What one look has seen. Counts are since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signs {
    pub loop_answered_in: Duration,
    /// Why the maps are not as they should be.
    pub behind: Option<String>,
    /// Since the last round of the sweep ended.
    pub sweep_age: Duration,
    /// For how long the oldest cut has been under way.
    pub cutting_for: Duration,
    /// Runs of checks that started later than [`CHECK_LATE`].
    pub late_checks: u64,
    pub log_lost: u64,
    /// Lines wait and nobody takes them.
    pub log_stuck: bool,
    pub log_trouble: Option<String>,
    pub events_lost: u64,
    /// What there is to say of each table that is nearly full.
    pub crowded_tables: Vec<String>,
    /// Files of what operators have set that could not be read and were kept.
    pub damaged_overrides: Vec<String>,
    pub config_file: Option<String>,
    /// Changes that hooks were not told of, and why not of the last one.
    pub hooks_lost: u64,
    pub hook_trouble: Option<String>,
    /// Why the control socket is not for whom it is meant.
    pub socket: Option<String>,
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
    /// The counts of the look before.
    counts: BTreeMap<Organ, u64>,
    /// When something was last so that is told for a while after.
    latest: BTreeMap<Organ, Instant>,
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
        let found = Organ::ALL.into_iter().filter(|organ| self.ails(*organ, signs, now));
        let organs: Vec<Organ> = found.collect();
        organs.into_iter().map(|organ| (organ, message(organ, signs))).collect()
    }

    fn ails(&mut self, organ: Organ, signs: &Signs, now: Instant) -> bool {
        match organ {
            Organ::Loop => signs.loop_answered_in >= LOOP_SLOW,
            Organ::DataPlane => signs.behind.is_some(),
            // Rounds that take a little longer each are one ill, and not one for each.
            Organ::Sweep => self.lately(organ, signs.sweep_age >= SWEEP_LATE, now),
            Organ::Cut => signs.cutting_for >= CUT_LATE,
            Organ::Checks => self.grew(organ, signs.late_checks, now),
            Organ::ConnectionTable => !signs.crowded_tables.is_empty(),
            Organ::Overrides => !signs.damaged_overrides.is_empty(),
            Organ::ConfigFile => signs.config_file.is_some(),
            Organ::Hooks => self.grew(organ, signs.hooks_lost, now),
            Organ::Log => self.grew(organ, signs.log_lost, now) || signs.log_stuck,
            Organ::Events => self.grew(organ, signs.events_lost, now),
            Organ::Socket => signs.socket.is_some(),
            Organ::FormerMaps => !signs.former_maps.is_empty(),
        }
    }

    /// Whether a count has grown lately.
    fn grew(&mut self, organ: Organ, count: u64, now: Instant) -> bool {
        let before = self.counts.insert(organ, count).unwrap_or(0);
        self.lately(organ, count > before, now)
    }

    /// Whether something is so, or was lately.
    fn lately(&mut self, organ: Organ, is_so: bool, now: Instant) -> bool {
        if is_so {
            self.latest.insert(organ, now);
        }
        self.latest.get(&organ).is_some_and(|at| now.saturating_duration_since(*at) < CALM)
    }
}

/// What there is to say of what ails.
fn message(organ: Organ, signs: &Signs) -> String {
    let words = |words: &Option<String>| words.clone().unwrap_or_default();
    match organ {
        Organ::Loop => {
            let milliseconds = signs.loop_answered_in.as_millis();
            format!("the daemon's loop took {milliseconds} ms to answer: what it decides waits")
        }
        Organ::DataPlane => {
            let why = words(&signs.behind);
            format!(
                "the data plane does not follow ({why}): packets go by an older state than the one shown here; it is \
                 tried again all the time"
            )
        }
        Organ::Sweep => {
            let (age, late) = (signs.sweep_age.as_secs(), SWEEP_LATE.as_secs());
            let what = match signs.sweep_age >= SWEEP_LATE {
                true => format!("for {age} s no sweep of the connection tables has ended"),
                false => format!("sweeps of the connection tables take more than {late} s"),
            };
            format!(
                "{what}: connections that are over keep their places, and how many there are is not known"
            )
        }
        Organ::Cut => {
            let seconds = signs.cutting_for.as_secs();
            format!(
                "connections are being cut for {seconds} s: those of backends that are down, or that an operator wants \
                 gone, may still be there"
            )
        }
        Organ::Checks => {
            let (late, seconds) = (signs.late_checks, CHECK_LATE.as_secs());
            format!(
                "checks start late: {late} have begun more than {seconds} s after their time; they are too many for this \
                 machine, or too many of them hang"
            )
        }
        Organ::ConnectionTable => signs.crowded_tables.join("; "),
        Organ::Overrides => {
            let files = signs.damaged_overrides.join(" and ");
            format!(
                "what operators had set on backends (drained, maintenance, weights) could not be read and is not in \
                 force: it is kept in {files}; set it again, and then remove that file"
            )
        }
        Organ::ConfigFile => format!("configuration file: {}", words(&signs.config_file)),
        Organ::Hooks => {
            let (lost, why) = (signs.hooks_lost, words(&signs.hook_trouble));
            format!("hooks were not told of {lost} changes; the last time: {why}")
        }
        Organ::Log => log_message(signs),
        Organ::Events => {
            let lost = signs.events_lost;
            format!("{lost} events were lost to readers of the stream that are too slow")
        }
        Organ::Socket => words(&signs.socket),
        Organ::FormerMaps => {
            let names = signs.former_maps.join(" ");
            format!("maps of another version of Drover are still pinned and take memory: rm -r {names}")
        }
    }
}

fn log_message(signs: &Signs) -> String {
    let trouble = signs.log_trouble.as_deref().filter(|_| !signs.log_stuck);
    let why = trouble.unwrap_or("nobody takes the lines that are written");
    let lost = match signs.log_lost {
        0 => "it waits".to_owned(),
        lost => format!("{lost} lines of it are lost"),
    };
    format!("the log cannot be written ({why}): {lost}; see where the daemon's standard error goes")
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
            behind: Some("no room".to_owned()),
            sweep_age: SWEEP_LATE,
            cutting_for: CUT_LATE,
            late_checks: 1,
            log_stuck: true,
            events_lost: 1,
            crowded_tables: vec!["it is 81 % full".to_owned()],
            damaged_overrides: vec!["/var/lib/drover/backends.json.damaged".to_owned()],
            config_file: Some("it is gone".to_owned()),
            hooks_lost: 1,
            hook_trouble: Some("too many wait".to_owned()),
            socket: Some("there is no group".to_owned()),
            former_maps: vec!["/sys/fs/bpf/drover/maps-v1".to_owned()],
            ..Signs::default()
        };
        let mut watch = Watch::default();
        let turns = watch.look(&signs, Instant::now(), SystemTime::UNIX_EPOCH);
        assert_eq!(organs(&watch), Organ::ALL);
        let told: Vec<Organ> = turns.iter().map(|turn| turn.organ).collect();
        let told_elsewhere = [Organ::ConnectionTable, Organ::ConfigFile];
        let expected: Vec<Organ> =
            Organ::ALL.into_iter().filter(|organ| !told_elsewhere.contains(organ)).collect();
        assert_eq!(told, expected);
        let gone = watch.look(
            &Signs { late_checks: 1, hooks_lost: 1, events_lost: 1, ..Signs::default() },
            Instant::now(),
            SystemTime::UNIX_EPOCH,
        );
        assert_eq!(organs(&watch), [Organ::Sweep, Organ::Checks, Organ::Hooks, Organ::Events]);
        assert!(gone.iter().all(|turn| !turn.came && turn.message.starts_with("over: ")), "{gone:?}");
    }

    #[test]
    fn sweeps_that_are_late_one_after_the_other_are_one_ill() {
        let begin = Instant::now();
        let mut watch = Watch::default();
        let mut look = |seconds, age| {
            let signs = Signs { sweep_age: Duration::from_secs(age), ..Signs::default() };
            let turns = watch.look(&signs, begin + Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
            turns.iter().map(|turn| turn.came).collect::<Vec<_>>()
        };
        assert_eq!(look(0, 9), []);
        assert_eq!(look(1, 10), [true]);
        for second in 2..60 {
            assert_eq!(look(second, second % 12), []);
        }
        assert_eq!(look(90, 1), [false]);
    }
}
