//! A folder of plugins, a runtime to run them in, and a look at what they leave behind.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lb_core::config::model::{BackendName, CommandCheck, CommandContract, FarmName};
use lb_daemon::checks::Untried;
use lb_daemon::checks::command::{Context, Run, run};
use tokio::runtime::Runtime;

/// Long: the machine may be busy with other things.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// For commands that end by themselves.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Scene {
    pub runtime: Runtime,
    pub folder: tempfile::TempDir,
    /// Marks the processes of this scene, by their environment.
    backend: BackendName,
    descriptors: usize,
    memory: u64,
    /// Descriptors and children are the process's: one scene at a time.
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    pub fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let marker = marker(std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut scene = Self {
            runtime,
            folder,
            backend: BackendName::new(&marker).unwrap(),
            descriptors: 0,
            memory: 0,
            _alone: alone,
        };
        // What a runtime opens for its first process stays open.
        assert!(scene.run(&["true"], PATIENCE).unwrap().passed());
        scene.descriptors = descriptors();
        scene.memory = memory();
        scene
    }

    pub fn plugin_with_mode(&self, script: &str, mode: u32) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path: PathBuf =
            self.folder.path().join(format!("plugin{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn plugin(&self, script: &str) -> String {
        self.plugin_with_mode(script, 0o755)
    }

    pub fn check(&self, command: &[&str]) -> CommandCheck {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        CommandCheck { command, user: "nobody".to_owned(), contract: CommandContract::FarmGuardian }
    }

    pub fn context(&self, timeout: Duration) -> Context {
        Context { farm: farm(), backend: self.backend.clone(), vip: None, timeout }
    }

    pub fn run(&self, command: &[&str], timeout: Duration) -> Result<Run, Untried> {
        self.run_at("10.0.0.11:443".parse().unwrap(), command, timeout)
    }

    pub fn run_at(&self, address: SocketAddr, command: &[&str], timeout: Duration) -> Result<Run, Untried> {
        let (check, context) = (self.check(command), self.context(timeout));
        let run = self.runtime.block_on(async {
            tokio::time::timeout(timeout + DEADLINE, run(address, &check, &context)).await
        });
        run.expect("it ends soon after its time-out")
    }

    /// Runs a script that is expected to run.
    pub fn script(&self, script: &str, timeout: Duration) -> Run {
        self.run(&[&self.plugin(script)], timeout).unwrap()
    }

    /// The commands of this scene, with what they started: by their environment.
    pub fn processes(&self) -> Vec<u32> {
        processes_of(self.backend.as_str())
    }

    /// Waits until nothing is left of what was run: no process, no zombie, no descriptor, no memory to speak of.
    pub fn assert_clean(&self) {
        eventually("no process of a command", || self.processes().is_empty());
        eventually("no child, dead or alive", || children().is_empty());
        eventually("no descriptor more than before", || descriptors() <= self.descriptors);
        let grown = memory().saturating_sub(self.memory);
        assert!(grown < 16 << 20, "memory grew by {grown} bytes");
    }
}

/// The backend of a process's n-th scene.
pub fn marker(pid: u32, number: u32) -> String {
    format!("scene-{pid}-{number}")
}

pub fn processes_of(backend: &str) -> Vec<u32> {
    let mark = format!("DROVER_BACKEND={backend}");
    let marked = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    pids().filter(marked).collect()
}

pub fn farm() -> FarmName {
    FarmName::new("mail").unwrap()
}

/// Waits for a condition.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < DEADLINE, "still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
}

/// The children of this process, whichever of its threads forked them.
pub fn children() -> Vec<u32> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let lists =
        tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Resident memory, in bytes.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}
