//! Long lists of who may not connect, in the running daemon: what clients meet while they change, and what is left of them when the
//! daemon is killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use lb_tests::http::{Client, get};
use lb_tests::scene::{Farm, Scene};
use lb_tests::topology::Family;

const LIMIT: Duration = Duration::from_secs(5);
/// Nobody answers whoever is denied.
const PATIENCE: Duration = Duration::from_millis(400);

/// So many prefixes, and one address.
fn deny(count: u32, address: IpAddr) -> String {
    let prefix = |i: u32| format!("\"198.{}.{}.{}/31\", ", 18 + (i >> 15), i >> 7 & 255, i << 1 & 255);
    format!("ports = [80]\ndeny = [{}\"{address}\"]", (0..count).map(prefix).collect::<String>())
}

#[test]
fn a_long_list_denies_newcomers_and_outlives_the_daemon_and_whoever_is_connected_goes_on() {
    let mut scene = Scene::web(1, &Farm::new("web", "ports = [80]")).unwrap();
    let (topology, daemon) = (&scene.topology, &mut scene.daemon);
    let target = topology.target(Family::V4, 80);
    let sources = topology.sources(Family::V4);
    let [denied, other, ..] = sources[..] else { panic!("{sources:?}") };
    let asks =
        |source: IpAddr| topology.client.enter(|| get(target, Some(source), "/", PATIENCE)).unwrap().is_ok();
    let mut open = topology
        .client
        .enter(|| Client::connect(target, Some(SocketAddr::new(denied, 0)), LIMIT))
        .unwrap()
        .unwrap();
    open.get("/", true).unwrap();
    let reload = |keys: &str, expected: &str| {
        let text = Farm::new("web", keys).text(topology);
        daemon.write_config(&text).unwrap();
        let start = Instant::now();
        let done = daemon.drover(&["reload"]).unwrap();
        let told = String::from_utf8_lossy(&done.stdout).into_owned();
        println!("reloaded in {:?}: {}", start.elapsed(), told.trim());
        assert!(told.contains(expected), "{told} {}", String::from_utf8_lossy(&done.stderr));
    };
    assert!(asks(denied) && asks(other));
    reload(&deny(20_000, denied), "deny nobody -> 20,001 prefixes (20,001 added, 0 removed)");
    assert!(!asks(denied) && asks(other));
    reload(&deny(20_000, other), "20,001 prefixes -> 20,001 prefixes (1 added, 1 removed)");
    assert!(asks(denied) && !asks(other));
    reload(&deny(10_000, denied), "20,001 prefixes -> 10,001 prefixes (1 added, 10,001 removed)");
    assert!(!asks(denied) && asks(other));
    open.get("/", true).unwrap();

    daemon.kill().unwrap();
    assert!(!asks(denied) && asks(other), "no daemon runs");
    daemon.launch(&topology.balancer).unwrap();
    daemon.wait_judged().unwrap();
    assert!(!asks(denied) && asks(other));
    open.get("/", true).unwrap();

    let metrics = daemon.get_text("/metrics").unwrap();
    let line = "drover_farm_refused_total{farm=\"web\",reason=\"denied\"} ";
    let count = metrics.lines().find_map(|text| text.strip_prefix(line)).expect("a counter");
    assert!(count.parse::<u64>().unwrap() >= 5, "{count}");
    let shown = daemon.drover(&["farm", "show", "web"]).unwrap().stdout;
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("deny: 10,001 prefixes"), "{shown}");
    let told = &daemon.get("/v1/farms/web").unwrap()["deny"];
    assert_eq!((&told["count"], told["first"].as_array().unwrap().len()), (&10_001.into(), 10));
    let told = daemon.get("/v1/config").unwrap();
    assert!(told.to_string().contains("198.18.78.30/31"), "the configuration has all of it");
}
