//! `build`: the release binary. lb-daemon's build script compiles the XDP program and embeds it.

use anyhow::Result;

use crate::command::{cargo, run as execute, target};
use crate::setup;

pub fn run() -> Result<()> {
    release()?;
    eprintln!("built {}", target().join("release/drover").display());
    Ok(())
}

/// Setup, then the release binary.
pub fn release() -> Result<()> {
    setup::run()?;
    execute(cargo().args(["build", "--release", "--package", "lb-daemon", "--bin", "drover"]))
}

/// Setup, then the demo and its daemon, in the profile that compiles fastest: what the kernel runs is the same.
pub fn demo() -> Result<()> {
    setup::run()?;
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

/// Setup, then everything that the tests need, the daemon included. Tests and programs are built in one run, since
/// libraries get other features when tests are among what is built, and would be compiled a second time.
pub fn tests() -> Result<()> {
    setup::run()?;
    execute(cargo().args(["build", "--workspace", "--exclude", "lb-ebpf", "--all-targets"]))
}
