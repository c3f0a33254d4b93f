//! Floods of SYNs from addresses that nobody has: who is connected stays so, and who is honest gets in, from near and from far.
//!
//! `DROVER_TEST_LONG=1` floods for 20 seconds instead of 5, and at the generator's full rate where the short form keeps to
//! [`RATE`], which any machine makes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lb_tests::crowd::Crowd;
use lb_tests::distance::Distance;
use lb_tests::flood::Flood;
use lb_tests::scene::{Farm, Scene};
use lb_tests::server::Server;
use lb_tests::steady::{Sample, Steady};
use lb_tests::topology::{Backend, Family};
use lb_tests::traffic::LongLived;
use lb_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(5);
/// The way of a client that is far away. The balancer waits twice this long for each answer of his.
const WAY: Duration = Duration::from_millis(50);
/// The same of one that is very far away, or has a slow line.
const LONG_WAY: Duration = Duration::from_millis(400);
/// SYNs a second, in the short form.
const RATE: u32 = 50_000;
/// The pace of new connections, from near and from far each.
const PACE: Duration = Duration::from_millis(50);

/// Connection tracking of Linux judges what the clients send and get, as that of a router in front of them does.
const FIREWALL: &str = "
    table ip firewall {
        chain translate { type nat hook postrouting priority srcnat; masquerade random; }
        chain input { type filter hook input priority 0; ct state invalid drop; }
        chain output { type filter hook output priority 0; ct state invalid drop; }
    }";

/// One flood at a time: two would share the machine.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `None`: as many as go.
fn rate() -> Option<u32> {
    if lb_tests::is_long() { None } else { Some(RATE) }
}

fn duration() -> Duration {
    Duration::from_secs(if lb_tests::is_long() { 20 } else { 5 })
}

fn scene(backends: u8) -> Scene {
    // It is about packets: a machine that is busy with the flood may answer no check.
    let farm = Farm { checked: false, ..Farm::new("web", "ports = [80]") };
    Scene::web(backends, &farm).unwrap()
}

/// What became of honest clients, in percent and in words.
fn served(who: &str, samples: &[Sample]) -> f64 {
    let failed: Vec<_> = samples.iter().filter_map(|it| it.result.as_ref().err()).collect();
    let percent = 100.0 - 100.0 * failed.len() as f64 / samples.len() as f64;
    let mut took: Vec<_> = samples.iter().map(|it| it.ended - it.began).collect();
    took.sort();
    let mut reasons = BTreeMap::new();
    failed.iter().for_each(|reason| *reasons.entry(reason).or_insert(0) += 1);
    let half = took[took.len() / 2];
    println!("{who}: {percent:.1} % of {} served, half of them within {half:?}; {reasons:?}", samples.len());
    percent
}

/// A flood, and what must be left of a farm's service in it.
struct Plan {
    backends: u8,
    /// SYNs a second; `None`: as many as go.
    rate: Option<u32>,
    way: Duration,
    /// Those nearby are behind a firewall that translates their addresses and drops what it takes for invalid.
    behind_firewall: bool,
    /// After so many SYNs the honest clients come.
    rise: u64,
    /// How many of them must be served, in percent. Of those that are connected all must.
    at_least: f64,
}

impl Plan {
    fn run(&self) {
        let _turn = turn();
        let scene = scene(self.backends);
        let topology = &scene.topology;
        let target = topology.target(Family::V4, 80);
        let sources = topology.sources(Family::V4);
        let far = Distance::new(topology, self.way).unwrap();
        if self.behind_firewall {
            topology.client.run("nft", &[FIREWALL]).unwrap();
        }
        let pause = Duration::from_millis(200);
        let old =
            LongLived::open_patiently(&topology.client, target, &sources, (20, pause), PATIENCE).unwrap();

        let flood = Flood::start(topology, target, self.rate).unwrap();
        wait_until("the flood to rise", LIMIT * 10, || flood.sent() >= self.rise).unwrap();
        let (begin, before) = (Instant::now(), flood.sent());
        let near = Steady::start(&topology.client, target, &sources, PACE, LIMIT).unwrap();
        let far_away = Steady::start(&far.netns, target, &Distance::sources(), PACE, LIMIT).unwrap();
        // The flood goes on.
        std::thread::sleep(duration());
        let rate = (flood.sent() - before) as f64 / begin.elapsed().as_secs_f64();
        let (near, far_away) = (near.finish(), far_away.finish());
        println!("{} SYNs, {rate:.0} a second", flood.finish().unwrap());

        let exchanges = old.exchanges();
        let reports = old.finish().unwrap();
        let lost: Vec<_> = reports.iter().filter_map(|it| it.failure.as_ref()).collect();
        println!("established: {} of {} lost, {exchanges} exchanges", lost.len(), reports.len());
        let told = scene.daemon.events().unwrap();
        assert!(told.iter().any(|event| event["kind"] == "flood"), "nobody is told: {told:?}");
        let (near, far_away) = (served("near", &near), served("far", &far_away));
        assert!(lost.is_empty(), "{lost:?}");
        let enough = near >= self.at_least && far_away >= self.at_least;
        assert!(enough, "served: {near:.1} % of those near, {far_away:.1} % of those far away");
    }
}

#[test]
fn a_flood_of_syns_leaves_a_farm_with_one_backend_open() {
    Plan { backends: 1, rate: rate(), way: WAY, behind_firewall: false, rise: 100_000, at_least: 95.0 }.run();
}

#[test]
fn a_flood_of_syns_leaves_a_farm_with_two_backends_open() {
    Plan { backends: 2, rate: rate(), way: WAY, behind_firewall: true, rise: 100_000, at_least: 95.0 }.run();
}

/// After two seconds of it there are more half-open connections than a farm may have.
#[test]
fn a_flood_of_8000_syns_a_second_costs_nobody_a_connection() {
    Plan {
        backends: 1,
        rate: Some(8_000),
        way: LONG_WAY,
        behind_firewall: true,
        rise: 20_000,
        at_least: 100.0,
    }
    .run();
}

/// At full rate the queues of the links drop what they have no room for, of everybody. TCP repeats it, each time after twice as long.
const PATIENCE: Duration = Duration::from_secs(30);

/// So many SYNs come while a client's acknowledgment is on its way, however fast the machine is that sends them.
const MEANWHILE: u64 = 200_000;

/// There is room for all of them in the table. The flood is for another port, so that it does not take the ports away, either.
#[test]
fn handshakes_that_take_their_time_are_completed_in_a_flood() {
    let _turn = turn();
    let keys = "ports = [80, 7000, 7001]\ntimeouts = { syn = \"60s\" }";
    let farm = Farm { checked: false, ..Farm::new("web", keys) };
    let scene = Scene::web_of_size(1 << 19, 2, &farm).unwrap();
    let topology = &scene.topology;
    let flooded = |it: &Backend| Server::start(&it.netns, &it.name, &[7001], &[]).unwrap();
    let _flooded: Vec<_> = topology.backends.iter().map(flooded).collect();
    let crowd = Crowd::new(topology, 7000..=7000).unwrap();
    let sources: Vec<_> = Crowd::sources().take(100).collect();
    let answers = crowd.begin(topology.target(Family::V4, 7000), &sources).unwrap();
    assert_eq!(answers.len(), sources.len());

    let flood = Flood::start(topology, topology.target(Family::V4, 7001), rate()).unwrap();
    wait_until("the flood", LIMIT * 10, || flood.sent() >= MEANWHILE).unwrap();
    crowd.complete(&answers).unwrap();
    let mut completed = 0;
    // Those that do not arrive do not make it: the flood goes on, and whoever waits here waits for nothing.
    let arrived = wait_until("acknowledgments", LIMIT, || {
        completed += crowd.acknowledged().unwrap();
        completed >= sources.len()
    });
    println!("{} SYNs, {completed} of {} handshakes completed", flood.finish().unwrap(), sources.len());
    assert!(completed * 100 >= sources.len() * 95, "{completed} of {}: {arrived:?}", sources.len());
}
