//! Every way in which packets are shared: both IP versions, TCP and UDP, both modes, every place of the balancer, native
//! and generic XDP, with real clients and servers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::net::SocketAddr;
use std::time::Duration;

use lb_tests::http::get;
use lb_tests::nginx::Nginx;
use lb_tests::scene::{Farm, Scene};
use lb_tests::server::checksum;
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::traffic::{Short, udp_flows};

const LIMIT: Duration = Duration::from_secs(5);
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

macro_rules! matrix {
    ($($name:ident: $arms:ident $mode:literal $xdp:literal;)*) => {
        $(#[test] fn $name() { cell(Arms::$arms, $mode, $xdp); })*
    };
}

matrix! {
    two_arms_nat_native: Two "nat" "native";
    two_arms_nat_generic: Two "nat" "generic";
    two_arms_dnat_native: Two "dnat" "native";
    two_arms_dnat_generic: Two "dnat" "generic";
    one_arm_nat_native: One "nat" "native";
    one_arm_nat_generic: One "nat" "generic";
    one_arm_dnat_native: One "dnat" "native";
    one_arm_dnat_generic: One "dnat" "generic";
    one_subnet_nat_native: Flat "nat" "native";
    one_subnet_nat_generic: Flat "nat" "generic";
}

/// One cell of the matrix: TCP and UDP on one farm and port with the test server, then curl and nginx.
fn cell(arms: Arms, mode: &str, xdp: &str) {
    let keys = format!("ports = [80, 8080]\nprotocol = [\"tcp\", \"udp\"]\nmode = \"{mode}\"");
    let farm = Farm { check_port: Some(80), ..Farm::new("web", &keys) };
    let scene = Scene::new(arms, 3, xdp, (&[80], &[80]), |topology| farm.text(topology)).unwrap();
    let status = scene.daemon.get("/v1/status").unwrap();
    for interface in status["interfaces"].as_array().unwrap() {
        assert_eq!(interface["xdp_mode"], xdp, "{interface}");
    }
    for family in FAMILIES {
        tcp_is_shared(&scene, family, mode);
        udp_is_shared(&scene, family);
    }
    real_programs_get_through(&scene);
}

fn tcp_is_shared(scene: &Scene, family: Family, mode: &str) {
    let Scene { topology, .. } = scene;
    let target = topology.target(family, 80);
    let mut short = Short::new(target, 300);
    short.sources = topology.sources(family);
    let tally = short.run(&topology.client).unwrap();
    assert_eq!(tally.failures, Vec::<String>::new(), "{family:?}");
    for backend in &topology.backends {
        assert!(tally.percent(&backend.name) > 20.0, "{family:?}: {:?}", tally.answered);
    }
    let source = topology.sources(family)[2];
    let answer = topology.client.enter(|| get(target, Some(source), "/", LIMIT)).unwrap().unwrap();
    let expected = if mode == "nat" { target.ip() } else { source };
    assert_eq!(answer.peer.ip(), expected, "what the backend sees as the client, {family:?}");
}

fn udp_is_shared(scene: &Scene, family: Family) {
    let Scene { topology, .. } = scene;
    let sources = topology.sources(family);
    let tally = udp_flows(&topology.client, topology.target(family, 80), &sources, 100, 3).unwrap();
    assert_eq!(tally.failures, Vec::<String>::new(), "{family:?}");
    for backend in &topology.backends {
        assert!(tally.percent(&backend.name) > 15.0, "{family:?}: {:?}", tally.answered);
    }
}

/// curl and nginx: small answers, then large bodies both ways, whole.
fn real_programs_get_through(scene: &Scene) {
    let topology = &scene.topology;
    let big: Vec<u8> = (0..3_000_000u32).map(|number| ((number * 7) >> 3) as u8).collect();
    let start =
        |backend: &lb_tests::topology::Backend| Nginx::start(&backend.netns, &backend.name, 8080, &big);
    let _servers: Vec<Nginx> = topology.backends.iter().map(|backend| start(backend).unwrap()).collect();
    let folder = tempfile::tempdir().unwrap();
    let (sent, received) = (folder.path().join("sent"), folder.path().join("received"));
    std::fs::write(&sent, &big).unwrap();
    let upload = format!("@{}", sent.display());
    for family in FAMILIES {
        let url = format!("http://{}/", topology.target(family, 8080));
        let curl = |args: &[&str]| {
            let always = ["--silent", "--show-error", "--fail", "--globoff", "--max-time", "20"];
            topology.client.run("curl", &[&always, args].concat()).unwrap()
        };
        let names: Vec<String> = (0..10).map(|_| curl(&[&url])).collect();
        assert!(names.iter().all(|name| name.starts_with('b')), "{names:?}");
        curl(&["--output", received.to_str().unwrap(), &format!("{url}big")]);
        assert_eq!(checksum(&std::fs::read(&received).unwrap()), checksum(&big), "{family:?}");
        let answer = curl(&["--data-binary", &upload, "--header", "Expect:", &url]);
        assert!(answer.starts_with('b'), "{answer}");
    }
}

/// Who answers a single connection, and on which port.
fn ask(topology: &Topology, target: SocketAddr) -> Result<(String, u16), String> {
    let answer = topology.client.enter(|| get(target, None, "/", LIMIT)).unwrap();
    answer.map(|answer| (answer.name, answer.port)).map_err(|failure| failure.to_string())
}

#[test]
fn several_vips_ports_and_a_range() {
    let servers: (&[u16], &[u16]) = (&[80, 443, 8000, 8001, 8002], &[]);
    let scene = Scene::new(Arms::Two, 2, "native", servers, |topology| {
        let web = Farm { backends: 1, ..Farm::new("web", "ports = [80, \"8000-8002\"]") };
        let other = Farm { vip: 1, ..Farm::new("other", "ports = [443]\nmode = \"dnat\"") };
        web.text(topology) + &other.text(topology)
    });
    let scene = scene.unwrap();
    let topology = &scene.topology;
    for family in FAMILIES {
        for port in [80, 8000, 8001, 8002] {
            assert_eq!(
                ask(topology, topology.target(family, port)),
                Ok(("b1".to_owned(), port)),
                "{family:?}"
            );
        }
        for port in [443, 7999, 8003] {
            let refused = ask(topology, topology.target(family, port)).unwrap_err();
            assert!(refused.contains("refused"), "the host answers for port {port}: {refused}");
        }
        let other = SocketAddr::new(topology.vip(family, 1), 443);
        let tally = Short::new(other, 60).run(&topology.client).unwrap();
        assert!(tally.failures.is_empty() && tally.of("b1") > 10 && tally.of("b2") > 10, "{tally:?}");
    }
}

#[test]
fn every_port_of_a_vip() {
    let keys = "ports = \"*\"\nprotocol = [\"tcp\", \"udp\"]";
    let farm = Farm { check_port: Some(80), ..Farm::new("all", keys) };
    let servers: (&[u16], &[u16]) = (&[1, 80, 5000, 65535], &[53, 6000]);
    let scene = Scene::new(Arms::Two, 1, "native", servers, |topology| farm.text(topology)).unwrap();
    let topology = &scene.topology;
    for family in FAMILIES {
        for port in [1, 80, 5000, 65535] {
            assert_eq!(
                ask(topology, topology.target(family, port)),
                Ok(("b1".to_owned(), port)),
                "{family:?}"
            );
        }
        for port in [53, 6000] {
            let sources = topology.sources(family);
            let tally = udp_flows(&topology.client, topology.target(family, port), &sources, 5, 2).unwrap();
            assert_eq!((tally.of("b1"), &tally.failures), (5, &vec![]), "{family:?} {port}");
        }
    }
}

#[test]
fn ports_are_mapped_backend_by_backend() {
    for mode in ["nat", "dnat"] {
        let keys = format!("ports = [80, 81]\nprotocol = [\"tcp\", \"udp\"]\nmode = \"{mode}\"");
        let farm = Farm { backend_keys: &["port = 8080", "port = 9090"], ..Farm::new("web", &keys) };
        let servers: (&[u16], &[u16]) = (&[8080, 9090], &[8080, 9090]);
        let scene = Scene::new(Arms::Two, 2, "native", servers, |topology| farm.text(topology)).unwrap();
        let topology = &scene.topology;
        for (family, port) in [(Family::V4, 80), (Family::V4, 81), (Family::V6, 80), (Family::V6, 81)] {
            let target = topology.target(family, port);
            let mut answers: Vec<_> = (0..40).map(|_| ask(topology, target).unwrap()).collect();
            answers.sort();
            answers.dedup();
            assert_eq!(answers, [("b1".to_owned(), 8080), ("b2".to_owned(), 9090)], "{mode} {target}");
            let sources = topology.sources(family);
            let tally = udp_flows(&topology.client, target, &sources, 20, 2).unwrap();
            assert_eq!((tally.total(), tally.failures), (20, vec![]), "{mode} {target}");
        }
    }
}
