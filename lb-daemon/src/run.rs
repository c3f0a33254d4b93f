//! `drover run`: the daemon in the foreground. This file starts it, or says why not and leaves everything as it was.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use lb_core::config::model::Config;
use lb_core::sizing;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Group};
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

use crate::daemon::{Daemon, Start};
use crate::datapath::{Datapath, Reader};
use crate::handle::Format;
use crate::ills::{IllWatch, Places};
use crate::logging::{Lines, Log};
use crate::memory::Memory;
use crate::netlink::Netlink;
use crate::overrides::Overrides;
use crate::signals::Signals;
use crate::supervise::Supervisor;
use crate::{api, config, logging, report, secrets};

/// Exit status for an invalid configuration.
const INVALID: u8 = 2;

/// Why the daemon ended, if not because it was told to.
enum Failure {
    /// The configuration's errors, ready to be read.
    Invalid(String),
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Runs the daemon with the configuration file at `path` until it is told to stop; with `stay`, the data plane goes
/// on without it.
pub fn run(path: &Path, stay: bool) -> ExitCode {
    let started = Log::start().and_then(|log| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok((log, runtime))
    });
    let (log, runtime) = match started {
        Ok(started) => started,
        Err(error) => {
            writeln!(std::io::stderr(), "drover: cannot start: {error}").ok();
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(live(path, stay, &log));
    // A sweep may be under way; it need not be waited for.
    runtime.shutdown_background();
    let exit = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Invalid(errors)) => {
            log.say(&errors);
            ExitCode::from(INVALID)
        }
        Err(Failure::Other(error)) => {
            log.say(&format!("drover: {error:#}{}\n", permission_hint(&error)));
            ExitCode::FAILURE
        }
    };
    log.flush(logging::PATIENCE);
    exit
}

/// From the first signal that may come to the last line of the log.
async fn live(path: &Path, stay: bool, log: &Log) -> Result<(), Failure> {
    let mut signals = Signals::listen().context("cannot wait for signals")?;
    let file = path.to_owned();
    let loading = tokio::task::spawn_blocking(move || config::load_to_run(&file));
    let loaded = tokio::select! {
        loaded = loading => loaded.context("reading the configuration broke off")?,
        // Nothing has changed yet.
        _ = signals.stop() => return Ok(()),
    };
    let (text, format, config) = loaded.map_err(|error| Failure::Invalid(report::render_failure(&error)))?;
    log.take_all();
    let loaded =
        Loaded { path: std::path::absolute(path).context("cannot tell where I am")?, text, format, config };
    Ok(serve(loaded, stay, signals, log.lines()).await?)
}

/// The configuration file as it was read.
struct Loaded {
    path: PathBuf,
    text: String,
    format: Format,
    config: Config,
}

async fn serve(loaded: Loaded, stay: bool, signals: Signals, lines: Arc<Lines>) -> anyhow::Result<()> {
    let Loaded { path, text, format, config } = loaded;
    let settings = config.daemon.clone();
    let (supervisor, endings) = Supervisor::new();
    let (netlink, changes) = Netlink::connect().context("cannot open a netlink socket")?;
    refuse_second_daemon(&settings.socket).await?;
    let overrides = Overrides::load(&settings.state_dir)?;
    let home = Home::claim(&settings.bpffs_dir)?;
    let (group, closed) = group(settings.socket_group.as_deref());
    let listener = listen(&settings.socket, group)?;
    let socket = RemoveOnDrop(settings.socket.clone());

    let flow_seed = secrets::flow_seed(&settings.state_dir).inspect_err(|_| home.abandon())?;
    let connections = room(&home.dir, settings.connections).inspect_err(|_| home.abandon())?;
    let mut datapath = Datapath::load(&home.dir, connections).inspect_err(|_| home.abandon())?;
    datapath.maps.control.set_flow_seed(flow_seed);
    tell_size(&datapath);
    forward_program_logs(&mut datapath, &supervisor);
    let explainer = datapath.explainer().inspect_err(|_| home.abandon())?;
    let reader = Reader::open(&home.dir).inspect_err(|_| home.abandon())?.with_explainer(explainer);
    let start = Start {
        config,
        config_path: path,
        text: text.into(),
        format,
        datapath,
        reader,
        overrides,
        netlink,
        changes,
        signals,
        supervisor: supervisor.clone(),
        endings,
    };
    let daemon = match Daemon::start(start).await {
        Ok(daemon) => daemon,
        Err((error, datapath)) => {
            if !datapath.adopted {
                datapath.remove().context(error.to_string())?;
            }
            return Err(error);
        }
    };
    let mut handle = daemon.handle();
    let places = Places { pins: home.dir.clone(), state: settings.state_dir.clone(), closed };
    let mut ills = IllWatch::spawn(handle.clone(), lines, places);
    ills.watch(&supervisor);
    handle.condition = ills.condition();
    let (stop, stopped) = oneshot::channel::<()>();
    let api = supervisor.watch("the API", tokio::spawn(api::serve(listener, handle, stopped)));
    let result = daemon.run(stay).await;
    drop(socket);
    drop(stop);
    api.await.context("the API did not end well")?;
    result
}

/// How many connections the tables get room for: what is asked for, or what suits the machine, if there is memory for it. Tables
/// that are there keep their size.
fn room(dir: &Path, asked: Option<u32>) -> anyhow::Result<u32> {
    if let Some(lines) = Datapath::pinned_lines(dir)? {
        let connections = sizing::connections(lines);
        if asked.is_some_and(|asked| sizing::lines(asked) != lines) {
            tracing::warn!(
                "`connections` stays {connections}, the size of the tables that are in use; another one takes effect \
                 when the daemon was stopped without `--stay`"
            );
        }
        return Ok(connections);
    }
    let memory = Memory::now()?;
    let connections = asked.unwrap_or_else(|| sizing::default_connections(memory.total));
    sizing::fits(connections, memory.available)?;
    Ok(connections)
}

fn tell_size(datapath: &Datapath) {
    let (lines, bytes) = (datapath.lines, datapath.table_bytes());
    tracing::info!(
        "the connection tables have {lines} lines for each address family, for {} connections; both take {bytes} bytes \
         ({}) of memory",
        sizing::connections(lines),
        sizing::text(bytes)
    );
}

/// A live daemon answers on its socket.
async fn refuse_second_daemon(socket: &Path) -> anyhow::Result<()> {
    match UnixStream::connect(socket).await {
        Ok(_) => anyhow::bail!(
            "a daemon is already running: it answers on {}; stop it first, or give this one another `socket`, `bpffs_dir` and `state_dir`",
            socket.display()
        ),
        // Nobody is there, or only the socket of a daemon that died.
        Err(_) => Ok(()),
    }
}

/// The directory of the pins, held by this daemon alone.
struct Home {
    dir: PathBuf,
    created: bool,
    _lock: Flock<File>,
}

impl Home {
    /// Takes the directory, which must be on a bpffs; mounts one at `/sys/fs/bpf` if none is there.
    fn claim(dir: &Path) -> anyhow::Result<Self> {
        let created = !dir.exists();
        if created {
            mount_bpffs(dir)?;
            std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let this = File::open(dir).with_context(|| format!("cannot open {}", dir.display()))?;
        match nix::sys::statfs::fstatfs(&this) {
            Ok(fs) if fs.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC => {}
            Ok(_) | Err(_) => {
                if created {
                    std::fs::remove_dir(dir).ok();
                }
                anyhow::bail!(
                    "`bpffs_dir` {} is not on a bpffs (`mount -t bpf bpf /sys/fs/bpf` makes one)",
                    dir.display()
                );
            }
        }
        let lock = Flock::lock(this, FlockArg::LockExclusiveNonblock).map_err(|(_, _)| {
            anyhow::anyhow!(
                "another daemon holds {}; stop it first, or give this one another `bpffs_dir`",
                dir.display()
            )
        })?;
        Ok(Self { dir: dir.to_owned(), created, _lock: lock })
    }

    /// Undoes [`Home::claim`], as far as it did something.
    fn abandon(&self) {
        if self.created {
            std::fs::remove_dir_all(&self.dir).ok();
        }
    }
}

fn mount_bpffs(dir: &Path) -> anyhow::Result<()> {
    let mount_point = Path::new("/sys/fs/bpf");
    let mounted = nix::sys::statfs::statfs(mount_point)
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC);
    if mounted || !dir.starts_with(mount_point) {
        return Ok(());
    }
    let none: Option<&str> = None;
    nix::mount::mount(Some("bpf"), mount_point, Some("bpf"), nix::mount::MsFlags::empty(), none)
        .context("cannot mount a bpffs at /sys/fs/bpf")
}

/// The group of a name; or why the socket is for root alone.
fn group(name: Option<&str>) -> (Option<Gid>, Option<String>) {
    let Some(name) = name else { return (None, None) };
    let why = match Group::from_name(name) {
        Ok(Some(group)) => return (Some(group.gid), None),
        Ok(None) => format!("there is no group '{name}' (`groupadd {name}` makes one)"),
        Err(error) => format!("the groups cannot be read: {error}"),
    };
    let closed = format!(
        "`socket_group`: {why}: the control socket is for root alone until the daemon is started again"
    );
    (None, Some(closed))
}

/// The control socket: for root, and for the members of a group.
fn listen(path: &Path, gid: Option<Gid>) -> anyhow::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    match std::fs::symlink_metadata(path) {
        // Nobody answered on it.
        Ok(found) if std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
            std::fs::remove_file(path)
                .with_context(|| format!("cannot remove the stale {}", path.display()))?;
        }
        Ok(_) => anyhow::bail!("`socket` {} exists and is no socket", path.display()),
        Err(_) => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    let mode = if gid.is_some() { 0o660 } else { 0o600 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    if gid.is_some() {
        nix::unistd::chown(path, None, gid)
            .with_context(|| format!("cannot hand {} to its group", path.display()))?;
    }
    Ok(listener)
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        // Whoever finds it left behind adopts it.
        std::fs::remove_file(&self.0).ok();
    }
}

/// What the XDP program says goes into the daemon's log. It says something at the level `debug` alone.
fn forward_program_logs(datapath: &mut Datapath, supervisor: &Supervisor) {
    let logger = match datapath.logger() {
        Ok(logger) => logger,
        Err(error) => return tracing::debug!("the XDP program has no log: {error}"),
    };
    // SAFETY: the logger owns the descriptor that it names, and keeps it open for as long as it lives.
    let registered = unsafe { AsyncFd::register_with_interest(logger, tokio::io::Interest::READABLE) };
    let mut logger = match registered {
        Ok(logger) => logger,
        Err(_) => return tracing::debug!("the XDP program's log cannot be read"),
    };
    let forward = tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    supervisor.watch("the XDP program's log", forward);
}

fn permission_hint(error: &anyhow::Error) -> &'static str {
    let denied = error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        io == Some(std::io::ErrorKind::PermissionDenied) || cause.downcast_ref() == Some(&nix::Error::EPERM)
    });
    if denied && !nix::unistd::geteuid().is_root() {
        " (run it as root, or give it CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW and CAP_PERFMON)"
    } else {
        ""
    }
}
