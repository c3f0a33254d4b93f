//! Backends that die, return, or never lived.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::time::{Duration, Instant};

use lb_tests::daemon::Daemon;
use lb_tests::netns::Netns;
use lb_tests::scene::{FALL, Farm, INTERVAL, Scene};
use lb_tests::server::Server;
use lb_tests::steady::Steady;
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::traffic::{Short, udp_flows};
use lb_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(5);
/// The longest that a dead backend may stay in.
const OUT: Duration = Duration::from_millis(INTERVAL.as_millis() as u64 * FALL as u64 + 1000);

/// Waits for an event of a kind about a backend whose message has `phrase`. A backend's end is told when its connections are
/// cut, and how many they were.
fn wait_told(daemon: &Daemon, kind: &str, backend: &str, phrase: &str) {
    let told = |event: &serde_json::Value| {
        let message = event["message"].as_str().unwrap();
        event["kind"] == kind && event["backend"] == backend && message.contains(phrase)
    };
    wait_until(phrase, LIMIT, || daemon.events().unwrap().iter().any(told)).unwrap();
}

#[test]
fn a_backend_that_dies_is_out_in_time_and_returns() {
    let mut scene = Scene::web(2, &Farm::new("web", "ports = [80]")).unwrap();
    let (topology, daemon) = (&scene.topology, &scene.daemon);
    let target = topology.target(Family::V4, 80);
    let sources = topology.sources(Family::V4);
    let steady = Steady::start(&topology.client, target, &sources, Duration::from_millis(10), LIMIT).unwrap();
    wait_until("traffic", LIMIT, || steady.samples().len() > 50).unwrap();
    let died = Instant::now();
    drop(scene.servers.remove(0));
    daemon.wait_status("web", "b1", "down", OUT).unwrap();
    let out = Instant::now();
    println!("out after {:?}", out - died);
    assert_eq!(daemon.get("/v1/farms/web").unwrap()["status"], "degraded");
    let phrase = format!("BackEnd {}:80 down in farm: 'web'", topology.backends[0].v4);
    wait_told(daemon, "backend-down", "b1", &phrase);
    wait_until("the phrase in the log", LIMIT, || daemon.log().contains(&phrase)).unwrap();
    wait_until("traffic after it", LIMIT, || {
        steady.samples().iter().filter(|sample| sample.began > out).count() > 100
    })
    .unwrap();

    let backend = &topology.backends[0];
    let server = Server::start(&backend.netns, "b1", &[80], &[]).unwrap();
    daemon.wait_status("web", "b1", "up", OUT).unwrap();
    assert_eq!(daemon.get("/v1/farms/web").unwrap()["status"], "up");
    wait_told(daemon, "backend-up", "b1", "resurrect in farm: 'web'");
    let tally = Short::new(target, 200).run(&topology.client).unwrap();
    assert!(tally.failures.is_empty() && tally.of("b1") > 50, "{tally:?}");
    for sample in steady.finish() {
        let affected = sample.ended >= died && sample.began <= out;
        assert!(sample.result.is_ok() || affected, "{sample:?}");
    }
    assert!(server.requests() > 50);
}

/// Counts what reaches TCP port 80 of a host and is not the balancer's own.
struct Counter<'a>(&'a Netns);

impl<'a> Counter<'a> {
    fn new(netns: &'a Netns) -> Self {
        let rules = "table inet watch {
            counter strangers { }
            chain in {
                type filter hook input priority 0;
                ip saddr != 10.2.0.1 tcp dport 80 counter name strangers
                ip6 saddr != fd00:2::1 tcp dport 80 counter name strangers
            }
        }";
        netns.run("nft", &[rules]).unwrap();
        Self(netns)
    }

    fn packets(&self) -> u64 {
        let text = self.0.run("nft", &["list", "counter", "inet", "watch", "strangers"]).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "packets").unwrap();
        words[at + 1].parse().unwrap()
    }
}

#[test]
fn a_backend_that_was_dead_at_start_gets_no_packet_until_it_lives() {
    let topology = Topology::new(Arms::Two, 2).unwrap();
    let dead = &topology.backends[1].netns;
    let counter = Counter::new(dead);
    let _b1 = Server::start(&topology.backends[0].netns, "b1", &[80], &[]).unwrap();
    let mut daemon =
        Daemon::prepare(&topology, "native", &Farm::new("web", "ports = [80]").text(&topology)).unwrap();
    daemon.launch(&topology.balancer).unwrap();
    // From the first moment: clients do not wait for a judgement.
    daemon.wait_status("web", "b1", "up", LIMIT).unwrap();
    for family in [Family::V4, Family::V6] {
        let tally = Short::new(topology.target(family, 80), 200).run(&topology.client).unwrap();
        assert_eq!((tally.of("b1"), tally.failures), (200, vec![]), "{family:?}");
    }
    daemon.wait_status("web", "b2", "down", LIMIT).unwrap();
    assert_eq!(counter.packets(), 0);
    let _b2 = Server::start(dead, "b2", &[80], &[]).unwrap();
    daemon.wait_status("web", "b2", "up", OUT).unwrap();
    let tally = Short::new(topology.target(Family::V4, 80), 200).run(&topology.client).unwrap();
    assert!(tally.failures.is_empty() && tally.of("b2") > 50, "{tally:?}");
    assert!(counter.packets() > 0, "the counter counts");
}

#[test]
fn a_backend_cut_from_the_network_is_out_in_time() {
    let scene = Scene::web(2, &Farm::new("web", "ports = [80]")).unwrap();
    let (topology, daemon) = (&scene.topology, &scene.daemon);
    topology.backends[0].netns.ip("link set eth0 down\n").unwrap();
    // A check that is not answered fails only at its time-out.
    let reason = daemon.wait_status("web", "b1", "down", OUT + INTERVAL).unwrap();
    println!("{reason}");
    let tally = Short::new(topology.target(Family::V4, 80), 100).run(&topology.client).unwrap();
    assert_eq!((tally.of("b2"), tally.failures), (100, vec![]));
}

#[test]
fn one_dead_port_of_two_takes_a_backend_out() {
    let farm = Farm::new("web", "ports = [80, 443]");
    let topology = Topology::new(Arms::Two, 2).unwrap();
    let _b1 = Server::start(&topology.backends[0].netns, "b1", &[80], &[]).unwrap();
    let _b2 = Server::start(&topology.backends[1].netns, "b2", &[80, 443], &[]).unwrap();
    let daemon = Daemon::start(&topology, "native", &farm.text(&topology)).unwrap();
    let reason = daemon.wait_status("web", "b1", "down", LIMIT).unwrap();
    assert!(reason.contains("443"), "{reason}");
    let tally = Short::new(topology.target(Family::V4, 80), 50).run(&topology.client).unwrap();
    assert_eq!((tally.of("b2"), tally.failures), (50, vec![]));
}

#[test]
fn a_farm_whose_backends_were_all_dead_serves_as_soon_as_one_returns() {
    let mut scene = Scene::web(2, &Farm::new("web", "ports = [80]")).unwrap();
    scene.servers.clear();
    let (topology, daemon) = (&scene.topology, &scene.daemon);
    for backend in ["b1", "b2"] {
        daemon.wait_status("web", backend, "down", OUT).unwrap();
    }
    assert_eq!(daemon.get("/v1/farms/web").unwrap()["status"], "down");
    let mut short = Short::new(topology.target(Family::V4, 80), 3);
    short.limit = Duration::from_millis(300);
    assert_eq!(short.run(&topology.client).unwrap().total(), 0);
    let _b2 = Server::start(&topology.backends[1].netns, "b2", &[80], &[]).unwrap();
    daemon.wait_status("web", "b2", "up", OUT).unwrap();
    let tally = Short::new(topology.target(Family::V4, 80), 50).run(&topology.client).unwrap();
    assert_eq!((tally.of("b2"), tally.failures), (50, vec![]));
}

#[test]
fn udp_flows_leave_a_dead_backend() {
    let farm = Farm::new("dns", "ports = [53]\nprotocol = [\"tcp\", \"udp\"]");
    let servers: (&[u16], &[u16]) = (&[53], &[53]);
    let mut scene = Scene::new(Arms::Two, 2, "native", servers, |topology| farm.text(topology)).unwrap();
    let target = scene.topology.target(Family::V4, 53);
    let sources = scene.topology.sources(Family::V4);
    drop(scene.servers.remove(0));
    scene.daemon.wait_status("dns", "b1", "down", OUT).unwrap();
    let tally = udp_flows(&scene.topology.client, target, &sources, 50, 2).unwrap();
    assert_eq!((tally.of("b2"), tally.failures), (50, vec![]));
}
