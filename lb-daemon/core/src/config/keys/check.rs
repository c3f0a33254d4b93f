//! `[[farm.check]]`: the keys of all types, and those of some.

use super::plain::{Place, field};
use super::{Key, Schema, Takes, duration, list, number, text, word};
use crate::config::model::{CommandContract, USER};

/// The types of checks, in the order in which people are told of them.
pub static CHECK_TYPES: [&str; 11] =
    ["tcp", "http", "https", "tls", "udp", "dns", "icmp", "smtp", "imap", "pop3", "command"];

const HTTP: &[&str] = &["http", "https"];
const TLS: &[&str] = &["https", "tls", "smtp", "imap", "pop3"];
const MAIL: &[&str] = &["smtp", "imap", "pop3"];
/// All but `icmp`.
const WITH_PORT: &[&str] = &["tcp", "http", "https", "tls", "udp", "dns", "smtp", "imap", "pop3", "command"];
/// The least of an interval: below it a check is a load of its own.
const LEAST: u64 = 10;

const BYTES: Takes =
    Takes::Other { kind: "string, or list of bytes", json: &["string", "array"], default: None };

const fn texts(default: &'static str) -> Takes {
    Takes::Other { kind: "string or list", json: &["string", "array"], default: Some(default) }
}

pub static CHECK: Schema = Schema {
    title: "[[farm.check]]",
    keys: &[
        Key::new(
            "type",
            Takes::Word { words: || CHECK_TYPES.to_vec(), later: &[] },
            "What is done; see below.",
        ),
        Key::new("interval", duration(LEAST, 10_000), "From one probe to the next."),
        Key::new(
            "timeout",
            duration(LEAST, 3_000),
            "When a probe counts as failed. At most `interval`.",
        )
        .absent("`\"3s\"`, or `interval` if that is shorter"),
        Key::new(
            "fast_interval",
            duration(LEAST, 1_000),
            "From one probe to the next while a backend is between up and down. At most `interval`.",
        )
        .absent("`\"1s\"`, or `interval` if that is shorter"),
        Key::new("rise", number(1, 1000, Some(2)), "So many passes in a row bring a backend up.").plain(Place::Check(field!(rise))),
        Key::new("fall", number(1, 1000, Some(3)), "So many failures in a row take it out.").plain(Place::Check(field!(fall))),
        Key::new(
            "port",
            number(1, 65_535, None),
            "No type has a usual port of its own: a check of type `dns` on a farm with the ports 53 and 853 asks both.",
        )
        .absent("the backend's port, else each port of the farm")
        .of(WITH_PORT),
        Key::new(
            "path",
            texts("\"/\""),
            "What is asked for, one after the other; all must pass. Each begins with a slash and may have a query; what a URL \
             cannot hold is written as `%20`. At most 64, none twice.",
        )
        .of(HTTP),
        Key::new("method", Takes::Text { kind: "string", default: Some("GET") }, "In capitals.").of(HTTP),
        Key::new("host", text("string"), "The Host header.").absent("the backend's address").of(HTTP),
        Key::new(
            "headers",
            Takes::Other { kind: "table", json: &["object"], default: None },
            "Further headers: `{ \"X-Check\" = \"drover\" }`.",
        )
        .absent("none")
        .of(HTTP),
        Key::new(
            "status",
            Takes::Other {
                kind: "number, string or list",
                json: &["integer", "string", "array"],
                default: Some("\"200-399\""),
            },
            "What is accepted: `200`, `\"200-399\"`, `[200, \"300-399\"]`. Redirects are not followed.",
        )
        .of(HTTP),
        Key::new(
            "body",
            text("string"),
            "A text that the body must have in it, within its first 64 KiB.",
        )
        .absent("none")
        .of(HTTP),
        Key::new(
            "body_regex",
            text("string"),
            "A pattern that must match there, in the syntax of the Rust crate \
             [regex](https://docs.rs/regex/latest/regex/#syntax): without look-around and back-references, so that no pattern \
             is slow. One of `body` and `body_regex`.",
        )
        .absent("none")
        .of(HTTP),
        Key::new("server_name", text("string"), "The name asked for by TLS.")
            .absent("`host` where there is one, else the backend's address")
            .of(TLS),
        Key::new(
            "verify",
            Takes::Boolean(true),
            "Whether the certificate must be valid for that name, and trusted by this host.",
        )
        .of(TLS),
        Key::new(
            "min_days",
            number(1, 3650, None),
            "The check fails if the certificate has fewer days left.",
        )
        .absent("none")
        .of(&["tls"]),
        Key::new(
            "send",
            BYTES,
            "TOML's escapes say what is not printable: `\"PING\\n\"`; bytes that are no text are written as numbers: `[0x00, \
             0xff]`. At most 1232 bytes.",
        )
        .absent("an empty datagram")
        .of(&["udp"]),
        Key::new(
            "expect",
            BYTES,
            "What the answer must have in it. Without it silence passes, and only a port that is closed (ICMP port \
             unreachable) fails.",
        )
        .absent("none")
        .of(&["udp"]),
        Key::new(
            "name",
            text("string"),
            "The name asked for. It is always a whole one, with or without the dot at its end.",
        )
        .absent("required")
        .of(&["dns"]),
        Key::new(
            "record",
            Takes::Text { kind: "string", default: Some("A") },
            "`A`, `AAAA`, `CAA`, `CNAME`, `MX`, `NS`, `PTR`, `SOA`, `SRV` or `TXT`.",
        )
        .of(&["dns"]),
        Key::new(
            "expect",
            list("string or list", &["string", "array"]),
            "What must be among the answers, as a zone file has it; of `A` and `AAAA` addresses. Without it any answer without \
             an error passes.",
        )
        .absent("none")
        .of(&["dns"]),
        Key::new(
            "starttls",
            Takes::Boolean(false),
            "Whether the connection must also change to TLS by STARTTLS (`STLS` of POP3); on 465, 993 and 995, where TLS comes first, whether the certificate is judged. `server_name` and `verify` stand \
             with `starttls = true` only.",
        )
        .of(MAIL),
        Key::new(
            "command",
            list("list of words", &["string", "array"]),
            "The program and its arguments. There is no shell. At most 64 words.",
        )
        .absent("required")
        .of(&["command"]),
        Key::new(
            "user",
            Takes::Text { kind: "string", default: Some(USER) },
            "Who runs it: a user of this machine, and never root.",
        )
        .of(&["command"]),
        Key::new(
            "contract",
            word::<CommandContract>(&[]),
            "`\"farmguardian\"`: HOST and PORT stand for the backend's address and port, as whole words of the arguments. \
             `\"haproxy\"`: the four arguments and the environment of HAProxy's external check.",
        )
        .of(&["command"]),
    ],
    later: &[],
    elsewhere: &[
        ("sni", "server_name"),
        ("url", "path"),
        ("uri", "path"),
        ("paths", "path"),
        ("regex", "body_regex"),
        ("code", "status"),
        ("script", "command"),
        ("query", "name"),
        ("tls", "type = \"https\"` or `type = \"tls\""),
    ],
};

/// Which types of checks have the key of that name; `None`: all.
pub fn owners(name: &str) -> Option<Vec<&'static str>> {
    let rows = CHECK.keys.iter().filter(|key| key.name == name && !key.of.is_empty());
    let owners: Vec<&'static str> = rows.flat_map(|key| key.of).copied().collect();
    (!owners.is_empty()).then_some(owners)
}
