//! `test`: every test of the workspace, those in namespaces with the binary just built.

use anyhow::{Result, bail};

use crate::build;
use crate::command::{cargo, is_root, run as execute, target};

pub fn run(args: &[String]) -> Result<()> {
    if !is_root() {
        bail!("the end-to-end tests make network namespaces and load an XDP program: run them as root");
    }
    build::tests()?;
    // The program for the kernel has no test harness; lb-common and `BPF_PROG_TEST_RUN` test what is in it.
    execute(
        cargo()
            .args(["test", "--workspace", "--exclude", "lb-ebpf"])
            .args(args)
            .env("DROVER_BIN", target().join("debug/drover")),
    )
}
