//! The TLS probe against servers with all sorts of certificates.

use lb_core::config::model::CheckKind;

use super::super::test_server::{
    AMPLE, Identity, SHORT, closed, identity, identity_of_an_authority, probed, saying, saying_and_closing,
    serve, silence,
};
use super::*;

const DAY: i64 = 24;

async fn server(identity: &Identity) -> SocketAddr {
    let acceptor = identity.acceptor();
    serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(_stream) = acceptor.accept(stream).await {
                silence().await;
            }
        }
    })
    .await
}

fn unverified(min_days: Option<u32>) -> CheckKind {
    CheckKind::Tls { tls: Tls { verify: false, server_name: None }, min_days }
}

/// What a client that trusts `identity`'s authority says of a handshake.
async fn verified(identity: &Identity, name: &str) -> Result<(), String> {
    let address = server(identity).await;
    let roots = vec![openssl::x509::X509::from_der(&identity.authority).unwrap()];
    let context = settings::trusting_in(roots).unwrap();
    let client = Client { context, name: ServerName::try_from(name.to_owned()).unwrap(), verify: true };
    match client.handshake(connect(address).await.unwrap()).await {
        Ok(_) => Ok(()),
        Err(Trouble::Failed(words)) => Err(words),
        Err(Trouble::Untried(Untried(words))) => panic!("{words}"),
    }
}

#[tokio::test]
async fn a_certificate_is_verified_and_its_faults_are_named() {
    let name = "mail.example.org";
    let table = [
        (&[name][..], -DAY, 80 * DAY, name, Ok(())),
        (&["*.example.org"], -DAY, 80 * DAY, name, Ok(())),
        (&["127.0.0.1"], -DAY, 80 * DAY, "127.0.0.1", Ok(())),
        (&[name], -90 * DAY, -3 * DAY, name, Err("certificate expired 2 days ago")),
        (&[name], -90 * DAY, -4, name, Err("certificate expired 3 hours ago")),
        (&[name], 5 * DAY, 80 * DAY, name, Err("certificate is not valid for another 5 days")),
        (
            &["other.example"],
            -DAY,
            80 * DAY,
            name,
            Err("certificate is for other.example, not mail.example.org"),
        ),
        (
            &["a.example", "b.example", "c.example", "d.example"],
            -DAY,
            80 * DAY,
            name,
            Err("certificate is for a.example, b.example, c.example and others, not mail.example.org"),
        ),
        (&[name], -DAY, 80 * DAY, "127.0.0.1", Err("certificate is for mail.example.org, not 127.0.0.1")),
    ];
    for (names, from, to, asked, expected) in table {
        let said = verified(&identity(names, from, to), asked).await;
        assert_eq!(said, expected.map_err(str::to_owned), "{names:?} {from} {to} {asked}");
    }
}

#[tokio::test]
async fn a_certificate_that_signs_itself_passes_where_the_host_trusts_it() {
    assert_eq!(verified(&identity_of_an_authority(), "mail.example.org").await, Ok(()));
    let said = verified(&identity_of_an_authority(), "other.example").await;
    assert_eq!(said, Err("certificate is for mail.example.org, not other.example".to_owned()));
}

#[tokio::test]
async fn an_authority_that_the_host_does_not_know_is_not_trusted() {
    let address = server(&identity(&["127.0.0.1"], -DAY, 80 * DAY)).await;
    let kind = CheckKind::Tls { tls: Tls { verify: true, server_name: None }, min_days: None };
    let expected = "TLS handshake: certificate is not signed by an authority that this host trusts";
    assert_eq!(probed(address, kind, AMPLE).await, Outcome::failed(expected));
}

#[tokio::test]
async fn the_days_left_are_told_warned_of_and_judged() {
    let table = [
        (80 * DAY, None, true, "TLS 1.3, certificate valid for 80 days, in "),
        (80 * DAY, Some(30), true, "TLS 1.3, certificate valid for 80 days, in "),
        (5 * DAY, None, true, "TLS 1.3, warning: certificate expires in 5 days, in "),
        (5 * DAY, Some(5), true, "TLS 1.3, warning: certificate expires in 5 days, in "),
        (5 * DAY, Some(30), false, "certificate expires in 5 days, wanted at least 30"),
        (20 * DAY, Some(30), false, "certificate valid for 20 days, wanted at least 30"),
        (1, Some(1), false, "certificate expires in 1 hour, wanted at least 1"),
        (-3 * DAY, None, true, "TLS 1.3, warning: certificate expired 2 days ago, in "),
        (-3 * DAY, Some(0), false, "certificate expired 2 days ago"),
    ];
    for (to, min_days, passed, reason) in table {
        let address = server(&identity(&["a.example"], -90 * DAY, to)).await;
        let outcome = probed(address, unverified(min_days), AMPLE).await;
        assert_eq!(outcome.passed, passed, "{outcome:?}");
        assert!(outcome.reason.starts_with(reason), "{outcome:?} is not {reason:?}");
    }
}

#[tokio::test]
async fn servers_that_do_not_shake_hands_are_down_and_say_why() {
    let table = [
        (closed().await, "connection refused"),
        (saying("SSH-2.0-OpenSSH_9.2\r\n").await, "TLS handshake: the server does not speak TLS"),
        (saying("HTTP/1.1 400 Bad Request\r\n\r\n").await, "TLS handshake: the server does not speak TLS"),
        (
            saying("\u{15}\u{3}\u{1}\u{0}\u{2}\u{2}\u{28}").await,
            "TLS handshake: the server refused the handshake: HandshakeFailure",
        ),
        (
            saying("\u{15}\u{3}\u{1}\u{0}\u{2}\u{2}\u{46}").await,
            "TLS handshake: the server does not speak TLS 1.0 to 1.3",
        ),
        (saying_and_closing("").await, "TLS handshake: the server closed before it answered"),
    ];
    for (address, reason) in table {
        assert_eq!(probed(address, unverified(None), AMPLE).await, Outcome::failed(reason));
    }
    let outcome = probed(saying("").await, unverified(None), SHORT).await;
    assert_eq!(outcome, Outcome::failed("TLS handshake: no answer within 400ms"));
}

#[tokio::test]
async fn a_name_that_cannot_be_asked_for_is_no_failure_of_the_backend() {
    let tls = Tls { verify: false, server_name: Some("not a name".into()) };
    let check = Check { kind: CheckKind::Tls { tls, min_days: None }, ..Check::tcp() };
    let CheckKind::Tls { tls, .. } = &check.kind else { unreachable!() };
    assert!(probe(closed().await, &check, tls, None).await.is_err());
}

#[test]
fn the_name_asked_for_has_no_port() {
    let table = [
        ("mail.example.org", "mail.example.org"),
        ("mail.example.org:8443", "mail.example.org"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
    ];
    for (host, name) in table {
        assert_eq!(without_port(host), name);
    }
}

#[path = "tls/hostile_tests.rs"]
mod hostile;
