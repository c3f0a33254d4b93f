//! What is not there is shown as what it is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::time::Duration;

use lb_tests::daemon::Daemon;
use lb_tests::scene::{Farm, Scene};
use lb_tests::topology::{Arms, Topology};
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

/// Where nobody is.
const NOBODY: &str = "10.2.0.77";

/// A farm whose check asks nobody that packets go to.
fn farm(number: u8, check: &str) -> String {
    format!(
        "[[farm]]\nname = \"f{number}\"\nvip = \"10.1.0.{number}\"\nports = [80]\n\
         backend = [{{ name = \"b\", address = \"{NOBODY}\" }}]\ncheck = [{check}]\n"
    )
}

#[test]
fn a_backend_to_which_there_is_no_way_is_never_up_whatever_its_checks_say() {
    let topology = Topology::new(Arms::Two, 1).unwrap();
    let check = "{ type = \"command\", command = [\"/bin/true\"], interval = \"200ms\", timeout = \"200ms\", rise = 1 }";
    let farms = farm(101, check) + &farm(102, "");
    let mut daemon = Daemon::prepare(&topology, "native", &farms).unwrap();
    daemon.launch(&topology.balancer).unwrap();
    let status = |farm: &str| {
        let farm = daemon.get(&format!("/v1/farms/{farm}")).unwrap();
        let backend = &farm["backends"][0];
        let reason = backend["reason"].as_str().unwrap().to_owned();
        (farm["status"].as_str().unwrap().to_owned(), backend["status"].as_str().unwrap().to_owned(), reason)
    };
    let (down, words) =
        ("down".to_owned(), format!("it cannot be reached: {NOBODY} does not answer on back"));
    for farm in ["f101", "f102"] {
        wait_until("the neighbour to be given up", LIMIT, || {
            let (of, backend, reason) = status(farm);
            assert!(
                of == "down" && ["starting", "down"].contains(&backend.as_str()),
                "{of} {backend} {reason}"
            );
            backend == "down"
        })
        .unwrap();
        assert_eq!(status(farm), (down.clone(), down.clone(), words.clone()));
    }
    let metrics = daemon.get_text("/metrics").unwrap();
    for line in [
        "drover_backend_up{farm=\"f101\",backend=\"b\"} 0",
        "drover_farm_status{farm=\"f101\",status=\"down\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    // Somebody comes.
    topology.backends[0].netns.ip(&format!("addr add {NOBODY}/24 dev eth0\n")).unwrap();
    for (farm, expected) in [("f101", "up"), ("f102", "unchecked")] {
        wait_until("a way", Duration::from_secs(15), || status(farm).0 == expected).unwrap();
    }
    let told = || -> Vec<String> {
        let events = daemon.events().unwrap();
        let told = events.iter().filter(|it| it["kind"] == "next-hop" && it["farm"] == "f101");
        told.map(|it| it["message"].as_str().unwrap().to_owned()).collect()
    };
    wait_until("the events", LIMIT, || told().len() == 2).unwrap();
    for (message, verb) in told().iter().zip(["down", "resurrect"]) {
        assert!(message.starts_with(&format!("BackEnd {NOBODY}:80 {verb} in farm: 'f101': ")), "{message}");
    }
}
