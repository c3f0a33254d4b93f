//! One network namespace, made for a test and gone with it.
//!
//! Programs enter the network alone and keep the machine's mounts: `ip netns exec` would give them a private `/sys`, and
//! what they pin in bpffs would die with it. Dropping a [`Netns`] deletes the namespace's name; the namespace itself, with its
//! interfaces, ends with the last process and socket in it, so drop [`Process`]es and servers first.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_for;

/// Where iproute2 keeps the names of namespaces.
const NAMES: &str = "/run/netns";

/// Namespaces of this harness are called `drv-PID-RANDOM-LABEL`, PID being the process that owns them.
const PREFIX: &str = "drv-";

/// Administrators' programs are not on everybody's search path.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A network namespace.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: Arc<File>,
}

impl Netns {
    /// A new, empty namespace with loopback up and nothing that would delay an IPv6 address.
    pub fn new(label: &str) -> Result<Self> {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        let name = format!("{PREFIX}{}-{:06x}-{label}", std::process::id(), unique());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let path = Path::new(NAMES).join(&name);
        let file = File::open(&path).with_context(|| path.display().to_string());
        let file = file.inspect_err(|_| delete(&name))?;
        let namespace = Self { name, file: Arc::new(file) };
        namespace.enter(|| -> Result<()> {
            for settings in ["all", "default"] {
                for (key, value) in [("accept_dad", "0"), ("dad_transmits", "0"), ("accept_ra", "0")] {
                    let path = format!("/proc/sys/net/ipv6/conf/{settings}/{key}");
                    fs::write(&path, value).with_context(|| path.clone())?;
                }
            }
            Ok(())
        })??;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name, as in `ip -n NAME`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run in this network.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:{PATH}"));
        let file = Arc::clone(&self.file);
        // SAFETY: between fork and exec the closure makes one system call and touches no lock and no heap.
        unsafe {
            command.pre_exec(move || setns(&*file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from));
        }
        command
    }

    /// Runs a program to its end; what it printed, or an error with what it complained about.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        run(self.command(program).args(args)).with_context(|| format!("in {}", self.name))
    }

    /// Runs `ip` commands, one a line, all in one process.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("ip does not start")?;
        child.stdin.take().context("a pipe was asked for")?.write_all(lines.as_bytes())?;
        let output = child.wait_with_output()?;
        checked("ip", &output).with_context(|| format!("in {}: {lines}", self.name))?;
        Ok(())
    }

    /// Starts a program that is killed when the returned value is dropped.
    pub fn spawn(&self, command: &mut Command) -> Result<Process> {
        Process::spawn(command)
    }

    /// Runs `work` on a thread of its own inside this network. Threads and sockets that it makes belong there too.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let entered = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&*self.file, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            });
            thread.join()
        });
        match entered {
            Ok(Ok(done)) => Ok(done),
            Ok(Err::<_, nix::Error>(error)) => Err(anyhow!(error).context(format!("entering {}", self.name))),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

fn delete(name: &str) {
    if let Err(error) = run(Command::new("ip").args(["netns", "delete", name])) {
        eprintln!("namespace {name} is left over: {error:#}");
    }
}

/// Deletes the namespaces of owners that died before they could.
fn sweep() {
    let Ok(names) = fs::read_dir(NAMES) else { return };
    for name in names.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !pid.is_empty() && !Path::new("/proc").join(pid).exists()) {
            delete(&name);
        }
    }
}

/// A number that no other call of this or another process has had lately, below 2^24.
pub fn unique() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    ((nanos >> 4 << 8) ^ (count & 0xff) ^ (std::process::id() << 16)) & 0x00ff_ffff
}

/// Runs a command to its end; what it printed, or an error with what it complained about.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{name} does not start"))?;
    checked(&name, &output)
}

fn checked(name: &str, output: &Output) -> Result<String> {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{name}: {}: {} {printed}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(printed)
}

/// A running program, killed and reaped on drop.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts a program.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.spawn().map(Self).with_context(|| format!("{name} does not start"))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.0.id())?), signal).with_context(|| format!("{signal}"))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of process {}", self.0.id());
        wait_for(&what, limit, || self.0.try_wait()?.context("it still runs"))
    }

    /// Kills it outright and reaps it.
    pub fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Waits for its end and takes what it printed into pipes.
    pub fn output(mut self, limit: Duration) -> Result<String> {
        let mut printed = String::new();
        if let Some(mut pipe) = self.0.stdout.take() {
            io::Read::read_to_string(&mut pipe, &mut printed)?;
        }
        let mut complaint = String::new();
        if let Some(mut pipe) = self.0.stderr.take() {
            io::Read::read_to_string(&mut pipe, &mut complaint)?;
        }
        let status = self.wait(limit)?;
        if !status.success() {
            bail!("{status}: {} {printed}", complaint.trim());
        }
        Ok(printed)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running()
            && let Err(error) = self.kill()
        {
            eprintln!("process {} is left over: {error:#}", self.0.id());
        }
    }
}
