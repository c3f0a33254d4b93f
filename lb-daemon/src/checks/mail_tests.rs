//! The mail probes against servers that follow a script, good or bad.

use std::sync::{Arc, Mutex};

use lb_core::config::model::CheckKind;
use tokio_rustls::TlsAcceptor;

use super::super::test_server::{
    AMPLE, SHORT, closed, dripping, endless, identity, probed, saying, saying_and_closing, serve, silence,
};
use super::*;

fn kind(dialect: Dialect, starttls: bool) -> CheckKind {
    let starttls = starttls.then_some(Tls { verify: false, server_name: None });
    match dialect {
        Dialect::Smtp => CheckKind::Smtp { starttls },
        Dialect::Imap => CheckKind::Imap { starttls },
        Dialect::Pop3 => CheckKind::Pop3 { starttls },
    }
}

type Heard = Arc<Mutex<Vec<String>>>;

/// Greets and then answers each line as the script says, by its first letters. An answer that starts with `!` starts TLS.
async fn scripted(
    greeting: &'static str,
    script: &'static [(&'static str, &'static str)],
) -> (SocketAddr, Heard) {
    let heard = Heard::default();
    let told = Arc::clone(&heard);
    let acceptor = identity(&["mail.example.org"], -48, 24 * 80).acceptor();
    let address = serve(move |mut stream| {
        let (told, acceptor) = (Arc::clone(&told), acceptor.clone());
        async move {
            stream.write_all(greeting.as_bytes()).await.unwrap();
            let stream = BufReader::new(stream);
            if let Some(stream) = follow(stream, script, &told).await {
                secure(stream.into_inner(), &acceptor, script, &told).await;
            }
        }
    })
    .await;
    (address, heard)
}

async fn secure(stream: TcpStream, acceptor: &TlsAcceptor, script: &[(&str, &str)], told: &Heard) {
    if let Ok(stream) = acceptor.accept(stream).await {
        told.lock().unwrap().push("(TLS)".to_owned());
        follow(BufReader::new(stream), script, told).await;
    }
}

/// Ends with the stream when TLS is to begin.
async fn follow<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: BufReader<S>,
    script: &[(&str, &str)],
    told: &Heard,
) -> Option<BufReader<S>> {
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return None;
        }
        told.lock().unwrap().push(line.trim_end().to_owned());
        let (_, answer) =
            script.iter().find(|(start, _)| line.starts_with(start)).expect("a line of the script");
        stream.write_all(answer.trim_start_matches('!').as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        if answer.starts_with('!') {
            return Some(stream);
        }
    }
}

const SMTP: &[(&str, &str)] = &[
    ("EHLO", "250-mail.example.org\r\n250-SIZE 1000\r\n250-STARTTLS\r\n250 HELP\r\n"),
    ("STARTTLS", "!220 go ahead\r\n"),
    ("QUIT", "221 bye\r\n"),
];
const IMAP: &[(&str, &str)] = &[
    ("a1 CAPABILITY", "* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\na1 OK done\r\n"),
    ("a2 STARTTLS", "!a2 OK begin\r\n"),
    ("a3 LOGOUT", "* BYE\r\na3 OK done\r\n"),
];
const POP3: &[(&str, &str)] =
    &[("CAPA", "+OK\r\nTOP\r\nSTLS\r\n.\r\n"), ("STLS", "!+OK begin\r\n"), ("QUIT", "+OK bye\r\n")];

#[tokio::test]
async fn a_greeting_passes_and_the_farewell_is_polite() {
    let table = [
        (Dialect::Smtp, "220 mail.example.org ESMTP\r\n", SMTP, "QUIT"),
        (Dialect::Smtp, "220-mail.example.org\r\n220-no spam\r\n220 ESMTP\r\n", SMTP, "QUIT"),
        (Dialect::Smtp, "220\n", SMTP, "QUIT"),
        (Dialect::Imap, "* OK ready\r\n", IMAP, "a3 LOGOUT"),
        (Dialect::Imap, "* PREAUTH ready\r\n", IMAP, "a3 LOGOUT"),
        (Dialect::Pop3, "+OK ready\r\n", POP3, "QUIT"),
    ];
    for (dialect, greeting, script, farewell) in table {
        let (address, heard) = scripted(greeting, script).await;
        let outcome = probed(address, kind(dialect, false), AMPLE).await;
        assert!(outcome.passed && outcome.reason.starts_with("greeted in "), "{greeting}: {outcome:?}");
        assert_eq!(*heard.lock().unwrap(), [farewell]);
    }
}

#[tokio::test]
async fn starttls_is_asked_for_as_the_protocol_has_it() {
    let table = [
        (Dialect::Smtp, "220 ready\r\n", SMTP, "EHLO [127.0.0.1],STARTTLS,(TLS),QUIT", "STARTTLS"),
        (Dialect::Imap, "* OK ready\r\n", IMAP, "a1 CAPABILITY,a2 STARTTLS,(TLS),a3 LOGOUT", "STARTTLS"),
        (Dialect::Pop3, "+OK ready\r\n", POP3, "CAPA,STLS,(TLS),QUIT", "STLS"),
    ];
    for (dialect, greeting, script, lines, word) in table {
        let (address, heard) = scripted(greeting, script).await;
        let outcome = probed(address, kind(dialect, true), AMPLE).await;
        let start = format!("greeted, {word} in ");
        assert!(outcome.passed && outcome.reason.starts_with(&start), "{greeting}: {outcome:?}");
        assert_eq!(heard.lock().unwrap().join(","), lines);
    }
}

#[tokio::test]
async fn refusals_are_quoted_with_their_step() {
    let smtp = "220 ready\r\n";
    let table: [(_, _, &'static [(&str, &str)], _); 8] = [
        (Dialect::Smtp, "554 no service here\r\n", SMTP, r#"greeting: "554 no service here", wanted 220"#),
        (Dialect::Smtp, "2200 what\r\n", SMTP, r#"greeting: "2200 what", wanted 220"#),
        (Dialect::Imap, "* BYE too many\r\n", IMAP, r#"greeting: "* BYE too many", wanted * OK"#),
        (Dialect::Pop3, "-ERR busy\r\n", POP3, r#"greeting: "-ERR busy", wanted +OK"#),
        (Dialect::Smtp, smtp, &[("EHLO", "250 HELP\r\n")], "EHLO: the server does not offer STARTTLS"),
        (
            Dialect::Smtp,
            smtp,
            &[("EHLO", "250 STARTTLS\r\n"), ("STARTTLS", "454 not now\r\n")],
            r#"STARTTLS: "454 not now", wanted 220"#,
        ),
        (
            Dialect::Imap,
            "* OK\r\n",
            &[("a1", "* CAPABILITY STARTTLS\r\na1 BAD what\r\n")],
            r#"CAPABILITY: "a1 BAD what", wanted a1 OK"#,
        ),
        (Dialect::Pop3, "+OK\r\n", &[("CAPA", "-ERR what\r\n")], r#"CAPA: "-ERR what", wanted +OK"#),
    ];
    for (dialect, greeting, script, reason) in table {
        let (address, _) = scripted(greeting, script).await;
        assert_eq!(probed(address, kind(dialect, true), AMPLE).await, Outcome::failed(reason));
    }
}

#[tokio::test]
async fn what_comes_in_the_clear_after_starttls_is_not_trusted() {
    const SCRIPT: &[(&str, &str)] =
        &[("EHLO", "250 STARTTLS\r\n"), ("STARTTLS", "!220 go ahead\r\n250 injected\r\n")];
    let (address, _) = scripted("220 ready\r\n", SCRIPT).await;
    let outcome = probed(address, kind(Dialect::Smtp, true), AMPLE).await;
    assert_eq!(outcome, Outcome::failed("STARTTLS: the server went on in the clear"));
}

#[tokio::test]
async fn servers_that_break_off_or_flood_are_down_at_once() {
    let table = [
        (closed().await, "connection refused"),
        (saying_and_closing("").await, "greeting: the server closed before it answered"),
        (saying_and_closing("220 mail").await, r#"greeting: the server closed after "220 mail""#),
        (saying("SSH-2.0-OpenSSH_9.2\r\n").await, r#"greeting: "SSH-2.0-OpenSSH_9.2", wanted 220"#),
        (endless("220 ", "more").await, "greeting: a line of more than 8192 bytes"),
        (endless("", "220-more\r\n").await, "greeting: the answer has more than 100 lines"),
    ];
    for (address, reason) in table {
        let outcome = probed(address, kind(Dialect::Smtp, false), AMPLE).await;
        assert_eq!(outcome, Outcome::failed(reason));
    }
}

#[tokio::test]
async fn servers_that_are_slow_are_down_at_the_time_out() {
    let table = [
        (saying("").await, "greeting: no answer within 400ms"),
        (dripping("220 mail.example.org ESMTP\r\n").await, "greeting: no answer within 400ms"),
        (saying("220-wait\r\n").await, "greeting: the answer did not end in time"),
    ];
    for (address, reason) in table {
        let outcome = probed(address, kind(Dialect::Smtp, false), SHORT).await;
        assert_eq!(outcome, Outcome::failed(reason));
    }
}

#[tokio::test]
async fn a_server_that_does_not_take_leave_passes_all_the_same() {
    let address = serve(|mut stream| async move {
        stream.write_all(b"220 ready\r\n").await.unwrap();
        silence().await;
    })
    .await;
    let outcome = probed(address, kind(Dialect::Smtp, false), AMPLE).await;
    assert!(outcome.passed, "{outcome:?}");
}

#[tokio::test]
async fn on_the_ports_of_tls_the_greeting_comes_in_tls() {
    for (dialect, port, greeting) in [
        (Dialect::Smtp, 465, "220 mail.example.org ESMTP\r\n"),
        (Dialect::Imap, 993, "* OK ready\r\n"),
        (Dialect::Pop3, 995, "+OK ready\r\n"),
    ] {
        let acceptor = identity(&["mail.example.org"], -48, 24 * 80).acceptor();
        // An address that nobody else has, so that the port is free.
        let listener = tokio::net::TcpListener::bind(("127.77.0.25", port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    stream.write_all(greeting.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                    let mut farewell = String::new();
                    BufReader::new(stream).read_line(&mut farewell).await.ok();
                    assert!(farewell.contains("QUIT") || farewell.contains("LOGOUT"), "{farewell:?}");
                }
            }
        });
        let outcome = probed(address, kind(dialect, false), AMPLE).await;
        assert!(outcome.passed && outcome.reason.starts_with("greeted in TLS in "), "{outcome:?}");
        let outcome = probed(address, kind(dialect, true), AMPLE).await;
        assert!(outcome.passed, "{outcome:?}");
        // Asked to verify, it does.
        let tls = Some(Tls { verify: true, server_name: Some("mail.example.org".into()) });
        let strict = match dialect {
            Dialect::Smtp => CheckKind::Smtp { starttls: tls },
            Dialect::Imap => CheckKind::Imap { starttls: tls },
            Dialect::Pop3 => CheckKind::Pop3 { starttls: tls },
        };
        let outcome = probed(address, strict, AMPLE).await;
        assert!(!outcome.passed && outcome.reason.contains("not signed by an authority"), "{outcome:?}");
    }
}
