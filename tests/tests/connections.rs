//! The life of tracked connections: their states, and that they are forgotten in time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use lb_tests::http::Client;
use lb_tests::scene::{Farm, Scene};
use lb_tests::topology::{Arms, Family};
use lb_tests::traffic::{LongLived, Short, udp_flows};
use lb_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(5);
/// A time-out of a second, and the pace at which the daemon sweeps its table.
const FORGOTTEN: Duration = Duration::from_secs(6);

/// The states of the connections of the farm `web`.
fn states(scene: &Scene) -> Vec<String> {
    let connections = scene.daemon.connections("farm=web&limit=100000").unwrap();
    connections.iter().map(|it| it["state"].as_str().unwrap().to_owned()).collect()
}

fn wait_states(scene: &Scene, limit: Duration, expected: &[&str]) {
    let what = format!("the states {expected:?}");
    wait_until(&what, limit, || states(scene) == expected)
        .unwrap_or_else(|error| panic!("{error}: {:?}", states(scene)));
}

#[test]
fn closed_and_reset_connections_are_forgotten_and_open_ones_are_not() {
    let farm = Farm::new("web", "ports = [80]\ntimeouts = { syn = \"1s\", fin = \"1s\" }");
    let scene = Scene::web(2, &farm).unwrap();
    let topology = &scene.topology;
    let target = topology.target(Family::V4, 80);
    let tally = Short::new(target, 100).run(&topology.client).unwrap();
    assert_eq!(tally.failures, Vec::<String>::new());
    let reset = || Client::connect(target, None, LIMIT)?.reset();
    topology.client.enter(|| (0..20).for_each(|_| reset().unwrap())).unwrap();
    let idle = topology.client.enter(|| {
        let mut idle = Client::connect(target, None, LIMIT).unwrap();
        idle.get("/", true).unwrap();
        idle
    });
    wait_states(&scene, FORGOTTEN, &["established"]);
    let mut idle = idle.unwrap();
    idle.get("/", true).unwrap();
    idle.get("/", false).unwrap();
    drop(idle);
    wait_states(&scene, FORGOTTEN, &[]);
}

#[test]
fn idle_udp_flows_are_forgotten_and_live_ones_are_not() {
    let keys = "ports = [80]\nprotocol = [\"tcp\", \"udp\"]\ntimeouts = { udp = \"1s\" }";
    let farm = Farm::new("web", keys);
    let scene = Scene::new(Arms::Two, 2, "native", (&[80], &[80]), |topology| farm.text(topology)).unwrap();
    for family in [Family::V4, Family::V6] {
        let sources = scene.topology.sources(family);
        let target = scene.topology.target(family, 80);
        let tally = udp_flows(&scene.topology.client, target, &sources, 50, 2).unwrap();
        assert_eq!(tally.failures, Vec::<String>::new());
    }
    assert!(!states(&scene).is_empty());
    wait_states(&scene, FORGOTTEN, &[]);
}

#[test]
fn an_opening_that_nobody_answers_is_forgotten() {
    let farm = Farm { checked: false, ..Farm::new("web", "ports = [80]\ntimeouts = { syn = \"1s\" }") };
    let scene = Scene::web(1, &farm).unwrap();
    let topology = &scene.topology;
    assert_eq!(scene.daemon.get("/v1/farms/web").unwrap()["status"], "unchecked");
    // The host takes packets and answers nothing.
    let deaf = "table inet deaf {\nchain in {\ntype filter hook input priority 0;\ntcp dport 80 drop\n}\n}";
    topology.backends[0].netns.run("nft", &[deaf]).unwrap();
    let mut short = Short::new(topology.target(Family::V4, 80), 20);
    short.limit = Duration::from_millis(200);
    let tally = short.run(&topology.client).unwrap();
    assert_eq!((tally.total(), tally.failures.len()), (0, 20));
    assert!(states(&scene).iter().all(|state| state == "unanswered"), "{:?}", states(&scene));
    wait_states(&scene, FORGOTTEN, &[]);
}

#[test]
fn connections_to_one_backend_never_share_a_source() {
    let scene = Scene::web(2, &Farm::new("web", "ports = [80]")).unwrap();
    for family in [Family::V4, Family::V6] {
        let target = scene.topology.target(family, 80);
        let sources = scene.topology.sources(family);
        let pause = Duration::from_millis(500);
        let long = LongLived::open(&scene.topology.client, target, &sources, 300, pause).unwrap();
        let connections = scene.daemon.connections("farm=web&limit=100000").unwrap();
        let source = |it: &serde_json::Value| it["source"].as_str().unwrap().parse::<SocketAddr>().unwrap();
        for backend in ["b1", "b2"] {
            let of_family = connections.iter().filter(|it| source(it).is_ipv4() == target.is_ipv4());
            let sources: Vec<_> = of_family.filter(|it| it["backend"] == backend).map(source).collect();
            assert!(sources.len() > 100, "{}", sources.len());
            assert!(sources.iter().all(|source| source.ip() == target.ip()), "nat uses the VIP as source");
            let different: BTreeSet<_> = sources.iter().collect();
            assert_eq!(different.len(), sources.len());
        }
        for report in long.finish().unwrap() {
            assert_eq!(report.failure, None);
        }
    }
}
