//! The virtual machine: boots it, reads its serial line until it says that it is done or time is up, and takes it away.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::packages::Kernel;
use crate::command::command;

/// How long one machine may take, on a computer that has other things to do.
const LIMIT: Duration = Duration::from_secs(1500);

/// How many lines of evidence are shown: the verifier says last what it minds.
const SHOWN: usize = 60;

/// What a machine has said of itself.
#[derive(Debug, Default)]
pub struct Report {
    /// From the kernel's start to the first process.
    booted: Option<Duration>,
    /// The package's version.
    version: String,
    /// From the daemon's start until it had loaded and attached its program.
    loaded: Option<Duration>,
    /// Instructions that the verifier has gone through, where the kernel tells.
    verified: Option<u64>,
    pub failure: Option<Failure>,
    ended: bool,
}

/// What went wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was being done.
    pub what: String,
    /// The last of what was said then.
    pub evidence: Vec<String>,
}

impl Failure {
    /// What the verifier minded, if it was that: the line before its statistics.
    fn verifiers_last_words(&self) -> Option<&str> {
        let lines = || self.evidence.iter();
        let statistics =
            lines().rposition(|line| line.starts_with("processed ") && line.contains("insns"))?;
        let before = lines().take(statistics);
        let words =
            |line: &&String| !line.starts_with("verification time") && !line.starts_with("stack depth");
        let last = before.rev().find(words)?;
        // A log of one line stands behind the daemon's own words.
        Some(last.rsplit_once("Verifier output: ").map_or(last.as_str(), |(_, words)| words))
    }
}

impl Report {
    /// Takes a line of the serial line; a step that is done, for the reader.
    fn line(&mut self, line: &str) -> Option<String> {
        let Some(said) = line.strip_prefix("@ ") else {
            if let Some(failure) = &mut self.failure {
                failure.evidence.push(line.to_owned());
            }
            return None;
        };
        let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
        match word {
            "booted" => {
                let (uptime, version) = rest.split_once(' ').unwrap_or((rest, ""));
                self.booted = hundredths(uptime);
                version.clone_into(&mut self.version);
                return Some(format!("booted {version}"));
            }
            "loaded" => {
                self.loaded = hundredths(rest);
                return Some("loaded the program".to_owned());
            }
            "verified" => self.verified = rest.parse().ok(),
            "ok" => return Some(rest.to_owned()),
            "failed" => self.failure = Some(Failure { what: rest.to_owned(), evidence: Vec::new() }),
            "end" => self.ended = true,
            _ => {}
        }
        None
    }

    /// The end of a machine that has not said "end": its last lines are all there is.
    fn cut_short(&mut self, what: &str, said: &[String]) {
        let what = match self.failure.take() {
            Some(failure) => format!("{}, and then {what}", failure.what),
            None => what.to_owned(),
        };
        self.failure = Some(Failure { what, evidence: said.to_vec() });
    }

    /// One line for the reader.
    pub fn verdict(&self) -> String {
        let mut facts = match &self.failure {
            Some(failure) => match failure.verifiers_last_words() {
                Some(words) => format!("FAILED {}: {words}", failure.what),
                None => format!("FAILED {}", failure.what),
            },
            None => "ok, forwards IPv4 and IPv6 natively and is adopted".to_owned(),
        };
        if !self.version.is_empty() {
            facts += &format!(" ({})", self.version);
        }
        if let Some(booted) = self.booted {
            facts += &format!("; booted in {:.1} s", booted.as_secs_f64());
        }
        if let Some(loaded) = self.loaded {
            facts += &format!(", loaded in {:.1} s", loaded.as_secs_f64());
        }
        if let Some(verified) = self.verified {
            facts += &format!(", {verified} instructions verified");
        }
        facts
    }
}

fn hundredths(text: &str) -> Option<Duration> {
    text.parse().ok().map(|n: u64| Duration::from_millis(n * 10))
}

/// Boots a kernel and waits for its end. All that it says goes to `log`, too.
pub fn boot(kernel: &Kernel, initrd: &Path, log: &Path) -> Result<Report> {
    let mut log = File::create(log).with_context(|| log.display().to_string())?;
    let (_machine, lines) = start(kernel, initrd)?;
    let deadline = Instant::now() + LIMIT;
    let mut report = Report::default();
    let mut said = Vec::new();
    while !report.ended {
        let line = match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                report.cut_short(&format!("not done after {} s", LIMIT.as_secs()), &said);
                break;
            }
            Err(RecvTimeoutError::Disconnected) => {
                report.cut_short("ended before it was done", &said);
                break;
            }
        };
        writeln!(log, "{line}")?;
        if let Some(step) = report.line(&line) {
            eprintln!("kernels: {step}");
        }
        said.push(line);
    }
    if let Some(failure) = &mut report.failure {
        failure.evidence.drain(..failure.evidence.len().saturating_sub(SHOWN));
    }
    Ok(report)
}

/// A machine that is killed and reaped on drop.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("kernels: the virtual machine {} is left over: {error}", self.0.id());
        }
    }
}

fn start(kernel: &Kernel, initrd: &Path) -> Result<(Machine, Receiver<String>)> {
    let mut qemu = command("qemu-system-x86_64");
    // Without KVM, which not every machine has; the emulation is fast enough.
    qemu.args(["-accel", "tcg", "-smp", "2", "-m", "1024", "-no-reboot", "-nodefaults", "-no-user-config"]);
    qemu.args(["-display", "none", "-nic", "none", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initrd);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1"]);
    let mut child =
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("qemu does not start")?;
    let serial = child.stdout.take();
    let machine = Machine(child);
    let lines = read(serial.context("a pipe was asked for")?);
    Ok((machine, lines))
}

/// The lines of the serial line, read by a thread that ends with the machine.
fn read(serial: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let mut serial = BufReader::new(serial);
        let mut line = Vec::new();
        while serial.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[&str]) -> Report {
        let mut report = Report::default();
        for line in lines {
            report.line(line);
        }
        report
    }

    #[test]
    fn a_machine_that_did_everything_is_ok() {
        let report = report(&[
            "@ booted 412 Debian 6.1.192-2",
            "noise",
            "@ loaded 1234",
            "@ verified 98765",
            "@ ok adopted",
            "@ end",
        ]);
        assert!(report.ended && report.failure.is_none());
        let verdict = report.verdict();
        assert!(verdict.starts_with("ok, "), "{verdict}");
        let facts = "(Debian 6.1.192-2); booted in 4.1 s, loaded in 12.3 s, 98765 instructions verified";
        assert!(verdict.ends_with(facts), "{verdict}");
    }

    #[test]
    fn a_failure_has_what_was_said_after_it() {
        let report = report(&[
            "@ booted 412 Debian 6.1.192-2",
            "before",
            "@ failed while loading",
            "R1 invalid",
            "@ end",
        ]);
        let failure = report.failure.as_ref().unwrap();
        assert_eq!(failure.what, "while loading");
        assert_eq!(failure.evidence, ["R1 invalid"]);
        assert!(report.verdict().starts_with("FAILED while loading (Debian 6.1"), "{}", report.verdict());
    }

    #[test]
    fn the_verifiers_last_words_are_in_the_verdict() {
        let words = "R4 pointer arithmetic on pkt_end prohibited";
        for log in
            [&format!("4: (07) r4 += 1\n{words}"), &format!("drover: refused. Verifier output: {words}")]
        {
            let said = format!(
                "@ failed while loading\n{log}\nverification time 24121 usec\nstack depth 184+0\n\
                 processed 5 insns (limit 1000000) max_states_per_insn 0\n: Permission denied (os error 13)\n@ end"
            );
            let lines: Vec<&str> = said.lines().collect();
            assert_eq!(report(&lines).verdict(), format!("FAILED while loading: {words}"));
        }
    }

    #[test]
    fn a_machine_that_stops_in_the_middle_has_failed() {
        let mut report = report(&["@ booted 412 6.1", "Kernel panic"]);
        assert!(!report.ended);
        report.cut_short("ended before it was done", &["Kernel panic".to_owned()]);
        let failure = report.failure.unwrap();
        assert_eq!(failure.what, "ended before it was done");
        assert_eq!(failure.evidence, ["Kernel panic"]);
    }
}
