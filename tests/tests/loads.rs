//! New work goes to who has less to do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is a test")]

use std::time::Duration;

use lb_tests::http::Client;
use lb_tests::scene::{Farm, Scene};
use lb_tests::topology::Family;
use lb_tests::traffic::{Short, Tally};

const PATIENCE: Duration = Duration::from_secs(5);

/// Opens so many connections to each of three backends. Those of `slow` stay; the others' clients are served, and leave.
fn wait_at(scene: &Scene, slow: &str, each: usize) -> Vec<Client> {
    let target = scene.topology.target(Family::V4, 80);
    let connect = |_| {
        let mut client = Client::connect(target, None, PATIENCE).unwrap();
        (client.get("/", true).unwrap().name, client)
    };
    let connected: Vec<_> = scene.topology.client.enter(|| (0..3 * each).map(connect).collect()).unwrap();
    let held: Vec<_> = connected.into_iter().filter(|(name, _)| name == slow).map(|(_, it)| it).collect();
    assert!(held.len().abs_diff(each) <= each / 10, "{} of {} waited at it", held.len(), 3 * each);
    held
}

fn ask(scene: &Scene, family: Family) -> Tally {
    let tally = Short::new(scene.topology.target(family, 80), 300).run(&scene.topology.client).unwrap();
    assert_eq!((tally.total(), tally.failures.clone()), (300, vec![]));
    tally
}

#[test]
fn a_slow_backend_gets_less_new_work_also_after_its_daemon_was_killed() {
    let farm = Farm::new("web", "ports = [80]\nscheduler = \"least-connections\"");
    let mut scene = Scene::web(3, &farm).unwrap();
    // More than the clients below ever have open at a time.
    let held = wait_at(&scene, "b2", 60);
    for family in [Family::V4, Family::V6] {
        let tally = ask(&scene, family);
        assert!(tally.of("b2") <= 20 && tally.of("b1") > 75 && tally.of("b3") > 75, "{tally:?}");
    }
    scene.daemon.kill().unwrap();
    assert!(ask(&scene, Family::V4).of("b2") <= 20, "the program knows by itself");
    scene.daemon.launch(&scene.topology.balancer).unwrap();
    scene.daemon.wait_judged().unwrap();
    assert!(ask(&scene, Family::V4).of("b2") <= 20, "and so does the next daemon");
    drop(held);
    let tally = ask(&scene, Family::V4);
    assert!(tally.of("b2") > 75, "nobody waits at it any more: {tally:?}");
}
