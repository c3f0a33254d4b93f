//! `kernels`: proof that other kernels than this machine's take the XDP program, and that it forwards there.
//!
//! Debian's kernels boot in an emulated machine (no KVM is asked for), one after another, each with the daemon and a
//! small network of namespaces. What happens in there is `kernels/init.sh`; downloads and logs are in `target/kernels`.
//! It takes minutes, and is no part of `test`.

mod guest;
mod initrd;
mod packages;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::build;
use crate::command::target;
use crate::setup::{self, Package};

/// Debian 12's and Debian 13's.
const SERIES: &[&str] = &["6.1", "6.12"];

const PACKAGES: &[Package] = &[
    Package::new("qemu-system-x86", Some("qemu-system-x86_64"), "boots other kernels"),
    Package::new("busybox-static", Some("busybox"), "what runs in there"),
    Package::new("cpio", Some("cpio"), "packs their first file system"),
    Package::new("binutils", Some("strip"), "makes it smaller"),
    Package::new("iproute2", Some("ip"), "the network in there"),
    Package::new("ethtool", Some("ethtool"), "offloads in there"),
    Package::new("curl", Some("curl"), "asks the daemon in there what became of packets"),
];

pub fn run(args: &[String]) -> Result<()> {
    let all: Vec<String> = SERIES.iter().map(|series| (*series).to_owned()).collect();
    let series = match args {
        [] => all,
        [only, version] if only == "--only" => vec![version.clone()],
        _ => bail!("usage: cargo xtask kernels [--only VERSION], VERSION being as in 6.1"),
    };
    let drover = drover()?;
    setup::debian(PACKAGES)?;
    let folder = target().join("kernels");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let kernels: Vec<_> =
        series.iter().map(|series| packages::kernel(&folder, series)).collect::<Result<_>>()?;
    let initrd = initrd::make(&folder, &drover, &kernels)?;
    let mut verdicts = Vec::new();
    let mut failed = 0;
    for kernel in &kernels {
        eprintln!("kernels: booting {}", kernel.release);
        let start = Instant::now();
        let log = folder.join(format!("{}.log", kernel.release));
        let report = guest::boot(kernel, &initrd, &log)?;
        failed += usize::from(report.failure.is_some());
        let seconds = start.elapsed().as_secs();
        verdicts.push(format!("{}: {}, {seconds} s in all", kernel.release, report.verdict()));
        if let Some(failure) = &report.failure {
            eprintln!("{}", failure.evidence.join("\n"));
            eprintln!("kernels: {} failed; all that it said is in {}", kernel.release, log.display());
        }
    }
    for verdict in &verdicts {
        eprintln!("{verdict}");
    }
    if failed > 0 {
        bail!("{failed} of {} kernels failed", kernels.len());
    }
    Ok(())
}

/// The daemon that is proved: the one named by `DROVER_BIN`, as it is, else that of the tests and the demo, built now.
///
/// Not the release binary: the kernel gets the same program from both, the rest is fast enough in an emulated machine, and
/// this one compiles in a fraction of the time, with its arithmetic checked.
fn drover() -> Result<PathBuf> {
    if let Some(file) = std::env::var_os("DROVER_BIN") {
        return fs::canonicalize(&file).with_context(|| format!("DROVER_BIN={}", file.display()));
    }
    build::demo()?;
    Ok(target().join("debug/drover"))
}
