//! How evenly connections are shared.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use lb_tests::scene::{Farm, Scene};
use lb_tests::topology::Family;
use lb_tests::traffic::Short;

const CONNECTIONS: usize = 10_000;
/// How far a share may be from its ideal, in percent of all connections.
const TOLERANCE: f64 = 3.0;

/// 10,000 short connections; `ideal` is b1's share, in percent.
fn check(mode: &str, backend_keys: &[&str], ideal: f64) {
    let keys = format!("ports = [80]\nmode = \"{mode}\"");
    let farm = Farm { backend_keys, ..Farm::new("web", &keys) };
    let scene = Scene::web(2, &farm).unwrap();
    let mut short = Short::new(scene.topology.target(Family::V4, 80), CONNECTIONS);
    (short.concurrency, short.sources) = (32, scene.topology.sources(Family::V4));
    let tally = short.run(&scene.topology.client).unwrap();
    assert_eq!(tally.failures, Vec::<String>::new());
    assert_eq!(tally.total(), CONNECTIONS as u64);
    let percent = tally.percent("b1");
    println!("{mode}: b1 has {percent:.2} %, {ideal} % is ideal");
    assert!((percent - ideal).abs() <= TOLERANCE, "b1 has {percent} %, not {ideal} %");
    for (server, backend) in scene.servers.iter().zip(&scene.topology.backends) {
        assert_eq!(server.requests(), tally.of(&backend.name), "{} counts as its clients do", backend.name);
    }
}

#[test]
fn equal_backends_share_equally_by_nat() {
    check("nat", &[], 50.0);
}

#[test]
fn equal_backends_share_equally_by_dnat() {
    check("dnat", &[], 50.0);
}

#[test]
fn a_weight_of_three_to_one_is_three_quarters_by_nat() {
    check("nat", &["weight = 3", "weight = 1"], 75.0);
}

#[test]
fn a_weight_of_three_to_one_is_three_quarters_by_dnat() {
    check("dnat", &["weight = 3", "weight = 1"], 75.0);
}

#[test]
fn a_weight_of_zero_takes_no_connection() {
    let farm = Farm { backend_keys: &["weight = 0", "weight = 1"], ..Farm::new("web", "ports = [80]") };
    let scene = Scene::web(2, &farm).unwrap();
    for family in [Family::V4, Family::V6] {
        let tally = Short::new(scene.topology.target(family, 80), 200).run(&scene.topology.client).unwrap();
        assert_eq!((tally.of("b2"), tally.failures), (200, vec![]), "{family:?}");
    }
}
