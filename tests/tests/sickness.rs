//! Backends that fall ill in ways that are hard to see, or again and again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::time::{Duration, Instant};

use lb_tests::daemon::Daemon;
use lb_tests::netns::Netns;
use lb_tests::nginx::Nginx;
use lb_tests::scene::Farm;
use lb_tests::server::Server;
use lb_tests::steady::Steady;
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::traffic::LongLived;
use lb_tests::wait::wait_until;
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(5);

/// A check whose interval is long, as an operator's is, and that hurries once it is in doubt.
const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_millis(500);

/// What befalls a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The process is stopped; its kernel goes on accepting until the backlog is full.
    Stopped,
    /// Nothing comes in any more.
    Cut,
}

/// Two nginx, the first of which is in trouble right after a check of it has passed, under traffic. How long it takes
/// until it is out, or that it is not within `limit`.
fn time_to_take_out(
    trouble: Trouble,
    check: &str,
    suspect: bool,
    backlog: u16,
    limit: Duration,
) -> Option<Duration> {
    let topology = Topology::new(Arms::Two, 2).unwrap();
    let nginx = |it: &lb_tests::topology::Backend| {
        Nginx::with_directories(&it.netns, &it.name, 80, &["owa"], backlog).unwrap()
    };
    let servers: Vec<Nginx> = topology.backends.iter().map(nginx).collect();
    let mut text = format!(
        "[[farm]]\nname = \"web\"\nvip = \"{}\"\nports = [80]\npassive = {{ suspect = {suspect} }}\n",
        topology.vip(Family::V4, 0)
    );
    for backend in &topology.backends {
        text += &format!("[[farm.backend]]\nname = \"{}\"\naddress = \"{}\"\n", backend.name, backend.v4);
    }
    text += &format!(
        "[[farm.check]]\n{check}\ninterval = \"{}ms\"\nfast_interval = \"200ms\"\ntimeout = \"{}ms\"\nrise = 2\n\
         fall = 2\n",
        INTERVAL.as_millis(),
        TIMEOUT.as_millis()
    );
    let daemon = Daemon::start(&topology, "native", &text).unwrap();
    for name in ["b1", "b2"] {
        daemon.wait_status("web", name, "up", LIMIT).unwrap();
    }
    let target = topology.target(Family::V4, 80);
    let sources = topology.sources(Family::V4);
    let steady =
        Steady::start(&topology.client, target, &sources, Duration::from_millis(20), Duration::from_secs(1))
            .unwrap();
    wait_until("traffic", LIMIT, || steady.samples().len() > 20).unwrap();
    // Right after a check: what active checks alone need is then their worst.
    wait_until("a check to be over", INTERVAL * 2, || next_check(&daemon) > INTERVAL.mul_f64(0.92)).unwrap();
    let begin = Instant::now();
    match trouble {
        Trouble::Stopped => servers[0].signal(Signal::SIGSTOP).unwrap(),
        Trouble::Cut => cut_off(&topology.backends[0].netns),
    }
    let found = daemon.wait_status("web", "b1", "down", limit);
    let took = begin.elapsed();
    if trouble == Trouble::Stopped {
        servers[0].signal(Signal::SIGCONT).unwrap();
    }
    let lost = steady.finish().iter().filter(|sample| sample.result.is_err()).count();
    let how = if suspect { "with passive health" } else { "active checks alone" };
    let kind = check.lines().next().unwrap_or_default();
    match found {
        Ok(reason) => {
            println!("{trouble:?}, {kind}, {how}: out after {took:.2?}, {lost} requests lost: {reason}");
            Some(took)
        }
        Err(_) => {
            println!("{trouble:?}, {kind}, {how}: still in after {took:.2?}, {lost} requests lost");
            None
        }
    }
}

/// How long until b1 is checked next.
fn next_check(daemon: &Daemon) -> Duration {
    let told = daemon.get("/v1/checks?farm=web&backend=b1&history=0").unwrap();
    let check = &told["checks"][0];
    let seconds = if check["running"] == true { 0.0 } else { check["next_run_in_seconds"].as_f64().unwrap() };
    Duration::from_secs_f64(seconds)
}

/// Drops whatever comes in. ARP goes on: the next hop is known, and nobody is there.
fn cut_off(netns: &Netns) {
    let rules = "table inet cut {
        chain in {
            type filter hook input priority 0; policy drop;
        }
    }";
    netns.run("nft", &[rules]).unwrap();
}

const TCP: &str = "type = \"tcp\"";
const HTTP: &str = "type = \"http\"\npath = \"/owa/healthcheck.htm\"";
/// Two time-outs, and what a busy machine adds.
const PROBES: Duration = Duration::from_millis(TIMEOUT.as_millis() as u64 * 2 + 1500);

/// The data plane sees SYNs without an answer, within a fraction of a second; checks alone wait for their turn.
fn cut_is_out_sooner_with_passive_health(check: &str) {
    let [alone, passive] =
        with_and_without(|suspect| time_to_take_out(Trouble::Cut, check, suspect, 511, INTERVAL + PROBES));
    let (alone, passive) = (alone.unwrap(), passive.unwrap());
    // It was cut right after a check, and so had most of an interval to go.
    assert!(alone > INTERVAL.mul_f64(0.8), "{alone:?} with active checks alone");
    assert!(passive < INTERVAL.mul_f64(0.8), "{passive:?} with passive health");
    assert!(passive < Duration::from_secs(1) + PROBES, "{passive:?} with passive health");
}

/// What comes of it with active checks alone, and with passive health: both at once, each in a network of its own.
fn with_and_without<T: Send>(act: impl Fn(bool) -> T + Sync) -> [T; 2] {
    std::thread::scope(|scope| {
        let passive = scope.spawn(|| act(true));
        [act(false), passive.join().unwrap()]
    })
}

#[test]
fn a_backend_whose_network_is_cut_is_out_sooner_with_passive_health_by_tcp() {
    cut_is_out_sooner_with_passive_health(TCP);
}

#[test]
fn a_backend_whose_network_is_cut_is_out_sooner_with_passive_health_by_http() {
    cut_is_out_sooner_with_passive_health(HTTP);
}

/// The kernel of a stopped process goes on answering SYNs: neither a check by TCP nor the data plane sees anything amiss,
/// as long as the backlog holds. A check by HTTP does, at its time-out: when its turn has come, or sooner, since the data plane
/// sees that it accepts and says nothing.
#[test]
fn a_stopped_backend_is_found_by_a_check_of_what_it_serves() {
    let all =
        with_and_without(|suspect| time_to_take_out(Trouble::Stopped, HTTP, suspect, 511, INTERVAL + PROBES));
    for (took, suspect) in all.into_iter().zip([false, true]) {
        let took = took.unwrap();
        assert!(took > Duration::from_secs(1), "{took:?}");
        assert_eq!(took < INTERVAL.mul_f64(0.8), suspect, "{took:?}");
    }
}

#[test]
fn a_stopped_backend_is_not_found_by_a_check_of_what_its_kernel_serves() {
    // 50 new connections a second, half of them to each: the backlog holds for twice as long as this takes.
    assert_eq!(time_to_take_out(Trouble::Stopped, TCP, true, 511, INTERVAL + PROBES), None);
}

/// Once the backlog is full the kernel drops SYNs as well, and then the data plane sees it; from then on a check by TCP
/// fails too.
#[test]
fn a_stopped_backend_with_a_full_backlog_is_suspected() {
    let took = time_to_take_out(Trouble::Stopped, TCP, true, 8, INTERVAL + PROBES).unwrap();
    assert!(took < INTERVAL.mul_f64(0.9), "{took:?}");
}

/// The events of a backend going up or down, oldest first.
fn changes(daemon: &Daemon, farm: &str, backend: &str) -> Vec<String> {
    let events = daemon.events().unwrap();
    let of = events.iter().filter(|it| it["farm"] == farm && it["backend"] == backend);
    let kinds = of.filter_map(|it| it["kind"].as_str());
    kinds.filter(|it| ["backend-up", "backend-down"].contains(it)).map(str::to_owned).collect()
}

/// A farm with a check by TCP of port 80 at its own pace.
fn at_pace(topology: &Topology, name: &str, vip: u8, pace: &str) -> String {
    let farm = Farm { vip, checked: false, ..Farm::new(name, "ports = [80]") };
    farm.text(topology).replace("check = []\n", "") + &format!("[[farm.check]]\ntype = \"tcp\"\n{pace}\n")
}

#[test]
fn a_flapping_backend_changes_no_more_often_than_rise_and_fall_allow() {
    let (interval, cycles) = (Duration::from_millis(200), 5);
    let pace = |rise, fall| {
        format!(
            "interval = \"{0}ms\"\ntimeout = \"{0}ms\"\nrise = {rise}\nfall = {fall}\n",
            interval.as_millis()
        )
    };
    let farms = |topology: &Topology| {
        at_pace(topology, "quick", 0, &pace(2, 2)) + &at_pace(topology, "calm", 1, &pace(12, 3))
    };
    let topology = Topology::new(Arms::Two, 2).unwrap();
    let start = |number: usize| {
        let backend = &topology.backends[number];
        Server::start(&backend.netns, &backend.name, &[80], &[]).unwrap()
    };
    let (mut flapping, _other) = (Some(start(0)), start(1));
    let daemon = Daemon::start(&topology, "native", &farms(&topology)).unwrap();
    for farm in ["quick", "calm"] {
        daemon.wait_status(farm, "b1", "up", LIMIT).unwrap();
        daemon.wait_status(farm, "b2", "up", LIMIT).unwrap();
    }
    let before = |farm| changes(&daemon, farm, "b1").len();
    let before = (before("quick"), before("calm"));
    let target = topology.target(Family::V4, 80);
    let sources = topology.sources(Family::V4);
    let long = LongLived::open(&topology.client, target, &sources, 40, Duration::from_millis(50)).unwrap();
    let begin = Instant::now();
    for cycle in 0..cycles {
        for (half, up) in [(1, false), (2, true)] {
            match up {
                false => drop(flapping.take()),
                true => flapping = Some(start(0)),
            }
            let next = Duration::from_secs(cycle * 2 + half);
            std::thread::sleep(next.saturating_sub(begin.elapsed()));
        }
    }
    let flapped = begin.elapsed();
    let quick = changes(&daemon, "quick", "b1").split_off(before.0);
    let calm = changes(&daemon, "calm", "b1").split_off(before.1);
    println!("quick (rise 2, fall 2): {} changes in {flapped:?}", quick.len());
    println!("calm (rise 12, fall 3): {} changes in {flapped:?}", calm.len());
    // A change of the server is a change of the state at most.
    assert!(!quick.is_empty() && quick.len() as u64 <= 2 * cycles, "{quick:?}");
    assert!(quick.windows(2).all(|pair| pair[0] != pair[1]), "{quick:?}");
    // In a second there is no time for 12 passes in a row.
    assert_eq!(calm, ["backend-down"]);
    daemon.wait_status("calm", "b1", "up", interval * 12 + LIMIT).unwrap();
    daemon.wait_status("quick", "b1", "up", LIMIT).unwrap();

    let reports = long.finish().unwrap();
    let of_others: Vec<_> = reports.iter().filter(|report| report.backend == "b2").collect();
    assert!(of_others.len() > 5, "{} connections of b2", of_others.len());
    let suffered: Vec<_> = of_others.iter().filter(|report| report.failure.is_some()).collect();
    println!("{} connections of the other backend, {} of them suffered", of_others.len(), suffered.len());
    assert!(suffered.is_empty(), "{suffered:?}");
    for farm in ["quick", "calm"] {
        assert!(changes(&daemon, farm, "b2").iter().all(|kind| kind == "backend-up"));
    }
}
