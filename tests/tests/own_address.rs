//! A VIP that is the one address that the balancer has, as in a small network: what the host does by itself goes on working.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_tests::daemon::Daemon;
use lb_tests::scene::INTERVAL;
use lb_tests::server::Server;
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::traffic::{Short, udp_flows};

const LIMIT: Duration = Duration::from_secs(5);
/// A service of the backends and of the client that no farm has, unless it has all ports.
const OTHER: u16 = 2222;

/// A balancer on one arm without an address besides the VIPs, and two backends beside it.
struct Only {
    daemon: Daemon,
    _servers: Vec<Server>,
    topology: Topology,
}

impl Only {
    /// One farm for both protocols on `ports`.
    fn new(ports: &str) -> Self {
        let topology = Topology::new(Arms::Flat, 2).unwrap();
        let start = |it: &lb_tests::topology::Backend| {
            Server::start(&it.netns, &it.name, &[80, OTHER], &[80, OTHER]).unwrap()
        };
        let _servers = topology.backends.iter().map(start).collect();
        let (v4, v6) = (topology.balancer_address(Family::V4), topology.balancer_address(Family::V6));
        let milliseconds = INTERVAL.as_millis();
        let backends = topology.backend_tables(if ports == "\"*\"" { "" } else { "port = 80" });
        let farm = format!(
            "[[farm]]\nname = \"web\"\nvip = [\"{v4}\", \"{v6}\"]\nports = {ports}\nprotocol = [\"tcp\", \"udp\"]\n\
             {backends}[[farm.check]]\ntype = \"tcp\"\nport = 80\ninterval = \"{milliseconds}ms\"\n\
             timeout = \"{milliseconds}ms\"\nrise = 1\nfall = 2\n"
        );
        let daemon = Daemon::start(&topology, "native", &farm).unwrap();
        Self { daemon, _servers, topology }
    }

    fn vip(&self, family: Family) -> IpAddr {
        self.topology.balancer_address(family)
    }

    fn assert_up(&self) {
        for backend in &self.topology.backends {
            let reason = self.daemon.wait_status("web", &backend.name, "up", LIMIT).unwrap();
            println!("{} is up: {reason}", backend.name);
        }
    }

    /// Clients of the farm are served by both backends.
    fn assert_serves(&self) {
        for family in [Family::V4, Family::V6] {
            let target = SocketAddr::new(self.vip(family), 80);
            let tally = Short::new(target, 100).run(&self.topology.client).unwrap();
            assert_eq!(tally.failures, Vec::<String>::new(), "{family:?}");
            assert!(tally.of("b1") > 10 && tally.of("b2") > 10, "{tally:?}");
            let sources = self.topology.sources(family);
            let tally = udp_flows(&self.topology.client, target, &sources, 20, 3).unwrap();
            assert_eq!((tally.total(), tally.failures), (20, vec![]), "{family:?}");
        }
    }

    /// What the host asks by itself, from the only address that it has, is answered: by backends, on the farm's port and on
    /// another, and by others.
    fn assert_host_is_answered(&self) {
        let _client = Server::start(&self.topology.client, "client", &[OTHER], &[OTHER]).unwrap();
        for family in [Family::V4, Family::V6] {
            let backend = &self.topology.backends[0];
            let servers = [
                (SocketAddr::new(backend.address(family), 80), "b1"),
                (SocketAddr::new(backend.address(family), OTHER), "b1"),
                (SocketAddr::new(self.topology.sources(family)[0], OTHER), "client"),
            ];
            for (server, name) in servers {
                let tally = Short::new(server, 20).run(&self.topology.balancer).unwrap();
                assert_eq!((tally.of(name), tally.failures), (20, vec![]), "TCP to {server}");
                let own = [self.vip(family)];
                let tally = udp_flows(&self.topology.balancer, server, &own, 10, 2).unwrap();
                assert_eq!((tally.of(name), tally.failures), (10, vec![]), "UDP to {server}");
            }
        }
    }
}

#[test]
fn checks_pass_and_clients_are_served_from_a_vip_that_is_the_only_address() {
    let only = Only::new("[80]");
    only.assert_up();
    only.assert_serves();
}

#[test]
fn the_host_of_a_vip_that_is_its_only_address_is_answered() {
    Only::new("[80]").assert_host_is_answered();
}

#[test]
fn checks_pass_and_clients_are_served_from_an_only_address_with_all_ports() {
    let only = Only::new("\"*\"");
    only.assert_up();
    only.assert_serves();
}

#[test]
fn the_host_of_an_only_address_with_all_ports_is_answered() {
    Only::new("\"*\"").assert_host_is_answered();
}

/// Every port is the farm's, so what comes in from outside is: an ssh of the host's own, too. That is documented.
#[test]
fn a_listener_of_the_host_is_not_reached_on_an_only_address_with_all_ports() {
    let only = Only::new("\"*\"");
    only.assert_up();
    let _own = Server::start(&only.topology.balancer, "lb", &[OTHER], &[OTHER]).unwrap();
    for family in [Family::V4, Family::V6] {
        let target = SocketAddr::new(only.vip(family), OTHER);
        let tally = Short::new(target, 50).run(&only.topology.client).unwrap();
        assert_eq!((tally.of("lb"), tally.total(), tally.failures), (0, 50, vec![]), "{family:?}");
    }
}
