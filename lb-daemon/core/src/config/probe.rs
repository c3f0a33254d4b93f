//! What a check of one type has besides the keys of all: by type, all but HTTP, which has a file of its own.

use std::net::IpAddr;

use super::fields::{Errors, Place, Table};
use super::http::{read_http, read_name};
use super::model::{CheckKind, CommandCheck, Tls, USER};
use super::tree::{Value, quoted};

/// The largest payload of a probe by UDP: with its headers it fits every link that carries IPv6 (RFC 8200, section 5).
const DATAGRAM_MAX: usize = 1232;
/// The longest text that an answer is searched for.
const TEXT_MAX: usize = 1024;
/// The most arguments of a command, and the longest of them.
const ARGUMENTS_MAX: usize = 64;
const ARGUMENT_MAX: usize = 4096;
/// The records that can be asked for.
const RECORDS: [&str; 10] = ["A", "AAAA", "CAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"];

/// What a check of type `word` does. Keys that are of other types have been refused already.
pub fn read_kind(table: &Table<'_>, word: &str, errors: &mut Errors) -> Option<CheckKind> {
    match word {
        "http" => Some(CheckKind::Http(read_http(table, None, errors)?)),
        "https" => {
            let tls = read_tls(table, errors);
            let http = read_http(table, tls.clone(), errors);
            // Without its TLS it would be another check.
            tls.and(http).map(CheckKind::Http)
        }
        "tls" => {
            let min_days = table.number_if_any("min_days", errors);
            Some(CheckKind::Tls { tls: read_tls(table, errors)?, min_days: min_days? })
        }
        "udp" => {
            let send = table.get("send").map_or(Some(Vec::new()), |place| read_bytes(&place, true, errors));
            let expect =
                table.get("expect").map_or(Some(None), |place| read_bytes(&place, false, errors).map(Some));
            Some(CheckKind::Udp { send: send?, expect: expect? })
        }
        "dns" => read_dns(table, errors),
        "icmp" => Some(CheckKind::Icmp),
        "smtp" => Some(CheckKind::Smtp { starttls: read_starttls(table, errors)? }),
        "imap" => Some(CheckKind::Imap { starttls: read_starttls(table, errors)? }),
        "pop3" => Some(CheckKind::Pop3 { starttls: read_starttls(table, errors)? }),
        "command" => read_command_check(table, errors).map(CheckKind::Command),
        _ => Some(CheckKind::Tcp),
    }
}

fn read_tls(table: &Table<'_>, errors: &mut Errors) -> Option<Tls> {
    let verify = table.boolean("verify", errors);
    let server_name = table.get("server_name").map_or(Some(None), |place| {
        read_name(&place, "a host's name", errors).map(|name| Some(name.to_owned()))
    });
    Some(Tls { verify: verify?, server_name: server_name? })
}

fn read_starttls(table: &Table<'_>, errors: &mut Errors) -> Option<Option<Tls>> {
    let starttls = table.boolean("starttls", errors)?;
    if starttls {
        return read_tls(table, errors).map(Some);
    }
    let superfluous: Vec<_> =
        ["server_name", "verify"].iter().filter_map(|key| table.key_spot(key)).collect();
    for spot in &superfluous {
        errors.push(
            spot,
            "means nothing without TLS",
            "write starttls = true as well (on 465, 993 and 995 it means TLS from the start), or remove it",
        );
    }
    superfluous.is_empty().then_some(None)
}

/// Bytes as a text, or as a list of numbers if they are no text.
fn read_bytes(place: &Place<'_>, may_be_empty: bool, errors: &mut Errors) -> Option<Vec<u8>> {
    let bytes = match place.value {
        Value::Array(_) => {
            let byte = |item: &Place<'_>, errors: &mut Errors| {
                item.integer(0..=255, errors).and_then(|byte| u8::try_from(byte).ok())
            };
            // Every item is looked at, so that each mistake is told.
            let bytes: Vec<_> = place.items().iter().map(|item| byte(item, errors)).collect();
            bytes.into_iter().collect::<Option<Vec<u8>>>()?
        }
        Value::Table(_)
        | Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Bool(_)
        | Value::Other(_) => {
            place.string("a text, or a list of bytes", "PING\\n", errors)?.as_bytes().to_vec()
        }
    };
    if bytes.is_empty() && !may_be_empty {
        let hint = "write what the answer contains, or remove the key: silence passes then too";
        errors.push(&place.spot, "is empty", hint);
        return None;
    }
    if bytes.len() > DATAGRAM_MAX {
        let message = format!("is {} bytes long; {DATAGRAM_MAX} are the most of a datagram", bytes.len());
        errors.push(&place.spot, message, "write less");
        return None;
    }
    Some(bytes)
}

fn read_dns(table: &Table<'_>, errors: &mut Errors) -> Option<CheckKind> {
    let name = table
        .need("name", "write name = \"www.example.org\", a name that the server must know", errors)
        .and_then(|place| read_domain(&place, errors));
    let record = table.get("record").map_or(Some("A".to_owned()), |place| read_record(&place, errors));
    let expect = match (table.get("expect"), &record) {
        (Some(place), Some(record)) => {
            let items = place.items();
            let read: Vec<_> = items.iter().map(|item| read_answer(item, record, errors)).collect();
            if items.is_empty() {
                errors.push(&place.spot, "is empty", "remove it: every answer without an error passes then");
                return None;
            }
            read.into_iter().collect()
        }
        (Some(_), None) => None,
        (None, _) => Some(Vec::new()),
    };
    Some(CheckKind::Dns { name: name?, record: record?, expect: expect? })
}

/// A name as RFC 1035, section 2.3.4 has it, with the underscores of RFC 2782; it is always taken as a whole one.
fn read_domain(place: &Place<'_>, errors: &mut Errors) -> Option<String> {
    let text = place.text("a domain name", "www.example.org", 255, errors)?;
    let bare = text.strip_suffix('.').unwrap_or(text);
    let legal = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if text == "." || (bare.len() <= 253 && bare.split('.').all(legal)) {
        return Some(text.to_owned());
    }
    let hint = match text.is_ascii() {
        true => "write \"www.example.org\", for example",
        false => "write the name as DNS has it, which begins with xn--",
    };
    errors.push(&place.spot, format!("{} is not a domain name", quoted(text)), hint);
    None
}

fn read_record(place: &Place<'_>, errors: &mut Errors) -> Option<String> {
    let upper = match place.value {
        Value::String(text) => text.to_ascii_uppercase(),
        Value::Table(_)
        | Value::Array(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Bool(_)
        | Value::Other(_) => String::new(),
    };
    if let Some(record) = RECORDS.iter().find(|record| **record == upper) {
        return Some((*record).to_owned());
    }
    let list = RECORDS.map(|record| format!("\"{record}\"")).join(", ");
    let message = format!("must be the type of a record, not {}", place.value.describe());
    errors.push(&place.spot, message, format!("write one of {list}"));
    None
}

fn read_answer(item: &Place<'_>, record: &str, errors: &mut Errors) -> Option<String> {
    let example = match record {
        "A" => "192.0.2.1",
        "AAAA" => "2001:db8::1",
        _ => "mail.example.org.",
    };
    let text = item.text("what the answer must have in it", example, TEXT_MAX, errors)?;
    let ip = text.parse::<IpAddr>();
    match (record, ip) {
        ("A", Ok(IpAddr::V4(ip))) => Some(ip.to_string()),
        ("AAAA", Ok(IpAddr::V6(ip))) => Some(ip.to_string()),
        ("A" | "AAAA", _) => {
            let family = if record == "A" { "IPv4" } else { "IPv6" };
            let message = format!("{} is not an {family} address, and {record} asks for those", quoted(text));
            errors.push(
                &item.spot,
                message,
                format!("write \"{example}\", for example, or another `record`"),
            );
            None
        }
        _ => Some(text.to_owned()),
    }
}

fn read_command_check(table: &Table<'_>, errors: &mut Errors) -> Option<CommandCheck> {
    let hint = "write command = [\"check_http\", \"-H\", \"HOST\", \"-p\", \"PORT\"], for example";
    let command = table.need("command", hint, errors).and_then(|place| read_command(&place, errors));
    let user = table.get("user").map_or(Some(USER.to_owned()), |place| read_user(&place, errors));
    let contract = table.word("contract", errors);
    Some(CommandCheck { command: command?, user: user?, contract: contract? })
}

/// A program and its arguments. Whether the program is there is for the daemon's edge to say.
pub fn read_command(place: &Place<'_>, errors: &mut Errors) -> Option<Vec<String>> {
    let items = place.items();
    if let Value::String(text) = place.value
        && text.trim().contains(char::is_whitespace)
    {
        let words = text.split_whitespace().map(quoted).collect::<Vec<_>>().join(", ");
        let hint = format!("no shell takes it apart: write [{words}]");
        errors.push(&place.spot, "must be a list: the program and each of its arguments", hint);
        return None;
    }
    if items.is_empty() {
        errors.push(
            &place.spot,
            "must name a program",
            "write [\"check_ping\", \"-H\", \"HOST\"], for example",
        );
        return None;
    }
    if items.len() > ARGUMENTS_MAX {
        let message = format!("has {} words; {ARGUMENTS_MAX} are the most", items.len());
        errors.push(&place.spot, message, "write a script that holds them, and name that");
        return None;
    }
    let word = |(index, item): (usize, &Place<'_>), errors: &mut Errors| {
        let text = match index {
            0 => item.text("a program", "check_http", ARGUMENT_MAX, errors)?,
            _ => item.string("an argument", "-v", errors)?,
        };
        if text.contains('\0') || text.len() > ARGUMENT_MAX {
            let message =
                format!("cannot be an argument: at most {ARGUMENT_MAX} bytes, and none of them zero");
            errors.push(&item.spot, message, "write another");
            return None;
        }
        if index == 0 && text.contains('/') && !text.starts_with('/') {
            let message = format!("{} is neither a name nor an absolute path", quoted(text));
            errors.push(&item.spot, message, "begin it with a slash, or write the name alone");
            return None;
        }
        Some(text.to_owned())
    };
    let words: Vec<_> = items.iter().enumerate().map(|item| word(item, errors)).collect();
    words.into_iter().collect()
}

/// Who runs a command. Whether there is such a user is for the daemon's edge to say.
pub fn read_user(place: &Place<'_>, errors: &mut Errors) -> Option<String> {
    let name = place.text("a user's name", USER, 32, errors)?;
    let hint = format!("write \"{USER}\", or a user of its own for checks");
    if name == "root" {
        errors.push(&place.spot, "commands never run as root", hint);
        return None;
    }
    if name.contains([':', '/', ' ']) {
        errors.push(&place.spot, format!("{} is not a user's name", quoted(name)), hint);
        return None;
    }
    Some(name.to_owned())
}
