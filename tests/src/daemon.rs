//! The daemon under test: its configuration, its process, its API and its command line.
//!
//! Every instance has a directory, a socket and a bpffs directory of its own, so that several run side by side. Dropped, it is
//! killed and what it pinned is removed; after a panic the end of its log is printed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::http::{unix_json, unix_text};
use crate::netns::{Netns, Process, run, unique};
use crate::topology::Topology;
use crate::wait::wait_for;

/// Where the kernel's BPF file system is.
const BPFFS: &str = "/sys/fs/bpf";

/// How long the daemon may take for something that needs no waiting.
pub const SOON: Duration = Duration::from_secs(10);

/// The secret by which flows find their backends.
const FLOW_SEED: &str = "5eed5eed5eed5eed";

/// The daemon's file: `DROVER_BIN`, else beside the running test.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("DROVER_BIN") {
        return Ok(path.into());
    }
    let here = std::env::current_exe()?;
    let beside =
        here.ancestors().skip(1).take(2).map(|folder| folder.join("drover")).find(|file| file.is_file());
    beside.context("no daemon to test: cargo build --package lb-daemon, or set DROVER_BIN")
}

/// A daemon, running or not.
#[derive(Debug)]
pub struct Daemon {
    folder: tempfile::TempDir,
    bpffs: PathBuf,
    /// The `[daemon]` table.
    head: String,
    /// Further arguments of `drover run`.
    args: Vec<String>,
    /// What standard error is, if not the file that [`Daemon::log`] reads.
    stderr: Option<File>,
    process: Option<Process>,
}

impl Daemon {
    /// Writes a configuration for the balancer of `topology` and starts nothing. `mode` is `xdp_mode`; `farms` is the
    /// rest of the file.
    pub fn prepare(topology: &Topology, mode: &str, farms: &str) -> Result<Self> {
        Self::prepare_on(topology.interfaces(), Some(65536), mode, farms)
    }

    /// The same for a daemon on these interfaces, with room for so many connections if not for as many as by default.
    pub fn prepare_on(
        interfaces: &[&str],
        connections: Option<u32>,
        mode: &str,
        farms: &str,
    ) -> Result<Self> {
        mount_bpffs()?;
        let folder = tempfile::Builder::new().prefix("drover-test-").tempdir()?;
        let bpffs = Path::new(BPFFS).join(format!("drover-test-{}-{:06x}", std::process::id(), unique()));
        let at = folder.path().display();
        let interfaces: Vec<String> = interfaces.iter().map(|name| format!("\"{name}\"")).collect();
        let connections = connections.map(|it| format!("connections = {it}\n")).unwrap_or_default();
        let head = format!(
            "[daemon]\ninterfaces = [{}]\nxdp_mode = \"{mode}\"\nsocket = \"{at}/control.sock\"\n\
             state_dir = \"{at}/state\"\nbpffs_dir = \"{}\"\n{connections}\n",
            interfaces.join(", "),
            bpffs.display()
        );
        // Shares of connections are compared with bounds: the same ones in every run.
        fs::create_dir(folder.path().join("state"))?;
        fs::write(folder.path().join("state/flow-seed"), FLOW_SEED)?;
        let daemon = Self { folder, bpffs, head, args: Vec::new(), stderr: None, process: None };
        daemon.write_config(farms)?;
        Ok(daemon)
    }

    /// Starts a daemon and waits until it has judged every backend.
    pub fn start(topology: &Topology, mode: &str, farms: &str) -> Result<Self> {
        let mut daemon = Self::prepare(topology, mode, farms)?;
        daemon.launch(&topology.balancer)?;
        daemon.wait_judged()?;
        Ok(daemon)
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("drover.toml")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// The `[daemon]` table and `farms`: a whole configuration.
    pub fn config_text(&self, farms: &str) -> String {
        format!("{}{farms}", self.head)
    }

    /// Writes the configuration file with other farms.
    pub fn write_config(&self, farms: &str) -> Result<()> {
        fs::write(self.config(), self.config_text(farms)).context("writing the configuration")
    }

    /// Replaces a part of the configuration file, which must be there.
    pub fn edit_config(&self, from: &str, to: &str) -> Result<()> {
        let text = fs::read_to_string(self.config())?;
        if !text.contains(from) {
            bail!("no '{from}' in {text}");
        }
        fs::write(self.config(), text.replacen(from, to, 1)).context("writing the configuration")
    }

    /// Arguments of `drover run` for the starts that follow.
    pub fn set_args(&mut self, args: &[&str]) {
        self.args = args.iter().map(ToString::to_string).collect();
    }

    /// Where the starts that follow write their log.
    pub fn set_stderr(&mut self, stderr: File) {
        self.stderr = Some(stderr);
    }

    /// Starts the process and waits until its socket answers.
    pub fn launch(&mut self, balancer: &Netns) -> Result<()> {
        self.spawn(balancer)?;
        let (socket, log) = (self.socket(), self.folder.path().join("log"));
        let process = self.process()?;
        let answer = wait_for("an answer on the control socket", SOON, || {
            if !process.is_running() {
                return Ok(Err(anyhow!("the daemon ended")));
            }
            unix_json(&socket, "GET", "/v1/status", "application/json", b"").map(Ok)
        });
        answer.and_then(|answer| answer).with_context(|| format!("its log ends:\n{}", tail(&log)))?;
        Ok(())
    }

    /// Starts the process.
    pub fn spawn(&mut self, balancer: &Netns) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log"))?;
        let mut command = balancer.command(binary()?);
        command.arg("run").arg("--config").arg(self.config()).args(&self.args);
        let stderr = self.stderr.as_ref().unwrap_or(&log).try_clone()?;
        command.stdin(std::process::Stdio::null()).stdout(log).stderr(stderr);
        self.process = Some(balancer.spawn(&mut command)?);
        Ok(())
    }

    /// The running process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the daemon is not running")
    }

    /// Waits until no backend is `starting`.
    pub fn wait_judged(&self) -> Result<()> {
        wait_for("a judgement of every backend", SOON, || {
            for farm in self.farms()? {
                for backend in farm["backends"].as_array().context("a farm without backends")? {
                    if backend["status"] == "starting" {
                        bail!("{} of {} is starting", backend["name"], farm["name"]);
                    }
                }
            }
            Ok(())
        })
    }

    /// Waits until a backend has a status; its `reason` then.
    pub fn wait_status(&self, farm: &str, backend: &str, status: &str, limit: Duration) -> Result<String> {
        wait_for(&format!("{backend} of {farm} to be {status}"), limit, || {
            let found = self.backend(farm, backend)?;
            if found["status"] != status {
                bail!("it is {}", found["status"]);
            }
            Ok(found["reason"].as_str().unwrap_or_default().to_owned())
        })
    }

    /// One call of the API: the status and the body.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        unix_json(&self.socket(), method, path, "application/json", body.as_bytes())
    }

    /// `GET` of something that must be there.
    pub fn get(&self, path: &str) -> Result<Value> {
        let (status, body) = self.api("GET", path, None)?;
        if status != 200 {
            bail!("GET {path}: {status}: {body}");
        }
        Ok(body)
    }

    /// `GET` of something that is not JSON.
    pub fn get_text(&self, path: &str) -> Result<String> {
        let (status, body) = unix_text(&self.socket(), "GET", path, "application/json", b"")?;
        if status != 200 {
            bail!("GET {path}: {status}: {body}");
        }
        Ok(body)
    }

    /// Every farm, as the API tells them.
    pub fn farms(&self) -> Result<Vec<Value>> {
        list(self.get("/v1/farms")?, "farms")
    }

    /// The last events, oldest first.
    pub fn events(&self) -> Result<Vec<Value>> {
        list(self.get("/v1/events")?, "events")
    }

    /// The connections that a query selects.
    pub fn connections(&self, query: &str) -> Result<Vec<Value>> {
        list(self.get(&format!("/v1/connections?{query}"))?, "connections")
    }

    /// One backend, as the API tells it.
    pub fn backend(&self, farm: &str, backend: &str) -> Result<Value> {
        let farm = self.get(&format!("/v1/farms/{farm}"))?;
        let backends = farm["backends"].as_array().context("a farm without backends")?;
        let found = backends.iter().find(|it| it["name"] == backend);
        found.cloned().with_context(|| format!("no backend {backend} in {farm}"))
    }

    /// Runs `drover ARGS --socket ...` to its end.
    pub fn drover(&self, args: &[&str]) -> Result<Output> {
        let mut command = std::process::Command::new(binary()?);
        command.args(args).arg("--socket").arg(self.socket());
        command.output().context("drover does not start")
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.process()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// Asks it to end, as an init system does, and waits for that.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let process = self.process()?;
        process.signal(Signal::SIGTERM)?;
        let status = process.wait(SOON)?;
        self.process = None;
        Ok(status)
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Removes what it pinned, as nobody does in real life but a test that is over.
    fn unpin(&self) -> Result<()> {
        if self.bpffs.exists() {
            fs::remove_dir_all(&self.bpffs)?;
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log ends:\n{}", tail(&self.folder.path().join("log")));
        }
        self.process = None;
        if let Err(error) = self.unpin() {
            eprintln!("{} is left over: {error:#}", self.bpffs.display());
        }
    }
}

/// The last lines of a file.
fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// A list that stands alone or under its name.
fn list(answer: Value, name: &str) -> Result<Vec<Value>> {
    let list = if answer.is_array() { &answer } else { &answer[name] };
    list.as_array().cloned().with_context(|| format!("no list of {name} in {answer}"))
}

/// Mounts the BPF file system if nobody has. Its tests and the daemons of all namespaces share it.
fn mount_bpffs() -> Result<()> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    if !mounts.lines().any(|line| line.split(' ').nth(4) == Some(BPFFS)) {
        run(std::process::Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]))?;
    }
    Ok(())
}
