//! The HTTP and HTTPS probes: a request for each path, one after another; the first that fails is named.
//!
//! A connection is kept from path to path where the server keeps it. Everything is bounded: the head of an answer by
//! [`HEAD_MAX`], its body by [`BODY_MAX`], all that comes for a request by [`ANSWER_MAX`], the whole by the check's time-out. The connection is driven by the probe's
//! own future and not by a task: dropping it closes the connection. Redirects are answers like any other.

use std::collections::HashMap;
use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use lb_core::config::model::{BodyMatch, Check, HttpCheck};
use lb_core::health::Outcome;
use regex::bytes::Regex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Untried;
use super::probe::{CLOSED, Progress, Trouble, connect, quoted, took, words};
use super::tls;
use crate::clock;

const HEAD_MAX: usize = 16 * 1024;
/// What follows is neither read nor looked at.
const BODY_MAX: usize = 64 * 1024;
/// A header has four bytes at least: the head's length is what bounds them.
const HEADERS_MAX: usize = HEAD_MAX / 4;
/// Whatever comes before an answer is whole: interim answers (`100 Continue`) that never end are bounded by this, and the frames of
/// a body in tiny chunks.
const ANSWER_MAX: usize = 1 << 20;
const TOO_MUCH: &str = "more than 1 MiB came, and no end of the answer";
/// Compiled patterns kept; a configuration with more of them pays for compiling.
const PATTERNS_KEPT: usize = 1024;

pub(super) async fn probe(address: SocketAddr, check: &Check, http: &HttpCheck) -> Result<Outcome, Untried> {
    let progress = Progress::default();
    progress.judge(check.timeout, run(address, http, &progress)).await
}

async fn run(address: SocketAddr, http: &HttpCheck, progress: &Progress) -> Result<String, Trouble> {
    let started = clock::now();
    let wanted = match &http.body {
        Some(BodyMatch::Contains(text)) => Some(Wanted::Text(text)),
        Some(BodyMatch::Regex(pattern)) => Some(Wanted::Pattern(compiled(pattern)?)),
        None => None,
    };
    let mut server = Server { address, http, link: None, warning: String::new() };
    let mut last = StatusCode::OK;
    for path in &http.paths {
        let request = request(address, http, path)?;
        last = server.ask(request, wanted.as_ref(), path, progress).await?;
    }
    let what = match http.paths.len() {
        1 => format!("status {}", last.as_u16()),
        count => format!("{count} paths passed"),
    };
    Ok(format!("{what} in {}{}", took(started), server.warning))
}

/// A request that can be made again, on another connection.
fn request(address: SocketAddr, http: &HttpCheck, path: &str) -> Result<Request<Empty<Bytes>>, Trouble> {
    let unfit = |what: &str| Trouble::untried(format!("{what} cannot be sent by HTTP"));
    let method = Method::from_bytes(http.method.as_bytes()).map_err(|_| unfit("the method"))?;
    let mut request = Request::new(Empty::new());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|_| unfit(path))?;
    let headers = request.headers_mut();
    for (name, value) in &http.headers {
        let value = HeaderValue::from_str(value).map_err(|_| unfit(name))?;
        headers.append(HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit(name))?, value);
    }
    if !headers.contains_key(HOST) {
        let host = http.host.clone().unwrap_or_else(|| authority(address, http.tls.is_some()));
        headers.insert(HOST, HeaderValue::from_str(&host).map_err(|_| unfit("the host"))?);
    }
    // RFC 9110 section 8.6: these are expected to have a body, and some servers wait for one.
    if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
        request.headers_mut().entry(CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
    }
    let headers = request.headers_mut();
    let agent = HeaderValue::from_static(concat!("drover/", env!("CARGO_PKG_VERSION")));
    headers.entry(USER_AGENT).or_insert(agent);
    Ok(request)
}

/// As a browser would write the address in the Host header.
fn authority(address: SocketAddr, tls: bool) -> String {
    let usual = if tls { 443 } else { 80 };
    match address.ip() {
        _ if address.port() != usual => address.to_string(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

struct Server<'a> {
    address: SocketAddr,
    http: &'a HttpCheck,
    /// A connection that the server has kept open.
    link: Option<Link>,
    /// Of the certificate.
    warning: String,
}

impl Server<'_> {
    /// One request; its status if the answer is as it should be.
    async fn ask(
        &mut self,
        request: Request<Empty<Bytes>>,
        wanted: Option<&Wanted<'_>>,
        path: &str,
        progress: &Progress,
    ) -> Result<StatusCode, Trouble> {
        let (mut link, response) = match self.on_kept(&request, path, progress).await {
            Some(answered) => answered,
            None => {
                progress.step("");
                let mut link = self.open(progress).await?;
                progress.step(path);
                let response = link.send(request).await.map_err(|error| trouble(&error))?;
                (link, response)
            }
        };
        progress.at_timeout("the answer did not end in time");
        let (head, body) = response.into_parts();
        let status = head.status;
        if !self.http.status.iter().any(|&(first, last)| (first..=last).contains(&status.as_u16())) {
            let wanted = ranges(&self.http.status);
            return Err(Trouble::failed(format!("status {}, wanted {wanted}", status.as_u16())));
        }
        let (body, whole) = link.read(body).await.map_err(|error| trouble(&error))?;
        if let Some(wanted) = wanted
            && !wanted.is_in(&body)
        {
            let within = if whole { "" } else { " within its first 64 KiB" };
            return Err(Trouble::failed(format!("body lacks {wanted}{within}")));
        }
        self.link = Some(link).filter(|_| whole);
        Ok(status)
    }

    /// The answer over the kept connection, if there is one. A server may close a connection that is not in use at any
    /// time: that it does so just now is no failure, and the request is made again.
    async fn on_kept(
        &mut self,
        request: &Request<Empty<Bytes>>,
        path: &str,
        progress: &Progress,
    ) -> Option<(Link, Response<Incoming>)> {
        let mut link = self.link.take()?;
        progress.step(path);
        if !link.is_open().await {
            return None;
        }
        let response = link.send(request.clone()).await.ok()?;
        Some((link, response))
    }

    async fn open(&mut self, progress: &Progress) -> Result<Link, Trouble> {
        let Some(tls) = &self.http.tls else {
            return Link::over(connect(self.address).await?).await;
        };
        let client = tls::Client::new(tls, self.http.host.as_deref(), self.address).await?;
        let stream = connect(self.address).await?;
        progress.step("TLS handshake");
        let stream = client.handshake(stream).await?;
        self.warning = tls::warning(tls::Validity::of(&stream));
        Link::over(stream).await
    }
}

/// A connection, and what drives it.
struct Link {
    sender: http1::SendRequest<Empty<Bytes>>,
    driver: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
    /// How much may still come for the request under way.
    left: Arc<AtomicUsize>,
}

impl Link {
    async fn over<S>(stream: S) -> Result<Self, Trouble>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_MAX);
        builder.max_headers(HEADERS_MAX);
        let left = Arc::new(AtomicUsize::new(ANSWER_MAX));
        let stream = Metered { stream, left: Arc::clone(&left) };
        let (sender, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(|error| trouble(&error))?;
        // What goes wrong with the connection comes out at the request too.
        let driver = Box::pin(async move { connection.await.unwrap_or_default() });
        Ok(Self { sender, driver, ended: false, left })
    }

    async fn send(&mut self, request: Request<Empty<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.left.store(ANSWER_MAX, Ordering::Relaxed);
        let answer = self.sender.send_request(request);
        drive(&mut self.driver, &mut self.ended, answer).await
    }

    /// The body, and whether it is whole.
    async fn read(&mut self, mut body: Incoming) -> hyper::Result<(Vec<u8>, bool)> {
        let mut read = Vec::new();
        while let Some(frame) = drive(&mut self.driver, &mut self.ended, body.frame()).await {
            // Trailers are of no interest.
            let Ok(data) = frame?.into_data() else { continue };
            let room = BODY_MAX - read.len();
            if data.len() > room {
                read.extend_from_slice(&data[..room]);
                return Ok((read, false));
            }
            read.extend_from_slice(&data);
        }
        Ok((read, true))
    }

    /// Whether another request may be sent.
    async fn is_open(&mut self) -> bool {
        drive(&mut self.driver, &mut self.ended, self.sender.ready()).await.is_ok()
    }
}

/// A stream from which no more than so much is read.
struct Metered<S> {
    stream: S,
    left: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Poll::Ready(Err(io::Error::other(TOO_MUCH)));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        self.left.store(left.saturating_sub(read), Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Runs `work`, and the connection beside it, until `work` ends.
async fn drive<T>(
    driver: &mut Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: &mut bool,
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        if !*ended && driver.as_mut().poll(context).is_ready() {
            *ended = true;
        }
        // The connection may have brought what the work waits for.
        work.as_mut().poll(context)
    })
    .await
}

/// Why a request came to nothing.
fn trouble(error: &hyper::Error) -> Trouble {
    let said = if error.is_parse_too_large() {
        "the head of the answer is larger than 16 KiB".to_owned()
    } else if error.is_parse() {
        "the answer is not HTTP".to_owned()
    } else if error.is_incomplete_message() || error.is_canceled() {
        CLOSED.to_owned()
    } else if let Some(error) = error.source().and_then(|inner| inner.downcast_ref::<std::io::Error>()) {
        match words(error) {
            Ok(words) => words,
            Err(untried) => return Trouble::Untried(untried),
        }
    } else {
        error.to_string()
    };
    Trouble::Failed(said)
}

/// As in `200-399 or 401`.
fn ranges(ranges: &[(u16, u16)]) -> String {
    let one = |&(first, last): &(u16, u16)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(one).collect::<Vec<_>>().join(" or ")
}

/// What the body must have in it.
enum Wanted<'a> {
    Text(&'a str),
    Pattern(Arc<Regex>),
}

impl Wanted<'_> {
    fn is_in(&self, body: &[u8]) -> bool {
        match self {
            Self::Text(text) => super::probe::contains(body, text.as_bytes()),
            // Linear in the body, whatever the pattern.
            Self::Pattern(pattern) => pattern.is_match(body),
        }
    }
}

impl std::fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quoted(text.as_bytes())),
            Self::Pattern(pattern) => write!(f, "a match of /{}/", pattern.as_str()),
        }
    }
}

/// The pattern, compiled once for all probes.
fn compiled(pattern: &str) -> Result<Arc<Regex>, Trouble> {
    static KEPT: LazyLock<Mutex<HashMap<String, Arc<Regex>>>> = LazyLock::new(Mutex::default);
    let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = kept().get(pattern) {
        return Ok(Arc::clone(regex));
    }
    let regex = Arc::new(crate::pattern::compile(pattern).map_err(Trouble::untried)?);
    let mut kept = kept();
    // Patterns of past configurations would pile up otherwise.
    if kept.len() >= PATTERNS_KEPT {
        kept.clear();
    }
    kept.insert(pattern.to_owned(), Arc::clone(&regex));
    Ok(regex)
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
