//! Modes in which backends answer their clients themselves, with the servers that this needs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "it is a test")]

use std::fs;
use std::time::Duration;

use lb_tests::daemon::Daemon;
use lb_tests::http::get;
use lb_tests::scene::{Farm, Scene};
use lb_tests::server::{Server, checksum, checksum_of_download};
use lb_tests::topology::{Arms, Backend, Family, Topology};
use lb_tests::traffic::{Short, udp_flows};

const LIMIT: Duration = Duration::from_secs(20);
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const DOWNLOAD: u64 = 10_000_000;

/// Gives a backend the VIPs without telling anybody.
fn take_vips(topology: &Topology, backend: &Backend) {
    backend
        .netns
        .enter(|| {
            for (key, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
                fs::write(format!("/proc/sys/net/ipv4/conf/all/{key}"), value).unwrap();
            }
        })
        .unwrap();
    let [v4, v6] = FAMILIES.map(|family| topology.vip(family, 0));
    backend.netns.ip(&format!("addr add {v4}/32 dev lo\naddr add {v6}/128 dev lo nodad\n")).unwrap();
}

fn scene(arms: Arms, mode: &str, prepare: impl Fn(&Topology, &Backend)) -> Scene {
    let topology = Topology::new(arms, 2).unwrap();
    topology.backends.iter().for_each(|backend| prepare(&topology, backend));
    let start = |backend: &Backend| Server::start(&backend.netns, &backend.name, &[80], &[80]).unwrap();
    let servers = topology.backends.iter().map(start).collect();
    let keys = format!("ports = [80]\nprotocol = [\"tcp\", \"udp\"]\nmode = \"{mode}\"");
    let farm = Farm { check_port: Some(80), ..Farm::new("web", &keys) };
    let daemon = Daemon::start(&topology, "native", &farm.text(&topology)).unwrap();
    Scene { daemon, servers, topology }
}

/// TCP and UDP, many and long, in both families.
fn carries_everything(scene: &Scene) {
    let topology = &scene.topology;
    for family in FAMILIES {
        let target = topology.target(family, 80);
        let mut short = Short::new(target, 60);
        short.sources = topology.sources(family);
        let tally = short.run(&topology.client).unwrap();
        assert_eq!(tally.failures, Vec::<String>::new(), "{family:?}");
        assert!(tally.percent("b1") > 20.0 && tally.percent("b2") > 20.0, "{tally:?}");
        let tally = udp_flows(&topology.client, target, &topology.sources(family), 40, 3).unwrap();
        assert_eq!((tally.total(), &tally.failures), (40, &vec![]), "{family:?}");
        let source = topology.sources(family)[2];
        let path = format!("/download/{DOWNLOAD}/1000000000");
        let answer = topology.client.enter(|| get(target, Some(source), &path, LIMIT)).unwrap().unwrap();
        assert_eq!(answer.peer.ip(), source, "the backend sees its client");
        assert_eq!(checksum(&answer.body), checksum_of_download(DOWNLOAD), "{family:?}");
    }
    let connections = scene.daemon.connections("farm=web").unwrap();
    assert!(!connections.is_empty());
    let handshakes = scene.daemon.backend("web", "b1").unwrap();
    assert_eq!(
        handshakes["status"], "up",
        "nobody holds it against backends that their answers are not seen"
    );
}

#[test]
fn backends_of_dsr_answer_their_clients_on_the_same_segment() {
    let scene = scene(Arms::Flat, "dsr", take_vips);
    carries_everything(&scene);
    let out: u64 = ["b1", "b2"]
        .map(|name| scene.daemon.backend("web", name).unwrap()["packets"]["out"].as_u64().unwrap())
        .iter()
        .sum();
    assert_eq!(out, 0, "answers do not pass the balancer");
}

#[test]
fn backends_of_dsr_may_have_the_balancer_for_their_gateway() {
    carries_everything(&scene(Arms::Two, "dsr", take_vips));
}

#[test]
fn a_backend_behind_a_gateway_is_down_in_mode_dsr_and_the_status_says_why() {
    let topology = Topology::new(Arms::Flat, 1).unwrap();
    topology.backends[0].netns.ip("addr add 10.9.0.1/32 dev lo\n").unwrap();
    topology.balancer.ip("route add 10.9.0.1 via 10.1.0.51\n").unwrap();
    let _server = Server::start(&topology.backends[0].netns, "b1", &[80], &[]).unwrap();
    let farm = "[[farm]]\nname = \"web\"\nvip = \"10.1.0.100\"\nports = [80]\nmode = \"dsr\"\n\
                [[farm.backend]]\nname = \"b1\"\naddress = \"10.9.0.1\"\n\
                [[farm.check]]\ntype = \"tcp\"\ninterval = \"200ms\"\ntimeout = \"200ms\"\nrise = 1\n";
    let daemon = Daemon::start(&topology, "native", farm).unwrap();
    let reason = daemon.wait_status("web", "b1", "down", Duration::from_secs(5)).unwrap();
    assert!(reason.contains("10.9.0.1 is behind the gateway 10.1.0.51"), "{reason}");
    topology.balancer.ip("route replace 10.9.0.1 dev front\n").unwrap();
    topology.backends[0].netns.ip("addr add 10.9.0.1/32 dev eth0\n").unwrap();
    daemon.wait_status("web", "b1", "up", Duration::from_secs(5)).unwrap();
}
