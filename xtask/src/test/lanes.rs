//! Runs the tests' programs: several at once, and then those that need the machine to themselves.
//!
//! What a program prints is in `target/tests/NAME.log`, and on standard error if it fails.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::programs::{Needs, Program};
use crate::command::{command, target};

/// So many programs that wait run at once, beside the one that computes.
const WAITING: usize = 2;

/// So many tests of one that waits run at once. Others run as many as there are processors.
const TESTS_WAITING: &str = "3";

/// Nothing takes so long but what hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// How soon an end is noticed.
const PAUSE: Duration = Duration::from_millis(20);

/// How one program ended.
struct Ended {
    name: String,
    took: Duration,
    fault: Option<String>,
}

/// Runs all, and tells of each; an error if one fails.
pub fn run(programs: &[Program]) -> Result<()> {
    let begin = Instant::now();
    let (alone, others): (Vec<_>, Vec<_>) = programs.iter().partition(|it| it.needs == Needs::Everything);
    let (patient, waiting): (Vec<_>, Vec<_>) = others.into_iter().partition(|it| it.needs == Needs::Patience);
    let (patient, waiting, alone) = (queue(patient), queue(waiting), queue(alone));
    let ended = Mutex::new(Vec::new());
    let work = |queues: &[&Queue<'_>]| {
        while let Some(program) = queues.iter().find_map(|queue| locked(queue).pop_front()) {
            let end = run_one(program);
            tell(&end);
            locked(&ended).push(end);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| work(&[&patient, &waiting]));
        for _ in 0..WAITING {
            scope.spawn(|| work(&[&waiting]));
        }
    });
    work(&[&alone]);
    let ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    let failed: Vec<_> = ended.iter().filter(|end| end.fault.is_some()).map(|end| &*end.name).collect();
    if !failed.is_empty() {
        bail!("tests failed: {}", failed.join(", "));
    }
    eprintln!("all {} programs of tests passed in {:.0?}", ended.len(), begin.elapsed());
    Ok(())
}

type Queue<'a> = Mutex<VecDeque<&'a Program>>;

fn queue<'a>(programs: Vec<&'a Program>) -> Queue<'a> {
    Mutex::new(programs.into())
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run_one(program: &Program) -> Ended {
    let begin = Instant::now();
    let log = target().join("tests").join(format!("{}.log", program.name));
    let status = start(program, &log).and_then(|child| wait(child, begin + PATIENCE));
    let fault = match status {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("{status}")),
        Err(error) => Some(format!("{error:#}")),
    };
    let fault = fault.map(|fault| {
        let printed = fs::read(&log).unwrap_or_default();
        format!("{}\n{}: {fault}", String::from_utf8_lossy(&printed), program.file.display())
    });
    Ended { name: program.name.clone(), took: begin.elapsed(), fault }
}

fn start(program: &Program, log: &PathBuf) -> Result<Child> {
    fs::create_dir_all(target().join("tests"))?;
    let log = File::create(log).with_context(|| log.display().to_string())?;
    let mut run = match program.needs {
        // It would take from the others what they need to be in time.
        Needs::Patience => {
            let mut nice = command("nice");
            nice.arg("--adjustment=10").arg(&program.file);
            nice
        }
        Needs::Time | Needs::Little => {
            let mut run = Command::new(&program.file);
            run.env("RUST_TEST_THREADS", TESTS_WAITING);
            run
        }
        Needs::Everything => Command::new(&program.file),
    };
    run.current_dir(&program.folder).env("CARGO_MANIFEST_DIR", &program.folder);
    run.env("DROVER_BIN", target().join("debug/drover"));
    run.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
    run.spawn().with_context(|| format!("{} does not start", program.file.display()))
}

/// Waits for its end, and no longer than until `deadline`.
fn wait(mut child: Child, deadline: Instant) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline && std::env::var_os("DROVER_TEST_LONG").is_none() {
            child.kill()?;
            child.wait()?;
            bail!("it hung, and was killed after {PATIENCE:?}");
        }
        std::thread::sleep(PAUSE);
    }
}

fn tell(Ended { name, took, fault }: &Ended) {
    match fault {
        None => eprintln!("passed {:6.1} s  {name}", took.as_secs_f64()),
        Some(fault) => eprintln!("\nFAILED {:6.1} s  {name}\n{fault}\n", took.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_fails_keeps_no_other_from_being_run_and_is_named_in_the_end() {
        let folder = std::env::temp_dir();
        let program = |name: &str, file: &str, needs| Program {
            name: format!("lanes-{name}"),
            file: file.into(),
            folder: folder.clone(),
            needs,
        };
        let kinds = [Needs::Patience, Needs::Time, Needs::Little, Needs::Everything];
        let good = kinds.iter().map(|needs| program("good", "/bin/true", *needs)).collect::<Vec<_>>();
        run(&good).unwrap();
        for needs in kinds {
            let bad = [program("bad", "/bin/false", needs), program("missing", "/nowhere", needs)];
            let error = run(&[&bad[..], &good].concat()).unwrap_err().to_string();
            for part in ["lanes-bad", "lanes-missing"] {
                assert!(error.contains(part) && !error.contains("good"), "{needs:?}: {error}");
            }
        }
    }
}
