//! The control socket as such: limits, and the end.

// What helpers unwrap, their tests would.
#![allow(clippy::unwrap_used)]

mod common;

use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.unwrap()
}

/// Sends `request` and reads until `enough` bytes came or the server closes.
async fn raw(stream: &mut UnixStream, request: &str, enough: usize) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while answer.len() < enough && soon(stream.read_buf(&mut answer)).await.unwrap() > 0 {}
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn headers_are_bounded_and_idle_clients_do_not_delay_the_end() {
    let fake = common::start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let (stop, stopped) = oneshot::channel::<()>();
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(lb_daemon::api::serve(listener, fake.handle.clone(), stopped));

    let request = "GET /v1/status HTTP/1.1\r\nHost: drover\r\n";
    let many = (0..70).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let long = format!("X: {}\r\n", "y".repeat(20_000));
    for (headers, expected) in [("", "200"), (many.as_str(), "431"), (long.as_str(), "431")] {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let answer = raw(&mut stream, &format!("{request}{headers}\r\n"), 12).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{answer}");
    }

    let mut idle = UnixStream::connect(&path).await.unwrap();
    raw(&mut idle, &format!("{request}\r\n"), 100).await;
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(1), server).await.unwrap().unwrap();
    let mut rest = Vec::new();
    soon(idle.read_to_end(&mut rest)).await.unwrap();
    assert!(UnixStream::connect(&path).await.is_err());
}
