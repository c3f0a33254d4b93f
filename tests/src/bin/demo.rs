//! `cargo xtask demo`: the main job on one machine, with every claim measured.
//!
//! Ends non-zero if anything it claims did not happen. Interrupted, it cleans up all the same.

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::io::Read;
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lb_tests::daemon::{Daemon, binary};
use lb_tests::netns::Process;
use lb_tests::server::Server;
use lb_tests::steady::{Sample, Steady};
use lb_tests::topology::{Arms, Backend, Family, Topology};
use lb_tests::traffic::{Short, Tally};
use lb_tests::wait::{wait_for, wait_until};
use nix::sys::signal::{SigSet, Signal};
use serde_json::Value;

/// The check of the demo's farm.
const INTERVAL: Duration = Duration::from_millis(200);
const FALL: u32 = 2;
/// Connections of each count of shares, and how far from half a share may be, in percent.
const CONNECTIONS: usize = 2000;
const TOLERANCE: f64 = 5.0;
/// The pace of the client that lives through the death of a backend.
const PACE: Duration = Duration::from_millis(10);

const SCENE: &str = "\
Drover: three kinds of host, each a network namespace of its own

      client               balancer             backends
    10.1.0.2  -------  10.1.0.1  10.2.0.1  --+--  b1  10.2.0.11
    fd00:1::2          VIP 10.1.0.100        |        fd00:2::11
                       VIP fd00:1::1:0       +--  b2  10.2.0.12
                                                      fd00:2::12
";

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ended = match args.as_slice() {
        [] => demo(false),
        ["--keep"] => demo(true),
        ["serve", name] => serve(name),
        _ => {
            eprintln!("Usage: demo [--keep]");
            return ExitCode::from(2);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A backend's process: serves port 80 until it is killed.
fn serve(name: &str) -> Result<()> {
    let _server = Server::start_here(name, &[80], &[])?;
    loop {
        std::thread::park();
    }
}

/// Makes Ctrl-C end the demo between two steps, so that everything is cleaned up.
fn catch_interrupts() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    std::thread::spawn(move || {
        while signals.wait().is_err() {}
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
    Ok(())
}

fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

fn go_on() -> Result<()> {
    if interrupted() {
        bail!("interrupted; everything is removed");
    }
    Ok(())
}

/// The hosts and what runs on them. What runs ends before the network.
struct Stage {
    daemon: Daemon,
    servers: Vec<Process>,
    topology: Topology,
    claims: Claims,
}

/// What the demo says and whether it is true.
#[derive(Default)]
struct Claims(Vec<(String, bool)>);

impl Claims {
    fn add(&mut self, text: impl Into<String>, holds: bool) {
        self.0.push((text.into(), holds));
    }
}

fn demo(keep: bool) -> Result<()> {
    catch_interrupts()?;
    let begin = Instant::now();
    println!("{SCENE}");
    let mut stage = start()?;
    go_on()?;
    shares(&mut stage)?;
    go_on()?;
    death(&mut stage)?;
    go_on()?;
    return_of_b1(&mut stage)?;
    println!("Summary");
    let mut broken = 0;
    for (text, holds) in &stage.claims.0 {
        println!("   {} {text}", if *holds { "yes " } else { "NO  " });
        broken += u32::from(!holds);
    }
    println!("   {:.1} s in all\n", begin.elapsed().as_secs_f64());
    if keep && !interrupted() {
        stay(&mut stage)?;
    }
    drop(stage);
    if broken > 0 {
        bail!("{broken} of these did not happen");
    }
    println!("Everything made for the demo is removed.");
    Ok(())
}

fn start_server(backend: &Backend) -> Result<Process> {
    let mut command = backend.netns.command(std::env::current_exe()?);
    command.args(["serve", &backend.name]).stdin(Stdio::null());
    let server = backend.netns.spawn(&mut command)?;
    wait_for("the server's port", Duration::from_secs(5), || {
        let sockets = backend.netns.run("ss", &["-Hltn", "sport = :80"])?;
        if sockets.is_empty() { bail!("nobody listens") } else { Ok(()) }
    })?;
    Ok(server)
}

fn start() -> Result<Stage> {
    println!("1. Start");
    let topology = Topology::new(Arms::Two, 2)?;
    let servers = topology.backends.iter().map(start_server).collect::<Result<Vec<_>>>()?;
    let check = format!(
        "[[farm.check]]\ntype = \"tcp\"\ninterval = \"{0}ms\"\ntimeout = \"{0}ms\"\nrise = 2\nfall = {FALL}\n",
        INTERVAL.as_millis()
    );
    let farm = format!(
        "[[farm]]\nname = \"web\"\nvip = [\"{}\", \"{}\"]\nports = [80]\n{}{check}",
        topology.vip(Family::V4, 0),
        topology.vip(Family::V6, 0),
        topology.backend_tables("")
    );
    let begin = Instant::now();
    let mut daemon = Daemon::start(&topology, "auto", &farm)?;
    let ready = begin.elapsed();
    let status = daemon.get("/v1/status")?;
    let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    for interface in status["interfaces"].as_array().context("a status without interfaces")? {
        println!("   XDP program on {}: {}", word(&interface["name"]), word(&interface["xdp_mode"]));
    }
    let mut claims = Claims::default();
    for backend in &topology.backends {
        let found = daemon.backend("web", &backend.name)?;
        println!("   backend {}: {}, {}", backend.name, word(&found["status"]), word(&found["reason"]));
        claims.add(format!("{} was checked and found up", backend.name), found["status"] == "up");
    }
    println!("   drover is process {}, ready after {:.2} s\n", daemon.process()?.id(), ready.as_secs_f64());
    Ok(Stage { daemon, servers, topology, claims })
}

/// Counts who answers, half of the connections by each IP version.
fn count(stage: &mut Stage, when: &str) -> Result<Tally> {
    let mut all = Tally::default();
    let begin = Instant::now();
    for family in [Family::V4, Family::V6] {
        let target = stage.topology.target(family, 80);
        let mut short = Short::new(target, CONNECTIONS / 2);
        short.sources = stage.topology.sources(family);
        all.add(short.run(&stage.topology.client)?);
    }
    let rate = all.total() as f64 / begin.elapsed().as_secs_f64();
    for backend in &stage.topology.backends {
        let (name, percent) = (&backend.name, all.percent(&backend.name));
        let bar = "#".repeat((percent / 2.5).round() as usize);
        println!("   {name} {:>6}  {percent:>5.1} %  {bar}", all.of(name));
        let fair = (percent - 50.0).abs() <= TOLERANCE;
        stage.claims.add(format!("{name} had {percent:.1} % of {CONNECTIONS} connections {when}"), fair);
    }
    println!("   failed: {}; {rate:.0} connections a second", all.failures.len());
    for failure in all.failures.iter().take(3) {
        println!("   {failure}");
    }
    println!();
    let failed = all.failures.len();
    stage.claims.add(format!("{failed} of {CONNECTIONS} connections failed {when}"), failed == 0);
    Ok(all)
}

fn shares(stage: &mut Stage) -> Result<()> {
    println!("2. Share: {CONNECTIONS} connections to the VIPs, half of them by IPv6");
    count(stage, "at the start")?;
    Ok(())
}

fn death(stage: &mut Stage) -> Result<()> {
    println!("3. Death of b1: kill -9 of its server, under a new connection every {} ms", PACE.as_millis());
    let target = stage.topology.target(Family::V4, 80);
    let sources = stage.topology.sources(Family::V4);
    let steady = Steady::start(&stage.topology.client, target, &sources, PACE, Duration::from_secs(2))?;
    wait_until("the client's pace", Duration::from_secs(10), || steady.samples().len() >= 100)?;
    let server = stage.servers.first_mut().context("b1 has a server")?;
    let died = Instant::now();
    server.kill()?;
    let reason = stage.daemon.wait_status("web", "b1", "down", Duration::from_secs(10))?;
    let out = Instant::now();
    wait_until("life after the take-out", Duration::from_secs(20), || {
        interrupted() || steady.samples().iter().filter(|sample| sample.began > out).count() >= 200
    })?;
    let samples = steady.finish();
    let part = |of: &dyn Fn(&Sample) -> bool| {
        let part: Vec<&Sample> = samples.iter().filter(|sample| of(sample)).collect();
        (part.iter().filter(|sample| sample.result.is_err()).count(), part.len())
    };
    // A connection that was under way when b1 died is one of those in between.
    let before = part(&|sample| sample.ended < died);
    let until = part(&|sample| sample.ended >= died && sample.began < out);
    let after = part(&|sample| sample.began >= out);
    let took = out - died;
    println!("   taken out after {:.3} s: {reason}", took.as_secs_f64());
    println!("   (checked every {} ms; {FALL} failures in a row take a backend out)", INTERVAL.as_millis());
    println!("   failed before its death      {:>4} of {:>4} connections", before.0, before.1);
    println!("   failed until the take-out    {:>4} of {:>4}", until.0, until.1);
    println!("   failed after the take-out    {:>4} of {:>4}\n", after.0, after.1);
    for sample in samples.iter().filter(|it| it.began >= out) {
        if let Err(failure) = &sample.result {
            println!("   {:.3} s after the take-out: {failure}", (sample.began - out).as_secs_f64());
        }
    }
    let allowed = INTERVAL * FALL + Duration::from_secs(1);
    stage.claims.add(format!("b1 was out {:.3} s after its death", took.as_secs_f64()), took <= allowed);
    stage.claims.add(format!("{} of {} connections failed before", before.0, before.1), before.0 == 0);
    let text = format!("{} of {} connections failed after the take-out", after.0, after.1);
    stage.claims.add(text, after.0 == 0 && after.1 >= 200);
    Ok(())
}

fn return_of_b1(stage: &mut Stage) -> Result<()> {
    println!("4. Return of b1: its server is started again");
    let backend = stage.topology.backends.first().context("there is a b1")?;
    let server = start_server(backend)?;
    let begin = Instant::now();
    if let Some(place) = stage.servers.first_mut() {
        *place = server;
    }
    let reason = stage.daemon.wait_status("web", "b1", "up", Duration::from_secs(10))?;
    println!("   in use again after {:.3} s: {reason}", begin.elapsed().as_secs_f64());
    count(stage, "after its return")?;
    Ok(())
}

/// Leaves everything running until Ctrl-C or the end of standard input.
fn stay(stage: &mut Stage) -> Result<()> {
    let drover = format!("{} --socket {}", binary()?.display(), stage.daemon.socket().display());
    let own = std::env::current_exe()?;
    let backend = stage.topology.backends.first().context("there is a b1")?;
    let enter = |name: &str| format!("nsenter --net=/run/netns/{name}");
    println!("Left running. To try in another terminal:\n");
    println!("  alias drover='{drover}'");
    println!("  drover status");
    println!("  drover events --follow");
    println!("  drover backend drain web b2");
    println!("  drover connections\n");
    println!("A request to the VIP, and a shell on the balancer's host:\n");
    println!(
        "  {} curl http://{}/",
        enter(stage.topology.client.name()),
        stage.topology.target(Family::V4, 80)
    );
    println!(
        "  {} curl http://{}/",
        enter(stage.topology.client.name()),
        stage.topology.target(Family::V6, 80)
    );
    println!("  {} bash\n", enter(stage.topology.balancer.name()));
    println!("Kill b1's server, and start it again:\n");
    println!("  kill -9 {}", stage.servers.first().map(Process::id).unwrap_or_default());
    println!("  {} {} serve b1\n", enter(backend.netns.name()), own.display());
    println!("Configuration: {}", stage.daemon.config().display());
    println!("Ctrl-C or the end of standard input ends it and removes everything.");
    std::thread::spawn(|| {
        let mut byte = [0];
        while std::io::stdin().read(&mut byte).is_ok_and(|length| length > 0) {}
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
    while !interrupted() {
        // A killed server is reaped, so that it does not linger as a zombie.
        for server in &mut stage.servers {
            server.is_running();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    println!();
    Ok(())
}
