//! A daemon that has lost one of its tasks: it must not go on as if all were well, and packets must.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lb_daemon::config;
use lb_daemon::daemon::{Daemon, Start};
use lb_daemon::datapath::{Datapath, Reader};
use lb_daemon::netlink::Netlink;
use lb_daemon::overrides::Overrides;
use lb_daemon::signals::Signals;
use lb_daemon::supervise::Supervisor;

use crate::network::Network;

/// Removes what is pinned there when it goes.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

async fn start(folder: &Path, pins: &Path, supervisor: Supervisor) -> Start {
    let file = folder.join("drover.toml");
    let text = "[daemon]\ninterfaces = [\"outside\"]\n[[farm]]\nname = \"web\"\nvip = \"192.0.2.10\"\nports = [80]\n\
                [[farm.backend]]\naddress = \"192.0.2.11\"\n";
    std::fs::write(&file, text).unwrap();
    let (text, format, config) = config::load(&file).unwrap();
    let (netlink, changes) = Netlink::connect().unwrap();
    let (_unused, endings) = Supervisor::new();
    Start {
        config,
        config_path: file,
        text: Arc::from(text.as_str()),
        format,
        datapath: Datapath::load(pins, 1024).unwrap(),
        reader: Reader::open(pins).unwrap(),
        overrides: Overrides::load(folder).unwrap(),
        netlink,
        changes,
        signals: Signals::listen().unwrap(),
        supervisor,
        endings,
    }
}

#[test]
fn the_end_of_a_task_ends_the_daemon_with_its_reason_and_packets_flow_on() {
    let _network = Network::enter();
    let folder = tempfile::tempdir().unwrap();
    let pins = Pins(PathBuf::from(format!("/sys/fs/bpf/drover-test-{}-supervision", std::process::id())));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (supervisor, endings) = Supervisor::new();
        let start = Start { endings, ..start(folder.path(), &pins.0, supervisor.clone()).await };
        let Ok(daemon) = Daemon::start(start).await else { panic!("the daemon does not start") };
        let events = daemon.handle().events;
        let breaking: tokio::task::JoinHandle<()> = tokio::spawn(async { panic!("out of paper") });
        supervisor.watch("the test", breaking);
        let ended = tokio::time::timeout(Duration::from_secs(5), daemon.run(false)).await;
        let reason = ended.expect("it does not go on").unwrap_err().to_string();
        assert!(reason.starts_with("the task of the test has broken off: out of paper"), "{reason}");
        let (kept, _) = events.follow();
        let last = kept.last().unwrap();
        assert_eq!((last.kind.as_str(), &last.message), ("task-ended", &reason));
    });
    assert!(pins.0.join("program").exists(), "the data plane is there for the next daemon");
}
