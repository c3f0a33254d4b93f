//! The control socket as such: limits, and the end.

// What helpers unwrap, their tests would.
#![allow(clippy::unwrap_used)]

mod common;

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lb_daemon::handle::Handle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

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

/// The API on a socket of its own.
struct Served {
    path: PathBuf,
    _folder: tempfile::TempDir,
    _server: tokio::task::JoinHandle<()>,
}

fn serve(handle: Handle) -> Served {
    serve_patiently(handle, Duration::from_secs(30))
}

/// With that patience for clients that take nothing of their answer.
fn serve_patiently(handle: Handle, patience: Duration) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let forever = std::future::pending::<()>();
    let server = tokio::spawn(lb_daemon::api::serve_patiently(listener, handle, forever, patience));
    Served { path, _folder: folder, _server: server }
}

impl Served {
    async fn connect(&self) -> UnixStream {
        soon(UnixStream::connect(&self.path)).await.unwrap()
    }

    /// A request of a client that does nothing wrong: the answer, and how long it took.
    async fn ask(&self, path: &str) -> (String, Duration) {
        let begin = Instant::now();
        let mut stream = self.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: drover\r\nConnection: close\r\n\r\n");
        (raw(&mut stream, &request, usize::MAX).await, begin.elapsed())
    }
}

#[tokio::test]
async fn clients_that_are_idle_slow_or_streaming_keep_nobody_out() {
    let head =
        |method: &str, path: &str, more: &str| format!("{method} {path} HTTP/1.1\r\nHost: drover\r\n{more}");
    let kinds = [
        ("idle", String::new()),
        ("in the middle of the headers", head("GET", "/v1/status", "X-Slow:")),
        ("in the middle of the body", head("PUT", "/v1/farms/web", "Content-Length: 100\r\n\r\n{")),
        ("kept alive", head("GET", "/v1/status", "\r\n")),
        ("not reading their answer", head("GET", "/openapi.json", "\r\n").repeat(8)),
        ("streaming", head("GET", "/v1/events", "Accept: text/event-stream\r\n\r\n")),
    ];
    let fake = common::start();
    for (kind, request) in kinds {
        let served = serve(fake.handle.clone());
        let mut held = Vec::new();
        for _ in 0..128 {
            let mut stream = served.connect().await;
            // Who was let go in the meantime has nobody to write to.
            stream.write_all(request.as_bytes()).await.ok();
            held.push(stream);
        }
        for _ in 0..3 {
            let (answer, took) = served.ask("/v1/status").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "with 128 clients {kind}: {answer:.100}");
            assert!(took < Duration::from_secs(1), "with 128 clients {kind}: {took:?}");
        }
    }
}

#[tokio::test]
async fn followers_beyond_their_number_are_told_so_at_once_and_the_others_go_on_following() {
    let fake = common::start();
    let served = serve(fake.handle.clone());
    let follow = "GET /v1/events HTTP/1.1\r\nHost: drover\r\nAccept: text/event-stream\r\n\r\n";
    let mut following = Vec::new();
    for _ in 0..32 {
        let mut stream = served.connect().await;
        let answer = raw(&mut stream, follow, 12).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        following.push(stream);
    }
    let mut stream = served.connect().await;
    let answer = raw(&mut stream, follow, 300).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("32 clients"), "{answer}");
    common::event(&fake.handle.events, 7);
    for stream in &mut following {
        let mut told = String::new();
        while !told.contains("event 7") {
            let mut more = Vec::new();
            assert!(soon(stream.read_buf(&mut more)).await.unwrap() > 0, "{told}");
            told += &String::from_utf8(more).unwrap();
        }
    }
    drop(following);
    let begin = Instant::now();
    loop {
        let answer = raw(&mut served.connect().await, follow, 12).await;
        if answer.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "{answer}");
    }
}

#[tokio::test]
async fn who_finds_no_room_is_told_at_once_and_to_come_again() {
    let fake = common::start();
    let (commands, mut inbox) = mpsc::channel(1000);
    let served = serve(Handle { commands, ..fake.handle.clone() });
    let (mut held, mut unanswered) = (Vec::new(), Vec::new());
    for _ in 0..64 {
        let mut stream = served.connect().await;
        stream.write_all(b"POST /v1/config/reload HTTP/1.1\r\nHost: drover\r\n\r\n").await.unwrap();
        held.push(stream);
        unanswered.push(soon(inbox.recv()).await.unwrap());
    }
    let (answer, took) = served.ask("/v1/status").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let lower = answer.to_lowercase();
    assert!(lower.contains("retry-after: 1") && lower.contains("application/problem+json"), "{answer}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    // One is answered: there is room again.
    drop(unanswered.pop());
    soon(held.pop().unwrap().read_u8()).await.unwrap();
    let (answer, _) = served.ask("/v1/status").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_reader_of_events_that_falls_behind_is_told_how_many_it_has_lost() {
    let fake = common::start();
    let events = fake.handle.events.clone();
    let served = serve(fake.handle.clone());
    let follow = |more: &str| {
        format!("GET /v1/events HTTP/1.1\r\nHost: drover\r\nAccept: text/event-stream\r\n{more}\r\n")
    };
    let mut slow = served.connect().await;
    // The fake has told three events.
    let begun = raw(&mut slow, &follow(""), 500).await;
    assert!(begun.contains("id: 3"), "{begun}");
    // Nothing else runs in the meantime; 1000 are kept.
    (4..=5000).for_each(|n| common::event(&events, n));
    let mut resumed = served.connect().await;
    resumed.write_all(follow("Last-Event-ID: 3990\r\n").as_bytes()).await.unwrap();
    let mut new = served.connect().await;
    new.write_all(follow("").as_bytes()).await.unwrap();
    let readers = [("slow", slow, Some(3997)), ("resumed", resumed, Some(10)), ("new", new, None)];
    for (who, mut reader, lost) in readers {
        let mut told = String::new();
        while !told.contains("id: 4002\n") {
            let mut more = Vec::new();
            assert!(soon(reader.read_buf(&mut more)).await.unwrap() > 0, "{who}: {told}");
            told += &String::from_utf8(more).unwrap();
        }
        assert_eq!(told.contains("event: lost"), lost.is_some(), "{who}: {told}");
        let Some(lost) = lost else { continue };
        let (_, rest) = told.split_once("event: lost\n").unwrap();
        assert!(rest.starts_with(&format!("data: {{\"lost\":{lost}}}\n\n")), "{who}: {rest:.200}");
        assert_eq!(rest.lines().find(|line| line.starts_with("id: ")), Some("id: 4001"), "{who}");
    }
}

#[tokio::test]
async fn a_reader_of_events_that_takes_nothing_is_let_go_and_one_that_is_slow_is_not() {
    const PATIENCE: Duration = Duration::from_secs(1);
    let fake = common::start();
    let served = serve_patiently(fake.handle.clone(), PATIENCE);
    let follow = "GET /v1/events HTTP/1.1\r\nHost: drover\r\nAccept: text/event-stream\r\n\r\n";
    let (mut deaf, mut slow) = (served.connect().await, served.connect().await);
    for stream in [&mut deaf, &mut slow] {
        assert!(raw(stream, follow, 500).await.contains("id: 3"));
    }
    // Far less than a socket holds unless somebody has made it smaller.
    (4..=700).for_each(|n| common::event(&fake.handle.events, n));
    let (begin, mut told) = (Instant::now(), String::new());
    while begin.elapsed() < PATIENCE * 3 {
        tokio::time::sleep(PATIENCE / 4).await;
        let mut some = [0; 4000];
        let count = soon(slow.read(&mut some)).await.unwrap();
        assert!(count > 0, "the slow one was let go after {told}");
        told += &String::from_utf8_lossy(&some[..count]);
    }
    assert!(told.contains("id: 20") && !told.contains("id: 699"), "it was not slow: {told}");
    // What was written is there to be read, and then the end.
    let mut rest = Vec::new();
    soon(deaf.read_to_end(&mut rest)).await.unwrap();
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains("id: 4") && !rest.contains("id: 700"), "{rest}");
}
