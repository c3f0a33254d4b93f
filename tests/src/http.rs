//! A small HTTP/1.1 client: it says on which step a request failed, and takes its source address and port from the
//! caller.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A failed request: the step that failed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub step: &'static str,
    pub reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.reason)
    }
}

impl std::error::Error for Failure {}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure { step, reason: error.to_string() }
}

/// What the test server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The server's name.
    pub name: String,
    /// The port on which the server was asked.
    pub port: u16,
    /// The client's address as the server sees it.
    pub peer: SocketAddr,
    pub body: Vec<u8>,
}

/// A connection to a test server.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
    target: SocketAddr,
}

impl Client {
    /// Connects from `source` (port 0: any). `limit` is also that of every later step.
    pub fn connect(target: SocketAddr, source: Option<SocketAddr>, limit: Duration) -> Result<Self, Failure> {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP));
        let socket = socket.map_err(failed("socket"))?;
        if let Some(source) = source {
            socket.set_reuse_address(true).map_err(failed("socket"))?;
            socket.bind(&SockAddr::from(source)).map_err(failed("bind"))?;
        }
        socket.connect_timeout(&SockAddr::from(target), limit).map_err(failed("connect"))?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).map_err(failed("socket"))?;
        stream.set_read_timeout(Some(limit)).map_err(failed("socket"))?;
        stream.set_write_timeout(Some(limit)).map_err(failed("socket"))?;
        Ok(Self { stream: BufReader::new(stream), target })
    }

    /// Asks for `path`; `keep` leaves the connection open for another request.
    pub fn get(&mut self, path: &str, keep: bool) -> Result<Answer, Failure> {
        let connection = if keep { "keep-alive" } else { "close" };
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n\r\n", self.target);
        self.stream.get_mut().write_all(request.as_bytes()).map_err(failed("send"))?;
        let head = Head::read(&mut self.stream)?;
        let mut body = vec![0; head.length];
        self.stream.read_exact(&mut body).map_err(failed("receive"))?;
        let mut answer = head.answer.ok_or(Failure { step: "receive", reason: head.status })?;
        answer.body = body;
        if !keep {
            // The server closes first; a reset here would be a failure that a user notices.
            let more = self.stream.read(&mut [0; 1]).map_err(failed("close"))?;
            if more != 0 {
                return Err(Failure { step: "close", reason: "more than the answer".to_owned() });
            }
        }
        Ok(answer)
    }

    /// Closes the connection by a reset, which leaves no trace at either end.
    pub fn reset(self) -> Result<(), Failure> {
        let socket = Socket::from(self.stream.into_inner());
        socket.set_linger(Some(Duration::ZERO)).map_err(failed("close"))
    }

    /// Drops its end of the connection without a word to the other, as a host does that loses its power.
    pub fn forget(self) -> Result<(), Failure> {
        forget(self.stream.into_inner()).map_err(failed("close"))
    }

    pub fn into_stream(self) -> TcpStream {
        self.stream.into_inner()
    }
}

/// Drops an end of a connection without a word to the other (`TCP_REPAIR`: a socket under repair sends nothing).
pub fn forget(stream: TcpStream) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads an integer, of the length that it is told.
    let done = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_REPAIR,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One request on a connection of its own.
pub fn get(
    target: SocketAddr,
    source: Option<IpAddr>,
    path: &str,
    limit: Duration,
) -> Result<Answer, Failure> {
    let source = source.map(|ip| SocketAddr::new(ip, 0));
    Client::connect(target, source, limit)?.get(path, false)
}

/// What stands before a body.
struct Head {
    status: String,
    length: usize,
    answer: Option<Answer>,
}

impl Head {
    fn read(stream: &mut impl BufRead) -> Result<Self, Failure> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).map_err(failed("receive"))? == 0 {
                let reason = "closed before the answer".to_owned();
                return Err(Failure { step: "receive", reason });
            }
            match line.trim_end() {
                "" => break,
                text => lines.push(text.to_owned()),
            }
        }
        let header = |key: &str| {
            let mut pairs = lines.iter().filter_map(|line| line.split_once(':'));
            pairs.find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.trim())
        };
        let answer = || {
            let name = header("x-backend")?.to_owned();
            let (port, peer) = (header("x-port")?.parse().ok()?, header("x-peer")?.parse().ok()?);
            Some(Answer { name, port, peer, body: Vec::new() })
        };
        let length = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(Self { status: lines.first().cloned().unwrap_or_default(), length, answer: answer() })
    }
}

/// One exchange of JSON over a Unix socket: the status and the body (`Null` when it is empty).
pub fn unix_json(
    socket: &std::path::Path,
    method: &str,
    path: &str,
    content_type: &str,
    body: &[u8],
) -> Result<(u16, Value)> {
    let (status, body) = unix_text(socket, method, path, content_type, body)?;
    if body.is_empty() {
        return Ok((status, Value::Null));
    }
    let body = serde_json::from_str(&body).with_context(|| format!("{method} {path}: not JSON: {body}"))?;
    Ok((status, body))
}

/// One exchange over a Unix socket: the status and the body.
pub fn unix_text(
    socket: &std::path::Path,
    method: &str,
    path: &str,
    content_type: &str,
    body: &[u8],
) -> Result<(u16, String)> {
    let (status, _, body) = unix_full(socket, method, path, &[("Content-Type", content_type)], body)?;
    Ok((status, body))
}

/// The same with further headers: the status, the head as it came, and the body.
pub fn unix_full(
    socket: &std::path::Path,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<(u16, String, String)> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket)
        .with_context(|| format!("connecting to {}", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    let length = body.len();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: drover\r\nConnection: close\r\nAccept: application/json\r\n\
         {headers}Content-Length: {length}\r\n\r\n"
    )?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("{method} {path}"))?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("not HTTP: {answer}"))?;
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
    let status = status.with_context(|| format!("no status in: {head}"))?;
    let body = match head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        true => unchunked(body)?,
        false => body.to_owned(),
    };
    Ok((status, head.to_owned(), body))
}

/// The content of a body sent in chunks (RFC 9112, section 7.1).
fn unchunked(mut body: &str) -> Result<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").context("a chunk without a size")?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)?;
        if size == 0 {
            return Ok(whole);
        }
        if rest.len() < size {
            bail!("a chunk that is cut short");
        }
        whole += rest.get(..size).context("a chunk that splits a character")?;
        body = rest.get(size..).unwrap_or_default().trim_start_matches("\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined() {
        assert_eq!(unchunked("3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n").unwrap(), "abcde");
        assert!(unchunked("9\r\nabc\r\n0\r\n\r\n").is_err());
    }
}
