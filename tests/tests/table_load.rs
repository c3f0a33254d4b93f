//! A connection table that is nearly full: its operator is told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::net::SocketAddr;
use std::time::Duration;

use lb_tests::crowd::Crowd;
use lb_tests::daemon::Daemon;
use lb_tests::scene::Farm;
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::wait::wait_until;

const PORT: u16 = 7000;
const LIMIT: Duration = Duration::from_secs(10);

/// The smallest table has 4096 lines: so many connections use 83 % of them.
const CONNECTIONS: usize = 1700;

fn told(daemon: &Daemon) -> Vec<(String, String)> {
    let events = daemon.events().unwrap();
    let of_tables = events.iter().filter(|event| event["kind"] == "connection-table");
    let text = |event: &serde_json::Value, key: &str| event[key].as_str().unwrap().to_owned();
    of_tables.map(|event| (text(event, "level"), text(event, "message"))).collect()
}

#[test]
fn a_table_that_is_nearly_full_is_told_of_once_and_once_when_it_is_over() {
    let topology = Topology::new(Arms::Two, 1).unwrap();
    let keys = format!("ports = [{PORT}]");
    let farm = Farm { checked: false, ..Farm::new("web", &keys) };
    let mut daemon = Daemon::prepare(&topology, "native", &farm.text(&topology)).unwrap();
    daemon.edit_config("connections = 65536", "connections = 1024").unwrap();
    daemon.launch(&topology.balancer).unwrap();
    daemon.wait_judged().unwrap();
    let table = || daemon.get("/v1/status").unwrap()["connection_table"].clone();
    assert_eq!((&table()["connections"], &table()["bytes"]), (&1024.into(), &524_288.into()));

    let crowd = Crowd::new(&topology, PORT..=PORT).unwrap();
    let sources: Vec<SocketAddr> = Crowd::sources().take(CONNECTIONS).collect();
    let refused = crowd.open(SocketAddr::new(topology.vip(Family::V4, 0), PORT), &sources).unwrap();
    wait_until("a warning", LIMIT, || !told(&daemon).is_empty()).unwrap();
    let full = table();
    println!("{} were refused; {full:#}", refused.len());
    let load = full["families"][0]["load_percent"].as_u64().unwrap();
    assert!(load >= 80, "{full}");
    let screen = daemon.drover(&["status"]).unwrap();
    let screen = String::from_utf8_lossy(&screen.stdout).into_owned();
    assert!(screen.contains(&format!("! connections      IPv4 {load}% full, IPv6 0% full")), "{screen}");

    assert!(daemon.drover(&["connections", "cut", "--all"]).unwrap().status.success());
    // What was established stays as a memorial for as long as a closed connection does.
    wait_until("the end of the warning", 3 * LIMIT, || told(&daemon).len() > 1).unwrap();
    let told = told(&daemon);
    let [(warning, first), (info, last)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((warning.as_str(), info.as_str()), ("warning", "info"));
    assert!(
        first.starts_with("the connection table of ipv4 is 8") && first.contains("`connections`"),
        "{first}"
    );
    let load = last.split_whitespace().find_map(|word| word.parse::<u64>().ok());
    assert!(last.contains(" of 4096 lines") && load.is_some_and(|load| load < 75), "{last}");
}
