//! A disk that hangs: what needs it is refused, and nothing else notices.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lb_tests::daemon::Daemon;
use lb_tests::netns::run;
use lb_tests::scene::Farm;
use lb_tests::server::Server;
use lb_tests::topology::{Arms, Topology};
use lb_tests::wait::wait_until;
use serde_json::json;

/// How long the daemon waits for a disk, and a little more.
const PATIENCE: Duration = Duration::from_secs(7);
const SOON: Duration = Duration::from_secs(2);

/// A file system of its own, which can be made to hang: `fsfreeze` keeps whoever writes waiting.
struct Disk {
    at: PathBuf,
    frozen: bool,
}

impl Disk {
    fn mount(image: &Path, at: &Path) -> Self {
        std::fs::File::create(image).unwrap().set_len(8 << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image)).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(at)).unwrap();
        Self { at: at.to_owned(), frozen: false }
    }

    fn freeze(&mut self) {
        run(Command::new("fsfreeze").arg("--freeze").arg(&self.at)).unwrap();
        self.frozen = true;
    }

    fn thaw(&mut self) {
        if std::mem::take(&mut self.frozen) {
            run(Command::new("fsfreeze").arg("--unfreeze").arg(&self.at)).unwrap();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
        // The daemon may still have a file open there.
        run(Command::new("umount").arg("--lazy").arg(&self.at)).unwrap();
    }
}

#[test]
fn a_disk_that_hangs_is_an_error_of_who_needs_it_and_stops_no_check() {
    let topology = Topology::new(Arms::Two, 2).unwrap();
    let _one = Server::start(&topology.backends[0].netns, "b1", &[80], &[]).unwrap();
    let two = Server::start(&topology.backends[1].netns, "b2", &[80], &[]).unwrap();
    let text = Farm::new("web", "ports = [80]").text(&topology);
    let mut daemon = Daemon::prepare(&topology, "native", &text).unwrap();
    let folder = daemon.config().parent().unwrap().to_owned();
    let mut disk = Disk::mount(&folder.join("disk"), &folder.join("state"));
    daemon.launch(&topology.balancer).unwrap();
    daemon.wait_judged().unwrap();

    disk.freeze();
    let drain = json!({"admin_state": "drain"});
    std::thread::scope(|scope| {
        let refused = scope.spawn(|| {
            let begin = Instant::now();
            let answer = daemon.api("PATCH", "/v1/farms/web/backends/b1", Some(&drain)).unwrap();
            (answer, begin.elapsed())
        });
        drop(two);
        daemon.wait_status("web", "b2", "down", SOON).expect("its checks go on");
        let ((status, body), took) = refused.join().unwrap();
        println!("refused after {took:.2?}");
        assert_eq!(status, 500, "{body}");
        assert!(body.to_string().contains("has not answered"), "{body}");
        assert!(took < PATIENCE, "{took:?}");
    });
    assert_eq!(daemon.backend("web", "b1").unwrap()["admin_state"], "up", "nothing has changed");

    disk.thaw();
    let (status, body) = daemon.api("PATCH", "/v1/farms/web/backends/b1", Some(&drain)).unwrap();
    assert_eq!(status, 200, "{body}");
    assert_eq!(daemon.backend("web", "b1").unwrap()["status"], "draining");
    daemon.stop().unwrap();
}

#[test]
fn a_change_whose_last_write_hangs_is_in_force_and_keeps_no_other_waiting() {
    let topology = Topology::new(Arms::Two, 2).unwrap();
    let _one = Server::start(&topology.backends[0].netns, "b1", &[80], &[]).unwrap();
    let _two = Server::start(&topology.backends[1].netns, "b2", &[80], &[]).unwrap();
    let text = Farm::new("web", "ports = [80]").text(&topology);
    let mut daemon = Daemon::prepare(&topology, "native", &text).unwrap();
    let folder = daemon.config().parent().unwrap().to_owned();
    let mut disk = Disk::mount(&folder.join("disk"), &folder.join("state"));
    daemon.launch(&topology.balancer).unwrap();
    daemon.wait_judged().unwrap();
    assert!(daemon.drover(&["backend", "drain", "web", "b1"]).unwrap().status.success());

    // What was set on the backend goes along with its new name: that is written, too.
    let next = folder.join("next.toml");
    std::fs::write(&next, daemon.config_text(&text.replacen("name = \"b1\"", "name = \"c1\"", 1))).unwrap();
    disk.freeze();
    std::thread::scope(|scope| {
        let begin = Instant::now();
        let applied = scope.spawn(|| daemon.drover(&["apply", next.to_str().unwrap()]).unwrap());
        let answered = wait_until("an answer", PATIENCE, || applied.is_finished());
        println!("answered after {:.2?}", begin.elapsed());
        let status = daemon.backend("web", "c1").map(|backend| backend["status"].clone());
        disk.thaw();
        answered.unwrap();
        let output = applied.join().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("is in force, but") && said.contains("backends.json"), "{output:?}");
        assert_eq!(status.unwrap(), "draining", "what was set on it goes along");
    });
    let kept = || std::fs::read_to_string(folder.join("state/backends.json")).unwrap_or_default();
    wait_until("the file to follow", SOON, || kept().contains("\"c1\"") && !kept().contains("\"b1\""))
        .unwrap();
    daemon.stop().unwrap();
}
