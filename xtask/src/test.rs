//! `test`: every test of the workspace, those in namespaces with the binary just built.
//!
//! Most tests wait for something most of the time, so several of their programs run at once. Those that measure have the
//! machine to themselves, and those that compute step back behind all others.

mod lanes;
mod programs;

use anyhow::{Result, bail};

use crate::build;
use crate::command::{cargo, is_root, run as execute, target};

/// The workspace without the program for the kernel, which has no test harness; lb-common and `BPF_PROG_TEST_RUN` test what
/// is in it.
pub const WORKSPACE: [&str; 3] = ["--workspace", "--exclude", "lb-ebpf"];

pub fn run(args: &[String]) -> Result<()> {
    if !is_root() {
        bail!("the end-to-end tests make network namespaces and load an XDP program: run them as root");
    }
    let built = build::tests()?;
    if args.is_empty() {
        return lanes::run(&programs::of(&built)?);
    }
    execute(cargo().arg("test").args(WORKSPACE).args(args).env("DROVER_BIN", target().join("debug/drover")))
}
