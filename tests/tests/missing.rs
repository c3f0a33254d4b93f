//! What is not there is shown as what it is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::time::Duration;

use lb_tests::scene::{Farm, Scene};
use lb_tests::wait::wait_until;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn an_interface_that_vanished_stays_in_the_status_and_the_metrics() {
    let scene = Scene::web(1, &Farm::new("web", "ports = [80]")).unwrap();
    let daemon = &scene.daemon;
    scene.topology.balancer.ip("link del back\n").unwrap();
    wait_until("the status to say that it is missing", LIMIT, || {
        let status = daemon.get("/v1/status").unwrap();
        let interfaces = status["interfaces"].as_array().unwrap();
        interfaces.iter().any(|it| it["name"] == "back" && it["missing"] == true && it["up"] == false)
    })
    .unwrap();
    let metrics = daemon.get_text("/metrics").unwrap();
    assert!(metrics.contains("drover_interface_up{interface=\"back\",xdp_mode=\"none\"} 0"), "{metrics}");
    let screen = String::from_utf8(daemon.drover(&["status"]).unwrap().stdout).unwrap();
    assert!(screen.contains("back MISSING"), "{screen}");
}

#[test]
fn a_farm_of_nothing_but_weights_of_zero_is_not_up() {
    let scene = Scene::web(2, &Farm::new("web", "ports = [80]")).unwrap();
    let daemon = &scene.daemon;
    for (backend, expected) in [("b1", "up"), ("b2", "down")] {
        let path = format!("/v1/farms/web/backends/{backend}");
        assert_eq!(daemon.api("PATCH", &path, Some(&json!({"weight": 0}))).unwrap().0, 200);
        let farm = daemon.get("/v1/farms/web").unwrap();
        assert_eq!(farm["status"], expected, "with {backend} at 0, too");
    }
}
