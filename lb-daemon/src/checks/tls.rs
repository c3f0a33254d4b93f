//! The TLS probe, and TLS for the other probes: a handshake, and what the server's certificate says.
//!
//! Configurations of the client are made once and shared; the roots are those that this host trusts, read at the first
//! check that verifies. Sessions are not resumed, lest the certificate of an earlier handshake speak for a later one.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use lb_core::config::model::{Check, Tls};
use lb_core::health::Outcome;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage,
    PeerIncompatible, ProtocolVersion, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Untried;
use super::probe::{CLOSED, Progress, Trouble, connect, took};
use crate::clock;

/// A certificate with fewer days left is spoken of even where it passes.
const WARN_DAYS: i64 = 14;

const SECONDS_A_DAY: i64 = 24 * 60 * 60;

pub(super) async fn probe(
    address: SocketAddr,
    check: &Check,
    tls: &Tls,
    min_days: Option<u32>,
) -> Result<Outcome, Untried> {
    let progress = Progress::default();
    progress.judge(check.timeout, run(address, tls, min_days, &progress)).await
}

async fn run(
    address: SocketAddr,
    tls: &Tls,
    min_days: Option<u32>,
    progress: &Progress,
) -> Result<String, Trouble> {
    let started = clock::now();
    let client = Client::new(tls, None, address).await?;
    let stream = connect(address).await?;
    progress.step("TLS handshake");
    let mut stream = client.handshake(stream).await?;
    progress.step("");
    let took = took(started);
    let left = Validity::of(&stream).seconds_left(clock::wall());
    // Whether the server takes the farewell is its own affair.
    stream.shutdown().await.ok();
    judge_validity(left, min_days)?;
    // The client offers these two and no other.
    let newest = stream.get_ref().1.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    let version = if newest { "TLS 1.3" } else { "TLS 1.2" };
    Ok(format!("{version}, {}, in {took}", say_validity(left)))
}

fn judge_validity(left: Option<i64>, min_days: Option<u32>) -> Result<(), Trouble> {
    let Some(least) = min_days else { return Ok(()) };
    let Some(left) = left else { return Err(Trouble::failed("the certificate cannot be read")) };
    if left >= i64::from(least) * SECONDS_A_DAY {
        return Ok(());
    }
    let words = say_validity(Some(left));
    let words = words.strip_prefix("warning: ").unwrap_or(&words);
    Err(Trouble::failed(if left < 0 {
        words.to_owned()
    } else {
        format!("{words}, wanted at least {least}")
    }))
}

/// Seconds until the certificate expires, in words.
fn say_validity(left: Option<i64>) -> String {
    match left {
        None => "warning: the certificate cannot be read".to_owned(),
        Some(left) if left < 0 => format!("warning: certificate expired {} ago", days(-left)),
        Some(left) if left < WARN_DAYS * SECONDS_A_DAY => {
            format!("warning: certificate expires in {}", days(left))
        }
        Some(left) => format!("certificate valid for {}", days(left)),
    }
}

/// What a check that passes says of the certificate: nothing while all is well.
pub(super) fn warning(validity: Validity) -> String {
    let words = say_validity(validity.seconds_left(clock::wall()));
    if words.starts_with("warning") { format!("; {words}") } else { String::new() }
}

/// Whole days, or hours where there is not one.
fn days(seconds: i64) -> String {
    let (count, unit) = match seconds / SECONDS_A_DAY {
        0 => (seconds / 3600, "hour"),
        days => (days, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Until when the server's own certificate is valid, in seconds since 1970; `None`: it cannot be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity(Option<i64>);

impl Validity {
    pub(super) fn of<S>(stream: &TlsStream<S>) -> Self {
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let parsed = leaf.and_then(|leaf| x509_parser::parse_x509_certificate(leaf).ok());
        Self(parsed.map(|(_, certificate)| certificate.validity().not_after.timestamp()))
    }

    fn seconds_left(self, now: SystemTime) -> Option<i64> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Some(self.0? - i64::try_from(now).unwrap_or(i64::MAX))
    }
}

/// A client that is ready to shake hands with one server.
pub(super) struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Client {
    /// Asks for the name that `tls` gives, else for `host` (as in a Host header), else for the address.
    pub(super) async fn new(tls: &Tls, host: Option<&str>, address: SocketAddr) -> Result<Self, Trouble> {
        let name = match tls.server_name.as_deref().or(host.map(without_port)) {
            Some(name) => ServerName::try_from(name.to_owned())
                .map_err(|_| Trouble::untried(format!("{name:?} is no name that TLS can ask for")))?,
            None => ServerName::IpAddress(address.ip().into()),
        };
        let config = if tls.verify { verifying().await? } else { trusting()? };
        Ok(Self { config, name })
    }

    pub(super) async fn handshake<S>(&self, stream: S) -> Result<TlsStream<S>, Trouble>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        connector.connect(self.name.clone(), stream).await.map_err(|error| {
            match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                Some(inner) => Trouble::failed(words(inner)),
                None => error.into(),
            }
        })
    }
}

/// The name or address in a Host header.
fn without_port(host: &str) -> &str {
    if let Some(bracketed) = host.strip_prefix('[') {
        return bracketed.split(']').next().unwrap_or(bracketed);
    }
    match host.split_once(':') {
        // Two colons: an IPv6 address.
        Some((name, port)) if !port.contains(':') => name,
        Some(_) | None => host,
    }
}

/// The client that trusts what this host trusts.
async fn verifying() -> Result<Arc<ClientConfig>, Trouble> {
    static CONFIG: OnceCell<Arc<ClientConfig>> = OnceCell::const_new();
    let make = || async {
        let roots = tokio::task::spawn_blocking(host_roots).await;
        let roots = roots.map_err(|error| Trouble::untried(error.to_string()))?;
        if roots.is_empty() {
            let words = "this host trusts no certificate authority (package ca-certificates): nothing can be verified";
            return Err(Trouble::untried(words));
        }
        client(|builder| builder.with_root_certificates(roots).with_no_client_auth())
    };
    CONFIG.get_or_try_init(make).await.cloned()
}

fn host_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a trusted certificate of this host cannot be read");
    }
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "trusted certificates of this host read");
    roots
}

/// The client that takes any certificate.
fn trusting() -> Result<Arc<ClientConfig>, Trouble> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(Arc::clone(config));
    }
    let provider = rustls::crypto::ring::default_provider();
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let verifier = Arc::new(AcceptAll(schemes));
    let config = client(|builder| {
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    })?;
    Ok(Arc::clone(CONFIG.get_or_init(|| config)))
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn client(finish: impl FnOnce(Builder) -> ClientConfig) -> Result<Arc<ClientConfig>, Trouble> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Trouble::untried(error.to_string()))?;
    let mut config = finish(builder);
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Takes any certificate and any signature: `verify = false` is for servers whose certificates nobody can judge, old
/// appliances among them. The handshake's own integrity is not in question.
#[derive(Debug)]
struct AcceptAll(Vec<SignatureScheme>);

impl ServerCertVerifier for AcceptAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

/// Why a handshake failed.
// The library may add errors at any time; those not named here speak for themselves.
#[allow(clippy::wildcard_enum_match_arm)]
fn words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate_words(error),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => "the server does not speak TLS".to_owned(),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        )
        | Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the server does not speak TLS 1.2 or 1.3".to_owned()
        }
        Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            "the server does not know the name asked for".to_owned()
        }
        Error::AlertReceived(AlertDescription::CloseNotify) => CLOSED.to_owned(),
        Error::AlertReceived(alert) => format!("the server refused the handshake: {alert:?}"),
        other => format!("the handshake failed: {other}"),
    }
}

#[allow(clippy::wildcard_enum_match_arm)]
fn certificate_words(error: &CertificateError) -> String {
    let apart = |a: UnixTime, b: UnixTime| {
        days(i64::try_from(a.as_secs().saturating_sub(b.as_secs())).unwrap_or(i64::MAX))
    };
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            format!("certificate expired {} ago", apart(*time, *not_after))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("certificate is not valid for another {}", apart(*not_before, *time))
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().take(3).map(|name| plain_name(name)).collect();
            let more = if presented.len() > names.len() { " and others" } else { "" };
            let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
            format!("certificate is for {names}{more}, not {}", expected.to_str())
        }
        CertificateError::UnknownIssuer => {
            "certificate is not signed by an authority that this host trusts".to_owned()
        }
        CertificateError::Revoked => "certificate was revoked".to_owned(),
        CertificateError::BadEncoding => "certificate is malformed".to_owned(),
        CertificateError::BadSignature => "certificate has a wrong signature".to_owned(),
        // The library keeps this one to itself but for its name.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "certificate is an authority's and signs itself: give the server one of its own".to_owned()
        }
        other => format!("certificate is not accepted: {other}"),
    }
}

/// The library shows names as in `DnsName("a.example")`.
fn plain_name(shown: &str) -> &str {
    shown.split('"').nth(1).unwrap_or(shown)
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
