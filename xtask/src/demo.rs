//! `demo`: build, then become the demo, which balances real connections in namespaces on this machine.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build;
use crate::command::{is_root, search_path, target};

pub fn run(args: &[String]) -> Result<()> {
    if !is_root() {
        bail!("the demo makes network namespaces and loads an XDP program: run it as root");
    }
    build::demo()?;
    let programs = target().join("debug");
    let demo = programs.join("demo");
    // In its place and not beside it, so that Ctrl-C leaves nobody who ends before the demo has cleaned up.
    let error = Command::new(&demo)
        .args(args)
        .env("DROVER_BIN", programs.join("drover"))
        .env("PATH", search_path())
        .exec();
    Err(error).with_context(|| format!("{} does not start", demo.display()))
}
