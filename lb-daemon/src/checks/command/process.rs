//! Runs one command in its sandbox and gathers what it says: for checks and for hooks.
//!
//! The future of [`Job::run`] holds the lifeline: at the time-out, or when the future is dropped, the command and
//! everything that it started is killed. A task of its own attends the process until it is reaped, whatever becomes of the
//! future, so that there is never a zombie. Finding, forking and starting the program happens on a thread where it may
//! block, in its turn ([`starts`]). A program that could not be started in time has not been tried.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::sandbox::{Sandbox, confine};
use super::{starts, syscalls};
use crate::checks::Untried;
use crate::clock;
use crate::program::{find_program, find_user};

/// So much output is kept; what follows is read and thrown away.
pub const OUTPUT_MAX: usize = 64 * 1024;
/// The longest first line, in characters.
const LINE_MAX: usize = 200;
/// Time enough for what was killed to be gone. Longer lives only what waits for a dead disk.
pub(crate) const GRACE: Duration = Duration::from_secs(2);
/// Where the command itself finds programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/nagios/plugins";

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// `None`: it was killed, and is not gone yet.
    pub status: Option<ExitStatus>,
    /// The first line with something on it, without control characters, at most 200 characters. May be empty.
    pub first_line: String,
    /// Standard output and standard error as they came, at most [`OUTPUT_MAX`] bytes. What is not UTF-8 is replaced,
    /// and control characters but line ends and tabs are left out: it is fit for a terminal.
    pub output: String,
    /// Whether there was more output than is kept.
    pub truncated: bool,
    pub duration: Duration,
    /// Whether it had to be killed at its time-out.
    pub killed: bool,
}

impl Run {
    pub fn passed(&self) -> bool {
        !self.killed && self.status.is_some_and(|status| status.success())
    }

    /// In one line what came of it: the command's own words where it has any.
    pub fn reason(&self, timeout: Duration) -> String {
        let said = |end: String| match self.first_line.as_str() {
            "" => end,
            line => format!("{end}: {line}"),
        };
        if self.killed {
            return said(format!("no end within {timeout:?}"));
        }
        if let Some(signal) = self.status.and_then(|status| status.signal()) {
            return said(format!("killed by signal {signal}"));
        }
        match (&*self.first_line, self.status.and_then(|status| status.code())) {
            ("", Some(code)) => format!("exit status {code}"),
            ("", None) => "no exit status".to_owned(),
            (line, _) => line.to_owned(),
        }
    }
}

/// A command to be run.
#[derive(Debug)]
pub(crate) struct Job {
    /// Program, by name or path, and arguments.
    pub command: Vec<String>,
    pub user: String,
    /// Added to `PATH` and `LANG`.
    pub environment: Vec<(&'static str, String)>,
    /// What it reads on standard input; nothing: `/dev/null`.
    pub input: Option<String>,
    pub timeout: Duration,
    /// How long to wait, once it is killed, for it to be gone.
    pub grace: Duration,
}

/// What the attending task learns of how it ended; `None`: nothing.
type Ended = Result<Option<ExitStatus>, Untried>;

impl Job {
    /// Runs it. The error says why it could not be run at all.
    pub async fn run(self) -> Result<Run, Untried> {
        let (timeout, grace, asked) = (self.timeout, self.grace, clock::now());
        let late = Untried(format!(
            "{}: could not be started in time: a disk or the directory of users does not answer, or the machine is too busy",
            self.program()
        ));
        let turn = tokio::time::timeout(timeout, starts::turn(self.program())).await;
        let Some(turn) = turn.ok().flatten() else { return Err(late) };

        let own_trouble = |error: io::Error| Untried(format!("{}: {error}", self.program()));
        let (sender, receiver) = pipe::pipe().map_err(own_trouble)?;
        let sender = sender.into_blocking_fd().map_err(own_trouble)?;
        let (lifeline, held) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| own_trouble(errno.into()))?;

        let output = Arc::new(Mutex::new(Output::default()));
        let begun = Arc::new(OnceLock::<Instant>::new());
        let (gathered, begins) = (output.clone(), begun.clone());
        let (answer, mut ended) = oneshot::channel::<Ended>();
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            let started = self.start(sender, lifeline);
            begins.get_or_init(clock::now);
            drop(turn);
            match started {
                // Nobody waits for the answer once the future is dropped.
                Ok(child) => drop(runtime.spawn(async move {
                    answer.send(Ok(attend(child, self.input, receiver, &gathered).await)).ok();
                })),
                Err(untried) => drop(answer.send(Err(untried))),
            }
        });

        let end = asked + timeout;
        let in_time = tokio::time::timeout_at(end.into(), &mut ended).await.ok();
        drop(held);
        let killed = in_time.is_none();
        if killed && begun.get().is_none() {
            return Err(late);
        }
        let answer = match in_time {
            Some(answer) => Some(answer),
            None => tokio::time::timeout(grace, ended).await.ok(),
        };
        let status = match answer {
            Some(Ok(ended)) => ended?,
            Some(Err(_)) => return Err(Untried("the daemon is stopping".to_owned())),
            None => None,
        };
        // That it had little of its time is not its fault, nor the backend's.
        let had = begun.get().map_or(Duration::ZERO, |begun| end.saturating_duration_since(*begun));
        if killed && had < timeout / 2 {
            return Err(late);
        }
        let duration = clock::now().saturating_duration_since(asked);
        Ok(lock(&output).told(status, duration, killed))
    }

    fn program(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }

    /// Blocks until the program runs, or cannot.
    fn start(&self, output: OwnedFd, lifeline: OwnedFd) -> Result<Child, Untried> {
        let program = find_program(self.program()).map_err(Untried)?;
        let own_trouble = |error: io::Error| Untried(format!("{}: {}", program.display(), words(&error)));
        let errors = output.try_clone().map_err(own_trouble)?;
        let mut command = Command::new(&program);
        command.args(self.command.iter().skip(1)).current_dir("/").env_clear();
        command
            .env("PATH", PATH)
            .env("LANG", "C")
            .envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(output).stderr(errors);
        // Whole seconds, rounded up: the time-out comes first, unless several processes of it are at work.
        let cpu = self.timeout.as_secs().saturating_add(2);
        confine(&mut command, sandbox(&self.user, cpu)?, lifeline.as_raw_fd());
        command.spawn().map_err(own_trouble)
    }
}

/// The sandbox of a user by name. Never root: a configuration that says so got past its validation.
fn sandbox(user: &str, cpu: u64) -> Result<Sandbox, Untried> {
    let user = find_user(user).map_err(|unfit| Untried(unfit.to_string()))?;
    let filters = syscalls::filters().map_err(Untried)?;
    Ok(Sandbox { uid: user.uid.as_raw(), gid: user.gid.as_raw(), cpu, filters })
}

/// Why a program could not be run.
fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EACCES) => "the command's user may not run it".to_owned(),
        Some(libc::ENOENT) => "it, or the interpreter it names, is not there".to_owned(),
        Some(libc::EPERM) => {
            "not permitted: the daemon needs to be root with CAP_SYS_ADMIN to confine commands, \
                              and a program with file capabilities (getcap) cannot be confined"
                .to_owned()
        }
        Some(_) | None => error.to_string(),
    }
}

/// Feeds and reads a process until it is gone.
async fn attend(
    mut child: Child,
    input: Option<String>,
    mut pipe: pipe::Receiver,
    output: &Mutex<Output>,
) -> Option<ExitStatus> {
    let stdin = child.stdin.take();
    let talk = async {
        let feed = async {
            if let (Some(mut stdin), Some(text)) = (stdin, input) {
                // A command need not read what it is told.
                stdin.write_all(text.as_bytes()).await.ok();
            }
        };
        tokio::join!(feed, gather(&mut pipe, output));
        std::future::pending::<Infallible>().await
    };
    let status = tokio::select! {
        status = child.wait() => status.ok(),
        never = talk => match never {},
    };
    // Nothing writes any more: what is left is in the pipe.
    gather_rest(&pipe, output);
    status
}

/// Reads to the end. Cancelled, it has lost nothing.
async fn gather(pipe: &mut pipe::Receiver, output: &Mutex<Output>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        lock(output).push(buffer.get(..count).unwrap_or_default());
    }
}

/// Reads what is there without waiting; no more than a pipe can hold.
fn gather_rest(pipe: &pipe::Receiver, output: &Mutex<Output>) {
    let mut buffer = vec![0; 16 * 1024];
    for _ in 0..64 {
        match pipe.try_read(&mut buffer) {
            Ok(count @ 1..) => lock(output).push(buffer.get(..count).unwrap_or_default()),
            Ok(0) | Err(_) => return,
        }
    }
}

fn lock(output: &Mutex<Output>) -> MutexGuard<'_, Output> {
    // Whole between any two statements.
    output.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Output, as far as it is kept.
#[derive(Debug, Default)]
struct Output {
    kept: Vec<u8>,
    truncated: bool,
}

impl Output {
    fn push(&mut self, bytes: &[u8]) {
        let room = OUTPUT_MAX - self.kept.len();
        self.truncated |= bytes.len() > room;
        self.kept.extend(bytes.iter().take(room));
    }

    fn told(&self, status: Option<ExitStatus>, duration: Duration, killed: bool) -> Run {
        let text = String::from_utf8_lossy(&self.kept);
        let output: String = text.chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).collect();
        let plain =
            |line: &str| line.chars().map(|c| if c == '\t' { ' ' } else { c }).take(LINE_MAX).collect();
        // What a Nagios plugin writes after a bar is for machines.
        let for_people = |line| str::split(line, '|').next().unwrap_or(line).trim();
        let lines = output.lines().map(str::trim).filter(|line| !line.is_empty());
        let first_line = lines.map(for_people).next().map(plain).unwrap_or_default();
        Run { status, first_line, output, truncated: self.truncated, duration, killed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bytes: &[u8]) -> Run {
        let mut output = Output::default();
        bytes.chunks(1000).for_each(|chunk| output.push(chunk));
        output.told(None, Duration::ZERO, false)
    }

    #[test]
    fn the_first_line_with_something_on_it_is_told_in_plain_characters() {
        let long = "x".repeat(500);
        let table: [(&[u8], &str); 8] = [
            (b"", ""),
            (
                b"HTTP OK - 0.003 second response time |time=0.003s;;;0\n",
                "HTTP OK - 0.003 second response time",
            ),
            (b"HTTP OK\nmore\n", "HTTP OK"),
            (b"\r\n \t\n  second  \r\nthird", "second"),
            (b"\x1b[31mred\x07\x00 alert\n", "[31mred alert"),
            (b"a\tb", "a b"),
            (b"\xff\xfe\n", "\u{fffd}\u{fffd}"),
            (long.as_bytes(), &long[..LINE_MAX]),
        ];
        for (bytes, expected) in table {
            assert_eq!(told(bytes).first_line, expected, "{bytes:?}");
        }
    }

    #[test]
    fn output_is_kept_up_to_its_bound() {
        let exact = told(&vec![b'x'; OUTPUT_MAX]);
        assert_eq!((exact.output.len(), exact.truncated), (OUTPUT_MAX, false));
        let more = told(&vec![b'x'; OUTPUT_MAX + 1]);
        assert_eq!((more.output.len(), more.truncated), (OUTPUT_MAX, true));
        assert_eq!(told(b"a\n\tb\x1b[0m\n").output, "a\n\tb[0m\n");
    }

    #[test]
    fn the_reason_is_the_commands_own_or_how_it_ended() {
        let run = |raw, line: &str, killed| Run {
            status: Some(ExitStatus::from_raw(raw)),
            first_line: line.to_owned(),
            output: String::new(),
            truncated: false,
            duration: Duration::ZERO,
            killed,
        };
        let table = [
            (run(0, "", false), true, "exit status 0"),
            (run(0, "OK", false), true, "OK"),
            (run(2 << 8, "", false), false, "exit status 2"),
            (run(1 << 8, "WARNING: slow", false), false, "WARNING: slow"),
            (run(11, "", false), false, "killed by signal 11"),
            (run(11, "hello", false), false, "killed by signal 11: hello"),
            (run(9, "", true), false, "no end within 3s"),
            (run(0, "late", true), false, "no end within 3s: late"),
        ];
        for (run, passed, reason) in table {
            assert_eq!((run.passed(), run.reason(Duration::from_secs(3)).as_str()), (passed, reason));
        }
    }

    #[test]
    fn root_and_strangers_run_nothing() {
        assert!(sandbox("root", 1).unwrap_err().0.contains("root"));
        assert!(sandbox("no-such-user", 1).unwrap_err().0.contains("no user"));
    }
}
