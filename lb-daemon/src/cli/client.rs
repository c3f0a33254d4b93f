//! The control socket's client: one connection a request.
//!
//! Dropped in the middle of a request, it closes the connection; what the daemon was asked is done all the same.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use nix::unistd::{Gid, Group};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{Failure, INVALID, REFUSED};
use crate::api::{PROBLEM_CONTENT_TYPE, Problem};

/// How long the daemon may take to answer; a stream, to begin.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A request's body.
pub struct Body {
    pub media_type: &'static str,
    pub text: String,
}

impl Body {
    pub fn json(value: &serde_json::Value) -> Self {
        Self { media_type: "application/json", text: value.to_string() }
    }
}

/// A request as it goes out.
struct Asked<'a> {
    method: Method,
    target: &'a str,
    body: Option<Body>,
    accept: &'static str,
    /// The version that it is meant for.
    only_if: Option<HeaderValue>,
}

pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The daemon's answer, if it did what it was asked.
    pub async fn send(&self, method: Method, target: &str, body: Option<Body>) -> Result<String, Failure> {
        self.send_within(TIMEOUT, method, target, body).await
    }

    /// The same for what may take its time.
    pub async fn send_within(
        &self,
        timeout: Duration,
        method: Method,
        target: &str,
        body: Option<Body>,
    ) -> Result<String, Failure> {
        let what = Asked { method, target, body, accept: "application/json", only_if: None };
        self.told(timeout, what).await.map(|(text, _)| text)
    }

    /// Changes what `GET seen` tells of, unless somebody else changes it in between.
    pub async fn change(
        &self,
        method: Method,
        target: &str,
        body: Option<Body>,
        seen: &str,
    ) -> Result<String, Failure> {
        let accept = "application/json";
        let look = Asked { method: Method::GET, target: seen, body: None, accept, only_if: None };
        let (_, only_if) = self.told(TIMEOUT, look).await?;
        let what = Asked { method, target, body, accept, only_if };
        self.told(TIMEOUT, what).await.map(|(text, _)| text)
    }

    /// The daemon's answer, and its `ETag` if it has one.
    async fn told(
        &self,
        timeout: Duration,
        what: Asked<'_>,
    ) -> Result<(String, Option<HeaderValue>), Failure> {
        let exchange = async {
            let response = self.exchange(what).await?;
            let tag = response.headers().get(header::ETAG).cloned();
            let (status, is_problem) = (response.status(), is_problem(&response));
            let bytes = response.into_body().collect().await.map_err(|error| self.broken(&error))?.to_bytes();
            let text = String::from_utf8(bytes.into()).map_err(|_| self.stranger())?;
            match status.is_success() {
                true => Ok((text, tag)),
                false if is_problem => Err(self.refusal(text)),
                false => Err(self.stranger()),
            }
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| Err(self.late(timeout)))
    }

    pub async fn get(&self, target: &str) -> Result<String, Failure> {
        self.send(Method::GET, target, None).await
    }

    /// Follows server-sent events: `each` gets the data of each, until it says false (then done) or the stream ends.
    pub async fn follow(&self, target: &str, mut each: impl FnMut(&str) -> bool) -> Result<(), Failure> {
        let accept = "text/event-stream";
        let what = Asked { method: Method::GET, target, body: None, accept, only_if: None };
        let begin = self.exchange(what);
        let response =
            tokio::time::timeout(TIMEOUT, begin).await.unwrap_or_else(|_| Err(self.late(TIMEOUT)))?;
        if !response.status().is_success() {
            let bytes = response.into_body().collect().await.map_err(|error| self.broken(&error))?.to_bytes();
            return Err(self.refusal(String::from_utf8_lossy(&bytes).into_owned()));
        }
        let (mut body, mut lines) = (response.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(&error))?;
            lines.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
            while let Some(end) = lines.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = lines.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                // Each of the daemon's events has one line of data; the rest is numbers and signs of life.
                let Some(data) = line.trim_end().strip_prefix("data:") else { continue };
                if !each(data.trim_start()) {
                    return Ok(());
                }
            }
        }
        Err(Failure::refused("the daemon ended the stream: it has stopped or is being restarted"))
    }

    /// An answer of the API as its type.
    pub fn read<T: DeserializeOwned>(&self, answer: &str) -> Result<T, Failure> {
        serde_json::from_str(answer).map_err(|_| self.stranger())
    }

    async fn exchange(&self, what: Asked<'_>) -> Result<Response<Incoming>, Failure> {
        let Asked { method, target, body, accept, only_if } = what;
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        // Its errors come out of the request too.
        tokio::spawn(async move { connection.await.ok() });
        let request = Request::builder().method(method).uri(target);
        let mut request = request.header(header::HOST, "drover").header(header::ACCEPT, accept);
        if let Some(tag) = only_if {
            request = request.header(header::IF_MATCH, tag);
        }
        let mut bytes = Bytes::new();
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, body.media_type);
            bytes = body.text.into();
        }
        let request = request
            .body(Full::new(bytes))
            .map_err(|error| Failure::refused(format!("cannot ask for {target}: {error}")))?;
        sender.send_request(request).await.map_err(|error| self.broken(&error))
    }

    /// The daemon's no.
    fn refusal(&self, answer: String) -> Failure {
        let Ok(problem) = serde_json::from_str::<Problem>(&answer) else { return self.stranger() };
        let is = |status: StatusCode| problem.status == status.as_u16();
        let invalid = is(StatusCode::UNPROCESSABLE_ENTITY);
        // What the API finds malformed, somebody typed.
        let exit = if invalid || is(StatusCode::BAD_REQUEST) { INVALID } else { REFUSED };
        let mut message = problem.detail;
        for item in problem.errors.iter().filter(|_| invalid) {
            let at = match (item.line, item.column) {
                (Some(line), Some(column)) => format!("line {line}, column {column}: "),
                (Some(line), None) => format!("line {line}: "),
                (None, _) => String::new(),
            };
            let path = if item.path.is_empty() { String::new() } else { format!("{}: ", item.path) };
            message += &format!("\n  {at}{path}{}", item.message);
            if let Some(hint) = &item.hint {
                message += &format!("\n    hint: {hint}");
            }
        }
        Failure { exit, message, answer: Some(answer) }
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let socket = self.socket.display();
        let is = |kind| error.kind() == kind;
        Failure::refused(if is(io::ErrorKind::NotFound) {
            format!(
                "there is no {socket}: is the daemon running? start it with `drover run`, or name its --socket"
            )
        } else if is(io::ErrorKind::ConnectionRefused) {
            format!("nobody answers on {socket}: the daemon is not running; start it with `drover run`")
        } else if is(io::ErrorKind::PermissionDenied) {
            format!("no permission for {socket}: {}", who_may(&self.socket))
        } else {
            format!("cannot reach the daemon on {socket}: {error}")
        })
    }

    fn broken(&self, error: &hyper::Error) -> Failure {
        let socket = self.socket.display();
        Failure::refused(format!(
            "the talk with the daemon on {socket} broke off: {error}; see the daemon's log"
        ))
    }

    fn late(&self, timeout: Duration) -> Failure {
        let (socket, secs) = (self.socket.display(), timeout.as_secs());
        Failure::refused(format!("the daemon on {socket} has not answered for {secs} s; see its log"))
    }

    fn stranger(&self) -> Failure {
        let socket = self.socket.display();
        Failure::refused(format!("the answer on {socket} is not one of this version's: who listens there?"))
    }
}

fn is_problem(response: &Response<Incoming>) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|media| media == PROBLEM_CONTENT_TYPE)
}

/// What someone without permission for the socket can do.
fn who_may(socket: &Path) -> String {
    let gid = std::fs::metadata(socket).ok().map(|metadata| Gid::from_raw(metadata.gid()));
    let group = gid.filter(|gid| gid.as_raw() != 0).and_then(|gid| Group::from_gid(gid).ok().flatten());
    match group {
        Some(group) => format!("become root or join the group '{}'", group.name),
        None => "become root, or join the group that the configuration's socket_group names".to_owned(),
    }
}

/// A part of a path or a value of a query.
pub fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            // The unreserved characters of RFC 3986, section 2.3, and the colon that addresses have.
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                encoded.push(char::from(byte));
            }
            other => encoded += &format!("%{other:02X}"),
        }
    }
    encoded
}

/// `?name=value&...` of those that are given.
pub fn query<'a>(values: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let given = values.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(&value?))));
    let joined = given.collect::<Vec<_>>().join("&");
    if joined.is_empty() { joined } else { format!("?{joined}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_cannot_leave_its_place_in_the_request() {
        assert_eq!(encode("2001:db8::11"), "2001:db8::11");
        assert_eq!(encode("a/b?c d"), "a%2Fb%3Fc%20d");
        assert_eq!(encode("é"), "%C3%A9");
        assert_eq!(query([("farm", Some("a&b".to_owned())), ("client", None)]), "?farm=a%26b");
        assert_eq!(query([("farm", None)]), "");
    }
}
