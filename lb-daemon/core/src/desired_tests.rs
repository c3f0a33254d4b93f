use super::*;
use crate::config::model::Backend;
use crate::test_config::config_of;
use BackendStatus::{Down, Draining, Maintenance, Standby, Starting, Unchecked, Up};

fn farm(priorities: &[u16]) -> Farm {
    let backends = priorities.iter().enumerate().map(|(i, &priority)| Backend {
        name: BackendName::new(&format!("b{i}")).unwrap(),
        address: Addresses { v4: Some([10, 0, 0, i as u8].into()), v6: None },
        port: None,
        weight: 1,
        priority,
    });
    Farm { backends: backends.collect(), ..Farm::new(FarmName::new("web").unwrap()) }
}

fn facts(statuses: &[BackendStatus]) -> Vec<BackendFacts> {
    let facts =
        |&status| BackendFacts { status, weight: 1, ramp: 100, failing: status == Down, unreachable: false };
    statuses.iter().map(facts).collect()
}

fn desired(farm: &Farm, facts: &[BackendFacts]) -> Desired {
    Desired::of(&config_of(vec![farm.clone()]), |_| facts.to_vec())
}

#[test]
fn the_healthy_ones_of_the_best_priority_serve_and_the_others_stand_by() {
    let table: &[(&[u16], &[BackendStatus], &[BackendStatus])] = &[
        (&[0, 0], &[Up, Up], &[Up, Up]),
        (&[0, 1], &[Up, Up], &[Up, Standby]),
        (&[0, 1], &[Down, Up], &[Down, Up]),
        (&[0, 1, 2], &[Down, Up, Up], &[Down, Up, Standby]),
        (&[5, 5, 9], &[Draining, Down, Up], &[Draining, Down, Up]),
        (&[0, 1], &[Starting, Up], &[Starting, Up]),
        (&[0, 1], &[Unchecked, Unchecked], &[Unchecked, Standby]),
        (&[0, 1], &[Down, Down], &[Down, Down]),
    ];
    for (priorities, before, after) in table {
        let mut facts = facts(before);
        rank(&farm(priorities), &mut facts);
        let got: Vec<_> = facts.iter().map(|facts| facts.status).collect();
        assert_eq!(got, *after, "{priorities:?} {before:?}");
    }
}

#[test]
fn one_of_weight_0_does_not_keep_the_others_waiting() {
    let mut facts = facts(&[Up, Up]);
    facts[0].weight = 0;
    rank(&farm(&[0, 1]), &mut facts);
    assert_eq!(facts[1].status, Up);
}

#[test]
fn all_are_tried_only_when_all_are_judged_and_none_serves() {
    let mut farm = farm(&[0, 0]);
    assert_eq!(serving(&farm, &facts(&[Down, Down])), [false, false]);
    farm.when_all_down = WhenAllDown::TryAll;
    assert_eq!(serving(&farm, &facts(&[Down, Down])), [true, true]);
    assert_eq!(serving(&farm, &facts(&[Down, Draining])), [true, false]);
    assert_eq!(serving(&farm, &facts(&[Down, Starting])), [false, false]);
    assert_eq!(serving(&farm, &facts(&[Down, Up])), [false, true]);
    let mut apart = facts(&[Down, Down]);
    apart[0].unreachable = true;
    assert_eq!(serving(&farm, &apart), [false, true], "nothing leads to it");
}

#[test]
fn who_takes_connections_and_who_lives() {
    // (status, weight) -> (serving, takes, lives), beside one that is up.
    let table = [
        ((Up, 1), (true, true, true)),
        ((Up, 0), (true, false, true)),
        ((Unchecked, 1), (true, true, true)),
        ((Starting, 1), (false, false, true)),
        ((Standby, 1), (false, false, true)),
        ((Draining, 1), (false, false, true)),
        ((Maintenance, 1), (false, false, true)),
        ((Down, 1), (false, false, false)),
    ];
    for ((status, weight), expected) in table {
        let mut facts = facts(&[status, Up]);
        facts[0].weight = weight;
        let [backend, _] = &desired(&farm(&[0, 0]), &facts).farms[0].backends[..] else { panic!() };
        assert_eq!((backend.serving, backend.takes(), backend.lives), expected, "{status:?} {weight}");
        // Those that it had come back to whoever takes connections, and to one that is drained.
        assert_eq!(backend.returns, expected.1 || status == Draining, "{status:?} {weight}");
    }
}

#[test]
fn one_that_is_ejected_takes_nobody_and_lives() {
    let mut facts = facts(&[Down, Up]);
    facts[0].failing = false;
    let [backend, _] = &desired(&farm(&[0, 0]), &facts).farms[0].backends[..] else { panic!() };
    assert_eq!((backend.takes(), backend.lives), (false, true));
}

#[test]
fn vips_answer_while_a_backend_takes_new_connections() {
    // Statuses and weight -> whether it answers by default.
    for (statuses, weight, answers) in [
        ([Up, Down], 1, true),
        ([Up, Down], 0, false),
        ([Unchecked, Down], 1, true),
        ([Down, Draining], 1, false),
        ([Starting, Maintenance], 1, false),
    ] {
        let mut facts = facts(&statuses);
        facts.iter_mut().for_each(|facts| facts.weight = weight);
        let echoes = |echo| desired(&Farm { echo, ..farm(&[0, 0]) }, &facts).farms[0].echo;
        assert_eq!(
            [Echo::Up, Echo::Always, Echo::Never].map(echoes),
            [answers, true, false],
            "{statuses:?} {weight}"
        );
    }
}

#[test]
fn nobody_comes_back_to_one_that_is_drained_and_dead() {
    let mut facts = facts(&[Draining, Up]);
    facts[0].failing = true;
    assert!(!desired(&farm(&[0, 0]), &facts).farms[0].backends[0].returns);
}

#[test]
fn affinity_is_a_time_and_masks() {
    let of = |affinity| desired(&Farm { affinity, ..farm(&[0]) }, &facts(&[Up])).farms[0].rules;
    assert_eq!(of(None), Rules::new(32, 128));
    let affinity = Affinity { timeout: Duration::from_secs(60), prefix_v4: 24, prefix_v6: 64 };
    assert_eq!(of(Some(affinity)), Rules { affinity: 600, ..Rules::new(24, 64) });
}

#[test]
fn timeouts_are_whole_ticks_and_never_shorter_than_asked_for() {
    let default = Timeouts::default();
    let expected = TimeoutTicks { syn: 100, established: 74_400, half_closed: 2400, fin: 100, udp: 1200 };
    assert_eq!(ticks(&default), expected);
    let thirty_days = 30 * 24 * 3_600_000;
    for (milliseconds, expected) in [(0, 1), (1, 1), (99, 1), (100, 1), (101, 2), (thirty_days, 25_920_000)] {
        let timeouts = Timeouts { half_closed: Duration::from_millis(milliseconds), ..default };
        assert_eq!(ticks(&timeouts).half_closed, expected, "{milliseconds} ms");
    }
    let farm = Farm { timeouts: Timeouts { udp: Duration::from_secs(1), ..default }, ..farm(&[0]) };
    assert_eq!(desired(&farm, &facts(&[Up])).farms[0].timeouts.udp, 10);
}

#[test]
fn those_that_are_tried_live() {
    let mut farm = farm(&[0, 0]);
    let lives = |farm: &Farm, statuses: &[BackendStatus]| -> Vec<bool> {
        let desired = desired(farm, &facts(statuses));
        desired.farms[0].backends.iter().map(|backend| backend.lives).collect()
    };
    assert_eq!(lives(&farm, &[Down, Down]), [false, false]);
    farm.when_all_down = WhenAllDown::TryAll;
    assert_eq!(lives(&farm, &[Down, Down]), [true, true]);
    assert_eq!(lives(&farm, &[Down, Up]), [false, true]);
}
