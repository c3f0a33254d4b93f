//! `build`: the release binary. lb-daemon's build script compiles the XDP program and embeds it.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::command::{cargo, command, output, run as execute, target};
use crate::setup::{self, Purpose};
use crate::test::WORKSPACE;

pub fn run() -> Result<()> {
    release()?;
    let program = target().join("release/drover");
    let symbols = take_symbols_out(&program)?;
    let size =
        |file: &Path| fs::metadata(file).map(|it| it.len() >> 20).with_context(|| file.display().to_string());
    eprintln!("built {} ({} MiB)", program.display(), size(&program)?);
    eprintln!(
        "  its symbols, which debuggers find beside it: {} ({} MiB)",
        symbols.display(),
        size(&symbols)?
    );
    Ok(())
}

/// Puts a program's symbols and line tables into a file beside it. The program is a new file afterwards: cargo's own
/// stays as it was linked, and is put in its place again by the next build.
fn take_symbols_out(program: &Path) -> Result<std::path::PathBuf> {
    let (symbols, stripped) = (program.with_extension("debug"), program.with_extension("stripped"));
    execute(command("objcopy").arg("--only-keep-debug").arg(program).arg(&symbols))?;
    let mut strip = command("objcopy");
    let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
    link.push(&symbols);
    execute(strip.arg("--strip-all").arg(link).arg(program).arg(&stripped))?;
    fs::rename(&stripped, program).with_context(|| program.display().to_string())?;
    Ok(symbols)
}

/// Says what is about to be built: a first build is silent for long stretches.
fn announce(what: &str) {
    eprintln!("building {what}: some minutes the first time; later what has changed alone");
}

/// Setup, then the release binary.
pub fn release() -> Result<()> {
    setup::run(Purpose::Build)?;
    announce("the daemon with its XDP program, optimised");
    execute(cargo().args(["build", "--release", "--package", "lb-daemon", "--bin", "drover"]))
}

/// Setup, then the demo and its daemon, in the profile that compiles fastest: what the kernel runs is the same.
pub fn demo() -> Result<()> {
    setup::run(Purpose::Demo)?;
    announce("the daemon with its XDP program, and the demo");
    execute(cargo().args([
        "build",
        "--package",
        "lb-daemon",
        "--package",
        "lb-tests",
        "--bin",
        "drover",
        "--bin",
        "demo",
    ]))
}

/// Setup, then everything that the tests need, the daemon included; what cargo tells of it, a JSON object a line. Tests and
/// programs are built in one run, since libraries get other features when tests are among what is built, and would be
/// compiled a second time.
pub fn tests() -> Result<String> {
    setup::run(Purpose::Test)?;
    announce("the daemon with its XDP program, and all tests");
    let mut build = cargo();
    build.arg("test").args(WORKSPACE).args(["--no-run", "--message-format", "json-render-diagnostics"]);
    output(build.stderr(Stdio::inherit()))
}
