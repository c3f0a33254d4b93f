//! Debian's kernels: found by apt, unpacked and never installed. One that is there is not asked for again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{command, is_root, output, run as execute};

/// The kernels without drivers for hardware: small, and enough for a virtual machine.
const PREFIX: &str = "linux-image-";
const SUFFIX: &str = "-cloud-amd64";

/// A kernel that is unpacked.
#[derive(Debug)]
pub struct Kernel {
    /// As `uname -r` will say.
    pub release: String,
    pub image: PathBuf,
    /// The module for virtual links, perhaps compressed.
    pub veth: PathBuf,
}

/// The newest kernel of a series (`6.1`) in `folder`, else the newest that apt offers, put there.
pub fn kernel(folder: &Path, series: &str) -> Result<Kernel> {
    let there = fs::read_dir(folder)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let name = match newest(there, series) {
        Some(name) => name,
        None => download(folder, series)?,
    };
    let unpacked = folder.join(&name);
    let release = name.strip_prefix(PREFIX).unwrap_or(&name).to_owned();
    let drivers = unpacked.join(format!("lib/modules/{release}/kernel/drivers/net"));
    let veth = fs::read_dir(&drivers).with_context(|| drivers.display().to_string())?.flatten();
    let mut veth = veth.filter(|entry| entry.file_name().to_string_lossy().starts_with("veth.ko"));
    let veth = veth.next().with_context(|| format!("no veth.ko in {}", drivers.display()))?.path();
    Ok(Kernel { image: unpacked.join(format!("boot/vmlinuz-{release}")), release, veth })
}

/// Downloads and unpacks the newest package of a series; its name.
fn download(folder: &Path, series: &str) -> Result<String> {
    if is_root() {
        eprintln!("kernels: apt-get update");
        execute(command("apt-get").args(["-qq", "update"]))?;
    }
    let regex = format!("^{PREFIX}{}[.]", series.replace('.', "[.]"));
    let found = output(command("apt-cache").args(["search", "--names-only", &regex]))?;
    let names = found.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned);
    let Some(name) = newest(names, series) else {
        bail!(
            "apt offers no {PREFIX}{series}.*{SUFFIX}. Add the suite that has it to apt's sources: 6.1 is in bookworm, \
             6.12 in trixie, bookworm-security and bookworm-backports"
        );
    };
    eprintln!("kernels: downloading {name}");
    let fresh = folder.join("fresh");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    fs::create_dir(&fresh)?;
    // As root apt would download as a user who may not write here, and complain of it.
    let options = ["-qq", "-o", "APT::Sandbox::User=root", "download", &name];
    execute(command("apt-get").args(options).current_dir(&fresh))?;
    let package = fs::read_dir(&fresh)?.next().context("apt-get download left nothing")??.path();
    execute(command("dpkg").arg("-x").arg(&package).arg(&fresh))?;
    fs::remove_file(&package)?;
    fs::rename(&fresh, folder.join(&name))?;
    Ok(name)
}

/// The newest package with a kernel of the series. Others are of its build, not signed or debugging symbols.
fn newest(names: impl Iterator<Item = String>, series: &str) -> Option<String> {
    let prefix = format!("{PREFIX}{series}.");
    names
        .filter(|name| name.starts_with(&prefix) && name.ends_with(SUFFIX))
        .max_by_key(|name| numbers(name.trim_end_matches(SUFFIX)))
}

/// The numbers in a name, by which versions are compared: 6.12.9 is before 6.12.10.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_signed_kernel_of_a_series_is_chosen() {
        let names = [
            "linux-image-6.1.0-47-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-cloud-amd64-unsigned",
            "linux-image-6.1.0-57-cloud-amd64-dbg",
            "linux-image-6.1.0-58-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.101+deb12-cloud-amd64",
            "linux-image-6.12.94+deb12-cloud-amd64",
            "6.1.0-56-cloud-amd64.log",
        ];
        let newest = |series| newest(names.iter().map(|name| (*name).to_owned()), series);
        assert_eq!(newest("6.1").as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest("6.12").as_deref(), Some("linux-image-6.12.101+deb12-cloud-amd64"));
        assert_eq!(newest("5.10"), None);
    }
}
