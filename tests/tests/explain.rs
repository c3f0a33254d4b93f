//! `drover explain`: what is said of a packet beforehand, and what becomes of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lb_tests::http::Client;
use lb_tests::scene::{Farm, Scene};
use lb_tests::topology::Family;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(5);

fn scene() -> Scene {
    Scene::web(3, &Farm::new("web", "ports = [80]")).unwrap()
}

fn explain(scene: &Scene, from: SocketAddr, to: SocketAddr, more: &[&str]) -> Value {
    let (from, to) = (from.to_string(), to.to_string());
    let args = [&["--json", "explain", "--src", &from, "--dst", &to], more].concat();
    let output = scene.daemon.drover(&args).unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn verdicts(scene: &Scene) -> String {
    let metrics = scene.daemon.get_text("/metrics").unwrap();
    let kept = metrics
        .lines()
        .filter(|line| line.starts_with("drover_connections_opened") || line.contains("verdict=\"opened\""));
    kept.collect::<Vec<_>>().join("\n")
}

#[test]
fn who_is_explained_meets_what_was_said() {
    let scene = scene();
    for family in [Family::V4, Family::V6] {
        let target = scene.topology.target(family, 80);
        for port in 20_000..20_008 {
            let source = SocketAddr::new(scene.topology.sources(family)[0], port);
            let before = verdicts(&scene);
            let told = explain(&scene, source, target, &[]);
            assert_eq!(
                (told["verdict"].as_str(), told["action"].as_str()),
                (Some("opened"), Some("sent")),
                "{told}"
            );
            assert_eq!(verdicts(&scene), before, "nothing is counted");
            assert_eq!(scene.daemon.connections("").unwrap().len(), 0, "nothing is remembered");
            let mut connection = scene
                .topology
                .client
                .enter(|| Client::connect(target, Some(source), LIMIT))
                .unwrap()
                .unwrap();
            let answer = connection.get("/", true).unwrap();
            assert_eq!(told["entry"]["backend"], json!(answer.name), "{told}");
            let plain = explain(&scene, source, target, &["--flags", "A"]);
            assert_eq!(plain["verdict"], "forwarded", "{plain}");
            assert_eq!(plain["sent"]["destination"], told["entry"]["backend_address"], "{plain}");
            let made = scene.daemon.connections("").unwrap();
            assert_eq!((made.len(), &made[0]["source"]), (1, &told["entry"]["source"]));
            connection.reset().unwrap();
            let output = scene.daemon.drover(&["connections", "cut", "--all"]).unwrap();
            assert!(output.status.success());
        }
    }
}

#[test]
fn each_decision_is_told_in_words() {
    let scene = scene();
    let (target, client) = (scene.topology.target(Family::V4, 80), scene.topology.sources(Family::V4)[0]);
    let (from, to) = (format!("{client}:20000"), target.to_string());
    let output = scene.daemon.drover(&["explain", "--src", &from, "--dst", &to]).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    println!("{text}");
    for part in [
        "farm 'web' serves",
        "none holds this flow",
        "by the flow's hash",
        "the client's own port",
        "opened: it opened",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let other = SocketAddr::new(target.ip(), 81);
    let told = explain(&scene, SocketAddr::new(client, 20_000), other, &[]);
    assert_eq!(
        (told["verdict"].as_str(), told["action"].as_str()),
        (Some("host_port"), Some("passed")),
        "{told}"
    );
    let told = explain(&scene, SocketAddr::new(client, 20_000), target, &["--flags", "A"]);
    assert_eq!(
        (told["verdict"].as_str(), told["action"].as_str()),
        (Some("refused"), Some("answered")),
        "{told}"
    );
    let (status, problem) = scene
        .daemon
        .api("POST", "/v1/explain", Some(&json!({"source": "nobody", "destination": to})))
        .unwrap();
    assert_eq!(status, 400, "{problem}");
    let request = json!({"source": from, "destination": to, "interface": "lo"});
    let (status, problem) = scene.daemon.api("POST", "/v1/explain", Some(&request)).unwrap();
    assert_eq!(status, 400, "{problem}");
}

#[test]
fn who_asks_too_much_is_turned_away_and_the_daemon_goes_on() {
    let scene = scene();
    let request = json!({
        "source": format!("{}:20000", scene.topology.sources(Family::V4)[0]),
        "destination": scene.topology.target(Family::V4, 80).to_string(),
    });
    let ask = || scene.daemon.api("POST", "/v1/explain", Some(&request)).unwrap().0;
    assert_eq!(ask(), 200);
    let quickest = (0..10).map(|_| {
        let began = Instant::now();
        assert_eq!(ask(), 200);
        began.elapsed()
    });
    let quickest = quickest.min().unwrap();
    assert!(quickest < Duration::from_millis(100), "{quickest:?}");
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..24).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|status| matches!(status, 200 | 429)), "{answers:?}");
    assert!(answers.contains(&200) && answers.contains(&429), "{answers:?}");
    assert_eq!(ask(), 200);
}
