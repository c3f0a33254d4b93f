//! A log that cannot be written: no disk, no reader, and a reader that hangs keep the daemon from nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use lb_tests::daemon::Daemon;
use lb_tests::scene::{FALL, Farm, INTERVAL};
use lb_tests::server::Server;
use lb_tests::topology::{Arms, Topology};
use lb_tests::wait::wait_until;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// The longest that a dead backend may stay in.
const OUT: Duration = Duration::from_millis(INTERVAL.as_millis() as u64 * FALL as u64 + 1000);
const LIMIT: Duration = Duration::from_secs(5);

/// A daemon with two backends whose log goes to `stderr`.
struct Scene {
    daemon: Daemon,
    servers: Vec<Server>,
    topology: Topology,
}

impl Scene {
    fn new(stderr: File) -> Self {
        let topology = Topology::new(Arms::Two, 2).unwrap();
        let backends = topology.backends.iter();
        let servers = backends.map(|it| Server::start(&it.netns, &it.name, &[80], &[]).unwrap()).collect();
        let text = Farm::new("web", "ports = [80]").text(&topology);
        let mut daemon = Daemon::prepare(&topology, "native", &text).unwrap();
        daemon.set_stderr(stderr);
        daemon.launch(&topology.balancer).unwrap();
        daemon.wait_judged().unwrap();
        Self { daemon, servers, topology }
    }

    /// A backend dies, is out in time, returns, and is back in time.
    fn assert_judges(&mut self) {
        drop(self.servers.remove(0));
        self.daemon.wait_status("web", "b1", "down", OUT).unwrap();
        let backend = &self.topology.backends[0];
        self.servers.insert(0, Server::start(&backend.netns, "b1", &[80], &[]).unwrap());
        self.daemon.wait_status("web", "b1", "up", OUT).unwrap();
    }
}

/// A file on a small file system of its own, and another file there to fill it with. No name leads to either.
fn small_disk() -> (File, File) {
    let folder = tempfile::tempdir().unwrap();
    let mounted = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // The mount is this thread's alone; the file system lives on for as long as its files are open.
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some("size=128k")).unwrap();
            let open = |name: &str| {
                File::options().read(true).append(true).create(true).open(folder.path().join(name)).unwrap()
            };
            (open("log"), open("filler"))
        });
        thread.join()
    });
    mounted.unwrap()
}

/// Waits until the daemon says of itself that something is wrong: in its status, on the screen first, and as an event.
fn wait_ill(daemon: &Daemon, kind: &str, phrase: &str) {
    let told =
        |ill: &serde_json::Value| ill["kind"] == kind && ill["message"].as_str().unwrap().contains(phrase);
    wait_until("the daemon to say so", 2 * LIMIT, || {
        daemon.get("/v1/status").unwrap()["ills"].as_array().unwrap().iter().any(told)
    })
    .unwrap();
    let screen = String::from_utf8(daemon.drover(&["status"]).unwrap().stdout).unwrap();
    let screen = screen.split("\n\n").next().unwrap().replace("\n  ", " ");
    assert!(screen.contains(phrase), "{screen}");
    let event = |event: &serde_json::Value| {
        event["kind"] == "daemon-ill"
            && event["message"].as_str().unwrap().contains("the log cannot be written")
    };
    assert!(daemon.events().unwrap().iter().any(event), "{:?}", daemon.events());
}

fn fill(file: &mut File, full: ErrorKind) {
    // The last ones a byte each, so that no room is left at all.
    for size in [4096, 1] {
        loop {
            match file.write(&vec![0; size]) {
                Ok(_) => {}
                Err(error) if error.kind() == full => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_full_disk_under_the_log_takes_no_judgement_away_and_the_log_goes_on_afterwards() {
    let (mut log, mut filler) = small_disk();
    let mut scene = Scene::new(log.try_clone().unwrap());
    // The rest of the page that the log's last line is in is the log's own.
    fill(&mut filler, ErrorKind::StorageFull);
    fill(&mut log, ErrorKind::StorageFull);
    scene.assert_judges();
    assert!(scene.daemon.process().unwrap().is_running());
    wait_ill(&scene.daemon, "log", "No space left on device");
    let metrics = scene.daemon.get_text("/metrics").unwrap();
    let lost = metrics.lines().find_map(|line| line.strip_prefix("drover_log_lines_lost_total "));
    assert!(lost.unwrap().parse::<u64>().unwrap() > 0, "{metrics}");
    assert!(metrics.contains("drover_ill{ill=\"log\"} 1"), "{metrics}");

    filler.set_len(0).unwrap();
    scene.assert_judges();
    wait_until("the log to tell what it has lost", LIMIT, || {
        let mut text = vec![0; usize::try_from(log.metadata().unwrap().len()).unwrap()];
        // By place: the descriptor's own is where the daemon writes.
        log.read_exact_at(&mut text, 0).unwrap();
        String::from_utf8_lossy(&text).contains("lines of this log were lost")
    })
    .unwrap();
    assert!(scene.daemon.stop().unwrap().success());
}

#[test]
fn a_closed_pipe_under_the_log_takes_no_judgement_away() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut scene = Scene::new(File::from(std::os::fd::OwnedFd::from(writer)));
    drop(reader);
    scene.assert_judges();
    wait_ill(&scene.daemon, "log", "Broken pipe");
    assert!(scene.daemon.stop().unwrap().success());
}

#[test]
fn a_reader_of_the_log_that_hangs_holds_up_neither_a_judgement_nor_the_end() {
    let (_hanging, writer) = std::io::pipe().unwrap();
    let mut writer = File::from(std::os::fd::OwnedFd::from(writer));
    let mut scene = Scene::new(writer.try_clone().unwrap());
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    fill(&mut writer, ErrorKind::WouldBlock);
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    scene.assert_judges();
    wait_ill(&scene.daemon, "log", "nobody takes");
    assert!(scene.daemon.stop().unwrap().success());
}
