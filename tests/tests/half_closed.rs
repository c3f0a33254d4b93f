//! Connections of which one end has finished and the other has not: whatever is still to come arrives.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use lb_tests::scene::{Farm, Scene};
use lb_tests::topology::Family;

const LIMIT: Duration = Duration::from_secs(5);
/// The service of these tests; port 80 is what is checked.
const PORT: u16 = 7000;
/// How long the slow end takes: long after a connection that is over would be forgotten.
const SLOW: Duration = Duration::from_secs(3);

fn scene() -> Scene {
    let farm = Farm {
        check_port: Some(80),
        ..Farm::new("web", "ports = [80, 7000]\ntimeouts = { syn = \"1s\", fin = \"1s\" }")
    };
    Scene::web(1, &farm).unwrap()
}

/// More than fits into anybody's buffers at once.
fn content() -> Vec<u8> {
    (0..1_000_000_u32).map(|number| (number % 251) as u8).collect()
}

/// Runs both ends of a connection over each family, the two at once.
fn over_both_families(
    server: impl Fn(TcpStream) + Copy + Send + Sync,
    client: impl Fn(TcpStream) + Copy + Send + Sync,
) {
    let scene = scene();
    let topology = &scene.topology;
    let listener = topology.backends[0].netns.enter(|| TcpListener::bind(("::", PORT)).unwrap()).unwrap();
    std::thread::scope(|scope| {
        for family in [Family::V4, Family::V6] {
            let target = topology.target(family, PORT);
            let connect = || TcpStream::connect_timeout(&target, LIMIT).unwrap();
            let (near, far) = (topology.client.enter(connect).unwrap(), listener.accept().unwrap().0);
            for end in [&near, &far] {
                end.set_read_timeout(Some(SLOW + LIMIT)).unwrap();
                end.set_write_timeout(Some(LIMIT)).unwrap();
            }
            scope.spawn(move || server(far));
            scope.spawn(move || client(near));
        }
    });
}

#[test]
fn a_slow_answer_reaches_a_client_that_has_finished_asking() {
    let server = |mut stream: TcpStream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        assert_eq!(request, b"everything, please");
        // It works on the answer.
        std::thread::sleep(SLOW);
        stream.write_all(&content()).unwrap();
    };
    let client = |mut stream: TcpStream| {
        stream.write_all(b"everything, please").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        assert!(answer == content(), "{} bytes of {}", answer.len(), content().len());
    };
    over_both_families(server, client);
}

#[test]
fn a_slow_upload_reaches_a_server_that_has_finished_answering() {
    let server = |mut stream: TcpStream| {
        stream.write_all(b"go on").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut upload = Vec::new();
        stream.read_to_end(&mut upload).expect("an upload");
        assert!(upload == content(), "{} bytes of {}", upload.len(), content().len());
    };
    let client = |mut stream: TcpStream| {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"go on");
        // It has to find what it sends.
        std::thread::sleep(SLOW);
        stream.write_all(&content()).unwrap();
    };
    over_both_families(server, client);
}
