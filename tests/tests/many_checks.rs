//! Two thousand backends, each checked every five seconds: the schedule holds, and what it costs is told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lb_tests::daemon::Daemon;
use lb_tests::netns::Netns;
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::wait::{wait_for, wait_until};
use nix::sys::socket::{Shutdown, shutdown};

const FARMS: u8 = 20;
const BACKENDS_OF_EACH: u32 = 100;
const BACKENDS: u64 = FARMS as u64 * BACKENDS_OF_EACH as u64;
const INTERVAL: Duration = Duration::from_secs(5);
/// So many rounds of checks are watched: two, or four if `DROVER_TEST_LONG` is set.
fn rounds() -> u64 {
    if lb_tests::is_long() { 4 } else { 2 }
}
/// 99 of 100 checks may start so late.
const LATE: f64 = 0.5;

/// Accepts on all addresses of a network, and hangs up.
struct Doors {
    listener: Arc<TcpListener>,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Doors {
    fn open(netns: &Netns) -> Self {
        let listener = Arc::new(netns.enter(|| TcpListener::bind("0.0.0.0:80")).unwrap().unwrap());
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let shared = (Arc::clone(&listener), Arc::clone(&stop), Arc::clone(&accepted));
        let thread = std::thread::spawn(move || {
            let (listener, stop, accepted) = shared;
            while !stop.load(Ordering::Relaxed) {
                if listener.accept().is_ok() {
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { listener, stop, accepted, thread: Some(thread) }
    }

    /// Waits for so many more checks.
    fn wait(&self, count: u64) {
        let end = self.accepted.load(Ordering::Relaxed) + count;
        let limit = INTERVAL * 3 * u32::try_from(count.div_ceil(BACKENDS)).unwrap();
        wait_until("checks", limit, || self.accepted.load(Ordering::Relaxed) >= end).unwrap();
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        shutdown(self.listener.as_raw_fd(), Shutdown::Both).ok();
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn farms(topology: &Topology) -> String {
    let mut text = String::new();
    for farm in 0..FARMS {
        let vip = topology.vip(Family::V4, farm);
        writeln!(text, "[[farm]]\nname = \"farm{farm}\"\nvip = \"{vip}\"\nports = [80]").unwrap();
        for number in 0..BACKENDS_OF_EACH {
            writeln!(text, "[[farm.backend]]\naddress = \"10.3.{farm}.{}\"", number + 1).unwrap();
        }
        writeln!(
            text,
            "[[farm.check]]\ntype = \"tcp\"\ninterval = \"{}s\"\ntimeout = \"3s\"",
            INTERVAL.as_secs()
        )
        .unwrap();
    }
    text
}

/// How many checks started no later than each bound, in seconds, since the daemon's start.
fn lateness(daemon: &Daemon) -> Vec<(f64, u64)> {
    let text = daemon.get_text("/metrics").unwrap();
    let buckets =
        text.lines().filter_map(|line| line.strip_prefix("drover_check_lateness_seconds_bucket{le=\""));
    let bucket = |line: &str| {
        let (bound, count) = line.split_once("\"} ").unwrap();
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
        (bound, count.parse::<f64>().unwrap() as u64)
    };
    let buckets: Vec<_> = buckets.map(bucket).collect();
    assert!(!buckets.is_empty(), "no lateness in the metrics");
    buckets
}

/// Seconds of processor time of a process, its memory now, and the most that it was, in MiB.
fn cost(pid: u32) -> (f64, f64, f64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kibibytes = |key: &str| -> f64 {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // A hundredth of a second each, on every Linux of today (`getconf CLK_TCK`).
    (ticks / 100.0, kibibytes("VmRSS:") / 1024.0, kibibytes("VmHWM:") / 1024.0)
}

fn wait_farms(daemon: &Daemon, status: &str) {
    wait_for(&format!("all farms to be {status}"), Duration::from_secs(60), || {
        let farms = daemon.farms()?;
        let so = farms.iter().filter(|farm| farm["status"] == status).count();
        if so < usize::from(FARMS) { anyhow::bail!("{so} of {FARMS} are") } else { Ok(()) }
    })
    .unwrap();
}

#[test]
fn two_thousand_backends_are_checked_in_time() {
    let topology = Topology::new(Arms::Two, 1).unwrap();
    let host = &topology.backends[0];
    // One host that has all addresses, behind one next hop.
    host.netns.ip("route add local 10.3.0.0/16 dev lo\n").unwrap();
    topology.balancer.ip(&format!("route add 10.3.0.0/16 via {}\n", host.v4)).unwrap();
    let doors = Doors::open(&host.netns);
    let mut daemon = Daemon::prepare(&topology, "native", &farms(&topology)).unwrap();
    let begin = Instant::now();
    daemon.launch(&topology.balancer).unwrap();
    let answering = begin.elapsed();
    wait_farms(&daemon, "up");
    let pid = daemon.process().unwrap().id();
    let (start_cost, ..) = cost(pid);
    println!(
        "{BACKENDS} backends: the API answers after {answering:.2?}, all are up after {:.2?} and {start_cost:.1} s of processor time",
        begin.elapsed()
    );
    // The first probes start all at once; the grid of each begins after that.
    doors.wait(BACKENDS);
    let (before, (cpu, ..), accepted) =
        (lateness(&daemon), cost(pid), doors.accepted.load(Ordering::Relaxed));
    let watching = Instant::now();
    doors.wait(rounds() * BACKENDS);
    let (after, (cpu_after, memory, most)) = (lateness(&daemon), cost(pid));
    let watched = watching.elapsed().as_secs_f64();
    let accepted = doors.accepted.load(Ordering::Relaxed) - accepted;
    let counts: Vec<(f64, u64)> = after.iter().zip(&before).map(|(a, b)| (a.0, a.1 - b.1)).collect();
    let all = counts.last().unwrap().1;
    let within = |share: f64| counts.iter().find(|(_, count)| *count as f64 >= share * all as f64).unwrap().0;
    let percent = 100.0 * (cpu_after - cpu) / watched;
    println!(
        "{all} checks started and {accepted} seen in {watched:.1} s; lateness: 50 % within {} s, 99 % within {} s, all within {} s",
        within(0.5),
        within(0.99),
        within(1.0)
    );
    println!("{percent:.1} % of one processor, {memory:.0} MiB of memory, {most:.0} MiB at most");
    let expected = BACKENDS as f64 * watched / INTERVAL.as_secs_f64();
    assert!((accepted as f64 - expected).abs() < 0.05 * expected, "{accepted} seen, {expected} are due");
    assert!(within(0.99) <= LATE, "99 % within {} s", within(0.99));
    let farms = daemon.farms().unwrap();
    assert!(farms.iter().all(|farm| farm["status"] == "up"), "all are up still");

    // All at once, as when a switch dies: each is out when its third check in a row has failed.
    drop(doors);
    let dead = Instant::now();
    wait_farms(&daemon, "down");
    let (cpu, ..) = cost(pid);
    println!(
        "all dead: all are down after {:.2?} and {:.1} s of processor time",
        dead.elapsed(),
        cpu - cpu_after
    );
    let log = daemon.log();
    let mut downs =
        log.lines().filter(|line| line.contains(" down in farm: ")).map(|line| line.get(11..23).unwrap());
    println!("the log tells of the first at {:?}, of the last at {:?}", downs.next(), downs.next_back());
    assert!(dead.elapsed() < INTERVAL * 8, "{:?}", dead.elapsed());
}
