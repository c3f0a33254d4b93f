//! Virtual addresses: where the daemon puts them, that it announces them, and when it takes them away.

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
use lb_tests::server::Server;
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::traffic::Short;
use lb_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(5);

fn addresses(topology: &Topology, interface: &str) -> String {
    topology.balancer.run("ip", &["addr", "show", "dev", interface]).unwrap()
}

/// Asks by both families and expects an answer to each of 20 connections.
fn assert_serves(topology: &Topology) {
    for family in [Family::V4, Family::V6] {
        let tally = Short::new(topology.target(family, 80), 20).run(&topology.client).unwrap();
        assert_eq!((tally.total(), tally.failures), (20, vec![]), "{family:?}");
    }
}

#[test]
fn vips_come_and_go_with_their_farms_on_the_interface_of_their_subnet() {
    let first = Farm::new("web", "ports = [80]");
    let second = Farm { vip: 1, ..Farm::new("other", "ports = [80]") };
    let text = |topology: &Topology| first.text(topology) + &second.text(topology);
    let scene = Scene::new(Arms::Two, 1, "native", (&[80], &[]), text).unwrap();
    let topology = &scene.topology;
    let vips = |number| [Family::V4, Family::V6].map(|family| topology.vip(family, number).to_string() + "/");
    for vip in vips(0).into_iter().chain(vips(1)) {
        assert!(addresses(topology, "front").contains(&vip), "{vip}: {}", addresses(topology, "front"));
        assert!(!addresses(topology, "back").contains(&vip), "{vip}: {}", addresses(topology, "back"));
    }
    scene.daemon.write_config(&first.text(topology)).unwrap();
    let output = scene.daemon.drover(&["reload"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    wait_until("the second farm's VIPs to go", LIMIT, || {
        let front = addresses(topology, "front");
        !vips(1).iter().any(|vip| front.contains(vip))
    })
    .unwrap();
    assert!(vips(0).iter().all(|vip| addresses(topology, "front").contains(vip)));
    assert_serves(topology);
}

#[test]
fn a_farm_that_went_while_no_daemon_ran_leaves_no_vip_behind() {
    let first = Farm::new("web", "ports = [80]");
    let second = Farm { vip: 1, ..Farm::new("other", "ports = [80]") };
    let text = |topology: &Topology| first.text(topology) + &second.text(topology);
    let mut scene = Scene::new(Arms::Two, 1, "native", (&[80], &[]), text).unwrap();
    let (topology, daemon) = (&scene.topology, &mut scene.daemon);
    let gone = [Family::V4, Family::V6].map(|family| topology.vip(family, 1).to_string() + "/");
    assert!(gone.iter().all(|vip| addresses(topology, "front").contains(vip)));
    daemon.kill().unwrap();
    daemon.write_config(&first.text(topology)).unwrap();
    daemon.launch(&topology.balancer).unwrap();
    daemon.wait_judged().unwrap();
    let front = addresses(topology, "front");
    assert!(!gone.iter().any(|vip| front.contains(vip)), "{front}");
    assert_serves(topology);
}

#[test]
fn neighbours_that_knew_another_owner_are_told() {
    let topology = Topology::new(Arms::Two, 1).unwrap();
    let _server = Server::start(&topology.backends[0].netns, "b1", &[80], &[]).unwrap();
    let vips = [Family::V4, Family::V6].map(|family| topology.vip(family, 0).to_string());
    for vip in &vips {
        // As after a takeover: the entry is in use and points at the other node.
        topology
            .client
            .ip(&format!("neigh replace {vip} lladdr 02:00:00:00:00:99 dev eth0 nud reachable\n"))
            .unwrap();
    }
    let _daemon =
        Daemon::start(&topology, "native", &Farm::new("web", "ports = [80]").text(&topology)).unwrap();
    let link = topology.balancer.run("ip", &["link", "show", "front"]).unwrap();
    let words: Vec<&str> = link.split_whitespace().collect();
    let mac = words[words.iter().position(|word| *word == "link/ether").unwrap() + 1];
    for vip in &vips {
        wait_until(&format!("the client to learn of {vip}"), LIMIT, || {
            topology.client.run("ip", &["neigh", "show", vip]).is_ok_and(|entry| entry.contains(mac))
        })
        .unwrap();
    }
    assert_serves(&topology);
}

#[test]
fn vips_that_the_operator_manages_are_left_alone() {
    let topology = Topology::new(Arms::Two, 1).unwrap();
    let _server = Server::start(&topology.backends[0].netns, "b1", &[80], &[]).unwrap();
    let text = Farm::new("web", "ports = [80]").text(&topology);
    let mut daemon = Daemon::prepare(&topology, "native", &text).unwrap();
    daemon.edit_config("connections = ", "manage_vips = false\nconnections = ").unwrap();
    daemon.launch(&topology.balancer).unwrap();
    daemon.wait_judged().unwrap();
    let vips = [Family::V4, Family::V6].map(|family| topology.vip(family, 0).to_string());
    assert!(!vips.iter().any(|vip| addresses(&topology, "front").contains(vip)));
    for vip in &vips {
        let nodad = if vip.contains(':') { "nodad" } else { "" };
        topology.balancer.ip(&format!("addr add {vip} dev front {nodad}\n")).unwrap();
    }
    assert_serves(&topology);
    daemon.stop().unwrap();
    assert!(vips.iter().all(|vip| addresses(&topology, "front").contains(vip)));
}

#[test]
fn a_vip_that_the_operator_has_set_himself_stays_over_restarts_and_the_end_and_the_daemons_own_go() {
    let topology = Topology::new(Arms::Two, 1).unwrap();
    let _server = Server::start(&topology.backends[0].netns, "b1", &[80], &[]).unwrap();
    let first = Farm::new("web", "ports = [80]");
    let second = Farm { vip: 1, ..Farm::new("other", "ports = [80]") };
    let vips = |number| [Family::V4, Family::V6].map(|family| topology.vip(family, number).to_string());
    for vip in vips(0) {
        let prefix = if vip.contains(':') { "128 nodad" } else { "32" };
        let (address, how) = (vip, prefix.split_once(' ').unwrap_or((prefix, "")));
        topology.balancer.ip(&format!("addr add {address}/{} dev front {}\n", how.0, how.1)).unwrap();
    }
    let text = first.text(&topology) + &second.text(&topology);
    let mut daemon = Daemon::start(&topology, "native", &text).unwrap();
    let there = |vip: &String| addresses(&topology, "front").contains(&format!("{vip}/"));
    assert!(vips(1).iter().all(there));
    daemon.kill().unwrap();
    daemon.launch(&topology.balancer).unwrap();
    daemon.write_config(&second.text(&topology)).unwrap();
    assert!(daemon.drover(&["reload"]).unwrap().status.success());
    assert!(vips(0).iter().all(there), "after its farm has gone: {}", addresses(&topology, "front"));
    daemon.write_config(&text).unwrap();
    assert!(daemon.drover(&["reload"]).unwrap().status.success());
    assert!(daemon.stop().unwrap().success());
    assert!(vips(0).iter().all(there), "after the end: {}", addresses(&topology, "front"));
    assert!(!vips(1).iter().any(there), "the daemon's own: {}", addresses(&topology, "front"));
}

#[test]
fn a_farm_may_have_one_ip_version_alone() {
    let topology = Topology::new(Arms::Two, 1).unwrap();
    let backend = &topology.backends[0];
    let _server = Server::start(&backend.netns, "b1", &[80], &[]).unwrap();
    let farm = |name: &str, vip: String, address: String| {
        format!(
            "[[farm]]\nname = \"{name}\"\nvip = \"{vip}\"\nports = [80]\n[[farm.backend]]\naddress = \"{address}\"\n"
        )
    };
    let text = farm("old", topology.vip(Family::V4, 0).to_string(), backend.v4.to_string())
        + &farm("new", topology.vip(Family::V6, 0).to_string(), backend.v6.to_string());
    let daemon = Daemon::start(&topology, "native", &text).unwrap();
    assert_eq!(daemon.backend("old", &backend.v4.to_string()).unwrap()["status"], "up");
    assert_eq!(daemon.backend("new", &backend.v6.to_string()).unwrap()["status"], "up");
    assert_serves(&topology);
}
