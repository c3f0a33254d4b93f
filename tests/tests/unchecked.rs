//! What nobody has judged is not shown as up: checks that cannot be made any more, and what a restart makes of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is a test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lb_tests::daemon::Daemon;
use lb_tests::scene::{Farm, Scene};
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::traffic::{LongLived, Short};
use lb_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(5);

/// A check by script, where the user that runs it gets to it.
struct Script {
    folder: tempfile::TempDir,
}

impl Script {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let script = Self { folder };
        script.write();
        script
    }
    fn path(&self) -> PathBuf {
        self.folder.path().join("check")
    }
    fn write(&self) {
        fs::write(self.path(), "#!/bin/sh\necho all is well\n").unwrap();
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn farm_with_script(topology: &Topology, script: &Path) -> String {
    let farm = Farm { checked: false, ..Farm::new("web", "ports = [80]") };
    let check = format!(
        "[[farm.check]]\ntype = \"command\"\ncommand = [\"{}\"]\ninterval = \"300ms\"\ntimeout = \"300ms\"\n\
         rise = 1\nfall = 2\n",
        script.display()
    );
    farm.text(topology).replace("check = []\n", "") + &check
}

/// The messages of one kind of event.
fn told(daemon: &Daemon, kind: &str) -> Vec<String> {
    let events = daemon.events().unwrap();
    let of = events.iter().filter(|event| event["kind"] == kind);
    of.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_backend_whose_check_script_is_deleted_is_not_up_any_more_and_serves_on() {
    let script = Script::new();
    let farm = |topology: &Topology| farm_with_script(topology, &script.path());
    let mut scene = Scene::new(Arms::Two, 1, "native", (&[80], &[]), farm).unwrap();
    let (topology, daemon) = (&scene.topology, &mut scene.daemon);
    daemon.wait_status("web", "b1", "up", LIMIT).unwrap();
    fs::remove_file(script.path()).unwrap();
    let reason = daemon.wait_status("web", "b1", "unchecked", LIMIT).unwrap();
    assert!(reason.contains("cannot be checked: there is no file"), "{reason}");
    assert_eq!(daemon.get("/v1/farms/web").unwrap()["status"], "unchecked");
    let target = topology.target(Family::V4, 80);
    let tally = Short::new(target, 20).run(&topology.client).unwrap();
    assert_eq!((tally.of("b1"), tally.failures), (20, vec![]), "it serves as it was last judged");

    let [message] = &told(daemon, "backend-unchecked")[..] else { panic!("told once") };
    let phrase = format!("BackEnd {}:80 unchecked in farm: 'web'", topology.backends[0].v4);
    assert!(message.starts_with(&phrase), "{message}");
    let metrics = daemon.get_text("/metrics").unwrap();
    let has = |start: &str, value: &str| {
        metrics.lines().any(|line| line.starts_with(start) && line.ends_with(value))
    };
    assert!(has("drover_backend_up{farm=\"web\",backend=\"b1\"}", " 0"), "{metrics}");
    assert!(
        has("drover_backend_status{farm=\"web\",backend=\"b1\",status=\"unchecked\"}", " 1"),
        "{metrics}"
    );
    assert!(!has("drover_check_untried_total{farm=\"web\",backend=\"b1\"", " 0"), "{metrics}");

    // The next daemon has not checked it either.
    daemon.kill().unwrap();
    script.write();
    daemon.launch(&topology.balancer).unwrap();
    daemon.wait_status("web", "b1", "up", LIMIT).unwrap();
    assert!(told(daemon, "backend-down").is_empty());
}

#[test]
fn a_restart_while_all_are_tried_takes_nobody_for_up() {
    let farm = Farm::new("web", "ports = [80]\nwhen_all_down = \"try-all\"");
    // They accept on port 80, where clients go, and the check fails on another.
    let farm = Farm { check_port: Some(81), ..farm };
    let mut scene = Scene::web(2, &farm).unwrap();
    let (topology, daemon) = (&scene.topology, &mut scene.daemon);
    for backend in ["b1", "b2"] {
        daemon.wait_status("web", backend, "down", LIMIT).unwrap();
    }
    let target = topology.target(Family::V4, 80);
    let long = LongLived::open(&topology.client, target, &[], 10, Duration::from_millis(20)).unwrap();
    daemon.kill().unwrap();
    daemon.launch(&topology.balancer).unwrap();
    let checked = |daemon: &Daemon| {
        let told = daemon.get("/v1/checks?farm=web&history=20").unwrap();
        let checks = told["checks"].as_array().unwrap();
        checks.iter().all(|check| check["history"].as_array().unwrap().len() > 3)
    };
    wait_until("some rounds of checks", LIMIT, || {
        for backend in ["b1", "b2"] {
            let status = daemon.backend("web", backend).unwrap()["status"].clone();
            assert_eq!(status, "down", "{backend}");
        }
        checked(daemon)
    })
    .unwrap();
    assert!(told(daemon, "backend-down").is_empty(), "nobody went down");
    let tally = Short::new(target, 20).run(&topology.client).unwrap();
    assert_eq!((tally.total(), tally.failures), (20, vec![]), "all are tried as before");
    for report in long.finish().unwrap() {
        assert_eq!(report.failure, None, "who came while all were tried is not cut");
    }
}
