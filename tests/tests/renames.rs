//! Another check, another name of a backend or of a farm: nobody is refused while the new judge has not spoken.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::time::Duration;

use lb_tests::scene::{Farm, Scene};
use lb_tests::steady::Steady;
use lb_tests::topology::Family;

const LIMIT: Duration = Duration::from_secs(5);
const EVERY: Duration = Duration::from_millis(4);

/// Replaces a part of the configuration wherever it stands, and reloads.
fn change(scene: &Scene, from: &str, to: &str) {
    let path = scene.daemon.config();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&path, text.replace(from, to)).unwrap();
    let output = scene.daemon.drover(&["reload"]).unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn another_check_and_other_names_refuse_nobody() {
    let farm = Farm::new("web", "ports = [80]");
    let scene = Scene::web(2, &farm).unwrap();
    let (topology, daemon) = (&scene.topology, &scene.daemon);
    daemon.drover(&["backend", "drain", "web", "b2"]).unwrap();
    let target = topology.target(Family::V4, 80);
    let steady =
        Steady::start(&topology.client, target, &topology.sources(Family::V4), EVERY, LIMIT).unwrap();
    let changes = [
        ("type = \"tcp\"", "type = \"http\"", "web", "b1"),
        ("name = \"b", "name = \"c", "web", "c1"),
        ("name = \"web\"", "name = \"www\"", "www", "c1"),
        ("type = \"http\"", "type = \"tcp\"\nport = 80", "www", "c1"),
    ];
    for (from, to, farm, backend) in changes {
        let done = steady.samples().len();
        change(&scene, from, to);
        let status = daemon.backend(farm, backend).unwrap()["status"].clone();
        assert_eq!(status, "up", "at once, after {from:?} became {to:?}");
        // Long enough for the new check to have spoken.
        lb_tests::wait::wait_until("the client to go on", LIMIT, || steady.samples().len() > done + 150)
            .unwrap();
    }
    let drained = daemon.backend("www", "c2").unwrap();
    assert_eq!(drained["admin_state"], "drain", "what an operator has set follows the server: {drained}");
    let samples = steady.finish();
    let failed: Vec<_> = samples.iter().filter_map(|sample| sample.result.as_ref().err()).collect();
    println!("{} of {} requests failed", failed.len(), samples.len());
    assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), samples.len());
    // The new judge does speak.
    change(&scene, "type = \"tcp\"\nport = 80", "type = \"http\"\nstatus = \"404\"");
    daemon.wait_status("www", "c1", "down", LIMIT).unwrap();
}
