//! The configuration file and its owner, who is a person: nothing that he has written is lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use lb_tests::daemon::{Daemon, SOON, binary};
use lb_tests::http::unix_full;
use lb_tests::scene::Farm;
use lb_tests::topology::{Arms, Topology};
use lb_tests::wait::wait_until;
use serde_json::{Value, json};

/// A running daemon without backends, and what is around it.
fn running() -> (Daemon, Topology) {
    let topology = Topology::new(Arms::Two, 1).unwrap();
    let mut daemon = Daemon::prepare(&topology, "native", &farm(&topology)).unwrap();
    daemon.launch(&topology.balancer).unwrap();
    (daemon, topology)
}

fn farm(topology: &Topology) -> String {
    Farm { backends: 0, ..Farm::new("web", "ports = [80]") }.text(topology)
}

fn read(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.config()).unwrap()
}

/// What the API says of a change of the farm: the status, the type of the problem and its words.
fn disable(daemon: &Daemon) -> (u16, String, String) {
    let (status, body) = daemon.api("PATCH", "/v1/farms/web", Some(&json!({"enabled": false}))).unwrap();
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    (status, text("type"), text("detail"))
}

fn enabled(daemon: &Daemon) -> Value {
    daemon.get("/v1/farms/web").unwrap()["enabled"].clone()
}

#[test]
fn an_edit_by_hand_is_never_written_over() {
    let (daemon, _topology) = running();
    daemon.edit_config("ports = [80]", "ports = [80, 81] # by Anna").unwrap();
    let by_hand = read(&daemon);
    let (status, kind, detail) = disable(&daemon);
    assert_eq!((status, kind.as_str()), (409, "urn:drover:problem:file-changed"), "{detail}");
    assert!(detail.contains("the file was changed since; reload first"), "{detail}");
    let other = daemon.config().with_file_name("other.toml");
    fs::write(&other, by_hand.replace("81", "82")).unwrap();
    let output = daemon.drover(&["apply", other.to_str().unwrap()]).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!((read(&daemon), enabled(&daemon)), (by_hand, json!(true)), "nothing has changed");
    // Reloaded, it is what runs, and can be changed.
    assert!(daemon.drover(&["reload"]).unwrap().status.success());
    assert_eq!(disable(&daemon).0, 200);
    assert!(read(&daemon).contains("ports = [80, 81] # by Anna"), "{}", read(&daemon));
    assert_eq!(enabled(&daemon), json!(false));
}

#[test]
fn what_is_applied_may_be_the_file_itself() {
    let (daemon, _topology) = running();
    daemon.edit_config("ports = [80]", "ports = [80, 81]").unwrap();
    let output = daemon.drover(&["apply", daemon.config().to_str().unwrap()]).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(daemon.get("/v1/farms/web").unwrap()["ports"], json!([80, 81]));
}

#[test]
fn a_file_that_is_not_what_runs_is_told_in_the_status_and_by_an_event() {
    let (daemon, _topology) = running();
    let state = || daemon.get("/v1/status").unwrap()["config_file"]["state"].clone();
    let events = || {
        let events = daemon.events().unwrap();
        let told = events.iter().filter(|event| event["kind"] == "config-file");
        told.map(|event| event["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(state(), "same");
    let good = read(&daemon);
    daemon.edit_config("ports = [80]", "ports = [80, 81]").unwrap();
    wait_until("the edit to be noticed", SOON, || state() == "differs").unwrap();
    let screen = String::from_utf8(daemon.drover(&["status"]).unwrap().stdout).unwrap();
    assert!(screen.contains("! configuration file: it differs from what runs"), "{screen}");
    fs::remove_file(daemon.config()).unwrap();
    wait_until("the loss to be noticed", SOON, || state() == "missing").unwrap();
    fs::write(daemon.config(), good).unwrap();
    wait_until("all to be well", SOON, || state() == "same").unwrap();
    let events = events();
    assert_eq!(events.len(), 3, "{events:?}");
    assert!(events[0].contains("drover reload") && events[2].ends_with("is what runs"), "{events:?}");
    // The daemon's own writing is nobody's edit.
    assert_eq!(disable(&daemon).0, 200);
    assert_eq!(state(), "same");
}

#[test]
fn of_two_changes_made_from_one_version_the_second_is_refused() {
    let (daemon, _topology) = running();
    let exchange = |method: &str, path: &str, tag: &str, kind: &str, body: &str| {
        let headers = [("If-Match", tag), ("Content-Type", kind)];
        let headers = &headers[usize::from(tag.is_empty())..];
        let (status, head, _) = unix_full(&daemon.socket(), method, path, headers, body.as_bytes()).unwrap();
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let mut tags = lines.filter(|(name, _)| name.eq_ignore_ascii_case("etag"));
        (status, tags.next().map(|(_, tag)| tag.to_owned()).unwrap_or_default())
    };
    let json = "application/json";
    for (ports, more) in [("[81]", "[82]"), ("[83]", "[84]")] {
        let put = |ports: &str| {
            let farm = &daemon.get("/v1/farms/web").unwrap();
            json!({"vip": farm["vip"], "ports": serde_json::from_str::<Value>(ports).unwrap()}).to_string()
        };
        let (_, tag) = exchange("GET", "/v1/farms/web", "", json, "");
        let (status, new) = exchange("PUT", "/v1/farms/web", &tag, json, &put(ports));
        assert_eq!(status, 200);
        assert_eq!(exchange("PUT", "/v1/farms/web", &tag, json, &put(more)).0, 412);
        assert_eq!(daemon.get("/v1/farms/web").unwrap()["ports"].to_string(), ports);
        assert_eq!(exchange("GET", "/v1/farms/web", "", json, "").1, new, "the answer names the new version");
    }
    let toml = "application/toml";
    let text = |ports: &str| read(&daemon).replace("ports = [83]", &format!("ports = {ports}"));
    let (first, second) = (text("[85]"), text("[86]"));
    let (_, tag) = exchange("GET", "/v1/config", "", toml, "");
    assert_eq!(exchange("PUT", "/v1/config", &tag, toml, &first).0, 200);
    assert_eq!(exchange("PUT", "/v1/config", &tag, toml, &second).0, 412);
    assert_eq!(read(&daemon), first);
    assert_eq!(exchange("DELETE", "/v1/farms/web", &tag, json, "").0, 412);
}

#[test]
fn a_file_that_is_mounted_by_itself_is_refused_with_what_to_do() {
    let topology = Topology::new(Arms::Two, 1).unwrap();
    let mut daemon = Daemon::prepare(&topology, "native", &farm(&topology)).unwrap();
    let volume = daemon.config().with_file_name("volume");
    fs::copy(daemon.config(), &volume).unwrap();
    let mount = |args: &[&Path]| {
        let mut command = std::process::Command::new(if args.len() == 1 { "umount" } else { "mount" });
        assert!(command.args((args.len() > 1).then_some("--bind")).args(args).status().unwrap().success());
    };
    mount(&[&volume, &daemon.config()]);
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        daemon.launch(&topology.balancer).unwrap();
        disable(&daemon)
    }));
    let state = daemon.get("/v1/farms/web").map(|farm| farm["enabled"].clone());
    daemon.kill().ok();
    mount(&[&daemon.config()]);
    let (status, _, detail) = refused.unwrap();
    assert_eq!(status, 409, "{detail}");
    assert!(detail.contains("mount the directory that holds it instead"), "{detail}");
    assert_eq!(state.unwrap(), json!(true));
    let left = fs::read_dir(volume.parent().unwrap()).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.starts_with('.')).count(), 0);
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let (daemon, topology) = running();
    let (pipe, was) = (daemon.config(), daemon.config().with_file_name("was.toml"));
    fs::rename(&pipe, &was).unwrap();
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let started = Instant::now();
    let check = std::process::Command::new("timeout");
    for (mut command, verb) in [(check, "check"), (topology.balancer.command("timeout"), "run")] {
        command.arg("5").arg(binary().unwrap()).arg(verb).arg("--config").arg(&pipe);
        let output = command.output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{verb}: {complaint}");
        assert!(complaint.contains("is a pipe, not a regular file"), "{complaint}");
    }
    let reload = daemon.drover(&["reload"]).unwrap();
    assert_eq!(reload.status.code(), Some(1), "{reload:?}");
    let (status, _, detail) = disable(&daemon);
    assert!(status == 409 && detail.contains("is a pipe"), "{status}: {detail}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let unreadable = || daemon.get("/v1/status").unwrap()["config_file"]["state"] == "unreadable";
    wait_until("the pipe to be noticed", SOON, unreadable).unwrap();
    fs::rename(&was, &pipe).unwrap();
    assert_eq!(disable(&daemon).0, 200);
}

#[test]
fn a_link_mode_owner_line_ends_and_mark_outlive_a_change() {
    let topology = Topology::new(Arms::Two, 1).unwrap();
    let mut daemon = Daemon::prepare(&topology, "native", &farm(&topology)).unwrap();
    let real = daemon.config().with_file_name("real.toml");
    fs::write(&real, format!("\u{feff}{}", read(&daemon).replace('\n', "\r\n"))).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&real, Some(65534), Some(65534)).unwrap();
    fs::remove_file(daemon.config()).unwrap();
    std::os::unix::fs::symlink("real.toml", daemon.config()).unwrap();
    daemon.launch(&topology.balancer).unwrap();
    let before = read(&daemon);
    assert_eq!(disable(&daemon).0, 200);
    let after = fs::read_to_string(&real).unwrap();
    assert!(fs::symlink_metadata(daemon.config()).unwrap().is_symlink());
    let found = fs::metadata(&real).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o640, 65534, 65534));
    assert_eq!(after.replace("enabled = false\r\n", ""), before);
    assert_ne!(after, before);
}
