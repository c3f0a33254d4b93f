//! What one farm lacks on this host stops neither the daemon nor any other farm.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use lb_tests::daemon::{Daemon, SOON};
use lb_tests::scene::{Farm, Scene};
use lb_tests::server::Server;
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::traffic::Short;
use lb_tests::wait::wait_until;
use serde_json::{Value, json};

/// Two farms on one backend: `web`, and `mail`, which a script checks and whose hook is another.
struct Lame {
    scene: Scene,
    scripts: tempfile::TempDir,
}

impl Lame {
    /// With a script that is there, or is not; the hook is not, in any case.
    fn start(script: bool) -> Self {
        let scripts = tempfile::tempdir().unwrap();
        fs::set_permissions(scripts.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let at = scripts.path().display().to_string();
        let farms = |topology: &Topology| {
            let keys = format!("ports = [25]\non_change = [\"{at}/changed\"]");
            let mail = Farm { vip: 1, checked: false, ..Farm::new("mail", &keys) }.text(topology);
            let check = format!(
                "[[farm.check]]\ntype = \"command\"\ncommand = [\"{at}/judge\"]\ninterval = \"200ms\"\nrise = 1\n"
            );
            Farm::new("web", "ports = [80]").text(topology) + &mail.replace("check = []\n", "") + &check
        };
        if script {
            write(&scripts.path().join("judge"));
        }
        let topology = Topology::new(Arms::Two, 1).unwrap();
        let backend = &topology.backends[0];
        let server = Server::start(&backend.netns, &backend.name, &[80], &[]).unwrap();
        let mut daemon = Daemon::prepare(&topology, "native", &farms(&topology)).unwrap();
        daemon.launch(&topology.balancer).unwrap();
        Self { scene: Scene { daemon, servers: vec![server], topology }, scripts }
    }

    fn script(&self) -> PathBuf {
        self.scripts.path().join("judge")
    }

    /// The keys that farms lack something for, as the status tells them.
    fn lacking(&self) -> Vec<String> {
        let status = self.scene.daemon.get("/v1/status").unwrap();
        let told = status["defects"].as_array().unwrap().iter();
        told.map(|defect| {
            format!("{} {}", defect["farm"].as_str().unwrap(), defect["path"].as_str().unwrap())
        })
        .collect()
    }

    fn put(&self, farm: &str, change: impl Fn(&mut Value)) -> (u16, Value) {
        let config = self.scene.daemon.get("/v1/config").unwrap();
        let farms = config["config"]["farm"].as_array().unwrap().iter();
        let mut body = farms.clone().find(|it| it["name"] == farm).unwrap().clone();
        change(&mut body);
        self.scene.daemon.api("PUT", &format!("/v1/farms/{farm}"), Some(&body)).unwrap()
    }
}

fn write(script: &std::path::Path) {
    fs::write(script, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_script_that_is_missing_at_the_start_stops_no_other_farm() {
    let lame = Lame::start(false);
    let daemon = &lame.scene.daemon;
    daemon.wait_status("web", "b1", "up", SOON).unwrap();
    let target = lame.scene.topology.target(Family::V4, 80);
    let tally = Short::new(target, 20).run(&lame.scene.topology.client).unwrap();
    assert_eq!((tally.total(), tally.failures), (20, vec![]));
    // Never green: nobody has judged it.
    assert_eq!(daemon.backend("mail", "b1").unwrap()["status"], "starting");
    wait_until("the warning", SOON, || {
        lame.lacking() == ["mail check[0].command", "mail on_change[0].command"]
    })
    .unwrap();
    let events = daemon.events().unwrap();
    let told = events.iter().filter(|event| event["kind"] == "host-defect" && event["level"] == "warning");
    assert_eq!(told.filter(|event| event["farm"] == "mail").count(), 2, "{events:?}");
    let screen = String::from_utf8(daemon.drover(&["status"]).unwrap().stdout).unwrap();
    assert!(screen.contains("! mail: check[0].command: there is no file"), "{screen}");
    // `drover check` is as strict as ever.
    let check = daemon.drover(&["check", "--config", daemon.config().to_str().unwrap()]);
    assert_eq!(check.unwrap().status.code(), Some(2));

    let ports = |ports: u16| move |farm: &mut Value| farm["ports"] = json!([ports]);
    let (status, answer) = lame.put("web", ports(81));
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = lame.put("mail", ports(26));
    assert_eq!(status, 422, "{answer}");
    let paths = answer["errors"].as_array().unwrap().iter().map(|error| error["path"].clone());
    assert_eq!(
        paths.collect::<Vec<_>>(),
        ["farm[1].check[0].command[0]", "farm[1].on_change[0].command[0]"],
        "{answer}"
    );
    assert!(answer["errors"][0]["line"].is_u64(), "{answer}");
    daemon.edit_config("ports = [81]", "ports = [82]").unwrap();
    assert!(daemon.drover(&["reload"]).unwrap().status.success());
    // Who has nothing to run lacks nothing; and it can be taken out of the way.
    assert!(daemon.drover(&["farm", "disable", "mail"]).unwrap().status.success());
    wait_until("the end of the warning", SOON, || lame.lacking().is_empty()).unwrap();
    assert_eq!(daemon.drover(&["farm", "enable", "mail"]).unwrap().status.code(), Some(2));
}

#[test]
fn a_script_that_is_deleted_hinders_no_other_farms_change() {
    let lame = Lame::start(true);
    let daemon = &lame.scene.daemon;
    daemon.wait_status("mail", "b1", "up", SOON).unwrap();
    fs::remove_file(lame.script()).unwrap();
    daemon.wait_status("mail", "b1", "unchecked", SOON).unwrap();
    let (status, answer) = lame.put("web", |farm| farm["ports"] = json!([81]));
    assert_eq!(status, 200, "{answer}");
    wait_until("the warning", SOON, || lame.lacking().contains(&"mail check[0].command".to_owned())).unwrap();
    write(&lame.script());
    daemon.wait_status("mail", "b1", "up", SOON).unwrap();
}
