//! The DNS probe: one question, by UDP and, where the answer was cut short, again by TCP.
//!
//! The socket is connected, so answers from elsewhere do not reach it. What does reach it is taken for the answer only
//! if the identifier, which is random, and the question are those that were sent (RFC 5452, section 9.1).

use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use lb_core::config::model::Check;
use lb_core::health::Outcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Untried;
use super::probe::{Progress, Trouble, connect, connect_udp, took};
use super::udp::refused;
use crate::clock;

/// The largest message; by TCP its length is a 16-bit number.
const MESSAGE_MAX: usize = 65_535;
/// Answers that a reason names.
const NAMED: usize = 5;

/// What is asked, and what must be among the answers.
pub(super) struct Question<'a> {
    pub(super) name: &'a str,
    pub(super) record: &'a str,
    pub(super) expect: &'a [String],
}

pub(super) async fn probe(
    address: SocketAddr,
    check: &Check,
    question: Question<'_>,
) -> Result<Outcome, Untried> {
    let progress = Progress::default();
    progress.judge(check.timeout, run(address, &question, &progress)).await
}

async fn run(address: SocketAddr, question: &Question<'_>, progress: &Progress) -> Result<String, Trouble> {
    let query = query(question)?;
    let bytes = query.to_vec().map_err(|error| Trouble::untried(error.to_string()))?;
    let started = clock::now();
    progress.step(format!("{} {}", question.name, question.record));
    let mut answer = by_udp(address, &query, &bytes, progress).await?;
    if answer.metadata.truncation {
        progress.step(format!("{} {} by TCP", question.name, question.record));
        answer = by_tcp(address, &query, &bytes).await?;
    }
    judge(&answer, question)?;
    let count = answer.answers.len();
    Ok(format!("{count} answer{} in {}", if count == 1 { "" } else { "s" }, took(started)))
}

fn query(question: &Question<'_>) -> Result<Message, Trouble> {
    let mut name = Name::from_ascii(question.name)
        .map_err(|error| Trouble::untried(format!("{}: {error}", question.name)))?;
    name.set_fqdn(true);
    let record: RecordType = question
        .record
        .to_ascii_uppercase()
        .parse()
        .map_err(|_| Trouble::untried(format!("{:?} is no type of record", question.record)))?;
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name, record));
    Ok(query)
}

async fn by_udp(
    address: SocketAddr,
    query: &Message,
    bytes: &[u8],
    progress: &Progress,
) -> Result<Message, Trouble> {
    let socket = connect_udp(address).await?;
    socket.send(bytes).await.map_err(refused)?;
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(refused)?;
        match answer_to(query, &buffer[..length]) {
            Ok(answer) => return Ok(answer),
            // It may be forged, or late: the true one may come yet.
            Err(words) => progress.at_timeout(words),
        }
    }
}

async fn by_tcp(address: SocketAddr, query: &Message, bytes: &[u8]) -> Result<Message, Trouble> {
    let mut stream = connect(address).await?;
    let length = u16::try_from(bytes.len()).map_err(|_| Trouble::untried("the question is too long"))?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    answer_to(query, &answer).map_err(Trouble::failed)
}

/// What `bytes` say in answer to `query`, if they do.
fn answer_to(query: &Message, bytes: &[u8]) -> Result<Message, &'static str> {
    let answer = Message::from_vec(bytes).map_err(|_| "the answer is not DNS")?;
    if answer.metadata.id != query.metadata.id {
        return Err("the answer has a wrong identifier");
    }
    if answer.metadata.message_type != MessageType::Response {
        return Err("the answer is no response");
    }
    // Some servers leave the question out of an error.
    let echoed = answer.queries == query.queries
        || (answer.queries.is_empty() && answer.metadata.response_code != ResponseCode::NoError);
    if echoed { Ok(answer) } else { Err("the answer is to another question") }
}

fn judge(answer: &Message, question: &Question<'_>) -> Result<(), Trouble> {
    if answer.metadata.response_code != ResponseCode::NoError {
        return Err(Trouble::failed(code_words(answer.metadata.response_code)));
    }
    for expected in question.expect {
        if !answer.answers.iter().any(|record| is(record, expected)) {
            return Err(Trouble::failed(format!("answers lack {expected}: {}", say(&answer.answers))));
        }
    }
    Ok(())
}

// Codes that no query gets, and those to come, speak for themselves.
#[allow(clippy::wildcard_enum_match_arm)]
fn code_words(code: ResponseCode) -> String {
    match code {
        ResponseCode::FormErr => "the server did not understand the question (FORMERR)".to_owned(),
        ResponseCode::ServFail => "the server failed (SERVFAIL)".to_owned(),
        ResponseCode::NXDomain => "there is no such name (NXDOMAIN)".to_owned(),
        ResponseCode::NotImp => "the server does not do this (NOTIMP)".to_owned(),
        ResponseCode::Refused => "the server refused (REFUSED)".to_owned(),
        other => format!("the server answered with the error {other}"),
    }
}

/// Whether a record is the one expected, which is written as in a zone file, dots at the end of names left out or not; of
/// an MX or SRV record the name alone will do.
fn is(record: &Record, expected: &str) -> bool {
    let expected = expected.trim();
    if let Ok(address) = expected.parse::<IpAddr>() {
        return record.data.ip_addr() == Some(address);
    }
    let told = tell(record);
    if record.record_type() == RecordType::TXT {
        return told == expected || told.trim_matches('"') == expected.trim_matches('"');
    }
    let plain = |text: &str| -> Vec<String> {
        text.split_whitespace().map(|word| word.trim_end_matches('.').to_ascii_lowercase()).collect()
    };
    let (told, expected) = (plain(&told), plain(expected));
    let named = matches!(record.record_type(), RecordType::MX | RecordType::SRV);
    told == expected || (named && expected.len() == 1 && told.last() == expected.last())
}

fn tell(record: &Record) -> String {
    RData::to_string(&record.data)
}

fn say(records: &[Record]) -> String {
    if records.is_empty() {
        return "there are none".to_owned();
    }
    let told: Vec<_> = records.iter().take(NAMED).map(tell).collect();
    let more = if records.len() > NAMED { " and others" } else { "" };
    format!("got {}{more}", told.join(", "))
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
