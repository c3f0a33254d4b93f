//! Starts that must fail, and change nothing; and leftovers of a dead daemon that must not hinder a start.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use lb_tests::daemon::{Daemon, binary};
use lb_tests::scene::{Farm, Scene};
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::traffic::{LongLived, Short};
use lb_tests::wait::wait_until;
use nix::sys::signal::Signal;

const WEB: &str = "ports = [80]";

/// Runs `drover run` with a configuration that should not start.
fn run(topology: &Topology, config: &Path) -> Output {
    let mut command = topology.balancer.command("timeout");
    command.arg("--signal=KILL").arg("10").arg(binary().unwrap()).arg("run").arg("--config").arg(config);
    command.output().unwrap()
}

/// One line on standard error that names `what`, and this exit status.
fn assert_refused(output: &Output, status: i32, what: &str) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{complaint}");
    assert!(complaint.contains(what), "nothing about '{what}' in: {complaint}");
}

/// Nothing of Drover is on the balancer.
fn assert_untouched(topology: &Topology, daemon: &Daemon) {
    let addresses = topology.balancer.run("ip", &["addr"]).unwrap();
    assert!(!addresses.contains("xdp"), "{addresses}");
    for family in [Family::V4, Family::V6] {
        assert!(!addresses.contains(&topology.vip(family, 0).to_string()), "{addresses}");
    }
    let pins = std::fs::read_dir(daemon.bpffs()).map_or(0, Iterator::count);
    assert_eq!(pins, 0, "pins in {}", daemon.bpffs().display());
    assert!(!daemon.socket().exists());
}

fn prepared() -> (Daemon, Topology) {
    let topology = Topology::new(Arms::Two, 1).unwrap();
    let daemon = Daemon::prepare(&topology, "native", &Farm::new("web", WEB).text(&topology)).unwrap();
    (daemon, topology)
}

#[test]
fn an_invalid_configuration_is_refused_with_its_place_and_nothing_changed() {
    let cases = [
        ("ports = [80]", "ports = [80]\nwieght = 3", "wieght"),
        ("name = \"b1\"", "name = \"b1\"\nweight = 300", "300"),
        ("[[farm]]", "[[farm", "drover.toml:9:7"),
        ("ports = [80]", "ports = [80]\naffinity = { by = \"cookie\" }", "cookie"),
    ];
    for (from, to, what) in cases {
        let (daemon, topology) = prepared();
        daemon.edit_config(from, to).unwrap();
        assert_refused(&run(&topology, &daemon.config()), 2, what);
        assert_untouched(&topology, &daemon);
    }
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let (daemon, topology) = prepared();
    std::fs::remove_file(daemon.config()).unwrap();
    let output = run(&topology, &daemon.config());
    assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("drover.toml"), "{output:?}");
    assert_untouched(&topology, &daemon);
}

#[test]
fn tables_that_do_not_fit_into_the_memory_are_refused_with_the_bytes_they_take() {
    let (daemon, topology) = prepared();
    daemon.edit_config("connections = 65536", "connections = 1048576").unwrap();
    // What the daemon sees of the machine's memory, in a mount namespace of its own.
    let meminfo = daemon.config().with_file_name("meminfo");
    std::fs::write(&meminfo, "MemTotal: 1048576 kB\nMemAvailable: 262144 kB\n").unwrap();
    let script =
        "mount --make-rprivate / && mount --bind \"$1\" /proc/meminfo && exec \"$2\" run --config \"$3\"";
    let mut command = topology.balancer.command("timeout");
    command.args(["--signal=KILL", "10", "unshare", "--mount", "sh", "-c", script, "sh"]);
    command.arg(&meminfo).arg(binary().unwrap()).arg(daemon.config());
    let output = command.output().unwrap();
    for what in ["1048576 connections", "536870912 bytes", "268435456 bytes", "connections = 524288"] {
        assert_refused(&output, 1, what);
    }
    assert_untouched(&topology, &daemon);
}

#[test]
fn a_user_without_privileges_is_told_what_is_missing() {
    let (daemon, topology) = prepared();
    let folder = daemon.config();
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder.parent().unwrap(), open).unwrap();
    let copy = folder.with_file_name("drover");
    // By another process: children that other tests have just forked would hold the copy open for writing, and then it cannot
    // be run ("text file busy").
    lb_tests::netns::run(std::process::Command::new("cp").arg(binary().unwrap()).arg(&copy)).unwrap();
    let mut command = topology.balancer.command("timeout");
    command.args(["--signal=KILL", "10", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    let output = command.arg(&copy).arg("run").arg("--config").arg(daemon.config()).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(
        ["permi", "privilege", "root", "cap_"].iter().any(|word| complaint.contains(word)),
        "{complaint}"
    );
    assert_untouched(&topology, &daemon);
}

#[test]
fn a_second_daemon_refuses_and_the_first_goes_on() {
    let scene = Scene::web(2, &Farm::new("web", WEB)).unwrap();
    let (topology, daemon) = (&scene.topology, &scene.daemon);
    let target = topology.target(Family::V4, 80);
    let long = LongLived::open(&topology.client, target, &[], 5, Duration::from_millis(20)).unwrap();
    let started = daemon.get("/v1/status").unwrap()["started"].clone();

    assert_refused(&run(topology, &daemon.config()), 1, "");
    // The same socket, but another place for pins; then the other way round; then nothing in common but interfaces.
    let own = std::fs::read_to_string(daemon.config()).unwrap();
    let (socket, bpffs) = (daemon.socket().display().to_string(), daemon.bpffs().display().to_string());
    let other_bpffs = own.replace(&bpffs, &format!("{bpffs}-other"));
    let other_socket = own.replace(&socket, &format!("{socket}-other"));
    let other_both = other_bpffs.replace(&socket, &format!("{socket}-other"));
    for (text, what) in [(other_bpffs, "control.sock"), (other_socket, ""), (other_both, "")] {
        let file = daemon.config().with_file_name("second.toml");
        std::fs::write(&file, text).unwrap();
        assert_refused(&run(topology, &file), 1, what);
        let left = std::fs::read_dir(format!("{bpffs}-other")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "the second leaves no pins");
    }

    assert_eq!(daemon.get("/v1/status").unwrap()["started"], started);
    let tally = Short::new(target, 100).run(&topology.client).unwrap();
    assert_eq!((tally.total(), tally.failures), (100, vec![]));
    for report in long.finish().unwrap() {
        assert_eq!(report.failure, None);
    }
    std::fs::remove_dir(format!("{bpffs}-other")).ok();
}

#[test]
fn the_socket_of_a_dead_daemon_is_no_hindrance() {
    let (mut daemon, topology) = prepared();
    drop(UnixListener::bind(daemon.socket()).unwrap());
    assert!(daemon.socket().exists());
    daemon.launch(&topology.balancer).unwrap();
}

#[test]
fn pins_and_socket_of_a_killed_daemon_are_adopted() {
    let mut scene = Scene::web(2, &Farm::new("web", WEB)).unwrap();
    let (topology, daemon) = (&scene.topology, &mut scene.daemon);
    let target = topology.target(Family::V4, 80);
    let long = LongLived::open(&topology.client, target, &[], 10, Duration::from_millis(20)).unwrap();
    let program = |topology: &Topology| {
        let link = topology.balancer.run("ip", &["link", "show", "front"]).unwrap();
        let words: Vec<&str> = link.split_whitespace().collect();
        let at = words.iter().position(|word| word.starts_with("prog/xdp")).expect("XDP is attached");
        words[at + 2].to_owned()
    };
    for _ in 0..2 {
        let before = program(topology);
        daemon.kill().unwrap();
        assert!(daemon.socket().exists() && daemon.bpffs().join("program").exists());
        assert_eq!(program(topology), before, "the program outlives the daemon");
        daemon.launch(&topology.balancer).unwrap();
        daemon.wait_judged().unwrap();
    }
    let tally = Short::new(target, 100).run(&topology.client).unwrap();
    assert_eq!((tally.total(), tally.failures), (100, vec![]));
    for report in long.finish().unwrap() {
        assert_eq!(report.failure, None);
    }
}

#[test]
fn a_running_daemon_refuses_a_bad_configuration_and_keeps_the_good_one() {
    let scene = Scene::web(2, &Farm::new("web", WEB)).unwrap();
    let daemon = &scene.daemon;
    let good = std::fs::read_to_string(daemon.config()).unwrap();
    let generation = daemon.get("/v1/status").unwrap()["config_generation"].clone();
    let bad = daemon.config().with_file_name("bad.toml");
    std::fs::write(&bad, good.replace("ports = [80]", "ports = [80]\nmode = \"nta\"")).unwrap();
    let output = daemon.drover(&["apply", bad.to_str().unwrap()]).unwrap();
    assert_refused(&output, 2, "nta");
    assert_eq!(std::fs::read_to_string(daemon.config()).unwrap(), good, "the file is untouched");
    std::fs::copy(&bad, daemon.config()).unwrap();
    assert_refused(&daemon.drover(&["reload"]).unwrap(), 2, "nta");
    assert_eq!(daemon.get("/v1/status").unwrap()["config_generation"], generation);
    let target = scene.topology.target(Family::V4, 80);
    let tally = Short::new(target, 50).run(&scene.topology.client).unwrap();
    assert_eq!((tally.total(), tally.failures), (50, vec![]));
}

#[test]
fn a_client_of_a_daemon_that_does_not_run_says_so() {
    let (daemon, _topology) = prepared();
    let output = daemon.drover(&["status"]).unwrap();
    assert_refused(&output, 1, "control.sock");
    assert_eq!(String::from_utf8_lossy(&output.stderr).trim().lines().count(), 1);
}

#[test]
fn a_hangup_while_the_daemon_starts_is_a_reload_and_not_its_end() {
    let (mut daemon, topology) = prepared();
    daemon.spawn(&topology.balancer).unwrap();
    let (pins, limit) = (daemon.bpffs().to_owned(), Duration::from_secs(5));
    wait_until("the first thing that it makes", limit, || pins.exists()).unwrap();
    assert!(!daemon.log().contains(" started: "), "it has started already");
    daemon.process().unwrap().signal(Signal::SIGHUP).unwrap();
    let reloaded =
        |event: &serde_json::Value| event["message"].as_str().unwrap().starts_with("configuration 2 ");
    wait_until("a reload", limit, || daemon.events().is_ok_and(|events| events.iter().any(reloaded)))
        .unwrap();
}

#[test]
fn a_daemon_that_lacks_a_capability_says_which_in_one_line() {
    let topology = Topology::new(Arms::Two, 1).unwrap();
    let daemon =
        Daemon::prepare(&topology, "native", &Farm::new("web", "ports = [80]").text(&topology)).unwrap();
    // What is not in the bounding set root does not get.
    let mut command = topology.balancer.command("setpriv");
    command.args(["--bounding-set", "-perfmon,-sys_admin", "timeout", "--signal=KILL", "10"]);
    let output =
        command.arg(binary().unwrap()).arg("run").arg("--config").arg(daemon.config()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let complaint: Vec<&str> = said.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert!(complaint.len() == 1 && complaint[0].contains("lacks CAP_PERFMON"), "{said}");
}
