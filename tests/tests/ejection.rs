//! Backends taken out on the word of the traffic: who can bring that about, and what it costs those who are connected.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is a test")]

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use lb_tests::daemon::Daemon;
use lb_tests::scene::{Farm, Scene};
use lb_tests::steady::Steady;
use lb_tests::topology::Family;
use lb_tests::traffic::LongLived;
use lb_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(5);

/// A farm whose checks look so seldom that what happens meanwhile is the traffic's word alone.
fn farm(keys: &str) -> Farm<'_> {
    Farm { check_port: Some(80), interval: Duration::from_secs(60), ..Farm::new("web", keys) }
}

/// What happened to b1, as events.
fn changes(daemon: &Daemon) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let events = daemon.events().unwrap();
    let of = events.iter().filter(|event| event["backend"] == "b1");
    of.map(|event| (text(&event["kind"]), text(&event["message"]))).collect()
}

#[test]
fn one_client_that_knocks_at_closed_ports_takes_nobody_out() {
    let keys = "ports = [80, \"1000-1999\"]\npassive = { eject = true, hold = \"60s\", at_most = 100 }";
    let scene = Scene::web(2, &farm(keys)).unwrap();
    let (topology, daemon) = (&scene.topology, &scene.daemon);
    let target = topology.target(Family::V4, 80);
    let users = topology.sources(Family::V4).split_off(1);
    let long = LongLived::open(&topology.client, target, &users, 20, Duration::from_millis(20)).unwrap();
    let until = Instant::now() + Duration::from_secs(3);
    let knocked = topology.client.enter(|| {
        let mut ports = (1000..2000u16).cycle();
        std::iter::from_fn(|| (Instant::now() < until).then(|| ports.next()).flatten())
            .filter(|port| TcpStream::connect(SocketAddr::new(target.ip(), *port)).is_err())
            .count()
    });
    assert!(knocked.unwrap() > 50, "the ports are closed, and the answer is quick");
    for backend in ["b1", "b2"] {
        assert_eq!(daemon.backend("web", backend).unwrap()["status"], "up");
    }
    assert!(changes(daemon).iter().all(|(kind, _)| kind == "backend-up"), "{:?}", changes(daemon));
    for report in long.finish().unwrap() {
        assert_eq!(report.failure, None, "nobody else suffers");
    }
}

#[test]
fn a_backend_that_resets_several_clients_is_ejected_for_a_while_and_cuts_nobody() {
    let keys = "ports = [80]\npassive = { eject = true, hold = \"2s\" }";
    let scene = Scene::web(2, &farm(keys)).unwrap();
    let (topology, daemon) = (&scene.topology, &scene.daemon);
    let target = topology.target(Family::V4, 80);
    let sources = topology.sources(Family::V4);
    let long = LongLived::open(&topology.client, target, &sources, 20, Duration::from_millis(20)).unwrap();
    let steady = Steady::start(&topology.client, target, &sources, Duration::from_millis(10), LIMIT).unwrap();
    wait_until("traffic", LIMIT, || steady.samples().len() > 50).unwrap();
    // Who is connected is served on; whoever comes from the clients' side is reset.
    let rules = "table inet busy {
        chain in {
            type filter hook input priority 0;
            tcp dport 80 tcp flags & (syn | ack) == syn reject with tcp reset
        }
    }";
    let backend = &topology.backends[0].netns;
    backend.run("nft", &[rules]).unwrap();
    let reason = daemon.wait_status("web", "b1", "down", LIMIT).unwrap();
    assert!(reason.starts_with("ejected for 2s: "), "{reason}");
    let out = Instant::now();
    backend.run("nft", &["delete table inet busy"]).unwrap();
    // Requests that began before are over, those that began since go elsewhere.
    wait_until("requests after it", LIMIT, || {
        steady.samples().iter().filter(|sample| sample.began > out).count() > 20
    })
    .unwrap();
    daemon.wait_status("web", "b1", "up", LIMIT).unwrap();
    assert!(out.elapsed() > Duration::from_secs(1), "{:?}", out.elapsed());
    let samples = steady.finish();
    let late = samples.iter().filter(|sample| sample.began > out + Duration::from_millis(200));
    assert!(late.clone().count() > 20 && late.clone().all(|sample| sample.result.is_ok()));
    let told = changes(daemon);
    let down = told.iter().find(|(kind, _)| kind == "backend-down").expect("it is told");
    assert!(down.1.contains("new connections go to b2; it keeps "), "{}", down.1);
    assert!(told.iter().any(|(_, message)| message.contains("its ejection is over")), "{told:?}");
    for report in long.finish().unwrap() {
        assert_eq!(report.failure, None, "ejection cuts nobody");
    }
}
