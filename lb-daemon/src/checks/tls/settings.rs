//! How a check speaks TLS, and whom it trusts.

use std::sync::OnceLock;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::{SslContext, SslContextBuilder, SslMethod, SslOptions, SslVersion};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use tokio::sync::{Mutex, OnceCell};
use tokio::task::JoinHandle;

use super::super::probe::Trouble;

/// Every suite that proves who the server is and encrypts, at the level that forbids none.
const SUITES: &str = "ALL:!aNULL:!eNULL:@SECLEVEL=0";
/// `SSL_OP_LEGACY_SERVER_CONNECT`, openssl/ssl.h: servers that never learnt RFC 5746.
const LEGACY_SERVER_CONNECT: u64 = 1 << 2;
/// Reading what this host trusts takes some hundredths of a second, once. A check that waits longer is not the backend's failure.
const ROOTS_WITHIN: Duration = Duration::from_secs(1);

fn builder() -> Result<SslContextBuilder, ErrorStack> {
    let mut builder = SslContext::builder(SslMethod::tls_client())?;
    // Whatever the host's openssl.cnf asks of other programs.
    builder.set_security_level(0);
    builder.set_cipher_list(SUITES)?;
    builder.set_min_proto_version(Some(SslVersion::TLS1))?;
    builder.set_max_proto_version(None)?;
    let legacy = SslOptions::from_bits_retain(LEGACY_SERVER_CONNECT);
    // A server that closes without taking leave ends what it said: whether that was whole, who reads it knows.
    builder.set_options(legacy | SslOptions::IGNORE_UNEXPECTED_EOF | SslOptions::NO_TICKET);
    Ok(builder)
}

/// The client that takes any certificate: `verify = false` is for servers whose certificates nobody can judge, old appliances
/// among them.
pub fn trusting() -> Result<SslContext, Trouble> {
    static CONTEXT: OnceLock<SslContext> = OnceLock::new();
    if let Some(context) = CONTEXT.get() {
        return Ok(context.clone());
    }
    let context = builder().map_err(unfit)?.build();
    Ok(CONTEXT.get_or_init(|| context).clone())
}

/// The client that trusts what this host trusts.
pub async fn verifying() -> Result<SslContext, Trouble> {
    static CONTEXT: OnceCell<SslContext> = OnceCell::const_new();
    let make = || async {
        static READING: Reading<Vec<X509>> = Reading::new();
        let roots = READING.come_to_an_end(ROOTS_WITHIN, host_roots).await.map_err(Trouble::untried)?;
        if roots.is_empty() {
            let words = "this host trusts no certificate authority (package ca-certificates): nothing can be verified";
            return Err(Trouble::untried(words));
        }
        trusting_in(roots).map_err(unfit)
    };
    CONTEXT.get_or_try_init(make).await.cloned()
}

/// What may hang is begun once: whoever gives up leaves it to the next one, and so one thread is kept by it, not one a probe.
struct Reading<T>(Mutex<Option<JoinHandle<T>>>);

impl<T: Send + 'static> Reading<T> {
    const fn new() -> Self {
        Self(Mutex::const_new(None))
    }

    /// What `read` comes to, if not later than `within`; else the next call waits for the same. Cancel-safe.
    async fn come_to_an_end(
        &self,
        within: Duration,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let mut under_way = self.0.lock().await;
        let job = under_way.get_or_insert_with(|| tokio::task::spawn_blocking(read));
        let late = "this host's trusted certificates cannot be read in time: a disk hangs, or is very busy";
        let read = tokio::time::timeout(within, job).await.map_err(|_| late.to_owned())?;
        *under_way = None;
        read.map_err(|error| error.to_string())
    }
}

pub fn trusting_in(roots: Vec<X509>) -> Result<SslContext, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    for root in roots {
        store.add_cert(root)?;
    }
    let mut builder = builder()?;
    builder.set_cert_store(store.build());
    Ok(builder.build())
}

fn unfit(error: ErrorStack) -> Trouble {
    Trouble::untried(format!("TLS cannot be set up: {error}"))
}

fn host_roots() -> Vec<X509> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a trusted certificate of this host cannot be read");
    }
    let all = found.certs.len();
    let roots: Vec<X509> = found.certs.iter().filter_map(|root| X509::from_der(root).ok()).collect();
    tracing::debug!(
        added = roots.len(),
        ignored = all - roots.len(),
        "trusted certificates of this host read"
    );
    roots
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_disk_that_hangs_keeps_one_thread_however_many_checks_give_up() {
        let reading = Reading::new();
        let (thaw, frozen) = mpsc::channel::<&str>();
        let soon = Duration::from_millis(20);
        let late = reading.come_to_an_end(soon, move || frozen.recv().unwrap()).await;
        assert!(late.unwrap_err().contains("in time"));
        // Given up by the check itself.
        let abandoned = reading.come_to_an_end(Duration::from_secs(20), || "begun again");
        tokio::time::timeout(soon, abandoned).await.unwrap_err();
        thaw.send("the first").unwrap();
        let read = reading.come_to_an_end(Duration::from_secs(20), || "begun again").await;
        assert_eq!(read.unwrap(), "the first");
    }
}
