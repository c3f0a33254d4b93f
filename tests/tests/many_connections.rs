//! Very many connections: what they cost the daemon, and that they delay nothing.
//!
//! `DROVER_TEST_LONG=1` opens a million instead of 50,000.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use lb_tests::crowd::Crowd;
use lb_tests::daemon::Daemon;
use lb_tests::scene::{Farm, Scene};
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::wait::wait_until;

/// Enough ports that each has few connections to each backend.
const PORTS: RangeInclusive<u16> = 7000..=7031;

/// How long a half-open connection is kept, and how much longer it may take.
const SYN: Duration = Duration::from_secs(5);
const LATE: Duration = Duration::from_secs(1);
/// What it may take to look.
const LOOK: Duration = Duration::from_millis(250);
/// How many of them are looked at, and how soon one is begun after the other.
const HALVES: usize = 5;
const HALVES_EVERY: Duration = Duration::from_millis(500);

const LONG_LIFE: &str = "established = \"1h\"";
const SHORT_LIFE: &str = "established = \"1s\"";

/// Connections of `stay` live on, those of `go` until the configuration is edited; those of `half` never open.
fn farms(topology: &Topology) -> String {
    let farm = |name, vip, keys: &str| {
        let keys = format!("ports = [\"{}-{}\"]\n{keys}", PORTS.start(), PORTS.end());
        Farm { vip, checked: false, ..Farm::new(name, &keys) }.text(topology)
    };
    let go = format!("timeouts = {{ {LONG_LIFE} }}");
    let half = format!("timeouts = {{ syn = \"{}s\" }}", SYN.as_secs());
    [farm("stay", 0, ""), farm("go", 1, &go), farm("half", 2, &half)].concat()
}

fn scene(connections: u32) -> Scene {
    let topology = Topology::new(Arms::Two, 2).unwrap();
    let mut daemon = Daemon::prepare(&topology, "native", &farms(&topology)).unwrap();
    daemon.edit_config("connections = 65536", &format!("connections = {connections}")).unwrap();
    daemon.launch(&topology.balancer).unwrap();
    daemon.wait_judged().unwrap();
    Scene { daemon, servers: Vec::new(), topology }
}

/// Opens so many connections or a few less, the same number to each port of a VIP; how many.
fn open(crowd: &Crowd, topology: &Topology, vip: u8, count: usize) -> usize {
    let begin = Instant::now();
    let each = count / PORTS.len();
    for (number, port) in PORTS.enumerate() {
        let target = SocketAddr::new(topology.vip(Family::V4, vip), port);
        let sources: Vec<_> = Crowd::sources().skip(number * each).take(each).collect();
        let refused = crowd.open(target, &sources).unwrap();
        assert_eq!(refused.len(), 0, "of {each} to {target}");
    }
    let opened = each * PORTS.len();
    println!("{opened} connections opened in {:.1?}", begin.elapsed());
    opened
}

fn total(daemon: &Daemon, query: &str) -> usize {
    let answer = daemon.get(&format!("/v1/connections?{query}&limit=1")).unwrap();
    answer["total"].as_u64().unwrap().try_into().unwrap()
}

/// A figure of a process: the number in the line that begins so.
fn figure(path: &str, key: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The daemon's memory, and that of the maps that it has open, in MiB.
fn memory(process: u32) -> (u64, u64) {
    let own = figure(&format!("/proc/{process}/status"), "VmRSS:") / 1024;
    let mut maps = BTreeMap::new();
    for descriptor in fs::read_dir(format!("/proc/{process}/fdinfo")).unwrap().flatten() {
        let path = descriptor.path().to_string_lossy().into_owned();
        maps.insert(figure(&path, "map_id:"), figure(&path, "memlock:"));
    }
    (own, maps.values().sum::<u64>() >> 20)
}

/// The processor time that a process has used.
fn processor_time(process: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // After the name in its brackets, which may have blanks in it, the fields are those from the third on (proc(5)).
    let fields = text.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// What the daemon has, does by itself, and does to list one client's connections.
fn print_costs(scene: &mut Scene, what: &str) {
    let process = scene.daemon.process().unwrap().id();
    let (own, maps) = memory(process);
    println!("{what}: the daemon has {own} MiB, its maps {maps} MiB");
    let (begin, used) = (Instant::now(), processor_time(process));
    std::thread::sleep(Duration::from_secs(1));
    let used = processor_time(process) - used;
    println!("{what}: it uses {:.0?} a second by itself", used.div_f64(begin.elapsed().as_secs_f64()));
    let client = Crowd::sources().next().unwrap().ip().to_string();
    let (begin, used) = (Instant::now(), processor_time(process));
    let output = scene.daemon.drover(&["connections", "--client", &client, "--json"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    let (took, used) = (begin.elapsed(), processor_time(process) - used);
    println!("{what}: the connections of {client} are listed in {took:.1?}; it uses {used:.1?} for that");
}

/// A connection of `half`, and when it was begun and not listed any more.
struct Half {
    client: SocketAddr,
    begun: Instant,
    gone: Option<Instant>,
}

/// For how long each of some half-open connections was known, the first begun now, when so many expire.
fn ages_of_half_open(scene: &Scene, crowd: &Crowd) -> Vec<Duration> {
    let target = SocketAddr::new(scene.topology.vip(Family::V4, 2), *PORTS.start());
    let mut halves: Vec<Half> = Vec::new();
    let begin = Instant::now();
    let mut sources = Crowd::sources();
    while halves.len() < HALVES || halves.iter().any(|half| half.gone.is_none()) {
        let next = HALVES_EVERY * halves.len() as u32;
        if halves.len() < HALVES && begin.elapsed() >= next {
            let client = sources.next().unwrap();
            crowd.knock(target, &[client]).unwrap();
            halves.push(Half { client, begun: Instant::now(), gone: None });
        }
        let listed = scene.daemon.connections("farm=half").unwrap();
        let is_listed =
            |client: SocketAddr| listed.iter().any(|it| it["client"] == client.to_string().as_str());
        for half in halves.iter_mut().filter(|half| half.gone.is_none() && !is_listed(half.client)) {
            // It must have been there at all.
            assert!(half.begun.elapsed() > Duration::from_secs(1), "{} is not known", half.client);
            half.gone = Some(Instant::now());
        }
        assert!(begin.elapsed() < Duration::from_secs(300), "half-open connections stay");
        // To look is work for the daemon.
        std::thread::sleep(Duration::from_millis(50));
    }
    halves.iter().filter_map(|half| Some(half.gone? - half.begun)).collect()
}

#[test]
fn half_open_connections_are_forgotten_in_time_while_very_many_others_expire_at_once() {
    let long = lb_tests::is_long();
    let (count, room) = if long { (1_000_000, 1 << 20) } else { (50_000, 1 << 16) };
    let mut scene = scene(room);
    let crowd = Crowd::new(&scene.topology, PORTS).unwrap();
    print_costs(&mut scene, "none");
    let stay = open(&crowd, &scene.topology, 0, count * 6 / 10);
    let go = open(&crowd, &scene.topology, 1, count * 4 / 10);
    assert_eq!(total(&scene.daemon, ""), stay + go);
    print_costs(&mut scene, &format!("{} connections", stay + go));

    scene.daemon.edit_config(LONG_LIFE, SHORT_LIFE).unwrap();
    let begin = Instant::now();
    let output = scene.daemon.drover(&["reload"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    let ages = ages_of_half_open(&scene, &crowd);
    println!("half-open connections were known for {ages:.1?}");
    let limit = Duration::from_secs(300);
    wait_until("the expired to be gone", limit, || total(&scene.daemon, "farm=go") == 0).unwrap();
    println!("{go} expired connections are gone within {:.1?}", begin.elapsed());
    assert_eq!(total(&scene.daemon, "farm=stay"), stay, "those that had time left");
    for age in ages {
        assert!(age > SYN - LATE && age < SYN + LATE + LOOK, "{age:?} instead of {SYN:?}");
    }
}
