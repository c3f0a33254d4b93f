//! `bench`: nanoseconds per packet, forwarding rates, and requests a second. Its arguments are those of the bench program.

use anyhow::{Result, bail};

use crate::command::{cargo, is_root, run as execute, target};
use crate::{build, setup};

pub fn run(args: &[String]) -> Result<()> {
    if !is_root() {
        bail!("the benchmarks load XDP programs: run them as root");
    }
    build::release()?;
    setup::benchmarks()?;
    execute(
        cargo()
            .args(["run", "--release", "--package", "lb-tests", "--bin", "bench", "--"])
            .args(args)
            .env("DROVER_BIN", target().join("release/drover")),
    )
}
