//! The TLS probe, and TLS for the other probes: a handshake, and what the server's certificate says.
//!
//! A check stands for clients, and is no stricter than they are: it speaks all that OpenSSL does, TLS 1.0 and CBC suites among it
//! (what Exchange offers on Windows Server 2012 R2), RSA key exchange, P-521 and SHA-1. Nothing secret is said in a check, and
//! with `verify` it is the certificate that is judged.
//!
//! Settings of the client are made once and shared; the roots are those that this host trusts, read at the first check that
//! verifies. Sessions are not resumed, lest the certificate of an earlier handshake speak for a later one.

mod refusal;
mod settings;

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use lb_core::config::model::{Check, Tls};
use lb_core::health::Outcome;
use openssl::ssl::{Ssl, SslContext, SslVerifyMode};
use openssl::x509::verify::X509CheckFlags;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_openssl::SslStream;

use self::refusal::Fault;
use super::Untried;
use super::probe::{Progress, Trouble, connect, took};
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
    let version = match stream.ssl().version_str() {
        "TLSv1" => "TLS 1.0",
        "TLSv1.1" => "TLS 1.1",
        "TLSv1.2" => "TLS 1.2",
        "TLSv1.3" => "TLS 1.3",
        other => other,
    };
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
    pub(super) fn of<S>(stream: &SslStream<S>) -> Self {
        let leaf = stream.ssl().peer_certificate().and_then(|leaf| leaf.to_der().ok());
        let parsed = leaf.as_deref().and_then(|leaf| x509_parser::parse_x509_certificate(leaf).ok());
        Self(parsed.map(|(_, certificate)| certificate.validity().not_after.timestamp()))
    }

    fn seconds_left(self, now: SystemTime) -> Option<i64> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Some(self.0? - i64::try_from(now).unwrap_or(i64::MAX))
    }
}

/// A client that is ready to shake hands with one server.
pub(super) struct Client {
    context: SslContext,
    name: ServerName<'static>,
    verify: bool,
}

impl Client {
    /// Asks for the name that `tls` gives, else for `host` (as in a Host header), else for the address.
    pub(super) async fn new(tls: &Tls, host: Option<&str>, address: SocketAddr) -> Result<Self, Trouble> {
        let name = match tls.server_name.as_deref().or(host.map(without_port)) {
            Some(name) => ServerName::try_from(name.to_owned())
                .map_err(|_| Trouble::untried(format!("{name:?} is no name that TLS can ask for")))?,
            None => ServerName::IpAddress(address.ip().into()),
        };
        let context = if tls.verify { settings::verifying().await? } else { settings::trusting()? };
        Ok(Self { context, name, verify: tls.verify })
    }

    pub(super) async fn handshake<S>(&self, stream: S) -> Result<SslStream<S>, Trouble>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let fault = Arc::new(Mutex::new(None));
        let ssl = self.session(&fault).map_err(|error| Trouble::untried(error.to_string()))?;
        let mut stream = SslStream::new(ssl, stream).map_err(|error| Trouble::untried(error.to_string()))?;
        match Pin::new(&mut stream).connect().await {
            Ok(()) => Ok(stream),
            Err(error) => {
                let fault = fault.lock().unwrap_or_else(PoisonError::into_inner).take();
                Err(refusal::trouble(error, fault.as_ref(), &self.name))
            }
        }
    }

    fn session(&self, fault: &Arc<Mutex<Option<Fault>>>) -> Result<Ssl, openssl::error::ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        if let ServerName::DnsName(name) = &self.name {
            ssl.set_hostname(name.as_ref())?;
        }
        if !self.verify {
            ssl.set_verify(SslVerifyMode::NONE);
            return Ok(ssl);
        }
        let wanted = ssl.param_mut();
        wanted.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
        if let ServerName::IpAddress(ip) = &self.name {
            wanted.set_ip(IpAddr::from(*ip))?;
        } else {
            wanted.set_host(&self.name.to_str())?;
        }
        let fault = Arc::clone(fault);
        ssl.set_verify_callback(SslVerifyMode::PEER, move |passed, context| {
            if !passed {
                // The first is what is wrong; others follow from it.
                fault
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert_with(|| Fault::of(context));
            }
            passed
        });
        Ok(ssl)
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

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
