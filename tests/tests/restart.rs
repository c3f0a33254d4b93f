//! The daemon dies, returns and stops: what clients notice, and what is left.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::process::Stdio;
use std::time::{Duration, Instant};

use lb_tests::http::get;
use lb_tests::netns::Process;
use lb_tests::scene::{Farm, Scene};
use lb_tests::server::{checksum, checksum_of_download};
use lb_tests::steady::Steady;
use lb_tests::topology::{Family, Topology};
use lb_tests::traffic::{LongLived, Short};
use lb_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(5);

/// A download of 7 seconds.
const BYTES: u64 = 7_000_000;
const RATE: u64 = 1_000_000;

fn wrk(topology: &Topology, seconds: u32) -> Process {
    // As much as goes, and no more than others leave: the machine has other tests to run.
    let mut command = topology.client.command("nice");
    let url = format!("http://{}/", topology.target(Family::V4, 80));
    command
        .args(["wrk", "-t2", "-c32", &format!("-d{seconds}s"), &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    topology.client.spawn(&mut command).unwrap()
}

/// Kills the daemon under wrk, a steady client and a download, starts it again, and sees that nobody noticed.
fn kill_under_load(mode: &str) {
    let keys = format!("ports = [80]\nmode = \"{mode}\"");
    let mut scene = Scene::web(2, &Farm::new("web", &keys)).unwrap();
    let (topology, daemon) = (&scene.topology, &mut scene.daemon);
    let target = topology.target(Family::V4, 80);
    std::thread::scope(|scope| {
        let path = format!("/download/{BYTES}/{RATE}");
        let download =
            scope.spawn(move || topology.client.enter(|| get(target, None, &path, LIMIT)).unwrap());
        let load = wrk(topology, 6);
        let every = Duration::from_millis(20);
        let sources = topology.sources(Family::V6);
        let steady =
            Steady::start(&topology.client, topology.target(Family::V6, 80), &sources, every, LIMIT).unwrap();
        wait_until("traffic", LIMIT, || steady.samples().len() > 50).unwrap();

        daemon.kill().unwrap();
        let dead = Instant::now();
        let alone =
            |count: usize| steady.samples().iter().filter(|sample| sample.began > dead).count() > count;
        wait_until("traffic without a daemon", LIMIT, || alone(50)).unwrap();
        daemon.launch(&topology.balancer).unwrap();
        daemon.wait_judged().unwrap();
        let back = Instant::now();
        wait_until("traffic with the new daemon", LIMIT, || {
            steady.samples().iter().filter(|sample| sample.began > back).count() > 50
        })
        .unwrap();

        let samples = steady.finish();
        let failures: Vec<_> = samples.iter().filter(|sample| sample.result.is_err()).collect();
        assert!(failures.is_empty(), "{} of {}: {failures:?}", failures.len(), samples.len());
        let printed = load.output(Duration::from_secs(20)).unwrap();
        println!("{printed}");
        assert!(!printed.contains("Socket errors") && !printed.contains("Non-2xx"), "{printed}");
        let requests = printed.lines().find_map(|line| line.trim().split_once(" requests in"));
        let requests: u64 = requests.expect("wrk counts requests").0.parse().unwrap();
        assert!(requests > 500, "{printed}");
        let body = download.join().unwrap().unwrap().body;
        assert_eq!(checksum(&body), checksum_of_download(BYTES));
    });
}

#[test]
fn nobody_notices_a_kill_and_a_start_by_nat() {
    kill_under_load("nat");
}

#[test]
fn nobody_notices_a_kill_and_a_start_by_dnat() {
    kill_under_load("dnat");
}

#[test]
fn a_start_after_a_kill_takes_over_what_was_known() {
    let mut scene = Scene::web(2, &Farm::new("web", "ports = [80]")).unwrap();
    let (topology, daemon) = (&scene.topology, &mut scene.daemon);
    let target = topology.target(Family::V4, 80);
    let long = LongLived::open(&topology.client, target, &[], 10, Duration::from_millis(20)).unwrap();
    let opened = |daemon: &lb_tests::daemon::Daemon| {
        let farm = daemon.get("/v1/farms/web").unwrap();
        farm["connections_opened"].as_u64().unwrap()
    };
    wait_until("counters", LIMIT, || opened(daemon) == 10).unwrap();
    daemon.kill().unwrap();
    daemon.launch(&topology.balancer).unwrap();
    daemon.wait_judged().unwrap();
    wait_until("the old counters", LIMIT, || opened(daemon) == 10).unwrap();
    assert_eq!(daemon.connections("farm=web").unwrap().len(), 10);
    for report in long.finish().unwrap() {
        assert_eq!(report.failure, None);
    }
}

#[test]
fn a_clean_stop_leaves_nothing() {
    let mut scene = Scene::web(2, &Farm::new("web", "ports = [80]")).unwrap();
    let (topology, daemon) = (&scene.topology, &mut scene.daemon);
    let addresses = || topology.balancer.run("ip", &["addr"]).unwrap();
    let vips = [topology.vip(Family::V4, 0).to_string(), topology.vip(Family::V6, 0).to_string()];
    // They are set beside the judgement of the backends.
    wait_until("the VIPs", LIMIT, || vips.iter().all(|vip| addresses().contains(vip))).unwrap();
    assert!(addresses().contains("xdp"), "{}", addresses());
    assert!(daemon.bpffs().join("program").exists());

    let status = daemon.stop().unwrap();
    assert!(status.success(), "{status}: {}", daemon.log());
    assert!(!vips.iter().any(|vip| addresses().contains(vip)), "{}", addresses());
    // The kernel takes a link whose pin is gone off its interface beside us (`bpf_link_put_deferred`).
    wait_until("the program to be gone", LIMIT, || !addresses().contains("xdp")).unwrap();
    let left = std::fs::read_dir(daemon.bpffs()).map_or(0, Iterator::count);
    assert_eq!(left, 0, "pins are left in {}", daemon.bpffs().display());
    assert!(!daemon.socket().exists());

    daemon.launch(&topology.balancer).unwrap();
    daemon.wait_judged().unwrap();
    let tally = Short::new(topology.target(Family::V4, 80), 50).run(&topology.client).unwrap();
    assert_eq!((tally.total(), tally.failures), (50, vec![]));
}

#[test]
fn a_stop_of_a_daemon_told_to_stay_leaves_packets_flowing() {
    let mut scene = Scene::web(2, &Farm::new("web", "ports = [80]")).unwrap();
    let (topology, daemon) = (&scene.topology, &mut scene.daemon);
    daemon.stop().unwrap();
    daemon.set_args(&["--stay"]);
    daemon.launch(&topology.balancer).unwrap();
    daemon.wait_judged().unwrap();
    let target = topology.target(Family::V4, 80);
    let long = LongLived::open(&topology.client, target, &[], 10, Duration::from_millis(20)).unwrap();
    assert!(daemon.stop().unwrap().success(), "{}", daemon.log());
    let done = long.exchanges();
    wait_until("traffic without a daemon", LIMIT, || long.exchanges() > done + 50).unwrap();
    let tally = Short::new(target, 50).run(&topology.client).unwrap();
    assert_eq!((tally.total(), tally.failures), (50, vec![]));
    daemon.launch(&topology.balancer).unwrap();
    daemon.wait_judged().unwrap();
    for report in long.finish().unwrap() {
        assert_eq!(report.failure, None);
    }
}
