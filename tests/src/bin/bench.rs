//! `cargo xtask bench`: what a packet costs, how many are forwarded, and how many requests are answered, each against
//! something else in the same run.
//!
//! Fails if measuring fails; with `--check` also if a figure that must be reached is not.

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lb_tests::bench::bar::Bar;
use lb_tests::bench::forward::{self, FLOWS, Rate};
use lb_tests::bench::http::{self, Use};
use lb_tests::bench::object::Object;
use lb_tests::bench::report::{Cost, Forwarding, Report, Requests};
use lb_tests::bench::{cost, rows};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

const HELP: &str = "\
bench [--json FILE] [--check] [--quick] [--only TEXT]

  --json FILE   write the figures for scripts, too
  --check       fail if a figure that must be reached is not
  --quick       fewer and shorter rounds
  --only TEXT   only rows whose name contains TEXT
";

#[derive(Default)]
struct Options {
    json: Option<PathBuf>,
    check: bool,
    quick: bool,
    only: String,
}

fn main() -> ExitCode {
    match options().and_then(|options| options.map_or(Ok(true), |options| run(&options))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `None`: help was asked for, and given.
fn options() -> Result<Option<Options>> {
    let mut options = Options::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" => options.json = Some(args.next().context("--json wants a file")?.into()),
            "--only" => options.only = args.next().context("--only wants a text")?,
            "--check" => options.check = true,
            "--quick" => options.quick = true,
            "-h" | "--help" => {
                print!("{HELP}");
                return Ok(None);
            }
            _ => bail!("no option '{arg}'\n\n{HELP}"),
        }
    }
    Ok(Some(options))
}

/// Whether all is well.
fn run(options: &Options) -> Result<bool> {
    stay_on_one_cpu()?;
    let mut report = Report { machine: machine()?, ..Report::default() };
    set_priority(-20);
    costs(options, &mut report)?;
    forwarding(options, &mut report)?;
    // Programs that outranked the kernel's own thread for received packets would keep it from its work.
    set_priority(0);
    requests(options, &mut report)?;
    print!("{}", report.text());
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report.json())? + "\n";
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    let missed = report.missed();
    if options.check {
        missed.iter().for_each(|missed| eprintln!("bench: {missed}"));
    }
    Ok(!options.check || missed.is_empty())
}

fn costs(options: &Options, report: &mut Report) -> Result<()> {
    let mut object = Object::load()?;
    let rounds = if options.quick { 3 } else { 9 };
    for row in rows::all().into_iter().filter(|row| row.name.contains(&options.only)) {
        eprintln!("bench: {}", row.name);
        let rounds = row
            .case(&mut object)
            .and_then(|mut case| cost::measure(&mut object, &mut case, rounds))
            .with_context(|| format!("measuring '{}'", row.name))?;
        report.costs.push(Cost { group: row.group, name: row.name, bar: row.bar, rounds });
    }
    Ok(())
}

fn forwarding(options: &Options, report: &mut Report) -> Result<()> {
    // What nftables forwards differs by a tenth from one round to the next.
    let one = Bar::at_least(4.5).but_must(4.0);
    let many = Bar::at_least(3.0).but_must(2.7);
    let rows = [("forwarding, one flow", one, 1), ("forwarding, 2^14 flows", many, FLOWS)];
    let rows: Vec<_> = rows.into_iter().filter(|(name, ..)| name.contains(&options.only)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let (rounds, turn) =
        if options.quick { (3, Duration::from_millis(500)) } else { (5, Duration::from_secs(2)) };
    let [drover, nftables, routed, dropped] = forward::Way::ALL.map(forward::Lane::new);
    let mut lanes = [drover?, nftables?, routed?, dropped?];
    for (name, bar, flows) in rows {
        eprintln!("bench: {name}");
        let mut measured = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let [drover, nftables, routed, dropped] = lanes.each_mut().map(|lane| lane.measure(flows, turn));
            let round: [Rate; 4] = [drover?, nftables?, routed?, dropped?];
            measured.push(round);
        }
        report.forwarding.push(Forwarding { name, bar, rounds: measured });
    }
    Ok(())
}

fn requests(options: &Options, report: &mut Report) -> Result<()> {
    let rows = [("http, keep", Use::KeepAlive), ("http, close", Use::Close)];
    let rows: Vec<_> = rows.into_iter().filter(|(name, _)| name.contains(&options.only)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let (rounds, seconds) = (if options.quick { 3 } else { 15 }, 1);
    let [drover, routed, xdp, nftables, haproxy] = http::Way::ALL.map(http::Lane::new);
    let lanes = [drover?, routed?, xdp?, nftables?, haproxy?];
    for (name, kind) in rows {
        eprintln!("bench: {name}");
        let mut measured = Vec::with_capacity(rounds);
        // One round more than counts: programs have just begun.
        for _ in 0..=rounds {
            let [drover, routed, xdp, nftables, haproxy] =
                lanes.each_ref().map(|lane| lane.measure(kind, seconds));
            measured.push([drover?, routed?, xdp?, nftables?, haproxy?]);
        }
        let rounds = measured.split_off(1);
        report.requests.push(Requests { name, bar: Bar::at_least(0.95), rounds });
    }
    Ok(())
}

/// The last CPU: the first one has the interrupts. What this process starts stays there too.
fn stay_on_one_cpu() -> Result<()> {
    let own = Pid::from_raw(0);
    let allowed = sched_getaffinity(own)?;
    let cpus = 0..CpuSet::count();
    let last = cpus.rev().find(|&cpu| allowed.is_set(cpu).unwrap_or(false)).context("no CPU")?;
    let mut one = CpuSet::new();
    one.set(last)?;
    sched_setaffinity(own, &one)?;
    Ok(())
}

/// Sets the priority of this process and of what it starts from now on.
fn set_priority(nice: libc::c_int) {
    // SAFETY: the call takes three numbers. It makes others wait; where it is refused, the figures are less even.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } != 0 {
        eprintln!("bench: no priority of {nice}: {}", std::io::Error::last_os_error());
    }
}

/// What the figures are worth only together with.
fn machine() -> Result<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("osrelease")?;
    let cpus = std::fs::read_to_string("/sys/devices/system/cpu/online").context("the CPUs")?;
    let jit = std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    let jit = if jit.trim() == "0" { "off" } else { "on" };
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(format!(
        "Linux {}, CPUs {} ({}), JIT {jit}",
        release.trim(),
        cpus.trim(),
        model.map_or("unknown", |(_, model)| model)
    ))
}
