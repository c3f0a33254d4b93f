//! Servers for the tests of probes: each does one thing, good or bad, to every client that comes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lb_core::config::model::{BackendName, Check, CheckKind, FarmName};
use lb_core::health::{Outcome, Target};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Ample for what passes, on a machine that is busy with other things too.
pub(super) const AMPLE: Duration = Duration::from_secs(5);
/// For what does not end by itself.
pub(super) const SHORT: Duration = Duration::from_millis(400);

/// Runs a check as the runner would; it must end within its own time-out.
pub(super) async fn probed(address: SocketAddr, kind: CheckKind, timeout: Duration) -> Outcome {
    let check = Check { kind, timeout, ..Check::tcp() };
    let target = Target {
        farm: FarmName::new("web").unwrap(),
        backend: BackendName::new("b").unwrap(),
        address,
        check,
        vip: None,
        adopted: lb_core::health::Judgement::Starting,
    };
    tokio::time::timeout(timeout, super::run_probe(&target))
        .await
        .expect("the probe ends in time")
        .expect("it was tried")
}

/// Has `behave` serve each connection, until the test ends.
pub(super) async fn serve<F>(behave: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(behave(stream));
        }
    });
    address
}

/// A server that reads nothing, says `text` and then stays silent.
pub(super) async fn saying(text: &'static str) -> SocketAddr {
    serve(move |mut stream| async move {
        stream.write_all(text.as_bytes()).await.ok();
        silence().await;
    })
    .await
}

/// A server that says `text` and closes.
pub(super) async fn saying_and_closing(text: &'static str) -> SocketAddr {
    serve(move |mut stream| async move {
        stream.write_all(text.as_bytes()).await.ok();
        // Closing with a request unread would be a reset.
        stream.shutdown().await.ok();
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
    })
    .await
}

/// A server that says `start` and then `part` for ever.
pub(super) async fn endless(start: &'static str, part: &'static str) -> SocketAddr {
    // Many at a time: what is tried is the probe and not how fast this server is.
    let parts: Arc<str> = part.repeat(100).into();
    serve(move |mut stream| {
        let parts = Arc::clone(&parts);
        async move {
            stream.write_all(start.as_bytes()).await.ok();
            while stream.write_all(parts.as_bytes()).await.is_ok() {}
        }
    })
    .await
}

/// A server that says `text` a byte at a time.
pub(super) async fn dripping(text: &'static str) -> SocketAddr {
    serve(move |mut stream| async move {
        drip(&mut stream, text).await;
    })
    .await
}

async fn drip(stream: &mut (impl AsyncWrite + Unpin), text: &str) {
    for byte in text.bytes() {
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(SHORT / 10).await;
    }
}

pub(super) async fn silence() {
    std::future::pending().await
}

/// An address where nobody listens.
pub(super) async fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A server's certificate, and the authority that signed it.
pub(super) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    pub(super) authority: CertificateDer<'static>,
}

/// A certificate for `names` that is valid from `from` to `to`, in hours from now.
pub(super) fn identity(names: &[&str], from: i64, to: i64) -> Identity {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // One of the leaf's own name would be taken for the leaf.
    authority.distinguished_name.push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut leaf = CertificateParams::new(names).unwrap();
    (leaf.not_before, leaf.not_after) = (hours_from_now(from).into(), hours_from_now(to).into());
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = leaf.signed_by(&key, &authority).unwrap();
    Identity {
        certificate: certificate.der().clone(),
        key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        authority: authority.der().clone(),
    }
}

/// A certificate as `openssl req -x509` makes it: it signs itself, and is at once a server's and an authority's.
pub(super) fn identity_of_an_authority() -> Identity {
    let mut params = CertificateParams::new(vec!["mail.example.org".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    Identity { authority: certificate.clone(), certificate, key }
}

fn hours_from_now(hours: i64) -> SystemTime {
    // Half an hour more, lest a slow test see an hour less.
    let distance = Duration::from_secs(hours.unsigned_abs() * 3600);
    let now = SystemTime::now() + Duration::from_secs(1800);
    if hours < 0 { now - distance } else { now + distance }
}

impl Identity {
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let key = self.key.clone_key().into();
        TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![self.certificate.clone()], key).unwrap()))
    }
}
