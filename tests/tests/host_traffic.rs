//! What is not for a farm goes to the balancer's host, untouched.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::net::{IpAddr, SocketAddr};

use lb_tests::scene::{Farm, Scene};
use lb_tests::server::Server;
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::traffic::{Short, udp_flows};

/// A port of the balancer's own, as of its ssh.
const OWN: u16 = 2222;

fn assert_reaches(topology: &Topology, target: SocketAddr, name: &str) {
    assert_reaches_by_tcp(topology, target, name);
    let sources = match target {
        SocketAddr::V4(_) => topology.sources(Family::V4),
        SocketAddr::V6(_) => topology.sources(Family::V6),
    };
    let tally = udp_flows(&topology.client, target, &sources, 5, 3).unwrap();
    assert_eq!((tally.of(name), tally.failures), (5, vec![]), "{target}");
}

fn assert_reaches_by_tcp(topology: &Topology, target: SocketAddr, name: &str) {
    let tally = Short::new(target, 30).run(&topology.client).unwrap();
    assert_eq!((tally.of(name), tally.failures), (30, vec![]), "{target}");
}

/// Pings with so many bytes; 4000 go in fragments.
fn ping(topology: &Topology, target: IpAddr, sizes: &[&str]) {
    for size in sizes {
        let ping = ["-n", "-c3", "-i0.05", "-W2", "-s", size, &target.to_string()];
        topology.client.run("ping", &ping).unwrap_or_else(|error| panic!("{ping:?}: {error:?}"));
    }
}

fn host_is_reached(arms: Arms, xdp: &str) {
    let farm = Farm::new("web", "ports = [80]");
    let scene = Scene::new(arms, 2, xdp, (&[80, OWN], &[OWN]), |topology| farm.text(topology)).unwrap();
    let topology = &scene.topology;
    let _own = Server::start(&topology.balancer, "lb", &[OWN], &[OWN]).unwrap();
    let _client = Server::start(&topology.client, "client", &[OWN], &[]).unwrap();
    topology
        .balancer
        .run("sysctl", &["-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
        .unwrap();
    for family in [Family::V4, Family::V6] {
        let own = topology.balancer_address(family);
        // Its own address, and a port of the VIP that no farm has.
        assert_reaches(topology, SocketAddr::new(own, OWN), "lb");
        assert_reaches_by_tcp(topology, topology.target(family, OWN), "lb");
        // Through it as a router.
        assert_reaches(topology, SocketAddr::new(topology.backends[0].address(family), OWN), "b1");
        // From it, outwards.
        let client = SocketAddr::new(topology.sources(family)[0], OWN);
        let tally = Short::new(client, 30).run(&topology.balancer).unwrap();
        assert_eq!((tally.of("client"), tally.failures), (30, vec![]), "{family:?}");
        ping(topology, own, &["56", "4000"]);
        ping(topology, topology.backends[1].address(family), &["56", "4000"]);
        // Fragments for a VIP are dropped: most of them do not say which port they are for.
        ping(topology, topology.vip(family, 0), &["56"]);
        // And the farm works beside it.
        let tally = Short::new(topology.target(family, 80), 50).run(&topology.client).unwrap();
        assert_eq!((tally.total(), tally.failures), (50, vec![]), "{family:?}");
    }
}

#[test]
fn the_host_is_reached_beside_native_xdp_on_two_arms() {
    host_is_reached(Arms::Two, "native");
}

#[test]
fn the_host_is_reached_beside_generic_xdp_on_two_arms() {
    host_is_reached(Arms::Two, "generic");
}

#[test]
fn the_host_is_reached_beside_native_xdp_on_one_arm() {
    host_is_reached(Arms::One, "native");
}
