//! `setup`: from a bare Debian to a working build. Idempotent; asks nothing; says each step that it takes.
//!
//! It looks first and installs only what is missing, so it costs a moment when nothing is.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, command, find, is_root, output, run as execute};

/// The release series of bpf-linker that the build is known to work with.
const BPF_LINKER: &str = "0.13";

/// The release series of cargo-deny that understands `deny.toml`.
const CARGO_DENY: &str = "0.20";

/// A Debian package, and a program by which it is known to be there on other distributions.
pub struct Package {
    pub name: Cow<'static, str>,
    pub program: Option<&'static str>,
    pub why: &'static str,
}

impl Package {
    pub const fn new(name: &'static str, program: Option<&'static str>, why: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), program, why }
    }
}

/// What a verb is about to do; each needs what stands before it, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    Build,
    Demo,
    Test,
    /// All that must hold before a change is merged (`.ci/run`).
    Merge,
}

fn packages(purpose: Purpose, llvm: &str) -> Vec<Package> {
    let of_llvm = |name: String, why| Package { name: name.into(), program: None, why };
    let package = Package::new;
    let mut packages = vec![
        package("gcc", Some("cc"), "links the programs"),
        package("g++", Some("c++"), "links bpf-linker"),
        package("libc6-dev", None, "links the programs"),
        package("binutils", Some("objcopy"), "puts the symbols beside the program"),
        of_llvm(format!("llvm-{llvm}-dev"), "bpf-linker is built on it"),
        of_llvm(format!("libpolly-{llvm}-dev"), "bpf-linker is built on it"),
        package("libzstd-dev", None, "bpf-linker is built on it"),
        package("zlib1g-dev", None, "bpf-linker is built on it"),
        package("libssl-dev", None, "checks by TLS"),
        package("pkg-config", Some("pkg-config"), "finds libssl"),
    ];
    if purpose >= Purpose::Demo {
        packages.extend([
            package("iproute2", Some("ip"), "demo and tests: namespaces"),
            package("util-linux", Some("nsenter"), "demo and tests: namespaces"),
            package("ethtool", Some("ethtool"), "demo and tests: offloads of virtual links"),
        ]);
    }
    if purpose >= Purpose::Test {
        packages.extend([
            package("nftables", Some("nft"), "tests: counting packets; benchmarks: the rival"),
            package("openssl", Some("openssl"), "tests of checks: servers that speak what is old"),
            package("curl", Some("curl"), "tests: a real client"),
            package("e2fsprogs", Some("mkfs.ext4"), "tests: a disk that hangs"),
            package("mount", Some("mount"), "tests: a disk that hangs"),
            package("procps", Some("sysctl"), "tests: settings of namespaces"),
            package("nginx-light", Some("nginx"), "tests: a real server"),
            package("dnsmasq-base", Some("dnsmasq"), "tests of checks: a DNS server"),
            package("exim4-daemon-light", Some("exim4"), "tests of checks: an SMTP server"),
            package("dovecot-imapd", Some("dovecot"), "tests of checks: an IMAP server"),
            package("dovecot-pop3d", Some("dovecot"), "tests of checks: a POP3 server"),
            package("wrk", Some("wrk"), "tests: load"),
            package("monitoring-plugins-basic", None, "tests: real plugins as checks"),
            package("iputils-ping", Some("ping"), "tests: what is not for a VIP"),
        ]);
    }
    packages
}

/// What the benchmarks alone need.
fn rivals() -> Vec<Package> {
    vec![Package { name: "haproxy".into(), program: Some("haproxy"), why: "benchmarks: another rival" }]
}

/// Installs what the benchmarks need besides.
pub fn benchmarks() -> Result<()> {
    let system = system();
    if system == "debian" { install(&rivals()) } else { check_programs(&system, &rivals(), "") }
}

/// Installs what is missing for a purpose.
pub fn run(purpose: Purpose) -> Result<()> {
    let rustc = output(command("rustc").arg("-vV")).context("rustc: install Rust by https://rustup.rs")?;
    let llvm = llvm_of(&rustc).context("rustc -vV names no LLVM version")?;
    let packages = packages(purpose, llvm);
    let system = system();
    if system == "debian" {
        install(&packages)?;
    } else {
        let more =
            format!("and bpf-linker {BPF_LINKER}, built with LLVM {llvm}, the version of rustc's own.\n");
        check_programs(&system, &packages, &more)?;
    }
    components(purpose)?;
    bpf_linker(llvm, &system)?;
    if purpose >= Purpose::Merge { cargo_deny() } else { Ok(()) }
}

/// Installs what one verb needs beyond that, if it is missing. For verbs that need Debian anyway.
pub fn debian(packages: &[Package]) -> Result<()> {
    match os_release("ID") {
        Some(system) if system == "debian" => install(packages),
        system => {
            bail!("this verb needs Debian, and here is {}", system.as_deref().unwrap_or("something else"))
        }
    }
}

/// LLVM's major version, from what `rustc -vV` prints.
fn llvm_of(rustc: &str) -> Option<&str> {
    rustc.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()
}

/// The distribution's short name.
fn system() -> String {
    os_release("ID").unwrap_or_else(|| "unknown".to_owned())
}

/// A value of `/etc/os-release`.
fn os_release(key: &str) -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

/// Installs the packages that are missing.
fn install(packages: &[Package]) -> Result<()> {
    let mut query = command("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]);
    query.args(packages.iter().map(|package| &*package.name));
    // It exits 1 when it does not know a package; what it does know is printed all the same.
    let known = query.output().context("dpkg-query does not start")?.stdout;
    let known = String::from_utf8_lossy(&known).into_owned();
    let there = |name: &str| {
        known
            .lines()
            .any(|line| line.split_once(' ').is_some_and(|(n, status)| n == name && status == "installed"))
    };
    let missing: Vec<&Package> = packages.iter().filter(|package| !there(&package.name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        eprintln!("setup: {} is missing ({})", package.name, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|package| &*package.name).collect();
    if !is_root() {
        bail!("installing packages needs root. Run: sudo apt-get install {}", names.join(" "));
    }
    let apt = || {
        let mut apt = command("apt-get");
        apt.args(["-q", "-y"]).env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    eprintln!("setup: apt-get update");
    execute(apt().arg("update"))?;
    eprintln!("setup: apt-get install {}", names.join(" "));
    let quiet = NoServices::begin()?;
    execute(apt().args(["install", "--no-install-recommends"]).args(&names))?;
    drop(quiet);
    disable_services(&names)
}

/// Services that came with packages of the tests would start with the machine.
fn disable_services(installed: &[&str]) -> Result<()> {
    if find("systemctl").is_none() {
        return Ok(());
    }
    let services = [
        ("nginx-light", "nginx"),
        ("exim4-daemon-light", "exim4"),
        ("dovecot-imapd", "dovecot"),
        ("haproxy", "haproxy"),
    ];
    for (_, service) in services.iter().filter(|(package, _)| installed.contains(package)) {
        eprintln!("setup: {service} is for tests and benchmarks; its service is not enabled");
        execute(command("systemctl").args(["--quiet", "disable", service]))?;
    }
    Ok(())
}

/// While it lives, packages that bring a service do not start it (Debian's policy-rc.d).
struct NoServices(Option<PathBuf>);

impl NoServices {
    fn begin() -> Result<Self> {
        let policy = Path::new("/usr/sbin/policy-rc.d");
        if policy.exists() {
            return Ok(Self(None));
        }
        fs::write(policy, "#!/bin/sh\nexit 101\n").context("/usr/sbin/policy-rc.d")?;
        execute(command("chmod").arg("755").arg(policy))?;
        Ok(Self(Some(policy.to_owned())))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(policy) = &self.0
            && let Err(error) = fs::remove_file(policy)
        {
            eprintln!("setup: {} is left over: {error}", policy.display());
        }
    }
}

/// On a distribution whose packages it does not know: everything must be there already.
fn check_programs(system: &str, packages: &[Package], more: &str) -> Result<()> {
    let missing: Vec<_> =
        packages.iter().filter(|p| p.program.is_some_and(|it| find(it).is_none())).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("setup: it knows the packages of Debian, not those of '{system}'. Needed, by Debian's names:");
    for package in packages {
        let program = package.program.filter(|it| find(it).is_none());
        let mark = program.map(|it| format!("; missing: {it}")).unwrap_or_default();
        eprintln!("  {:<18} {}{mark}", package.name, package.why);
    }
    eprint!("{more}");
    let names: Vec<_> = missing.iter().filter_map(|package| package.program).collect();
    bail!("install what is missing ({}) and run it again", names.join(", "))
}

/// The parts of the Rust toolchain that a minimal installation leaves out.
fn components(purpose: Purpose) -> Result<()> {
    let sysroot = output(command("rustc").args(["--print", "sysroot"]))?;
    let sysroot = Path::new(sysroot.trim());
    let parts = [
        (Purpose::Build, "rust-src", "lib/rustlib/src/rust/library/core/src/lib.rs"),
        (Purpose::Merge, "clippy", "bin/cargo-clippy"),
        (Purpose::Merge, "rustfmt", "bin/cargo-fmt"),
    ];
    let parts = parts.iter().filter(|(needed, ..)| *needed <= purpose).map(|(_, name, file)| (*name, *file));
    let missing = parts.filter(|(_, file)| !sysroot.join(file).exists()).map(|(name, _)| name);
    let missing: Vec<&str> = missing.collect();
    if missing.is_empty() {
        return Ok(());
    }
    if find("rustup").is_none() {
        bail!("{} missing from {}, and there is no rustup to add it", missing.join(", "), sysroot.display());
    }
    eprintln!("setup: rustup component add {}", missing.join(" "));
    execute(command("rustup").args(["component", "add"]).args(&missing))
}

/// The linker of BPF objects; its LLVM must be that of rustc, whose bitcode it reads.
fn bpf_linker(llvm: &str, system: &str) -> Result<()> {
    let there = output(command("bpf-linker").arg("--version")).unwrap_or_default();
    if there.split_whitespace().any(|version| of_series(version, BPF_LINKER)) {
        return Ok(());
    }
    let why =
        if there.is_empty() { "missing".to_owned() } else { format!("{}, not {BPF_LINKER}", there.trim()) };
    eprintln!("setup: bpf-linker is {why}; building it with LLVM {llvm} (a minute)");
    let mut install = cargo();
    let version = format!("^{BPF_LINKER}");
    install.args(["install", "bpf-linker", "--locked", "--force", "--version", &version]);
    install.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
    if system == "debian" {
        // Left to itself its build script finds another folder and fails to link.
        install.env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"));
    }
    execute(&mut install)
}

/// What compares the dependencies with `deny.toml`. It runs for seconds, so it is compiled in a hurry.
fn cargo_deny() -> Result<()> {
    let there = output(command("cargo-deny").arg("--version")).unwrap_or_default();
    if there.split_whitespace().any(|version| of_series(version, CARGO_DENY)) {
        return Ok(());
    }
    eprintln!("setup: cargo-deny {CARGO_DENY} is missing; building it (two minutes)");
    let mut install = cargo();
    install.args(["install", "cargo-deny", "--locked", "--force", "--debug"]);
    install.args(["--version", &format!("^{CARGO_DENY}")]).env("CARGO_PROFILE_DEV_DEBUG", "false");
    execute(&mut install)
}

/// Whether a version is one of a release series.
fn of_series(version: &str, series: &str) -> bool {
    version.strip_prefix(series).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_installs_what_it_needs_and_no_more() {
        let names =
            |purpose| packages(purpose, "22").iter().map(|it| it.name.to_string()).collect::<Vec<_>>();
        let (build, demo, test) = (names(Purpose::Build), names(Purpose::Demo), names(Purpose::Test));
        assert!(demo.starts_with(&build) && test.starts_with(&demo));
        let has = |list: &[String], name: &str| list.iter().any(|it| it == name);
        for server in ["exim4-daemon-light", "dovecot-imapd", "nginx-light", "dnsmasq-base"] {
            assert_eq!((has(&demo, server), has(&test, server)), (false, true), "{server}");
        }
        assert_eq!((has(&build, "iproute2"), has(&demo, "iproute2")), (false, true));
    }

    #[test]
    fn a_version_is_of_its_series_alone() {
        let found = ["0.13.2", "0.13", "0.130.1", "0.12.9"].map(|version| of_series(version, "0.13"));
        assert_eq!(found, [true, true, false, false]);
    }

    #[test]
    fn llvm_major_version_is_read_from_rustc() {
        let text =
            "rustc 1.95.0 (59807616e 2026-04-14)\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.2\n";
        assert_eq!(llvm_of(text), Some("22"));
        assert_eq!(llvm_of("rustc 1.95.0"), None);
    }
}
