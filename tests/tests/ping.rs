//! `ping` and the like, to a VIP: what an operator sees of it from outside.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is a test")]

use std::time::Duration;

use lb_tests::scene::{Farm, Scene};
use lb_tests::topology::Family;

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn a_vip_answers_ping_while_it_is_served_though_it_is_an_address_of_the_host() {
    let mut scene = Scene::web(1, &Farm::new("web", "ports = [80]")).unwrap();
    scene.daemon.wait_status("web", "b1", "up", LIMIT).unwrap();
    let ping = |scene: &Scene, family, size: &str| {
        let vip = scene.topology.vip(family, 0).to_string();
        scene.topology.client.run("ping", &["-n", "-c1", "-W1", "-s", size, &vip])
    };
    for family in [Family::V4, Family::V6] {
        for size in ["0", "56", "1400"] {
            ping(&scene, family, size).unwrap();
        }
    }
    scene.servers.clear();
    scene.daemon.wait_status("web", "b1", "down", LIMIT).unwrap();
    for family in [Family::V4, Family::V6] {
        let told = ping(&scene, family, "56").unwrap_err();
        assert!(format!("{told:#}").contains("100% packet loss"), "{told:#}");
    }
}
