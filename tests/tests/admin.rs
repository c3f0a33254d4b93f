//! An operator's hand on the running daemon: drain, maintenance, weights, connections, and what the daemon tells.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use lb_tests::http::get;
use lb_tests::scene::{Farm, Scene};
use lb_tests::topology::Family;
use lb_tests::traffic::{LongLived, Short, Tally};
use lb_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(5);

fn scene() -> Scene {
    Scene::web(2, &Farm::new("web", "ports = [80]")).unwrap()
}

fn command(scene: &Scene, args: &[&str]) {
    let output = scene.daemon.drover(args).unwrap();
    assert!(output.status.success(), "drover {args:?}: {output:?}");
}

fn shares(scene: &Scene) -> Tally {
    let tally = Short::new(scene.topology.target(Family::V4, 80), 200).run(&scene.topology.client).unwrap();
    assert_eq!(tally.failures, Vec::<String>::new());
    tally
}

#[test]
fn a_drained_backend_keeps_its_connections_and_gets_no_new_ones() {
    let scene = scene();
    let target = scene.topology.target(Family::V4, 80);
    let long = LongLived::open(&scene.topology.client, target, &[], 20, Duration::from_millis(10)).unwrap();
    command(&scene, &["backend", "drain", "web", "b1"]);
    scene.daemon.wait_status("web", "b1", "draining", LIMIT).unwrap();
    assert_eq!(shares(&scene).of("b2"), 200);
    let done = long.exchanges();
    wait_until("the old connections to go on", LIMIT, || long.exchanges() > done + 40).unwrap();
    let reports = long.finish().unwrap();
    assert!(reports.iter().all(|report| report.failure.is_none()), "{reports:?}");
    assert!(reports.iter().any(|report| report.backend == "b1"), "{reports:?}");
    command(&scene, &["backend", "up", "web", "b1"]);
    scene.daemon.wait_status("web", "b1", "up", LIMIT).unwrap();
    assert!(shares(&scene).of("b1") > 50);
}

#[test]
fn a_drained_backend_keeps_its_clients_where_the_farm_has_affinity() {
    let farm = "ports = [80]\nscheduler = \"weighted-round-robin\"\naffinity = { timeout = \"10m\" }";
    let scene = Scene::web(2, &Farm::new("web", farm)).unwrap();
    let sources = scene.topology.sources(Family::V4);
    let target = scene.topology.target(Family::V4, 80);
    let met =
        |source| scene.topology.client.enter(|| get(target, Some(source), "/", LIMIT)).unwrap().unwrap().name;
    let had: Vec<String> = sources.iter().take(4).map(|source| met(*source)).collect();
    assert!(had.contains(&"b1".to_owned()) && had.contains(&"b2".to_owned()), "{had:?}");
    command(&scene, &["backend", "drain", "web", "b1"]);
    scene.daemon.wait_status("web", "b1", "draining", LIMIT).unwrap();
    for (source, had) in sources.iter().zip(&had) {
        assert_eq!([met(*source), met(*source)], [had.clone(), had.clone()]);
    }
    assert_eq!(met(sources[5]), "b2", "nobody new");
    command(&scene, &["backend", "maintenance", "web", "b1"]);
    scene.daemon.wait_status("web", "b1", "maintenance", LIMIT).unwrap();
    assert_eq!(met(sources[0]), "b2");
}

#[test]
fn maintenance_outlives_passing_checks_and_a_restart_of_the_daemon() {
    let mut scene = scene();
    command(&scene, &["backend", "maintenance", "web", "b1"]);
    scene.daemon.wait_status("web", "b1", "maintenance", LIMIT).unwrap();
    assert_eq!(shares(&scene).of("b2"), 200);
    scene.daemon.kill().unwrap();
    scene.daemon.launch(&scene.topology.balancer).unwrap();
    scene.daemon.wait_judged().unwrap();
    scene.daemon.wait_status("web", "b1", "maintenance", LIMIT).unwrap();
    assert_eq!(shares(&scene).of("b2"), 200);
}

#[test]
fn a_weight_set_by_hand_changes_the_shares() {
    let scene = scene();
    command(&scene, &["backend", "weight", "web", "b1", "9"]);
    let percent = shares(&scene).percent("b1");
    assert!(percent > 80.0, "{percent}");
    command(&scene, &["backend", "weight", "web", "b1", "0"]);
    assert_eq!(shares(&scene).of("b1"), 0);
}

#[test]
fn connections_are_listed_and_cut() {
    let scene = scene();
    let target = scene.topology.target(Family::V4, 80);
    let source = [scene.topology.sources(Family::V4)[5]];
    let long =
        LongLived::open(&scene.topology.client, target, &source, 10, Duration::from_millis(10)).unwrap();
    let query = format!("farm=web&client={}", source[0]);
    wait_until("the list", LIMIT, || scene.daemon.connections(&query).is_ok_and(|list| list.len() == 10))
        .unwrap();
    for connection in scene.daemon.connections(&query).unwrap() {
        assert_eq!((&connection["state"], &connection["protocol"]), (&"established".into(), &"tcp".into()));
        assert_eq!(connection["vip"], target.to_string());
    }
    assert_eq!(scene.daemon.connections("client=10.1.0.19").unwrap().len(), 0);
    command(&scene, &["connections", "cut", "--farm", "web", "--client", &source[0].to_string()]);
    assert_eq!(scene.daemon.connections(&query).unwrap().len(), 0);
    drop(long);
}

#[test]
fn what_the_daemon_tells_agrees_with_what_clients_saw() {
    let scene = scene();
    let tally = shares(&scene);
    let opened = |name: &str| {
        let backend = scene.daemon.backend("web", name).unwrap();
        backend["connections_opened"].as_u64().unwrap()
    };
    wait_until("the counters", LIMIT, || opened("b1") + opened("b2") == 200).unwrap();
    assert_eq!((opened("b1"), opened("b2")), (tally.of("b1"), tally.of("b2")));
    let metrics = scene.daemon.get_text("/metrics").unwrap();
    assert!(metrics.contains("drover_backend_up{"), "{metrics}");
    assert!(metrics.contains("drover_farm_packets_total{"), "{metrics}");
    let openapi = scene.daemon.get("/openapi.json").unwrap();
    assert!(openapi["paths"]["/v1/farms"].is_object());
    let screen = scene.daemon.drover(&["status"]).unwrap();
    let screen = String::from_utf8(screen.stdout).unwrap();
    assert!(screen.contains("web") && screen.contains("b1") && screen.contains("up"), "{screen}");
}

#[test]
fn the_event_of_a_change_says_who_asked_for_it() {
    let scene = scene();
    let mut drover = std::process::Command::new(lb_tests::daemon::binary().unwrap());
    drover.args(["backend", "drain", "web", "b1", "--socket"]).arg(scene.daemon.socket());
    let mut child = lb_tests::netns::Process::spawn(&mut drover).unwrap();
    let (pid, uid) = (child.id(), nix::unistd::getuid().as_raw());
    assert!(child.wait(LIMIT).unwrap().success());
    let events = scene.daemon.events().unwrap();
    let event = events.iter().find(|event| event["kind"] == "backend-admin").unwrap();
    assert_eq!((&event["by"]["uid"], &event["by"]["pid"]), (&uid.into(), &pid.into()));
    let message = event["message"].as_str().unwrap();
    assert!(message.ends_with(&format!(" (uid {uid}, pid {pid})")), "{message}");
    assert!(scene.daemon.log().contains(message));
    let started = events.iter().find(|event| event["kind"] == "daemon-started").unwrap();
    assert_eq!(started["by"], serde_json::Value::Null, "nobody asked for it");
}

#[test]
fn status_answers_in_less_than_a_second_with_128_sockets_held() {
    let scene = scene();
    for request in ["", "PUT /v1/config HTTP/1.1\r\nHost: drover\r\nContent-Length: 9\r\n\r\n["] {
        let hold = |_| {
            let mut held = UnixStream::connect(scene.daemon.socket()).unwrap();
            // Who was let go in the meantime has nobody to write to.
            held.write_all(request.as_bytes()).ok();
            held
        };
        let _held: Vec<UnixStream> = (0..128).map(hold).collect();
        let begin = Instant::now();
        command(&scene, &["status"]);
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    }
}
