//! The probes of mail servers, SMTP, IMAP and POP3: the greeting, STARTTLS where it is asked for, and a polite farewell. On the
//! ports where TLS comes first (RFC 8314 section 3) it does.
//!
//! The three are one conversation by lines; [`Dialect`] holds what differs. There is no client library behind it, since
//! those lead whole sessions: they log in, select mailboxes, hand over mail, and hide what a probe is to tell, the
//! server's own words at each step. A line is at most [`LINE_MAX`] bytes and a reply at most [`LINES_MAX`] lines.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lb_core::config::model::{Check, Tls};
use lb_core::health::Outcome;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::Untried;
use super::probe::{CLOSED, Progress, Trouble, connect, just_before, quoted, took};
use super::tls;
use crate::clock;

/// Above what the protocols allow in replies: RFC 5321 4.5.3.1.5 has 512, RFC 2449 4 has 512, RFC 7162 4 has 8192.
const LINE_MAX: u64 = 8192;
const LINES_MAX: usize = 100;
/// How long the server may take to see the probe off; the verdict is passed by then.
const FAREWELL: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Smtp,
    Imap,
    Pop3,
}

/// A command and what a good reply to it is.
struct Exchange {
    /// Without CR LF; empty: the server speaks first.
    send: String,
    /// The name of the step.
    step: &'static str,
    reply: Reply,
}

/// How a reply ends, and how its last line starts if it is good.
#[derive(Debug, Clone, Copy)]
enum Reply {
    /// RFC 5321 4.2.1: `250-` on all lines but the last.
    Code(&'static str),
    /// One line, starting with one of these.
    Line(&'static [&'static str]),
    /// RFC 3501 2.2.2: lines that start with `*`, and one that starts with the command's tag.
    Tagged(&'static str),
    /// RFC 1939 3: a first line, and if it is good more of them up to one that is a dot.
    Dotted(&'static str),
}

impl Dialect {
    fn greeting(self) -> Exchange {
        let reply = match self {
            Self::Smtp => Reply::Code("220"),
            Self::Imap => Reply::Line(&["* OK", "* PREAUTH"]),
            Self::Pop3 => Reply::Line(&["+OK"]),
        };
        Exchange { send: String::new(), step: "greeting", reply }
    }

    /// What tells whether the server can do STARTTLS, and the word for it.
    fn capabilities(self, us: SocketAddr) -> (Exchange, &'static str) {
        match self {
            Self::Smtp => {
                // RFC 5321 4.1.3: a client that has no name says its address.
                let literal = match us {
                    SocketAddr::V4(us) => us.ip().to_string(),
                    SocketAddr::V6(us) => format!("IPv6:{}", us.ip()),
                };
                let send = format!("EHLO [{literal}]");
                (Exchange { send, step: "EHLO", reply: Reply::Code("250") }, "STARTTLS")
            }
            Self::Imap => {
                let reply = Reply::Tagged("a1 ");
                (Exchange { send: "a1 CAPABILITY".to_owned(), step: "CAPABILITY", reply }, "STARTTLS")
            }
            Self::Pop3 => {
                (Exchange { send: "CAPA".to_owned(), step: "CAPA", reply: Reply::Dotted("+OK") }, "STLS")
            }
        }
    }

    fn starttls(self) -> Exchange {
        let (send, reply) = match self {
            Self::Smtp => ("STARTTLS", Reply::Code("220")),
            Self::Imap => ("a2 STARTTLS", Reply::Tagged("a2 ")),
            Self::Pop3 => ("STLS", Reply::Line(&["+OK"])),
        };
        Exchange { send: send.to_owned(), step: "STARTTLS", reply }
    }

    /// The port on which TLS comes before the first word.
    fn tls_port(self) -> u16 {
        match self {
            Self::Smtp => 465,
            Self::Imap => 993,
            Self::Pop3 => 995,
        }
    }

    fn farewell(self) -> &'static [u8] {
        match self {
            Self::Smtp | Self::Pop3 => b"QUIT\r\n",
            Self::Imap => b"a3 LOGOUT\r\n",
        }
    }
}

pub(super) async fn probe(
    address: SocketAddr,
    check: &Check,
    dialect: Dialect,
    starttls: Option<&Tls>,
) -> Result<Outcome, Untried> {
    let progress = Progress::default();
    let deadline = clock::now() + just_before(check.timeout);
    progress.judge(check.timeout, run(address, dialect, starttls, deadline, &progress)).await
}

async fn run(
    address: SocketAddr,
    dialect: Dialect,
    starttls: Option<&Tls>,
    deadline: Instant,
    progress: &Progress,
) -> Result<String, Trouble> {
    let started = clock::now();
    if address.port() == dialect.tls_port() {
        return run_in_tls(address, dialect, starttls, deadline, progress).await;
    }
    let mut server = Conversation::over(connect(address).await?);
    server.exchange(&dialect.greeting(), progress).await?;
    let Some(tls) = starttls else {
        let passed = format!("greeted in {}", took(started));
        server.leave(dialect, deadline).await;
        return Ok(passed);
    };
    let client = tls::Client::new(tls, None, address).await?;
    let us = server.0.get_ref().local_addr()?;
    let (ask, word) = dialect.capabilities(us);
    let offered = server.exchange(&ask, progress).await?;
    if !offers(&offered, word) {
        return Err(Trouble::failed(format!("the server does not offer {word}")));
    }
    server.exchange(&dialect.starttls(), progress).await?;
    let stream = server.into_inner()?;
    progress.step("TLS handshake");
    let stream = client.handshake(stream).await?;
    let warning = tls::warning(tls::Validity::of(&stream));
    let passed = format!("greeted, {word} in {}{warning}", took(started));
    Conversation::over(stream).leave(dialect, deadline).await;
    Ok(passed)
}

/// The greeting where TLS comes first. A certificate is judged where the check says how.
async fn run_in_tls(
    address: SocketAddr,
    dialect: Dialect,
    tls: Option<&Tls>,
    deadline: Instant,
    progress: &Progress,
) -> Result<String, Trouble> {
    let started = clock::now();
    let any = Tls { verify: false, server_name: None };
    let client = tls::Client::new(tls.unwrap_or(&any), None, address).await?;
    let stream = connect(address).await?;
    progress.step("TLS handshake");
    let stream = client.handshake(stream).await?;
    let warning = tls::warning(tls::Validity::of(&stream));
    let mut server = Conversation::over(stream);
    server.exchange(&dialect.greeting(), progress).await?;
    let passed = format!("greeted in TLS in {}{warning}", took(started));
    server.leave(dialect, deadline).await;
    Ok(passed)
}

/// Whether `word` stands alone among the capabilities.
fn offers(lines: &[String], word: &str) -> bool {
    let mut words = lines.iter().flat_map(|line| line.split([' ', '-']));
    words.any(|offered| offered.eq_ignore_ascii_case(word))
}

/// A connection that is read by lines.
struct Conversation<S>(BufReader<S>);

impl Conversation<TcpStream> {
    /// The connection itself, for TLS to begin on it.
    fn into_inner(self) -> Result<TcpStream, Trouble> {
        // RFC 3207 section 6: whatever came in the clear must not be taken for part of the session that is safe.
        if self.0.buffer().is_empty() {
            Ok(self.0.into_inner())
        } else {
            Err(Trouble::failed("the server went on in the clear"))
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    fn over(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    /// Sends a command; the lines of its reply if that is good.
    async fn exchange(&mut self, exchange: &Exchange, progress: &Progress) -> Result<Vec<String>, Trouble> {
        progress.step(exchange.step);
        if !exchange.send.is_empty() {
            self.0.write_all(format!("{}\r\n", exchange.send).as_bytes()).await?;
        }
        let mut lines = Vec::new();
        loop {
            let line = self.line().await?;
            progress.at_timeout("the answer did not end in time");
            match exchange.reply.judge(&line, lines.is_empty()) {
                Verdict::More => lines.push(line),
                Verdict::Good => {
                    lines.push(line);
                    return Ok(lines);
                }
                Verdict::Bad(wanted) => {
                    let got = quoted(line.as_bytes());
                    return Err(Trouble::failed(format!("{got}, wanted {wanted}")));
                }
            }
            if lines.len() == LINES_MAX {
                return Err(Trouble::failed(format!("the answer has more than {LINES_MAX} lines")));
            }
        }
    }

    async fn line(&mut self) -> Result<String, Trouble> {
        let mut line = Vec::new();
        (&mut self.0).take(LINE_MAX).read_until(b'\n', &mut line).await?;
        if line.ends_with(b"\n") {
            return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        Err(Trouble::failed(match line.len() {
            0 => CLOSED.to_owned(),
            length if length as u64 == LINE_MAX => format!("a line of more than {LINE_MAX} bytes"),
            _ => format!("the server closed after {}", quoted(&line)),
        }))
    }

    /// Takes leave, so that the server does not log a client that was lost. The probe has passed, whatever comes of it.
    async fn leave(mut self, dialect: Dialect, deadline: Instant) {
        let patience = FAREWELL.min(deadline.saturating_duration_since(clock::now()) / 2);
        let farewell = async {
            self.0.write_all(dialect.farewell()).await?;
            self.0.flush().await?;
            (&mut self.0).take(LINE_MAX).read_until(b'\n', &mut Vec::new()).await?;
            self.0.shutdown().await
        };
        if let Ok(Err(error)) = tokio::time::timeout(patience, farewell).await {
            tracing::trace!(%error, "a mail server did not take leave");
        }
    }
}

enum Verdict {
    More,
    Good,
    /// What was wanted.
    Bad(String),
}

impl Reply {
    fn judge(self, line: &str, first: bool) -> Verdict {
        match self {
            Self::Code(code) => match line.strip_prefix(code) {
                Some(rest) if rest.starts_with('-') => Verdict::More,
                Some(rest) if rest.is_empty() || rest.starts_with(' ') => Verdict::Good,
                Some(_) | None => Verdict::Bad(code.to_owned()),
            },
            Self::Line(starts) => match starts.iter().any(|start| starts_with(line, start)) {
                true => Verdict::Good,
                false => Verdict::Bad(starts.first().copied().unwrap_or_default().to_owned()),
            },
            Self::Tagged(tag) => match line.strip_prefix(tag) {
                Some(status) if starts_with(status, "OK") => Verdict::Good,
                None if line.starts_with("* ") && !starts_with(line, "* BYE") => Verdict::More,
                Some(_) | None => Verdict::Bad(format!("{tag}OK")),
            },
            Self::Dotted(start) if first => {
                if starts_with(line, start) {
                    Verdict::More
                } else {
                    Verdict::Bad(start.to_owned())
                }
            }
            Self::Dotted(_) if line == "." => Verdict::Good,
            Self::Dotted(_) => Verdict::More,
        }
    }
}

/// Whether `line` starts with the words of `start`, in capitals or not.
fn starts_with(line: &str, start: &str) -> bool {
    let head = line.as_bytes().get(..start.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(start.as_bytes()))
        && matches!(line.as_bytes().get(start.len()), None | Some(b' '))
}

#[cfg(test)]
#[path = "mail_tests.rs"]
mod tests;
