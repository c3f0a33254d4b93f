//! The ports of one source address towards one backend, nearly all of them taken.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::time::Instant;

use lb_tests::crowd::Crowd;
use lb_tests::scene::{Farm, Scene};
use lb_tests::topology::Family;

/// The service of this test; port 80 is what is checked.
const PORT: u16 = 7000;
/// The ports that a connection may leave by: those that are not privileged.
const PORTS: usize = 65536 - 1024;
/// What counts SYNs for which no port was found.
const EXHAUSTED: &str = "drover_verdict_packets_total{verdict=\"ports_exhausted\"}";
/// How many connections are opened before it is looked how many were refused.
const STEP: usize = 512;

/// Clients whose own systems choose ports one after the other, in the same range all of them, as Linux does.
#[test]
fn nobody_is_refused_while_three_quarters_of_the_ports_are_taken_and_hardly_anybody_at_95_percent() {
    let keys = format!("ports = [80, {PORT}]");
    let farm = Farm { check_port: Some(80), ..Farm::new("web", &keys) };
    // Room for many more connections than there are ports.
    let scene = Scene::web_of_size(1 << 18, 1, &farm).unwrap();
    let crowd = Crowd::new(&scene.topology, PORT..=PORT).unwrap();
    let target = scene.topology.target(Family::V4, PORT);
    let mut sources = Crowd::sources();
    // How many of `count` further clients are refused.
    let mut refused = |count: usize| -> usize {
        let sources: Vec<_> = sources.by_ref().take(count).collect();
        crowd.open(target, &sources).unwrap().len()
    };
    // A client whose SYN finds no port sends it again; here each SYN counts.
    let exhausted = || {
        let metrics = scene.daemon.get_text("/metrics").unwrap();
        let mut values = metrics.lines().filter_map(|line| line.strip_prefix(EXHAUSTED));
        values.next().expect("a counter").trim().parse::<usize>().unwrap()
    };
    let begin = Instant::now();
    let (three_quarters, nearly_all) = (PORTS * 75 / 100, PORTS * 95 / 100);
    let mut taken = 0;
    while taken < three_quarters {
        assert_eq!(refused(STEP), 0, "with {taken} of {PORTS} ports taken");
        taken += STEP;
    }
    println!("{taken} connections after {:?}", begin.elapsed());
    assert_eq!(exhausted(), 0);
    while taken < nearly_all {
        let refused = refused(STEP);
        assert!(refused < STEP / 2, "ports run out at {taken}: {refused} of {STEP} refused");
        taken += STEP - refused;
    }
    println!("{taken} connections after {:?}", begin.elapsed());
    let before = exhausted();
    let refused = refused(STEP);
    let lost = exhausted() - before;
    println!("{lost} SYNs of {STEP} clients found no port above 95 %, {refused} clients none at all");
    assert!(lost * 100 < STEP * 5 && refused <= lost, "{lost} SYNs, {refused} clients");
    let total = scene.daemon.get("/v1/connections?farm=web&limit=1").unwrap()["total"].as_u64().unwrap();
    assert!(total as usize >= nearly_all, "the daemon knows {total} of {nearly_all} connections");
}
