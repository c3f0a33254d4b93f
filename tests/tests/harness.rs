//! The harness itself, without the daemon: a test that fails must not be the harness's fault.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use lb_tests::http::{Client, get};
use lb_tests::netns::Netns;
use lb_tests::server::{Server, checksum, checksum_of_download};
use lb_tests::steady::Steady;
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::traffic::{LongLived, Short, fixed, udp_flows};
use lb_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(2);

/// Lets the balancer's own stack route, in place of the daemon.
fn route(topology: &Topology) {
    let balancer = &topology.balancer;
    balancer.run("sysctl", &["-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]).unwrap();
}

#[test]
fn every_topology_connects_its_hosts_in_both_families() {
    for arms in [Arms::Two, Arms::One, Arms::Flat] {
        let topology = Topology::new(arms, 2).unwrap();
        route(&topology);
        for backend in &topology.backends {
            let server = Server::start(&backend.netns, &backend.name, &[80], &[53]).unwrap();
            for family in [Family::V4, Family::V6] {
                let target = SocketAddr::new(backend.address(family), 80);
                let tally = Short::new(target, 20).run(&topology.client).unwrap();
                assert_eq!((tally.of(&backend.name), &tally.failures), (20, &vec![]), "{arms:?} {family:?}");
                let target = SocketAddr::new(backend.address(family), 53);
                let sources = topology.sources(family);
                let tally = udp_flows(&topology.client, target, &sources, 5, 3).unwrap();
                assert_eq!((tally.of(&backend.name), &tally.failures), (5, &vec![]), "{arms:?} {family:?}");
                let balancer = topology.balancer_address(family).to_string();
                topology.client.run("ping", &["-n", "-c1", "-W2", &balancer]).unwrap();
            }
            assert_eq!(server.requests(), 40);
            assert_eq!(server.datagrams(), 30);
        }
    }
}

#[test]
fn the_server_tells_port_and_peer_and_keeps_connections() {
    let topology = Topology::new(Arms::Flat, 1).unwrap();
    let backend = &topology.backends[0];
    let _server = Server::start(&backend.netns, "b1", &[80, 8080], &[]).unwrap();
    for (family, port) in [(Family::V4, 80), (Family::V6, 8080)] {
        let target = SocketAddr::new(backend.address(family), port);
        let source = SocketAddr::new(topology.sources(family)[3], 45678);
        let answers = topology.client.enter(|| {
            let mut client = Client::connect(target, Some(source), LIMIT).unwrap();
            let first = client.get("/", true).unwrap();
            [first, client.get("/", false).unwrap()]
        });
        for answer in answers.unwrap() {
            assert_eq!((answer.name.as_str(), answer.port, answer.peer), ("b1", port, source));
            assert_eq!(answer.body, b"b1\n");
        }
    }
}

#[test]
fn a_download_is_paced_and_its_checksum_known() {
    let topology = Topology::new(Arms::Flat, 1).unwrap();
    let _server = Server::start(&topology.backends[0].netns, "b1", &[80], &[]).unwrap();
    let target = SocketAddr::new(topology.backends[0].address(Family::V4), 80);
    let begin = Instant::now();
    let answer = topology.client.enter(|| get(target, None, "/download/500000/1000000", LIMIT));
    let body = answer.unwrap().unwrap().body;
    assert_eq!((body.len(), checksum(&body)), (500_000, checksum_of_download(500_000)));
    assert_ne!(checksum(&body[1..]), checksum(&body[..499_999]));
    assert!(begin.elapsed() >= Duration::from_millis(480), "{:?}", begin.elapsed());
}

#[test]
fn fixed_connections_may_be_repeated_at_once() {
    let topology = Topology::new(Arms::Flat, 1).unwrap();
    let _server = Server::start(&topology.backends[0].netns, "b1", &[80], &[]).unwrap();
    let target = SocketAddr::new(topology.backends[0].address(Family::V4), 80);
    let source = topology.sources(Family::V4)[0];
    let sources: Vec<_> = (40000..40050).map(|port| SocketAddr::new(source, port)).collect();
    for _ in 0..3 {
        let answers = fixed(&topology.client, target, &sources, LIMIT).unwrap();
        assert!(answers.iter().all(|answer| answer.as_deref() == Ok("b1")), "{answers:?}");
    }
}

#[test]
fn the_death_of_a_server_is_noticed_by_every_kind_of_client() {
    let topology = Topology::new(Arms::Flat, 1).unwrap();
    let server = Server::start(&topology.backends[0].netns, "b1", &[80], &[]).unwrap();
    let target = SocketAddr::new(topology.backends[0].address(Family::V4), 80);
    let long = LongLived::open(&topology.client, target, &[], 3, Duration::from_millis(10)).unwrap();
    let steady = Steady::start(&topology.client, target, &[], Duration::from_millis(5), LIMIT).unwrap();
    wait_until("traffic", LIMIT, || long.exchanges() > 20 && steady.samples().len() > 50).unwrap();
    drop(server);
    let death = Instant::now();
    wait_until("failures", LIMIT, || steady.samples().iter().filter(|it| it.result.is_err()).count() > 10)
        .unwrap();
    for report in long.finish().unwrap() {
        assert_eq!(report.backend, "b1");
        assert!(report.failure.is_some());
    }
    let samples = steady.finish();
    let late = samples.iter().filter(|it| it.began > death);
    assert!(late.clone().count() > 5 && late.clone().all(|it| it.result.is_err()), "{samples:?}");
    let tally = Short::new(target, 5).run(&topology.client).unwrap();
    assert_eq!((tally.total(), tally.failures.len()), (0, 5));
    assert!(tally.failures[0].starts_with("connect: "), "{:?}", tally.failures);
}

#[test]
fn namespaces_and_processes_are_gone_after_a_panic() {
    let mut names = Vec::new();
    let mut pid = 0;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let netns = Netns::new("panic").unwrap();
        let process = netns.spawn(netns.command("sleep").arg("60").stdout(Stdio::null())).unwrap();
        names.push(netns.name().to_owned());
        pid = process.id();
        assert!(Path::new("/run/netns").join(netns.name()).exists());
        panic!("as a failing test does");
    }));
    assert!(panicked.is_err());
    assert!(!Path::new("/run/netns").join(&names[0]).exists());
    assert!(!Path::new("/proc").join(pid.to_string()).exists());
}

#[test]
fn what_runs_in_a_namespace_sees_its_network_and_the_machine_s_mounts() {
    let netns = Netns::new("mounts").unwrap();
    let links = netns.run("ip", &["-br", "link"]).unwrap();
    assert!(links.lines().count() == 1 && links.starts_with("lo"), "{links}");
    let mounts = netns.run("readlink", &["/proc/self/ns/mnt"]).unwrap();
    assert_eq!(Path::new(mounts.trim()), std::fs::read_link("/proc/self/ns/mnt").unwrap());
}
