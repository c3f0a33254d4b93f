//! `load`: build, then become the daemon.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build;
use crate::command::{is_root, target};

pub fn run(args: &[String]) -> Result<()> {
    let Some((config, rest)) = args.split_first() else {
        bail!("which configuration? Usage: cargo xtask load CONFIG [ARGS of drover run]");
    };
    if !Path::new(config).is_file() {
        bail!("no such file: {config}");
    }
    if !is_root() {
        bail!("loading an XDP program needs root");
    }
    build::release()?;
    let drover = target().join("release/drover");
    let error = Command::new(&drover).args(["run", "--config", config]).args(rest).exec();
    Err(error).with_context(|| format!("{} does not start", drover.display()))
}
