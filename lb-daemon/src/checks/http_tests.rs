//! The HTTP probe against servers that behave and servers that do not.

use std::sync::atomic::{AtomicUsize, Ordering};

use lb_core::config::model::{CheckKind, Tls};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::super::test_server::{
    AMPLE, SHORT, closed, dripping, endless, identity, probed, saying, saying_and_closing, serve, silence,
};
use super::*;

fn get(paths: &[&str]) -> HttpCheck {
    HttpCheck {
        tls: None,
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        method: "GET".into(),
        host: None,
        headers: Vec::new(),
        status: vec![(200, 399)],
        body: None,
    }
}

/// The lines of a request's head; nothing at the end of the connection.
async fn head<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => return Some(lines),
            line => lines.push(line.to_owned()),
        }
    }
}

/// Answers as the path says: `/STATUS/...` with that status, and a body that repeats the request's head.
async fn web<S: AsyncRead + AsyncWrite + Unpin>(stream: S, requests: usize) {
    let mut stream = BufReader::new(stream);
    for _ in 0..requests {
        let Some(lines) = head(&mut stream).await else { return };
        let body = lines.join("\n");
        let status = body.split(['/', ' ']).nth(2).unwrap_or("400").to_owned();
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nlocation: /503\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

async fn web_server() -> SocketAddr {
    serve(|stream| web(stream, usize::MAX)).await
}

#[tokio::test]
async fn all_paths_must_pass_and_the_first_that_does_not_is_named() {
    let address = web_server().await;
    let outcome = probed(address, CheckKind::Http(get(&["/200"])), AMPLE).await;
    assert!(outcome.passed && outcome.reason.starts_with("status 200 in "), "{outcome:?}");
    let outcome = probed(address, CheckKind::Http(get(&["/200", "/302/moved", "/204"])), AMPLE).await;
    assert!(outcome.passed && outcome.reason.starts_with("3 paths passed in "), "{outcome:?}");
    let outcome = probed(address, CheckKind::Http(get(&["/200", "/503/ews", "/404"])), AMPLE).await;
    assert_eq!(outcome, Outcome::failed("/503/ews: status 503, wanted 200-399"));
    let picky = HttpCheck { status: vec![(200, 299), (401, 401)], ..get(&["/302"]) };
    let outcome = probed(address, CheckKind::Http(picky.clone()), AMPLE).await;
    assert_eq!(outcome, Outcome::failed("/302: status 302, wanted 200-299 or 401"));
    let picky = HttpCheck { paths: vec!["/401".into()], ..picky };
    assert!(probed(address, CheckKind::Http(picky), AMPLE).await.passed);
}

#[tokio::test]
async fn a_connection_is_kept_if_the_server_keeps_it_and_made_anew_if_not() {
    for (requests, expected) in [(usize::MAX, 1), (1, 3), (2, 2)] {
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let address = serve(move |stream| {
            counted.fetch_add(1, Ordering::Relaxed);
            web(stream, requests)
        })
        .await;
        let outcome = probed(address, CheckKind::Http(get(&["/200", "/200/b", "/200/c"])), AMPLE).await;
        assert!(outcome.passed, "{outcome:?}");
        assert_eq!(connections.load(Ordering::Relaxed), expected, "{requests} requests a connection");
    }
}

#[tokio::test]
async fn a_body_must_have_the_text_or_match_the_pattern() {
    let address = web_server().await;
    let text = |text: &str| BodyMatch::Contains(text.into());
    let pattern = |text: &str| BodyMatch::Regex(text.into());
    let table = [
        (text("GET /200/a"), None),
        (pattern("(?i)get /2.0"), None),
        (text("200 OK"), Some(r#"/200/a: body lacks "200 OK""#)),
        (pattern("^absent$"), Some("/200/a: body lacks a match of /^absent$/")),
    ];
    for (body, reason) in table {
        let check = HttpCheck { body: Some(body), ..get(&["/200/a"]) };
        let outcome = probed(address, CheckKind::Http(check), AMPLE).await;
        assert_eq!(outcome.passed, reason.is_none(), "{outcome:?}");
        assert!(reason.is_none_or(|reason| outcome.reason == reason), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_pattern_that_makes_others_backtrack_ends_at_once() {
    let address = endless("HTTP/1.1 200 OK\r\n\r\n", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").await;
    let check = HttpCheck { body: Some(BodyMatch::Regex("(a+)+b".into())), ..get(&["/"]) };
    let outcome = probed(address, CheckKind::Http(check), AMPLE).await;
    assert_eq!(outcome, Outcome::failed("/: body lacks a match of /(a+)+b/ within its first 64 KiB"));
}

#[tokio::test]
async fn the_request_is_as_configured() {
    let address = web_server().await;
    let check = HttpCheck {
        method: "REPORT".into(),
        host: Some("mail.example.org".into()),
        headers: vec![("X-Check".into(), "a b".into()), ("Authorization".into(), "Basic eDp5".into())],
        ..get(&["/200/?q=1"])
    };
    let lines = [
        "REPORT /200/?q=1 HTTP/1.1",
        "host: mail.example.org",
        "x-check: a b",
        "authorization: Basic eDp5",
        concat!("user-agent: drover/", env!("CARGO_PKG_VERSION")),
    ];
    for line in lines {
        let check = HttpCheck {
            status: vec![(0, 999)],
            body: Some(BodyMatch::Contains(line.into())),
            ..check.clone()
        };
        let outcome = probed(address, CheckKind::Http(check), AMPLE).await;
        assert!(outcome.passed, "{outcome:?}");
    }
    let plain = HttpCheck { body: Some(BodyMatch::Contains(format!("host: {address}"))), ..get(&["/200"]) };
    assert!(probed(address, CheckKind::Http(plain), AMPLE).await.passed);
    let unfit = HttpCheck { headers: vec![("a b".into(), String::new())], ..get(&["/200"]) };
    assert!(probe(address, &Check::tcp(), &unfit).await.is_err(), "no failure of the backend");
}

#[test]
fn the_host_header_leaves_out_the_usual_port() {
    let table = [
        ("10.0.0.1:80", false, "10.0.0.1"),
        ("10.0.0.1:443", true, "10.0.0.1"),
        ("10.0.0.1:443", false, "10.0.0.1:443"),
        ("[2001:db8::1]:80", false, "[2001:db8::1]"),
        ("[2001:db8::1]:8080", false, "[2001:db8::1]:8080"),
    ];
    for (address, tls, expected) in table {
        assert_eq!(authority(address.parse().unwrap(), tls), expected);
    }
}

#[tokio::test]
async fn https_shakes_hands_first_and_warns_of_the_certificate() {
    let acceptor = identity(&["mail.example.org"], -48, 60).acceptor();
    let address = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                web(stream, usize::MAX).await;
            }
        }
    })
    .await;
    let tls = Tls { verify: false, server_name: None };
    let check = HttpCheck { tls: Some(tls), ..get(&["/200", "/200/b"]) };
    let outcome = probed(address, CheckKind::Http(check.clone()), AMPLE).await;
    assert!(outcome.passed && outcome.reason.starts_with("2 paths passed in "), "{outcome:?}");
    assert!(outcome.reason.ends_with("; warning: certificate expires in 2 days"), "{outcome:?}");
    let check = HttpCheck { tls: Some(Tls { verify: true, server_name: None }), ..check };
    let outcome = probed(address, CheckKind::Http(check), AMPLE).await;
    let expected = "TLS handshake: certificate is not signed by an authority that this host trusts";
    assert_eq!(outcome, Outcome::failed(expected));
}

#[tokio::test]
async fn servers_that_break_off_or_talk_nonsense_are_down_at_once() {
    let table = [
        (closed().await, "connection refused"),
        (saying_and_closing("").await, "/: the server closed before it answered"),
        (
            saying_and_closing("HTTP/1.1 200 OK\r\ncontent-le").await,
            "/: the server closed before it answered",
        ),
        (
            saying_and_closing("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await,
            "/: the server closed before it answered",
        ),
        (saying("SSH-2.0-OpenSSH_9.2\r\n").await, "/: the answer is not HTTP"),
        (
            endless("HTTP/1.1 200 OK\r\n", "x-more: and more and more and more\r\n").await,
            "/: the head of the answer is larger than 16 KiB",
        ),
        (endless("HTTP/1.1 200 OK\r\nx: ", "more").await, "/: the head of the answer is larger than 16 KiB"),
    ];
    for (address, reason) in table {
        let outcome = probed(address, CheckKind::Http(get(&["/"])), AMPLE).await;
        assert_eq!(outcome, Outcome::failed(reason));
    }
}

#[tokio::test]
async fn servers_that_are_slow_are_down_at_the_time_out() {
    let table = [
        (saying("").await, "/: no answer within 400ms"),
        (dripping("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await, "/: no answer within 400ms"),
        (
            saying("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await,
            "/: the answer did not end in time",
        ),
        (endless("", "HTTP/1.1 100 Continue\r\n\r\n").await, "/: no answer within 400ms"),
    ];
    for (address, reason) in table {
        let outcome = probed(address, CheckKind::Http(get(&["/"])), SHORT).await;
        assert_eq!(outcome, Outcome::failed(reason));
    }
}

#[tokio::test]
async fn a_body_without_end_passes_on_what_was_read() {
    let address = endless("HTTP/1.1 200 OK\r\n\r\nready ", "and so on ").await;
    let check = HttpCheck { body: Some(BodyMatch::Contains("ready".into())), ..get(&["/", "/b"]) };
    let outcome = probed(address, CheckKind::Http(check), AMPLE).await;
    assert!(outcome.passed, "{outcome:?}");
}

#[tokio::test]
async fn dropping_the_probe_closes_its_connection() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let address = serve(move |stream| {
        let tell = tell.clone();
        async move {
            let mut stream = BufReader::new(stream);
            assert!(head(&mut stream).await.is_some());
            tell.send("asked").await.unwrap();
            assert!(head(&mut stream).await.is_none());
            tell.send("closed").await.unwrap();
            silence().await;
        }
    })
    .await;
    let kind = CheckKind::Http(get(&["/"]));
    let probe = tokio::spawn(probed(address, kind, AMPLE));
    assert_eq!(told.recv().await, Some("asked"));
    probe.abort();
    assert_eq!(tokio::time::timeout(AMPLE, told.recv()).await, Ok(Some("closed")));
}

#[tokio::test]
async fn a_request_that_should_have_a_body_says_that_it_has_none() {
    let address = web_server().await;
    for (method, says) in [("POST", true), ("PUT", true), ("GET", false), ("HEAD", false)] {
        let body = Some(BodyMatch::Contains("content-length: 0".into()));
        let http = HttpCheck { method: method.into(), body, ..get(&["/200"]) };
        let outcome = probed(address, CheckKind::Http(http), SHORT).await;
        assert_eq!(outcome.passed, says, "{method}: {outcome:?}");
    }
}

#[tokio::test]
async fn many_small_headers_are_no_large_head() {
    let address = serve(|stream| async move {
        let mut stream = BufReader::new(stream);
        head(&mut stream).await;
        let headers: String = (0..400).map(|n| format!("x-{n}: y\r\n")).collect();
        let answer = format!("HTTP/1.1 200 OK\r\n{headers}content-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.ok();
        silence().await;
    })
    .await;
    let outcome = probed(address, CheckKind::Http(get(&["/"])), AMPLE).await;
    assert!(outcome.passed, "{outcome:?}");
}

#[tokio::test]
async fn interim_answers_without_end_are_cut_short() {
    let address = endless("", "HTTP/1.1 100 Continue\r\n\r\n").await;
    // Well before the time-out: the rest of the time costs nothing.
    let outcome = probed(address, CheckKind::Http(get(&["/"])), AMPLE * 10).await;
    assert_eq!(outcome, Outcome::failed("/: more than 1 MiB came, and no end of the answer"));
}

#[tokio::test]
async fn an_old_server_that_closes_without_a_farewell_of_tls_passes() {
    for (answer, passed) in [
        ("HTTP/1.0 200 OK\r\n\r\nall is well", true),
        ("HTTP/1.0 200 OK\r\ncontent-length: 11\r\n\r\nall is well", true),
        ("HTTP/1.0 200 OK\r\ncontent-length: 99\r\n\r\nall is well", false),
        ("HTTP/1.0 200 OK\r\n", false),
    ] {
        let acceptor = identity(&["a.example"], -24, 24 * 80).acceptor();
        let address = serve(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let mut stream = BufReader::new(acceptor.accept(stream).await.unwrap());
                head(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                // The connection alone is closed.
                stream.get_mut().get_mut().0.shutdown().await.unwrap();
                tokio::io::copy(&mut stream.get_mut().get_mut().0, &mut tokio::io::sink()).await.ok();
            }
        })
        .await;
        let tls = Some(Tls { verify: false, server_name: None });
        let outcome = probed(address, CheckKind::Http(HttpCheck { tls, ..get(&["/"]) }), AMPLE).await;
        assert_eq!(outcome.passed, passed, "{answer:?}: {outcome:?}");
    }
}
