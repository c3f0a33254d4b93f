//! What a farm does about a backend that goes down and comes back: its connections, who takes over, who is refused, and how
//! slowly it starts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use lb_tests::daemon::Daemon;
use lb_tests::http::Client;
use lb_tests::netns::Netns;
use lb_tests::scene::{Farm, Scene};
use lb_tests::server::Server;
use lb_tests::steady::{Sample, Steady};
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::traffic::{Short, udp_flows};
use lb_tests::wait::{wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(5);
/// Where the backends are checked, apart from what they serve: they can be taken out while they live.
const DOOR: u16 = 8080;
/// The farm's check of that port.
const OUT: Duration = Duration::from_secs(3);

/// A farm with servers that serve on, whatever is said of them on their door.
struct Doors {
    scene: Scene,
    /// One for each backend, `None` while it is closed.
    doors: Vec<Option<Server>>,
}

impl Doors {
    fn new(backends: u8, keys: &str, backend_keys: &[&str]) -> Self {
        let keys = format!("ports = [80]\nprotocol = [\"tcp\", \"udp\"]\n{keys}");
        let farm = Farm { check_port: Some(DOOR), backend_keys, ..Farm::new("web", &keys) };
        let topology = Topology::new(Arms::Two, backends).unwrap();
        let start = |tcp: &[u16], udp: &[u16]| -> Vec<Server> {
            topology.backends.iter().map(|it| Server::start(&it.netns, &it.name, tcp, udp).unwrap()).collect()
        };
        let (doors, servers) = (start(&[DOOR], &[]), start(&[80], &[80]));
        let daemon = Daemon::start(&topology, "native", &farm.text(&topology)).unwrap();
        Self { scene: Scene { daemon, servers, topology }, doors: doors.into_iter().map(Some).collect() }
    }

    fn name(&self, number: usize) -> String {
        self.scene.topology.backends[number].name.clone()
    }

    fn close(&mut self, number: usize) {
        self.doors[number] = None;
        self.scene.daemon.wait_status("web", &self.name(number), "down", OUT).unwrap();
    }

    /// The status that follows is `status`.
    fn open(&mut self, number: usize, status: &str) {
        let backend = &self.scene.topology.backends[number];
        self.doors[number] = Some(Server::start(&backend.netns, &backend.name, &[DOOR], &[]).unwrap());
        self.scene.daemon.wait_status("web", &backend.name, status, OUT).unwrap();
    }

    fn target(&self, family: Family) -> SocketAddr {
        self.scene.topology.target(family, 80)
    }

    /// Connections of the client to a backend, each of which has been answered.
    fn connections_to(&self, backend: &str, count: usize) -> Vec<Client> {
        let inside = || {
            let mut clients = Vec::new();
            for _ in 0..1000 {
                let mut client = Client::connect(self.target(Family::V4), None, LIMIT).unwrap();
                if client.get("/", true).unwrap().name == backend {
                    clients.push(client);
                }
                if clients.len() == count {
                    break;
                }
            }
            clients
        };
        let clients = self.scene.topology.client.enter(inside).unwrap();
        assert_eq!(clients.len(), count, "connections to {backend}");
        clients
    }

    /// Who answers new connections.
    fn answers(&self, family: Family) -> lb_tests::traffic::Tally {
        Short::new(self.target(family), 100).run(&self.scene.topology.client).unwrap()
    }

    fn wait_event(&self, kind: &str, backend: &str) -> String {
        wait_for(&format!("{kind} of {backend}"), LIMIT, || {
            let events = self.scene.daemon.events()?;
            let found = events.iter().rev().find(|it| it["kind"] == kind && it["backend"] == backend);
            let found = found.ok_or_else(|| anyhow::anyhow!("{events:?}"))?;
            Ok(found["message"].as_str().unwrap_or_default().to_owned())
        })
        .unwrap()
    }
}

#[test]
fn cut_resets_the_connections_of_a_backend_that_goes_down_at_their_next_packet() {
    let mut doors = Doors::new(2, "on_down = \"cut\"", &[]);
    let clients = doors.connections_to("b1", 5);
    let others = doors.connections_to("b2", 5);
    doors.close(0);
    println!("{}", doors.wait_event("backend-down", "b1"));
    for mut client in clients {
        let begin = Instant::now();
        let failure = client.get("/", true).unwrap_err();
        println!("cut: {failure} after {:?}", begin.elapsed());
        assert!(failure.reason.contains("reset"), "{failure}");
        assert!(begin.elapsed() < Duration::from_millis(100), "{:?}", begin.elapsed());
    }
    for mut client in others {
        assert_eq!(client.get("/", true).unwrap().name, "b2");
    }
}

#[test]
fn keep_leaves_the_connections_of_a_backend_that_goes_down() {
    let mut doors = Doors::new(2, "on_down = \"keep\"", &[]);
    let clients = doors.connections_to("b1", 5);
    doors.close(0);
    println!("{}", doors.wait_event("backend-down", "b1"));
    for mut client in clients {
        assert_eq!(client.get("/", true).unwrap().name, "b1");
    }
    assert_eq!(doors.answers(Family::V4).of("b2"), 100);
}

#[test]
fn a_farm_without_a_healthy_backend_refuses_at_once_and_serves_as_soon_as_one_is_back() {
    let mut doors = Doors::new(2, "when_all_down = \"refuse\"", &[]);
    doors.close(0);
    doors.close(1);
    assert_eq!(doors.scene.daemon.get("/v1/farms/web").unwrap()["status"], "down");
    let mut worst = Duration::ZERO;
    for family in [Family::V4, Family::V6] {
        for _ in 0..10 {
            let (tcp, udp) = refusals(&doors.scene.topology.client, doors.target(family));
            worst = worst.max(tcp).max(udp);
        }
    }
    println!("refused within {worst:?}");
    assert!(worst < Duration::from_millis(100), "{worst:?}");
    doors.open(1, "up");
    for family in [Family::V4, Family::V6] {
        let tally = doors.answers(family);
        assert_eq!((tally.of("b2"), tally.failures), (100, vec![]), "{family:?}");
    }
    let sources = doors.scene.topology.sources(Family::V4);
    let tally = udp_flows(&doors.scene.topology.client, doors.target(Family::V4), &sources, 20, 2).unwrap();
    assert_eq!((tally.of("b2"), tally.failures), (20, vec![]));
}

/// How long it takes until a connection and a datagram are refused.
fn refusals(client: &Netns, target: SocketAddr) -> (Duration, Duration) {
    let inside = || {
        let begin = Instant::now();
        let refused = TcpStream::connect_timeout(&target, LIMIT).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "TCP {target}: {refused}");
        let tcp = begin.elapsed();
        let any: IpAddr = if target.is_ipv4() { [0u8; 4].into() } else { [0u16; 8].into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.connect(target).unwrap();
        let begin = Instant::now();
        socket.send(b"anybody").unwrap();
        let refused = socket.recv(&mut [0; 64]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "UDP {target}: {refused}");
        (tcp, begin.elapsed())
    };
    client.enter(inside).unwrap()
}

#[test]
fn a_farm_that_is_to_try_all_goes_on_when_every_check_fails() {
    let mut doors = Doors::new(2, "when_all_down = \"try-all\"", &[]);
    doors.close(0);
    doors.close(1);
    let tally = doors.answers(Family::V4);
    assert_eq!(tally.failures, Vec::<String>::new());
    assert!(tally.of("b1") > 20 && tally.of("b2") > 20, "{tally:?}");
    doors.open(1, "up");
    assert_eq!(doors.answers(Family::V4).of("b2"), 100);
}

#[test]
fn a_standby_takes_over_and_gives_back() {
    let mut doors = Doors::new(2, "", &["priority = 0", "priority = 1"]);
    let daemon = |doors: &Doors, backend: &str| {
        doors.scene.daemon.backend("web", backend).unwrap()["status"].as_str().unwrap().to_owned()
    };
    assert_eq!((daemon(&doors, "b1").as_str(), daemon(&doors, "b2").as_str()), ("up", "standby"));
    assert_eq!(doors.answers(Family::V4).of("b1"), 100);
    let target = doors.target(Family::V4);
    let sources = doors.scene.topology.sources(Family::V4);
    let steady =
        Steady::start(&doors.scene.topology.client, target, &sources, Duration::from_millis(10), LIMIT)
            .unwrap();
    doors.close(0);
    let out = Instant::now();
    assert_eq!(daemon(&doors, "b2"), "up");
    assert_eq!(doors.answers(Family::V4).of("b2"), 100);
    let mut kept = doors.connections_to("b2", 5);
    doors.open(0, "up");
    assert_eq!(daemon(&doors, "b2"), "standby");
    assert_eq!(doors.answers(Family::V4).of("b1"), 100);
    for client in &mut kept {
        assert_eq!(client.get("/", true).unwrap().name, "b2", "a connection stays where it is");
    }
    let failed: Vec<Sample> =
        steady.finish().into_iter().filter(|it| it.result.is_err() && it.began > out).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn the_share_of_a_backend_that_is_back_grows_slowly() {
    let slow = Duration::from_secs(5);
    let mut doors = Doors::new(2, &format!("slow_start = \"{}s\"", slow.as_secs()), &[]);
    // Nobody is spared at the first start: all would have to be.
    let tally = doors.answers(Family::V4);
    assert!(tally.of("b1") > 20, "{tally:?}");
    doors.close(0);
    let target = doors.target(Family::V4);
    let sources = doors.scene.topology.sources(Family::V4);
    let steady =
        Steady::start(&doors.scene.topology.client, target, &sources, Duration::from_millis(5), LIMIT)
            .unwrap();
    doors.open(0, "up");
    let back = Instant::now();
    wait_until("the end of the slow start", slow * 3, || back.elapsed() > slow.mul_f64(1.6)).unwrap();
    let samples = steady.finish();
    let share = |from: f64, to: f64| {
        let (from, to) = (back + slow.mul_f64(from), back + slow.mul_f64(to));
        let within: Vec<_> = samples.iter().filter(|it| it.began >= from && it.began < to).collect();
        let of_b1 = within.iter().filter(|it| it.result.as_deref() == Ok("b1")).count();
        100.0 * of_b1 as f64 / within.len().max(1) as f64
    };
    let shares = [share(0.0, 0.2), share(0.4, 0.6), share(1.1, 1.6)];
    println!(
        "b1's share: {:.0} % at first, {:.0} % halfway, {:.0} % in the end",
        shares[0], shares[1], shares[2]
    );
    // The weights go from 10 % to 100 %, and so the shares from 9 % to 50 %.
    assert!(shares[0] < 25.0 && shares[0] < shares[1] && shares[1] < 45.0 && shares[2] > 40.0, "{shares:?}");
    let back_late = samples.iter().filter(|it| it.began > back && it.result.is_err()).count();
    assert_eq!(back_late, 0);
}
