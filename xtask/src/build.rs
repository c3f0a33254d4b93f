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

/// Setup, then every program of the workspace in the profile of the tests: the demo and the tests share
/// it, so that a newcomer compiles the dependencies once, and with overflow checks.
pub fn for_tests() -> Result<()> {
    setup::run()?;
    execute(cargo().args(["build", "--workspace", "--exclude", "lb-ebpf", "--bins"]))
}
