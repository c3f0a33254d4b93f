use std::time::Duration;

use super::*;
use crate::health::Judgement;

const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(3);
/// The default.
const FAST: Duration = Duration::from_secs(1);
const LIMITS: Limits = Limits { network: 256, commands: 256 };

fn target(backend: &str, address: &str) -> Target {
    Target {
        farm: FarmName::new("web").unwrap(),
        backend: BackendName::new(backend).unwrap(),
        address: address.parse().unwrap(),
        check: Check { interval: INTERVAL, timeout: TIMEOUT, rise: 2, fall: 3, ..Check::tcp() },
        vip: None,
        adopted: Judgement::Starting,
    }
}

/// A board on a virtual clock; what answers is a function of the address.
struct World {
    board: Board,
    origin: Instant,
    now: Instant,
    said: Vec<String>,
    starts: Vec<(Duration, SocketAddr)>,
    stopped: usize,
}

/// `None`: no answer until the time-out.
type Answer = fn(SocketAddr) -> Option<bool>;

fn all_answer(_: SocketAddr) -> Option<bool> {
    Some(true)
}
fn all_refuse(_: SocketAddr) -> Option<bool> {
    Some(false)
}
fn nobody_answers(_: SocketAddr) -> Option<bool> {
    None
}

impl World {
    fn new() -> Self {
        let origin = Instant::now();
        let (said, starts) = (Vec::new(), Vec::new());
        Self { board: Board::new(LIMITS), origin, now: origin, said, starts, stopped: 0 }
    }

    fn set(&mut self, targets: &[Target]) {
        let effects = self.board.set_targets(targets.to_vec(), self.now);
        self.handle(effects, all_answer);
    }

    fn handle(&mut self, effects: Vec<Effect>, answer: Answer) {
        for effect in effects {
            match effect {
                Effect::Start { probe, target } => {
                    let address = target.address;
                    self.starts.push((self.now - self.origin, address));
                    if let Some(passed) = answer(address) {
                        let reason = if passed { "connected" } else { "connection refused" };
                        let outcome = Outcome { passed, reason: reason.to_owned() };
                        let effects = self.board.handle_result(probe, &outcome, self.now);
                        self.handle(effects, answer);
                    }
                }
                Effect::Stop(_) => self.stopped += 1,
                Effect::Report(Report { farm: _, backend, health }) => {
                    let status = health.status.as_str();
                    self.said.push(format!("{backend} {status}: {}", health.reason));
                }
                Effect::Turned { .. } => {}
            }
        }
    }

    fn run(&mut self, time: Duration, answer: Answer) -> Vec<String> {
        let end = self.now + time;
        loop {
            let effects = self.board.handle_timeout(self.now);
            self.handle(effects, answer);
            match self.board.next_timeout() {
                Some(next) if next <= end => self.now = next,
                Some(_) | None => break,
            }
        }
        self.now = end;
        std::mem::take(&mut self.said)
    }

    /// Lets time pass while no probe can be made.
    fn run_untried(&mut self, time: Duration) -> Vec<String> {
        let end = self.now + time;
        loop {
            let mut effects = self.board.handle_timeout(self.now);
            let started = effects.extract_if(.., |effect| matches!(effect, Effect::Start { .. }));
            for effect in started.collect::<Vec<_>>() {
                let Effect::Start { probe, target } = effect else { continue };
                self.starts.push((self.now - self.origin, target.address));
                effects.extend(self.board.handle_untried(probe, "there is no file /x", self.now));
            }
            self.handle(effects, nobody_answers);
            match self.board.next_timeout() {
                Some(next) if next <= end => self.now = next,
                Some(_) | None => break,
            }
        }
        self.now = end;
        std::mem::take(&mut self.said)
    }

    fn status(&self, backend: &str) -> Judgement {
        let key = (FarmName::new("web").unwrap(), BackendName::new(backend).unwrap());
        self.board.backends[&key].health.as_ref().unwrap().status
    }
}

#[test]
fn a_new_backend_is_starting_and_judged_by_its_first_probe() {
    let mut world = World::new();
    world.set(&[target("good", "10.0.0.1:80")]);
    assert_eq!(world.said, ["good starting: tcp 10.0.0.1:80: not checked yet"]);
    world.said.clear();
    assert_eq!(world.run(Duration::ZERO, all_answer), ["good up: tcp 10.0.0.1:80: connected"]);

    let mut world = World::new();
    world.set(&[target("bad", "10.0.0.2:80")]);
    world.said.clear();
    assert_eq!(world.run(Duration::ZERO, all_refuse), ["bad down: tcp 10.0.0.2:80: connection refused"]);
}

#[test]
fn a_dead_backend_is_out_after_fall_failures_and_back_after_rise_passes() {
    for (answer, reason) in
        [(all_refuse as Answer, "connection refused"), (nobody_answers, "no answer within 3s")]
    {
        let mut world = World::new();
        world.set(&[target("b", "10.0.0.1:80")]);
        world.run(Duration::from_secs(60), all_answer);
        let died = world.now;
        let mut said = Vec::new();
        while said.is_empty() {
            said = world.run(Duration::from_millis(100), answer);
        }
        assert_eq!(said, [format!("b down: tcp 10.0.0.1:80: {reason}")]);
        // The first failure comes within an interval, the others follow at the fast one or as they time out.
        assert!(world.now - died <= INTERVAL + TIMEOUT * 3 + Duration::from_millis(100));
        assert!(world.now - died > FAST * 2);
        assert!(world.run(INTERVAL, nobody_answers).iter().all(|line| line.starts_with("b down")));
        let said = world.run(INTERVAL + TIMEOUT + FAST, all_answer);
        assert_eq!(said.last().map(String::as_str), Some("b up: tcp 10.0.0.1:80: connected"));
    }
}

#[test]
fn an_unchanged_target_keeps_judgement_phase_and_count() {
    let mut world = World::new();
    let (a, b) = (target("a", "10.0.0.1:80"), target("b", "10.0.0.2:80"));
    world.set(std::slice::from_ref(&a));
    world.run(INTERVAL * 3, all_answer);
    let grid = world.starts.last().unwrap().0;
    // Two of the three failures that it takes.
    while world.board.slots.values().all(|slot| slot.machine.against() < 2) {
        assert_eq!(world.run(FAST / 2, all_refuse), [""; 0]);
    }
    world.set(&[b.clone(), a.clone()]);
    assert_eq!(world.said, ["b starting: tcp 10.0.0.2:80: not checked yet"]);
    world.said.clear();
    let said = world.run(FAST, all_refuse);
    assert!(said.contains(&"a down: tcp 10.0.0.1:80: connection refused".to_owned()), "{said:?}");
    world.run(INTERVAL * 3, all_refuse);
    let (last, _) = world.starts.iter().rfind(|(_, address)| *address == a.address).unwrap();
    assert!((*last - grid).as_nanos().is_multiple_of(INTERVAL.as_nanos()), "it is back on its grid");
}

#[test]
fn a_check_with_other_settings_keeps_the_judgement() {
    let mut world = World::new();
    let mut a = target("a", "10.0.0.1:80");
    world.set(std::slice::from_ref(&a));
    world.run(INTERVAL, all_answer);
    a.check.interval = Duration::from_secs(1);
    a.check.fall = 1;
    world.set(&[a]);
    assert_eq!(world.said, [""; 0]);
    assert_eq!(
        world.run(Duration::ZERO, all_refuse).len(),
        1,
        "probed at once, and out at the first failure"
    );
}

#[test]
fn the_same_name_at_another_address_is_judged_anew() {
    let mut world = World::new();
    world.set(&[target("a", "10.0.0.1:80")]);
    world.run(INTERVAL, all_answer);
    world.set(&[target("a", "10.0.0.9:80")]);
    assert_eq!(world.said, ["a starting: tcp 10.0.0.9:80: not checked yet"]);
}

#[test]
fn another_port_leaves_a_backend_up_until_it_is_judged() {
    let mut world = World::new();
    world.set(&[target("a", "10.0.0.1:80")]);
    world.run(INTERVAL, all_answer);
    world.set(&[target("a", "10.0.0.1:80"), target("a", "10.0.0.1:443")]);
    assert_eq!(world.status("a"), Judgement::Up);
    fn only_80(address: SocketAddr) -> Option<bool> {
        Some(address.port() == 80)
    }
    assert_eq!(world.run(Duration::ZERO, only_80), ["a down: tcp 10.0.0.1:443: connection refused"]);
}

#[test]
fn a_check_that_is_added_counts_as_passed_when_it_has() {
    let mut world = World::new();
    world.set(&[target("a", "10.0.0.1:80")]);
    world.run(INTERVAL, all_answer);
    let more = Target { adopted: Judgement::Up, ..target("a", "10.0.0.1:443") };
    world.set(&[target("a", "10.0.0.1:80"), more]);
    assert_eq!(world.said, ["a up: not all 2 checks have passed yet; it was up before"]);
    world.said.clear();
    assert_eq!(world.run(Duration::ZERO, all_answer), ["a up: all 2 checks pass"]);
}

#[test]
fn an_adopted_backend_stays_up_until_fall_failures() {
    let mut world = World::new();
    world.set(&[Target { adopted: Judgement::Up, ..target("a", "10.0.0.1:80") }]);
    assert_eq!(world.said, ["a up: tcp 10.0.0.1:80: was up before this check began"]);
    world.said.clear();
    assert_eq!(world.run(Duration::ZERO, all_refuse), [""; 0]);
    assert_eq!(world.run(INTERVAL * 2, all_refuse), ["a down: tcp 10.0.0.1:80: connection refused"]);
}

/// Three intervals, the time-out of the last probe, and the second in which looks are gathered.
const PATIENCE: Duration = Duration::from_secs(10 * 3 + 3 + 1);

#[test]
fn one_that_cannot_be_checked_is_unchecked_after_as_many_intervals_as_failures_take() {
    let mut world = World::new();
    world.set(&[target("a", "10.0.0.1:80")]);
    world.run(INTERVAL * 3, all_answer);
    let heard = world.starts.last().unwrap().0;
    let told = world.origin + heard + PATIENCE;
    assert_eq!(world.run_untried(told - Duration::from_secs(1) - world.now - FAST / 10), [""; 0]);
    let said = world.run_untried(told - world.now);
    assert_eq!(said, ["a unchecked: tcp 10.0.0.1:80: cannot be checked: there is no file /x"]);
    let tries = world.starts.len();
    assert_eq!(world.run_untried(PATIENCE * 2), [""; 0], "told once");
    // It is tried at each interval, and in no hurry.
    assert!((6..=8).contains(&(world.starts.len() - tries)), "{}", world.starts.len() - tries);
    assert_eq!(world.run(INTERVAL, all_answer), ["a up: tcp 10.0.0.1:80: connected"]);
    assert_eq!(world.run_untried(PATIENCE + INTERVAL).len(), 1);
    assert_eq!(world.run(INTERVAL * 3, all_refuse), ["a down: tcp 10.0.0.1:80: connection refused"]);
    let now = world.now;
    assert_eq!(world.board.reports(None, None, 0, now)[0].transitions, 1);
}

#[test]
fn one_whose_turn_does_not_come_is_unchecked() {
    let mut world = World::new();
    world.board = Board::new(Limits { network: 1, commands: 1 });
    world.set(&[target("a", "10.0.0.1:80")]);
    world.run(INTERVAL * 3, all_answer);
    world.said.clear();
    // From here on somebody else holds the only place, over and over.
    let mut other = target("b", "10.0.0.2:80");
    other.check.timeout = INTERVAL * 100;
    other.check.interval = INTERVAL * 100;
    world.set(&[target("a", "10.0.0.1:80"), other]);
    world.said.clear();
    let said = world.run(PATIENCE + INTERVAL, nobody_answers);
    let expected = "a unchecked: tcp 10.0.0.1:80: has had no check that came to an end in time";
    assert!(said.iter().any(|line| line == expected), "{said:?}");
}

#[test]
fn one_that_was_never_judged_or_is_down_is_not_unchecked() {
    let mut world = World::new();
    world.set(&[target("a", "10.0.0.1:80")]);
    world.said.clear();
    let starting = "a starting: tcp 10.0.0.1:80: cannot be checked: there is no file /x";
    assert_eq!(world.run_untried(PATIENCE * 2), [starting]);
    world.run(INTERVAL, all_refuse);
    let said = world.run_untried(PATIENCE * 2);
    let down =
        "a down: tcp 10.0.0.1:80: connection refused; since then it cannot be checked: there is no file /x";
    assert_eq!(said, [down]);
}

#[test]
fn a_target_that_is_gone_is_stopped_and_says_no_more() {
    let mut world = World::new();
    world.set(&[target("a", "10.0.0.1:80"), target("a", "10.0.0.1:80")]);
    world.run(Duration::ZERO, nobody_answers);
    assert_eq!(world.starts.len(), 1, "a target twice in the list counts once");
    world.said.clear();
    world.set(&[]);
    assert_eq!(world.stopped, 1);
    assert_eq!(world.run(INTERVAL * 3, all_refuse), [""; 0]);
    assert_eq!(world.board.next_timeout(), None);
    assert!(world.board.slots.is_empty() && world.board.backends.is_empty());
}
