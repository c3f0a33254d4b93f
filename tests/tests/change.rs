//! A change of the configuration under load: who is connected stays, and of the others as few move as can be.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::net::SocketAddr;
use std::time::Duration;

use lb_tests::scene::{Farm, Scene};
use lb_tests::steady::Steady;
use lb_tests::topology::Family;
use lb_tests::traffic::{LongLived, fixed};
use lb_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(5);
const PORTS: std::ops::Range<u16> = 20000..20100;

/// Which backend answers each of 600 connections, always from the same addresses and ports.
fn who_answers(scene: &Scene, family: Family) -> Vec<String> {
    let sources: Vec<_> = scene.topology.sources(family).into_iter().take(6).collect();
    let sources: Vec<_> =
        sources.iter().flat_map(|&source| PORTS.map(move |port| SocketAddr::new(source, port))).collect();
    let target = scene.topology.target(family, 80);
    let answers = fixed(&scene.topology.client, target, &sources, LIMIT).unwrap();
    answers.into_iter().map(|answer| answer.unwrap()).collect()
}

/// Waits until the connections of `who_answers` are forgotten: a connection that is known stays where it is.
fn wait_forgotten(scene: &Scene) {
    let ours = |connection: &serde_json::Value| {
        let client: SocketAddr = connection["client"].as_str().unwrap().parse().unwrap();
        PORTS.contains(&client.port())
    };
    wait_until("closed connections to be forgotten", Duration::from_secs(20), || {
        !scene.daemon.connections("farm=web&limit=100000").unwrap().iter().any(ours)
    })
    .unwrap();
}

/// How many went elsewhere, in percent of those that `counts` says.
fn moved(before: &[String], after: &[String], counts: impl Fn(&str) -> bool) -> f64 {
    let pairs: Vec<_> = before.iter().zip(after).filter(|(before, _)| counts(before)).collect();
    100.0 * pairs.iter().filter(|(before, after)| before != after).count() as f64 / pairs.len() as f64
}

fn add_and_remove(mode: &str, by_reload: bool) {
    let keys = format!("ports = [80]\nmode = \"{mode}\"\ntimeouts = {{ fin = \"1s\" }}");
    let farm = |backends| Farm { backends, ..Farm::new("web", &keys) };
    let scene = Scene::web(3, &farm(2)).unwrap();
    let (topology, daemon) = (&scene.topology, &scene.daemon);
    let target = topology.target(Family::V4, 80);
    let pause = Duration::from_millis(20);
    let sources = &topology.sources(Family::V4)[6..];
    let long = LongLived::open(&topology.client, target, sources, 40, pause).unwrap();
    let steady = Steady::start(&topology.client, target, sources, pause, LIMIT).unwrap();
    let change = |backends: usize| {
        let text = farm(backends).text(topology);
        let output = if by_reload {
            daemon.write_config(&text).unwrap();
            daemon.drover(&["reload"])
        } else {
            let file = daemon.config().with_file_name("next.toml");
            std::fs::write(&file, daemon.config_text(&text)).unwrap();
            daemon.drover(&["apply", file.to_str().unwrap()])
        };
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        daemon.wait_judged().unwrap();
    };

    let families = [Family::V4, Family::V6];
    let two = families.map(|family| who_answers(&scene, family));
    wait_forgotten(&scene);
    change(3);
    daemon.wait_status("web", "b3", "up", LIMIT).unwrap();
    let three = families.map(|family| who_answers(&scene, family));
    for (before, after) in two.iter().zip(&three) {
        let moved = moved(before, after, |_| true);
        println!("{mode}: {moved:.1} % of new connections go elsewhere with a third backend");
        assert!(moved <= 100.0 / 3.0 + 3.0, "{moved}");
        assert!(after.iter().filter(|name| *name == "b3").count() > before.len() / 4);
    }

    wait_forgotten(&scene);
    change(2);
    let again = families.map(|family| who_answers(&scene, family));
    for (before, after) in three.iter().zip(&again) {
        assert!(!after.iter().any(|name| name == "b3"));
        let moved = moved(before, after, |name| name != "b3");
        println!("{mode}: {moved:.1} % of the others go elsewhere when it is gone");
        assert!(moved <= 3.0, "{moved}");
    }

    let done = long.exchanges();
    wait_until("the long connections to go on", LIMIT, || long.exchanges() > done + 40).unwrap();
    for report in long.finish().unwrap() {
        assert_eq!(report.failure, None, "{report:?}");
    }
    let samples = steady.finish();
    let failures: Vec<_> = samples.iter().filter(|sample| sample.result.is_err()).collect();
    assert!(failures.is_empty(), "{} of {}: {failures:?}", failures.len(), samples.len());
}

#[test]
fn a_third_backend_comes_and_goes_by_apply_and_nobody_is_reset_by_nat() {
    add_and_remove("nat", false);
}

#[test]
fn a_third_backend_comes_and_goes_by_reload_and_nobody_is_reset_by_dnat() {
    add_and_remove("dnat", true);
}

#[test]
fn a_dry_run_says_whose_connections_a_change_would_leave_or_cut() {
    let farm = |backends| Farm { backends, ..Farm::new("web", "ports = [80]") };
    let scene = Scene::web(2, &farm(2)).unwrap();
    let (topology, daemon) = (&scene.topology, &scene.daemon);
    let (target, pause) = (topology.target(Family::V4, 80), Duration::from_millis(20));
    let long = LongLived::open(&topology.client, target, &topology.sources(Family::V4), 40, pause).unwrap();
    let live = |backend: &str| daemon.connections(&format!("farm=web&backend={backend}")).unwrap().len();
    wait_until("all to be there", LIMIT, || live("b1") + live("b2") >= 40).unwrap();
    let dry_run = |text: &str| {
        let file = daemon.config().with_file_name("next.toml");
        std::fs::write(&file, daemon.config_text(text)).unwrap();
        let output = daemon.drover(&["apply", "--dry-run", "--json", file.to_str().unwrap()]).unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    assert_eq!(dry_run(&farm(2).text(topology)).get("affected"), None, "nothing changes");
    // Checks come and go through no farm; what counts is counted by the sweep, once a second.
    let left = |orphaned: usize| serde_json::json!([{"farm": "web", "backend": "b2", "orphaned": orphaned, "cut": 0}]);
    wait_until("what is live to be counted", LIMIT, || {
        dry_run(&farm(1).text(topology))["affected"] == left(live("b2"))
    })
    .unwrap();
    let (vip, other) = (target.ip().to_string(), topology.vip(Family::V4, 9).to_string());
    let cut = dry_run(&farm(2).text(topology).replace(&vip, &other));
    let of = |backend: &str| serde_json::json!({"farm": "web", "backend": backend, "orphaned": 0, "cut": live(backend)});
    assert_eq!(cut["affected"], serde_json::json!([of("b1"), of("b2")]));
    for report in long.finish().unwrap() {
        assert_eq!(report.failure, None, "a dry run does nothing: {report:?}");
    }
}
