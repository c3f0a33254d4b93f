//! Backends that take no more work, or are gone: who is still with them moves, and what they leave behind is looked after.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use lb_tests::http::Client;
use lb_tests::scene::{Farm, Scene};
use lb_tests::talker::{Heard, Talker};
use lb_tests::topology::{Arms, Family};
use lb_tests::wait::wait_for;

const LIMIT: Duration = Duration::from_secs(5);
/// The pace of a steady sender.
const EVERY: Duration = Duration::from_millis(50);
/// Longer than the pause at which a sender leaves a backend that takes no new work.
const PAUSE: Duration = Duration::from_millis(2500);

fn scene(keys: &str) -> Scene {
    let keys = format!("ports = [80]\nprotocol = [\"tcp\", \"udp\"]\n{keys}");
    let farm = Farm { check_port: Some(80), ..Farm::new("web", &keys) };
    Scene::new(Arms::Two, 2, "native", (&[80], &[80]), |topology| farm.text(topology)).unwrap()
}

fn command(scene: &Scene, args: &[&str]) {
    let output = scene.daemon.drover(args).unwrap();
    assert!(output.status.success(), "drover {args:?}: {output:?}");
}

/// Takes a backend out of the configuration.
fn remove(scene: &Scene, name: &str) {
    let backend = scene.topology.backends.iter().find(|it| it.name == name).unwrap();
    scene.daemon.edit_config(&backend.table(""), "").unwrap();
    command(scene, &["reload"]);
}

/// Takes a backend's host off the network, at once and without a word.
fn pull_the_plug(scene: &Scene, name: &str) {
    let backend = scene.topology.backends.iter().find(|it| it.name == name).unwrap();
    backend.netns.ip("link set eth0 down\n").unwrap();
}

/// A sender that has been answered, and by whom.
fn talker(scene: &Scene, family: Family) -> (Talker, String) {
    let talker = Talker::start(&scene.topology.client, scene.topology.target(family, 80), EVERY).unwrap();
    let name = only(&talker.next(5, LIMIT).unwrap());
    (talker, name)
}

/// The one backend that gave all these answers.
fn only(heard: &[Heard]) -> String {
    let name = &heard.first().expect("an answer").name;
    assert!(heard.iter().all(|it| it.name == *name), "{heard:?}");
    name.clone()
}

fn a_sender_moves_on_removal(family: Family) {
    let scene = scene("");
    let (talker, old) = talker(&scene, family);
    remove(&scene, &old);
    // Those sent from now on are all answered elsewhere.
    let new = only(&talker.next(10, LIMIT).unwrap());
    assert_ne!(new, old);
}

#[test]
fn a_steady_udp_sender_leaves_a_backend_that_is_removed_with_its_next_datagram() {
    a_sender_moves_on_removal(Family::V4);
}

#[test]
fn a_steady_udp_sender_leaves_a_backend_that_is_removed_with_its_next_datagram_over_ipv6() {
    a_sender_moves_on_removal(Family::V6);
}

/// While it speaks it stays: its exchange may be half done.
fn a_sender_moves_after_a_pause(state: &str, status: &str) {
    let scene = scene("");
    let (talker, old) = talker(&scene, Family::V4);
    command(&scene, &["backend", state, "web", &old]);
    scene.daemon.wait_status("web", &old, status, LIMIT).unwrap();
    assert_eq!(only(&talker.next(20, LIMIT).unwrap()), old);
    talker.pause(EVERY).unwrap();
    // It has nothing to say.
    std::thread::sleep(PAUSE);
    talker.go_on();
    assert_ne!(only(&talker.next(10, LIMIT).unwrap()), old);
}

#[test]
fn a_steady_udp_sender_leaves_a_drained_backend_after_a_pause() {
    a_sender_moves_after_a_pause("drain", "draining");
}

#[test]
fn a_steady_udp_sender_leaves_a_backend_in_maintenance_after_a_pause() {
    a_sender_moves_after_a_pause("maintenance", "maintenance");
}

/// The sender never pauses. That connections are kept is for those that have something to lose; who sends datagrams to a dead
/// backend has not.
fn a_sender_moves_at_death(before: impl FnOnce(&Scene, &str)) {
    let scene = scene("on_down = \"keep\"");
    let (talker, old) = talker(&scene, Family::V4);
    before(&scene, &old);
    assert_eq!(only(&talker.next(5, LIMIT).unwrap()), old);
    pull_the_plug(&scene, &old);
    let dead = Instant::now();
    let new = wait_for("an answer of another backend", LIMIT, || Ok(only(&talker.next(1, LIMIT)?)));
    println!("{new:?} answers {:?} after the death of {old}", dead.elapsed());
    assert_ne!(new.unwrap(), old);
}

#[test]
fn a_steady_udp_sender_leaves_a_backend_that_dies_where_connections_are_kept() {
    a_sender_moves_at_death(|_, _| ());
}

#[test]
fn a_steady_udp_sender_leaves_a_drained_backend_that_dies_where_connections_are_kept() {
    a_sender_moves_at_death(|scene, old| {
        command(scene, &["backend", "drain", "web", old]);
        scene.daemon.wait_status("web", old, "draining", LIMIT).unwrap();
    });
}

/// A TCP client that always comes from the same port, and whose host forgets connections without a word.
struct Forgetful {
    source: SocketAddr,
    target: SocketAddr,
}

impl Forgetful {
    fn new(scene: &Scene, port: u16) -> Self {
        let source = SocketAddr::new(scene.topology.sources(Family::V4)[0], 40_000);
        Self { source, target: scene.topology.target(Family::V4, port) }
    }

    /// Who answers a new connection.
    fn ask(&self, scene: &Scene) -> String {
        let ask = || {
            let mut client = Client::connect(self.target, Some(self.source), LIMIT)?;
            let answer = client.get("/", true)?;
            client.forget()?;
            Ok::<_, lb_tests::http::Failure>(answer.name)
        };
        scene.topology.client.enter(ask).unwrap().unwrap()
    }
}

#[test]
fn a_tcp_client_that_reuses_its_port_leaves_a_dead_backend_that_was_removed() {
    let scene = scene("");
    let client = Forgetful::new(&scene, 80);
    let old = client.ask(&scene);
    remove(&scene, &old);
    pull_the_plug(&scene, &old);
    assert_ne!(client.ask(&scene), old);
}

#[test]
fn a_tcp_client_that_reuses_its_port_leaves_a_backend_that_is_down_and_whose_connections_are_kept() {
    let scene = scene("on_down = \"keep\"");
    let client = Forgetful::new(&scene, 80);
    let old = client.ask(&scene);
    pull_the_plug(&scene, &old);
    scene.daemon.wait_status("web", &old, "down", LIMIT).unwrap();
    assert_ne!(client.ask(&scene), old);
}

/// The server has forgotten the old connection, too, as after a restart: it would take the new one gladly.
#[test]
fn a_tcp_client_that_reuses_its_port_leaves_a_backend_in_maintenance_that_would_serve_it() {
    let keys = "ports = [80, 7000]";
    let scene = Scene::web(2, &Farm { check_port: Some(80), ..Farm::new("web", keys) }).unwrap();
    let topology = &scene.topology;
    let listen = || {
        let listener = TcpListener::bind(("::", 7000)).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    };
    let listeners: Vec<_> = topology.backends.iter().map(|it| it.netns.enter(listen).unwrap()).collect();
    let client = Forgetful::new(&scene, 7000);
    // Connects; the ends of the connection, and the backend's name.
    let connect = || -> (TcpStream, TcpStream, String) {
        let near = topology.client.enter(|| Client::connect(client.target, Some(client.source), LIMIT));
        let near = near.unwrap().unwrap().into_stream();
        let (far, name) = wait_for("somebody to accept", LIMIT, || {
            let mut taken = listeners
                .iter()
                .zip(&topology.backends)
                .filter_map(|(listener, backend)| Some((listener.accept().ok()?.0, backend.name.clone())));
            taken.next().ok_or_else(|| anyhow::anyhow!("nobody"))
        })
        .unwrap();
        (near, far, name)
    };
    let (near, far, old) = connect();
    for end in [near, far] {
        lb_tests::http::forget(end).unwrap();
    }
    command(&scene, &["backend", "maintenance", "web", &old]);
    scene.daemon.wait_status("web", &old, "maintenance", LIMIT).unwrap();
    let (_near, _far, new) = connect();
    assert_ne!(new, old);
}

/// A backend that has left the configuration is checked as long as it has connections.
#[test]
fn the_connections_of_a_removed_backend_are_cut_when_it_dies() {
    let scene = scene("");
    let target = scene.topology.target(Family::V4, 80);
    // As long as a client that was not told at once may take to send again what was not acknowledged.
    let limit = LIMIT * 2;
    let mut client = scene.topology.client.enter(|| Client::connect(target, None, limit)).unwrap().unwrap();
    let old = client.get("/", true).unwrap().name;
    remove(&scene, &old);
    assert_eq!(client.get("/", true).unwrap().name, old, "it goes on while its backend lives");
    pull_the_plug(&scene, &old);
    let begin = Instant::now();
    let failure = client.get("/", true).unwrap_err();
    println!("{failure} after {:?}", begin.elapsed());
    assert!(failure.reason.contains("reset"), "{failure} after {:?}", begin.elapsed());
}
