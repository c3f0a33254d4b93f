use proptest::prelude::*;

use super::*;

const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(3);

fn limits(network: usize) -> Limits {
    Limits { network, commands: network }
}

fn pace(interval: Duration, timeout: Duration) -> Pace {
    Pace { lane: Lane::Network, interval, fast_interval: Duration::from_secs(1), timeout }
}

fn started(steps: &[Step]) -> Vec<ProbeId> {
    let probe = |step: &Step| match *step {
        Step::Start(probe) => Some(probe),
        Step::Expire(_) => None,
    };
    steps.iter().filter_map(probe).collect()
}

#[test]
fn a_new_target_is_due_at_once_and_then_on_its_grid() {
    let origin = Instant::now();
    let mut schedule = Schedule::new(limits(256));
    schedule.insert(SubjectId(7), pace(INTERVAL, TIMEOUT), origin);
    let mut now = origin;
    let mut starts = Vec::new();
    while starts.len() < 50 {
        for probe in started(&schedule.handle_timeout(now)) {
            starts.push(now);
            assert!(schedule.handle_done(probe, now).is_some());
        }
        now = schedule.next_timeout().unwrap();
    }
    assert_eq!(starts[0], origin);
    assert!(starts[1] > origin && starts[1] <= origin + INTERVAL);
    assert!(starts[1..].windows(2).all(|pair| pair[1] - pair[0] == INTERVAL));
}

#[test]
fn starts_are_spread_over_the_interval() {
    let origin = Instant::now();
    let mut schedule = Schedule::new(limits(1000));
    (0..100).for_each(|id| schedule.insert(SubjectId(id), pace(INTERVAL, TIMEOUT), origin));
    for probe in started(&schedule.handle_timeout(origin)) {
        schedule.handle_done(probe, origin);
    }
    let mut tenths = [0u32; 10];
    for &(at, _) in &schedule.network.due {
        let tenth = ((at - origin).as_nanos() - 1) * 10 / INTERVAL.as_nanos();
        tenths[usize::try_from(tenth).unwrap()] += 1;
    }
    assert!(tenths.iter().all(|&count| (8..=12).contains(&count)), "{tenths:?}");
}

#[test]
fn a_probe_that_outlasts_expires_and_its_late_result_does_not_count() {
    let origin = Instant::now();
    let mut schedule = Schedule::new(limits(256));
    schedule.insert(SubjectId(0), pace(INTERVAL, TIMEOUT), origin);
    let probe = started(&schedule.handle_timeout(origin))[0];
    assert_eq!(schedule.next_timeout(), Some(origin + TIMEOUT));
    assert_eq!(schedule.handle_timeout(origin + TIMEOUT), [Step::Expire(probe)]);
    assert_eq!(schedule.handle_done(probe, origin + TIMEOUT), None);
}

#[test]
fn slots_are_left_out_while_a_probe_is_in_flight() {
    let origin = Instant::now();
    let (interval, timeout) = (Duration::from_secs(1), Duration::from_millis(2500));
    let mut schedule = Schedule::new(limits(256));
    schedule.insert(SubjectId(0), pace(interval, timeout), origin);
    let mut seen = Vec::new();
    let mut now = origin;
    for _ in 0..12 {
        seen.extend(schedule.handle_timeout(now).into_iter().map(|step| (now - origin, step)));
        now = schedule.next_timeout().unwrap();
    }
    // The phase of target 0 is a whole interval: slots at each full second.
    let at: Vec<u128> = seen.iter().map(|(at, _)| at.as_millis()).collect();
    assert_eq!(at[..6], [0, 2500, 3000, 5500, 6000, 8500]);
}

#[test]
fn at_the_limit_those_that_waited_longest_start_first() {
    let origin = Instant::now();
    let mut schedule = Schedule::new(limits(2));
    (0..5).for_each(|id| schedule.insert(SubjectId(id), pace(INTERVAL, TIMEOUT), origin));
    let first = started(&schedule.handle_timeout(origin));
    assert_eq!(first.iter().map(|probe| probe.subject.0).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(schedule.next_timeout(), Some(origin + TIMEOUT), "waiting for a place is no reason to spin");
    schedule.handle_done(first[0], origin);
    assert_eq!(schedule.next_timeout(), Some(origin));
    assert_eq!(started(&schedule.handle_timeout(origin))[0].subject, SubjectId(2));
}

#[test]
fn a_removed_target_gives_its_place_free() {
    let origin = Instant::now();
    let mut schedule = Schedule::new(limits(1));
    schedule.insert(SubjectId(0), pace(INTERVAL, TIMEOUT), origin);
    schedule.insert(SubjectId(1), pace(INTERVAL, TIMEOUT), origin);
    let probe = started(&schedule.handle_timeout(origin))[0];
    assert_eq!(schedule.remove(SubjectId(0)), Some(probe));
    assert_eq!(started(&schedule.handle_timeout(origin))[0].subject, SubjectId(1));
    assert_eq!(schedule.remove(SubjectId(0)), None);
}

/// A world of targets whose probes take as long as `takes` says, and a driver that is late by `late`.
#[derive(Debug, Clone)]
struct World {
    limit: usize,
    targets: Vec<(u64, u64)>,
    takes: Vec<u64>,
    late: Vec<u64>,
}

fn world() -> impl Strategy<Value = World> {
    (
        1usize..8,
        prop::collection::vec((10u64..2000, 1u64..3000), 1..12),
        prop::collection::vec(0u64..4000, 1..50),
        prop::collection::vec(0u64..5, 1..50),
    )
        .prop_map(|(limit, targets, takes, late)| World { limit, targets, takes, late })
}

proptest! {
    #[test]
    fn no_target_starves_drifts_or_is_probed_twice_at_once(world in world()) {
        let ms = Duration::from_millis;
        let origin = Instant::now();
        let mut schedule = Schedule::new(limits(world.limit));
        for (id, &(interval, timeout)) in world.targets.iter().enumerate() {
            schedule.insert(SubjectId(id as u64), pace(ms(interval), ms(timeout)), origin);
        }
        let mut flying: Vec<(Instant, ProbeId)> = Vec::new();
        let mut starts: Vec<Vec<Instant>> = vec![Vec::new(); world.targets.len()];
        let mut now = origin;
        for round in 0..400 {
            flying.retain(|&(ends, probe)| ends > now || schedule.handle_done(probe, now).is_none());
            for step in schedule.handle_timeout(now) {
                match step {
                    Step::Expire(probe) => {
                        prop_assert!(flying.iter().any(|&(_, flying)| flying == probe));
                        flying.retain(|&(_, flying)| flying != probe);
                    }
                    Step::Start(probe) => {
                        prop_assert!(flying.iter().all(|(_, flying)| flying.subject != probe.subject));
                        let takes = ms(world.takes[round % world.takes.len()]);
                        flying.push((now + takes, probe));
                        starts[usize::try_from(probe.subject.0).unwrap()].push(now);
                    }
                }
            }
            prop_assert!(flying.len() <= world.limit);
            let next = schedule.next_timeout().unwrap();
            let end = flying.iter().map(|&(ends, _)| ends).min().unwrap_or(next);
            prop_assert!(next > now, "nothing is left undone");
            now = next.min(end).max(now) + ms(world.late[round % world.late.len()]);
        }
        // Once a slot has come, each of the others goes first at most once, besides those that are in flight.
        let longest: u64 = world.targets.iter().map(|&(_, timeout)| 2 * (timeout + 5)).sum();
        for (starts, &(interval, timeout)) in starts.iter().zip(&world.targets) {
            let bound = ms(2 * interval + timeout + longest + 10);
            let last = starts.last().copied().unwrap_or(origin);
            prop_assert!(starts.windows(2).all(|pair| pair[1] - pair[0] <= bound));
            prop_assert!(now - last <= bound, "starved for {:?}", now - last);
        }
    }

    #[test]
    fn the_grid_never_moves(interval in 1u64..5000, late in prop::collection::vec(0u64..20_000, 1..50)) {
        let (interval, origin) = (Duration::from_millis(interval), Instant::now());
        let mut slot = origin;
        for late in late {
            let now = slot + Duration::from_millis(late);
            slot = next_slot(slot, interval, now);
            prop_assert!(slot > now && slot <= now + interval);
            prop_assert_eq!((slot - origin).as_nanos() % interval.as_nanos(), 0);
        }
    }
}
