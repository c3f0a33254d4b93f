//! Plugins as Debian has them (monitoring-plugins-basic), found by their bare names.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::scene::{PATIENCE, Scene};

/// A server that answers each request with a page, or with an error if it is told so.
struct Server {
    address: SocketAddr,
    sick: Arc<AtomicBool>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sick = Arc::new(AtomicBool::new(false));
        let told = sick.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let status = if told.load(Ordering::Relaxed) { "503 Service Unavailable" } else { "200 OK" };
                let answer =
                    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 3\r\n\r\nhi\n");
                // A client that only connects is gone by now.
                stream.write_all(answer.as_bytes()).ok();
            }
        });
        Self { address, sick }
    }
}

fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn have_plugins() -> bool {
    let there = Path::new("/usr/lib/nagios/plugins/check_http").exists();
    if !there {
        eprintln!("skipped: monitoring-plugins-basic is missing; cargo xtask setup installs it");
    }
    there
}

#[test]
fn check_tcp_judges_a_port() {
    if !have_plugins() {
        return;
    }
    let scene = Scene::new();
    let command = ["check_tcp", "-H", "HOST", "-p", "PORT", "-t", "5"];
    let server = Server::new();
    let up = scene.run_at(server.address, &command, PATIENCE).unwrap();
    assert!(up.passed() && up.first_line.starts_with("TCP OK"), "{up:?}");
    let down = scene.run_at(closed_port(), &command, PATIENCE).unwrap();
    assert!(!down.passed() && down.first_line.contains("refused"), "{down:?}");
}

#[test]
fn check_http_judges_a_page() {
    if !have_plugins() {
        return;
    }
    let scene = Scene::new();
    let command = ["check_http", "-I", "HOST", "-p", "PORT", "-u", "/owa/healthcheck.htm", "-t", "5"];
    let server = Server::new();
    let up = scene.run_at(server.address, &command, PATIENCE).unwrap();
    assert!(up.passed() && up.first_line.starts_with("HTTP OK"), "{up:?}");
    server.sick.store(true, Ordering::Relaxed);
    let sick = scene.run_at(server.address, &command, PATIENCE).unwrap();
    assert!(!sick.passed() && sick.first_line.contains("503"), "{sick:?}");
    let down = scene.run_at(closed_port(), &command, PATIENCE).unwrap();
    assert!(!down.passed() && down.first_line.contains("refused"), "{down:?}");
}
