//! `bench`: nanoseconds per packet, and forwarding rates. Its arguments are those of the bench program.

use anyhow::{Result, bail};

use crate::build;
use crate::command::{cargo, is_root, run as execute, target};

pub fn run(args: &[String]) -> Result<()> {
    if !is_root() {
        bail!("the benchmarks load XDP programs: run them as root");
    }
    build::release()?;
    execute(
        cargo()
            .args(["run", "--release", "--package", "lb-tests", "--bin", "bench", "--"])
            .args(args)
            .env("DROVER_BIN", target().join("release/drover")),
    )
}
