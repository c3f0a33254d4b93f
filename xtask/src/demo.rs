//! `demo`: build, then balance real connections in namespaces on this machine.

use anyhow::{Result, bail};

use crate::build;
use crate::command::{command, is_root, run as execute, target};

pub fn run(args: &[String]) -> Result<()> {
    if !is_root() {
        bail!("the demo makes network namespaces and loads an XDP program: run it as root");
    }
    build::for_tests()?;
    let programs = target().join("debug");
    let demo = programs.join("demo");
    execute(command(&demo.to_string_lossy()).args(args).env("DROVER_BIN", programs.join("drover")))
}
