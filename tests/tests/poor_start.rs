//! Starts in which something is missing that not everybody needs: they succeed, and say what is missing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use lb_tests::daemon::Daemon;
use lb_tests::scene::Farm;
use lb_tests::server::Server;
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::traffic::Short;
use lb_tests::wait::wait_until;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(5);

/// A network with a server, and a daemon that is not started.
fn prepared() -> (Daemon, Server, Topology) {
    let topology = Topology::new(Arms::Two, 1).unwrap();
    let server = Server::start(&topology.backends[0].netns, "b1", &[80], &[]).unwrap();
    let farm = Farm::new("web", "ports = [80]").text(&topology);
    let daemon = Daemon::prepare(&topology, "native", &farm).unwrap();
    (daemon, server, topology)
}

/// Everybody is served.
fn assert_serves(topology: &Topology) {
    let tally = Short::new(topology.target(Family::V4, 80), 20).run(&topology.client).unwrap();
    assert_eq!((tally.total(), tally.failures), (20, vec![]));
}

fn interface(daemon: &Daemon, name: &str) -> Value {
    let status = daemon.get("/v1/status").unwrap();
    status["interfaces"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone()
}

/// What the status says of an ill, if it is there.
fn ill(daemon: &Daemon, kind: &str) -> Option<String> {
    let status = daemon.get("/v1/status").unwrap();
    let ill = status["ills"].as_array().unwrap().iter().find(|it| it["kind"] == kind)?;
    Some(ill["message"].as_str().unwrap().to_owned())
}

fn is_told(daemon: &Daemon, kind: &str, words: &str) -> bool {
    let told = |it: &Value| it["kind"] == kind && it["message"].as_str().unwrap().contains(words);
    daemon.events().unwrap().iter().any(told)
}

#[test]
fn an_interface_that_is_not_there_yet_is_missing_and_is_taken_when_it_comes() {
    let (mut daemon, _server, topology) = prepared();
    daemon.edit_config("\"back\"", "\"back\", \"late0\"").unwrap();
    daemon.launch(&topology.balancer).unwrap();
    daemon.wait_judged().unwrap();
    let late = interface(&daemon, "late0");
    assert!(late["missing"] == true && late["xdp_mode"] == "none", "{late}");
    assert!(is_told(&daemon, "interface", "there is no interface 'late0'"));
    assert_serves(&topology);
    topology
        .balancer
        .ip("link add late0 type veth peer name late1\nlink set late0 up\nlink set late1 up\n")
        .unwrap();
    wait_until("the program on it", LIMIT, || interface(&daemon, "late0")["xdp_mode"] == "native").unwrap();
    assert_eq!(interface(&daemon, "late0")["missing"], false);
}

#[test]
fn a_daemon_without_any_of_its_interfaces_waits_for_them() {
    let (mut daemon, _server, topology) = prepared();
    topology.balancer.ip("link set front down\nlink set front name away\n").unwrap();
    topology.balancer.ip("link set back down\nlink set back name gone\n").unwrap();
    daemon.launch(&topology.balancer).unwrap();
    assert_eq!(daemon.get("/v1/farms/web").unwrap()["status"], "down");
    for (now, name, net) in [("away", "front", 1), ("gone", "back", 2)] {
        let back = format!(
            "link set {now} name {name}\nlink set {name} up\naddr replace 10.{net}.0.1/24 dev {name}\n\
             addr replace fd00:{net}::1/64 dev {name} nodad\n"
        );
        topology.balancer.ip(&back).unwrap();
    }
    daemon.wait_status("web", "b1", "up", LIMIT * 3).unwrap();
    assert_serves(&topology);
}

#[test]
fn a_group_that_is_not_there_leaves_the_socket_to_root() {
    let (mut daemon, _server, topology) = prepared();
    daemon.edit_config("[daemon]\n", "[daemon]\nsocket_group = \"no-such-group\"\n").unwrap();
    daemon.launch(&topology.balancer).unwrap();
    daemon.wait_judged().unwrap();
    let mode = std::fs::metadata(daemon.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    wait_until("the ill", LIMIT, || ill(&daemon, "socket").is_some()).unwrap();
    assert!(ill(&daemon, "socket").unwrap().contains("there is no group 'no-such-group'"));
    assert!(is_told(&daemon, "daemon-ill", "no-such-group"));
    assert!(daemon.get_text("/metrics").unwrap().contains("drover_ill{ill=\"socket\"} 1"));
    assert!(daemon.log().contains("no-such-group"));
    assert_serves(&topology);
}

#[test]
fn damaged_settings_of_operators_are_kept_aside_and_told_until_somebody_has_seen_to_them() {
    let (mut daemon, _server, topology) = prepared();
    let state = daemon.config().with_file_name("state");
    std::fs::write(state.join("backends.json"), "[{\"farm\": \"web\", ").unwrap();
    daemon.launch(&topology.balancer).unwrap();
    daemon.wait_judged().unwrap();
    assert_serves(&topology);
    wait_until("the ill", LIMIT, || ill(&daemon, "overrides").is_some()).unwrap();
    assert!(is_told(&daemon, "daemon-ill", "backends.json.damaged-"));
    let drain = json!({"admin_state": "drain"});
    assert_eq!(daemon.api("PATCH", "/v1/farms/web/backends/b1", Some(&drain)).unwrap().0, 200);
    let kept: Vec<_> = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).collect();
    let aside = kept.iter().find(|path| path.to_string_lossy().contains("backends.json.damaged-")).unwrap();
    assert_eq!(std::fs::read_to_string(aside).unwrap(), "[{\"farm\": \"web\", ", "as it was");
    assert!(std::fs::read_to_string(state.join("backends.json")).unwrap().contains("drain"));
    std::fs::remove_file(aside).unwrap();
    wait_until("its end", LIMIT, || ill(&daemon, "overrides").is_none()).unwrap();
}
