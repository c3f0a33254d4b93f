//! Segments of connections that the balancer does not know any more: both ends are told at once, nobody waits for minutes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use lb_tests::crowd::Crowd;
use lb_tests::daemon::Daemon;
use lb_tests::http::{Client, Failure};
use lb_tests::scene::{Farm, Scene};
use lb_tests::topology::Family;
use lb_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(5);
/// How soon an end must be told.
const SOON: Duration = Duration::from_secs(1);
/// The service of these tests; port 80 is what is checked.
const PORT: u16 = 7000;

fn scene(keys: &str) -> Scene {
    let keys = format!("ports = [80, {PORT}]\n{keys}");
    Scene::web(1, &Farm { check_port: Some(80), ..Farm::new("web", &keys) }).unwrap()
}

/// Both ends of a connection.
struct Pair {
    client: TcpStream,
    server: TcpStream,
}

/// Both ends of the service, and its listener.
struct Ends {
    listener: TcpListener,
    pairs: Vec<Pair>,
}

impl Ends {
    /// A connection over each family, over which each end has heard the other; the daemon knows both.
    fn meet(scene: &Scene) -> Self {
        let listen = || TcpListener::bind(("::", PORT)).unwrap();
        let listener = scene.topology.backends[0].netns.enter(listen).unwrap();
        let pairs = [Family::V4, Family::V6].map(|family| Pair::meet(scene, &listener, family)).into();
        assert_eq!(listed(&scene.daemon), 2);
        Self { listener, pairs }
    }

    fn assert_told(self) {
        for Pair { client, server } in self.pairs {
            assert_told(client, "the client");
            assert_told(server, "the server");
        }
    }
}

impl Pair {
    fn meet(scene: &Scene, listener: &TcpListener, family: Family) -> Self {
        let target = scene.topology.target(family, PORT);
        let connect = || TcpStream::connect_timeout(&target, LIMIT).unwrap();
        let client = scene.topology.client.enter(connect).unwrap();
        let server = listener.accept().unwrap().0;
        for (mut from, mut to) in [(&client, &server), (&server, &client)] {
            from.write_all(b"hello").unwrap();
            to.set_read_timeout(Some(LIMIT)).unwrap();
            to.read_exact(&mut [0; 5]).unwrap();
        }
        Self { client, server }
    }
}

/// How many connections to the service the daemon knows.
fn listed(daemon: &Daemon) -> usize {
    let ours = |it: &&serde_json::Value| it["vip"].as_str().unwrap().ends_with(&format!(":{PORT}"));
    daemon.connections("limit=1000").unwrap().iter().filter(ours).count()
}

fn wait_forgotten(daemon: &Daemon) {
    wait_until("connections to be forgotten", Duration::from_secs(10), || listed(daemon) == 0).unwrap();
}

/// Says something at this end, which must hear that nobody is there.
fn assert_told(mut end: TcpStream, who: &str) {
    let begin = Instant::now();
    end.set_read_timeout(Some(SOON)).unwrap();
    let spoken = end.write_all(b"are you there?");
    let heard = spoken.and_then(|()| end.read(&mut [0; 16]));
    let failure = heard.expect_err(who);
    println!("{who}: {failure} after {:?}", begin.elapsed());
    assert_eq!(failure.kind(), ErrorKind::ConnectionReset, "{who}: {failure} after {:?}", begin.elapsed());
}

#[test]
fn who_speaks_after_the_time_out_is_told_by_a_reset() {
    let scene = scene("timeouts = { established = \"1s\" }");
    let ends = Ends::meet(&scene);
    wait_forgotten(&scene.daemon);
    ends.assert_told();
}

#[test]
fn a_server_that_speaks_first_after_the_time_out_is_told_by_a_reset() {
    let scene = scene("timeouts = { established = \"1s\" }");
    let ends = Ends::meet(&scene);
    wait_forgotten(&scene.daemon);
    for Pair { client, server } in ends.pairs {
        assert_told(server, "the server");
        assert_told(client, "the client");
    }
}

#[test]
fn who_speaks_long_after_the_connection_was_cut_is_told_by_a_reset() {
    let scene = scene("timeouts = { fin = \"1s\" }");
    let ends = Ends::meet(&scene);
    let output = scene.daemon.drover(&["connections", "cut", "--farm", "web"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    wait_forgotten(&scene.daemon);
    // What is kept of a connection that was cut is kept no longer than one that ends now.
    let last = Pair::meet(&scene, &ends.listener, Family::V4);
    assert_eq!(listed(&scene.daemon), 1);
    drop(last);
    wait_forgotten(&scene.daemon);
    ends.assert_told();
}

/// Answers are limited, and the crowd has had many: the client's second SYN is answered at the latest.
const PATIENCE: Duration = Duration::from_secs(4);

/// Whoever finds no room in the table is refused at once. The worst is a connection that looks open and carries nothing.
#[test]
fn a_client_that_finds_the_table_full_is_refused_and_not_left_waiting() {
    let farm = Farm { check_port: Some(80), ..Farm::new("web", "ports = [80, 7000]") };
    let scene = Scene::web_of_size(1024, 1, &farm).unwrap();
    let (topology, daemon) = (&scene.topology, &scene.daemon);
    let crowd = Crowd::new(topology, PORT..=PORT).unwrap();
    let sources: Vec<_> = Crowd::sources().take(8192).collect();
    crowd.open(topology.target(Family::V4, PORT), &sources).unwrap();
    let total = daemon.get("/v1/connections?limit=1").unwrap()["total"].as_u64().unwrap();
    println!("{total} connections fill the table");
    let ask = || -> Result<(), Failure> {
        let mut client = Client::connect(topology.target(Family::V4, 80), None, PATIENCE)?;
        client.get("/", true)?;
        Ok(())
    };
    let refused: Vec<Failure> =
        topology.client.enter(|| (0..10).filter_map(|_| ask().err()).collect()).unwrap();
    println!("{refused:?}");
    assert!(refused.len() >= 8, "the table is not full: {refused:?}");
    for failure in &refused {
        let told = failure.reason.contains("refused") || failure.reason.contains("reset");
        assert!(told, "{failure}");
    }
}

/// The VIP goes along with its farm; whose connections were its is told all the same.
#[test]
fn who_speaks_after_the_farm_was_removed_is_told_by_a_reset() {
    let scene = scene("");
    let ends = Ends::meet(&scene);
    scene.daemon.write_config("").unwrap();
    let output = scene.daemon.drover(&["reload"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(scene.daemon.farms().unwrap().is_empty());
    ends.assert_told();
}
