//! The board on a virtual clock, with probes that take time: pace, sharing, suspicion, and what thousands cost.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::state::CheckVerdict;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What a probe that starts then at that address finds, and after how long; `None`: nothing until the time-out.
type World<'w> = &'w dyn Fn(Duration, SocketAddr) -> Option<(bool, Duration)>;

struct Simulation {
    board: Board,
    origin: Instant,
    now: Instant,
    flying: BTreeMap<(Instant, ProbeId), bool>,
    starts: Vec<(Duration, SocketAddr)>,
    reports: Vec<(Duration, BackendName, Judgement)>,
    most: usize,
}

impl Simulation {
    fn new(limits: Limits) -> Self {
        let origin = Instant::now();
        let (starts, reports) = (Vec::new(), Vec::new());
        let board = Board::new(limits);
        Self { board, origin, now: origin, flying: BTreeMap::new(), starts, reports, most: 0 }
    }

    fn set(&mut self, targets: Vec<Target>) {
        let effects = self.board.set_targets(targets, self.now);
        self.handle(effects, &|_, _| None);
    }

    fn handle(&mut self, effects: Vec<Effect>, world: World<'_>) {
        let at = self.now - self.origin;
        for effect in effects {
            match effect {
                Effect::Start { probe, target } => {
                    self.starts.push((at, target.address));
                    if let Some((passed, takes)) = world(at, target.address) {
                        self.flying.insert((self.now + takes, probe), passed);
                    }
                }
                Effect::Stop(probe) => self.flying.retain(|(_, flying), _| *flying != probe),
                Effect::Report(report) => self.reports.push((at, report.backend, report.health.status)),
                Effect::Turned { .. } => {}
            }
        }
        self.most = self.most.max(self.board.load().in_flight);
    }

    fn run(&mut self, time: Duration, world: World<'_>) {
        let end = self.now + time;
        loop {
            let effects = self.board.handle_timeout(self.now);
            self.handle(effects, world);
            let ended = self.flying.first_key_value().map(|(&(at, _), _)| at);
            let next = ended.into_iter().chain(self.board.next_timeout()).min();
            let Some(next) = next.filter(|&next| next <= end) else { break };
            self.now = self.now.max(next);
            while let Some(first) = self.flying.first_entry().filter(|first| first.key().0 <= self.now) {
                let ((_, probe), passed) = first.remove_entry();
                let outcome = Outcome { passed, reason: if passed { "yes" } else { "no" }.to_owned() };
                let effects = self.board.handle_result(probe, &outcome, self.now);
                self.handle(effects, world);
            }
        }
        self.now = end;
    }

    fn starts_at(&self, address: SocketAddr) -> Vec<Duration> {
        self.starts.iter().filter(|(_, to)| *to == address).map(|&(at, _)| at).collect()
    }
}

const LIMITS: Limits = Limits { network: 512, commands: 64 };

fn nth(n: u32) -> SocketAddr {
    (Ipv4Addr::from_bits(0x0a00_0000 + n), 80).into()
}

fn target(farm: &str, n: u32, interval: Duration) -> Target {
    Target {
        farm: FarmName::new(farm).unwrap(),
        backend: BackendName::new(&format!("b{n}")).unwrap(),
        address: nth(n),
        check: Check { interval, fast_interval: interval.min(ms(1000)), timeout: ms(3000), ..Check::tcp() },
        vip: None,
        adopted: Judgement::Starting,
    }
}

fn gaps(starts: &[Duration]) -> Vec<u128> {
    starts.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect()
}

#[test]
fn between_two_states_probes_follow_at_the_fast_interval_and_then_on_the_grid_again() {
    let mut it = Simulation::new(LIMITS);
    it.set(vec![target("web", 1, ms(10_000))]);
    it.run(ms(35_000), &|_, _| Some((true, ms(5))));
    let healthy = it.starts.len();
    let grid = it.starts[healthy - 1].0;
    it.run(ms(60_000), &|_, _| Some((false, ms(5))));
    let sick = it.starts_at(nth(1)).split_off(healthy);
    // Three failures make it down; after that there is no hurry.
    assert_eq!(gaps(&sick)[..2], [1000, 1000], "{sick:?}");
    assert_eq!(gaps(&sick)[2..6], [8000, 10_000, 10_000, 10_000]);
    assert!(sick[3..].iter().all(|at| (*at - grid).as_millis().is_multiple_of(10_000)));
    let down = it.starts.len();
    it.run(ms(30_000), &|_, _| Some((true, ms(5))));
    assert_eq!(gaps(&it.starts_at(nth(1)).split_off(down)), [1000, 9000, 10_000]);
    let judged: Vec<_> = it.reports.iter().map(|(_, _, status)| *status).collect();
    assert_eq!(judged[..3], [Judgement::Starting, Judgement::Up, Judgement::Down]);
    assert_eq!(judged.last(), Some(&Judgement::Up));
}

#[test]
fn a_probe_that_times_out_is_followed_at_once() {
    let mut it = Simulation::new(LIMITS);
    it.set(vec![target("web", 1, ms(10_000))]);
    it.run(ms(15_000), &|_, _| Some((true, ms(5))));
    let healthy = it.starts.len();
    it.run(ms(20_000), &|_, _| None);
    assert_eq!(gaps(&it.starts_at(nth(1)).split_off(healthy))[..2], [3000, 3000]);
}

#[test]
fn a_check_that_farms_share_runs_once_and_counts_for_each_by_its_own_rules() {
    let shared = |farm: &str, fall| {
        let mut target = target(farm, 1, ms(10_000));
        target.check.fall = fall;
        target
    };
    let mut patient = shared("patient", 5);
    patient.backend = BackendName::new("other-name").unwrap();
    let mut other = target("other", 1, ms(10_000));
    other.check.timeout = ms(2000);
    other.backend = BackendName::new("b9").unwrap();
    let mut it = Simulation::new(LIMITS);
    it.set(vec![shared("web", 1), patient, other]);
    it.run(ms(20_000), &|_, _| Some((true, ms(5))));
    let load = it.board.load();
    assert_eq!((load.targets, load.subjects), (3, 2), "other settings are another check");
    assert_eq!(it.starts.len(), 2 * 3, "once at first, and at two slots");
    it.reports.clear();
    it.run(ms(40_000), &|_, _| Some((false, ms(5))));
    let downs: Vec<_> = it.reports.iter().filter(|report| report.2 == Judgement::Down).collect();
    let when = |name: &str| downs.iter().find(|(_, backend, _)| backend.as_str() == name).unwrap().0;
    assert_eq!(when("other-name") - when("b1"), ms(4000), "the shared check is fast for who is between");
    assert_eq!(it.board.reports(Some(&FarmName::new("web").unwrap()), None, 0, it.now)[0].shared_with, 1);

    // Who comes later is judged by a run of its own time, soon, and who leaves takes nothing with him.
    it.set(vec![shared("web", 1), shared("late", 3)]);
    it.reports.clear();
    it.run(ms(1000), &|_, _| Some((false, ms(5))));
    assert!(it.reports.iter().any(|(_, _, status)| *status == Judgement::Down), "{:?}", it.reports);
    it.set(vec![shared("late", 3)]);
    assert_eq!(it.board.load().subjects, 1);
    let starts = it.starts.len();
    it.run(ms(20_000), &|_, _| Some((false, ms(5))));
    assert!(it.starts.len() > starts);
    it.set(Vec::new());
    assert!(it.board.subjects.is_empty() && it.board.by_key.is_empty() && it.board.slots.is_empty());
    assert_eq!(it.board.next_timeout(), None);
}

#[test]
fn haproxys_commands_are_told_for_whom_and_so_shared_by_nobody() {
    use crate::config::model::{CheckKind, CommandCheck, CommandContract};
    for (contract, subjects) in [(CommandContract::FarmGuardian, 1), (CommandContract::Haproxy, 2)] {
        let command = CommandCheck { command: vec!["true".into()], user: "nobody".into(), contract };
        let of = |farm: &str| {
            let mut target = target(farm, 1, ms(1000));
            target.check.kind = CheckKind::Command(command.clone());
            target
        };
        let mut it = Simulation::new(LIMITS);
        it.set(vec![of("a"), of("b")]);
        assert_eq!(it.board.load().subjects, subjects, "{contract:?}");
    }
}

#[test]
fn a_suspected_backend_is_probed_at_once_unless_it_just_was() {
    let (farm, backend) = (FarmName::new("web").unwrap(), BackendName::new("b1").unwrap());
    let mut it = Simulation::new(LIMITS);
    it.set(vec![target("web", 1, ms(10_000)), target("web", 2, ms(10_000))]);
    assert_eq!(it.board.suspect(&farm, &backend, it.now), 0, "it is due anyhow");
    it.run(ms(500), &|_, _| Some((true, ms(5))));
    assert_eq!(it.board.suspect(&farm, &backend, it.now), 0, "it was probed half a second ago");
    it.run(ms(13_000), &|_, _| Some((true, ms(5))));
    let last = *it.starts_at(nth(1)).last().unwrap();
    let until = (last + ms(5000)).saturating_sub(it.now - it.origin);
    it.run(until, &|_, _| Some((true, ms(5))));
    let (now, starts) = (it.now - it.origin, it.starts.len());
    assert_eq!(it.board.suspect(&farm, &backend, it.now), 1);
    it.reports.clear();
    it.run(ms(2100), &|_, to| Some((to != nth(1), ms(5))));
    let suspected: Vec<_> = it.starts_at(nth(1)).into_iter().filter(|at| *at >= now).collect();
    assert_eq!(suspected, [now, now + ms(1000), now + ms(2000)]);
    assert_eq!(
        it.reports.last().map(|(at, _, status)| (*at, *status)),
        Some((now + ms(2005), Judgement::Down))
    );
    assert!(it.starts.len() >= starts + 3);
    let nobody = BackendName::new("nobody").unwrap();
    assert_eq!(it.board.suspect(&farm, &nobody, it.now), 0);
    it.run(ms(1500), &|_, _| Some((false, ms(5))));
    it.board.suspect(&farm, &backend, it.now);
    it.run(ms(1500), &|_, _| None);
    assert_eq!(it.board.suspect(&farm, &backend, it.now), 0, "its probe is in flight");
}

#[test]
fn history_keeps_the_last_results_with_their_times() {
    let mut it = Simulation::new(LIMITS);
    it.set(vec![target("web", 1, ms(1000))]);
    it.run(ms(30_000), &|_, _| Some((true, ms(5))));
    it.run(ms(1500), &|_, _| Some((false, ms(7))));
    let report = &it.board.reports(None, None, 100, it.now)[0];
    assert_eq!((report.name.as_str(), report.transitions), ("tcp 10.0.0.1:80", 0));
    assert_eq!(report.history.len(), crate::health::HISTORY);
    let last = report.last.as_ref().unwrap();
    assert_eq!((last.verdict, &*last.reason, last.took), (CheckVerdict::Failed, "no", ms(7)));
    assert_eq!(report.history.last(), Some(last));
    assert_eq!(report.durations.count(), it.starts.len() as u64);
    assert!(report.history.windows(2).all(|pair| pair[0].ago > pair[1].ago));
    assert!(report.next_run_in <= ms(1000) && !report.running);
    assert_eq!(it.board.reports(None, None, 3, it.now)[0].history.len(), 3);
}

#[test]
fn two_checks_of_one_kind_at_one_place_have_names_of_their_own() {
    let mut second = target("web", 1, ms(1000));
    second.check.timeout = ms(500);
    let mut it = Simulation::new(LIMITS);
    it.set(vec![target("web", 1, ms(1000)), second]);
    let names: Vec<_> = it.board.reports(None, None, 0, it.now).into_iter().map(|it| it.name).collect();
    assert_eq!(names, ["tcp 10.0.0.1:80", "tcp 10.0.0.1:80 #2"]);
}

#[test]
fn what_could_not_be_tried_counts_for_nothing_and_says_why() {
    let mut board = Board::new(LIMITS);
    let now = Instant::now();
    board.set_targets(vec![target("web", 1, ms(10_000))], now);
    let Some(Effect::Start { probe, .. }) = board.handle_timeout(now).pop() else { panic!("no start") };
    let effects = board.handle_untried(probe, "too many open files", now);
    let reason = effects.iter().find_map(|effect| match effect {
        Effect::Report(report) => Some((report.health.status, report.health.reason.clone())),
        Effect::Start { .. } | Effect::Stop(_) | Effect::Turned { .. } => None,
    });
    let words = "tcp 10.0.0.1:80: cannot be checked: too many open files".to_owned();
    assert_eq!(reason, Some((Judgement::Starting, words)));
    assert_eq!(board.next_timeout(), Some(now + ms(1000)), "tried again soon");
}

#[test]
fn two_thousand_targets_keep_their_schedule_within_the_limit() {
    let interval = ms(5000);
    let mut it = Simulation::new(LIMITS);
    it.set((0..2000).map(|n| target("web", n, interval)).collect());
    // From half a millisecond to 60 ms.
    let takes = |_: Duration, to: SocketAddr| match to {
        SocketAddr::V4(to) => Some((true, Duration::from_micros(500 + u64::from(to.ip().octets()[3]) * 233))),
        SocketAddr::V6(_) => None,
    };
    it.run(ms(60_000), &takes);
    assert!(it.most <= LIMITS.network, "{}", it.most);
    // Each at first, and in each of eleven to twelve intervals.
    assert!((2000 * 12..=2000 * 13).contains(&it.starts.len()), "{}", it.starts.len());
    let lateness = it.board.load().lateness;
    assert!(lateness.quantile(0.99) < ms(500), "{:?}", lateness.quantile(0.99));
    let mut of_each: BTreeMap<SocketAddr, Vec<Duration>> = BTreeMap::new();
    for &(at, to) in it.starts.iter().filter(|(at, _)| *at > interval) {
        of_each.entry(to).or_default().push(at);
    }
    for (to, starts) in &of_each {
        assert!(gaps(starts).iter().all(|gap| (4999..=5001).contains(gap)), "{to}: {starts:?}");
    }
    // Once the first rush is over, no hundredth of an interval has much more than its share.
    let mut slices: BTreeMap<u128, u32> = BTreeMap::new();
    for (at, _) in it.starts.iter().filter(|(at, _)| *at >= interval * 2) {
        *slices.entry(at.as_millis() / 50).or_default() += 1;
    }
    assert!(slices.values().all(|&count| count <= 26), "{:?}", slices.values().max());
}

#[test]
fn hung_probes_delay_nobody_as_long_as_there_is_room() {
    let interval = ms(5000);
    let mut it = Simulation::new(LIMITS);
    it.set((0..1000).map(|n| target("web", n, interval)).collect());
    it.run(ms(20_000), &|_, _| Some((true, ms(5))));
    let from = it.now - it.origin;
    it.most = 0;
    // A tenth hangs: 3 s each time, and for good.
    let hangs = |to: SocketAddr| match to {
        SocketAddr::V4(to) => to.ip().octets()[3].is_multiple_of(10),
        SocketAddr::V6(_) => false,
    };
    it.run(ms(60_000), &|_, to| (!hangs(to)).then_some((true, ms(5))));
    for n in (0..1000).filter(|&n| !hangs(nth(n))) {
        let starts: Vec<_> = it.starts_at(nth(n)).into_iter().filter(|at| *at > from).collect();
        assert!(starts.len() >= 11);
        assert!(gaps(&starts).iter().all(|gap| gap.abs_diff(5000) <= 500), "{n}: {starts:?}");
    }
    assert!(it.most < LIMITS.network);
}

#[test]
fn commands_that_hang_use_up_their_own_places_only() {
    use crate::config::model::{CheckKind, CommandCheck, CommandContract};
    let (command, user) = (vec!["sleep".into()], "nobody".into());
    let kind = CheckKind::Command(CommandCheck { command, user, contract: CommandContract::FarmGuardian });
    let slow = |n| {
        let mut target = target("slow", n, ms(1000));
        target.check.kind = kind.clone();
        target
    };
    let mut it = Simulation::new(Limits { network: 4, commands: 2 });
    it.set((100..120).map(slow).chain([target("web", 1, ms(1000))]).collect());
    it.run(ms(30_000), &|_, to| (to == nth(1)).then_some((true, ms(5))));
    let starts = it.starts_at(nth(1)).split_off(1);
    assert!(gaps(&starts).iter().all(|&gap| gap == 1000), "{starts:?}");
    assert!(it.most <= 3);
}

#[test]
fn what_is_known_of_thousands_survives_a_change_of_a_few() {
    let mut it = Simulation::new(LIMITS);
    it.set((0..3000).map(|n| target("web", n, ms(5000))).collect());
    it.run(ms(11_000), &|_, _| Some((true, ms(1))));
    it.reports.clear();
    it.set((10..3010).map(|n| target("web", n, ms(5000))).collect());
    assert_eq!(it.reports.len(), 10, "only the new ones are starting");
    it.run(ms(1000), &|_, _| Some((true, ms(1))));
    assert_eq!(it.reports.len(), 20);
}

proptest! {
    #[test]
    fn a_flapping_target_changes_state_at_most_as_often_as_rise_and_fall_allow(
        (rise, fall) in (1u32..4, 1u32..4), period in 100u64..20_000, up in 1u64..100, interval in 500u64..10_000,
    ) {
        let mut flapping = target("web", 1, ms(interval));
        flapping.check.rise = rise;
        flapping.check.fall = fall;
        let fast = flapping.check.fast_interval;
        let mut it = Simulation::new(LIMITS);
        it.set(vec![flapping, target("web", 2, ms(interval))]);
        let (period, up) = (u128::from(period), u128::from(up));
        it.run(ms(300_000), &|at, to| {
            Some((to == nth(2) || at.as_millis() % period < period * up / 100, ms(2)))
        });
        let changes: Vec<_> =
            it.reports.iter().filter(|(_, name, status)| name.as_str() == "b1" && *status != Judgement::Starting)
                .map(|(at, _, status)| (*at, *status)).collect::<Vec<_>>()
                .chunk_by(|a, b| a.1 == b.1).map(|chunk| chunk[0]).collect();
        for pair in changes.windows(2) {
            // So many results in a row since the last change, each at least a fast interval after the one before.
            let needed = if pair[1].1 == Judgement::Up { rise } else { fall };
            prop_assert!(pair[1].0 - pair[0].0 + ms(2) >= fast * needed.saturating_sub(1), "{:?}", changes);
        }
        let steady = it.reports.iter().filter(|(_, name, _)| name.as_str() == "b2").count();
        prop_assert_eq!(steady, 2, "the other one is starting, then up");
        // The steady one keeps its schedule whatever the flapping one does.
        let starts = it.starts_at(nth(2)).split_off(1);
        prop_assert!(gaps(&starts).iter().all(|&gap| gap.abs_diff(u128::from(interval)) <= 1), "{:?}", starts);
    }
}
