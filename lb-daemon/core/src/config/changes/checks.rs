//! What differs between the checks of a farm, key by key as the file has them.

use super::{duration_text, list};
use crate::config::keys;
use crate::config::model::{BodyMatch, Check, CheckKind, CommandCheck, HttpCheck, Tls, Word as _};
use crate::config::text::range_text;

/// One line for each difference, without the farm's name; empty if and only if they are equal.
pub(super) fn check_changes(old: &[Check], new: &[Check]) -> Vec<String> {
    let comparable = |(old, new): (&Check, &Check)| old.kind.as_str() == new.kind.as_str();
    if old.len() != new.len() || !old.iter().zip(new).all(comparable) {
        return vec![format!("checks {} -> {}", checks_text(old), checks_text(new))];
    }
    let mut lines = Vec::new();
    for (index, (old, new)) in old.iter().zip(new).enumerate() {
        // Both have the rows of their kind, in the same order.
        for ((key, from), (_, to)) in rows(old).into_iter().zip(rows(new)).filter(|(old, new)| old != new) {
            lines.push(format!("check {} ({}): {key} {from} -> {to}", index + 1, new.kind.as_str()));
        }
    }
    lines
}

fn checks_text(checks: &[Check]) -> String {
    if checks.is_empty() {
        return "none".to_owned();
    }
    checks.iter().map(check_text).collect::<Vec<_>>().join("; ")
}

/// A check in short: not every key.
fn check_text(check: &Check) -> String {
    let kind = check.kind.as_str();
    let port = check.port.map_or_else(String::new, |port| format!(" on port {port}"));
    let (interval, timeout) = (duration_text(check.interval), duration_text(check.timeout));
    format!("{kind}{port} every {interval}, timeout {timeout}, rise {}, fall {}", check.rise, check.fall)
}

type Row = (&'static str, String);

fn rows(check: &Check) -> Vec<Row> {
    // Plain keys are said by their rows in the table.
    let Check { kind, interval, fast_interval, timeout, port, .. } = check;
    let mut rows = vec![
        ("interval", duration_text(*interval)),
        ("fast_interval", duration_text(*fast_interval)),
        ("timeout", duration_text(*timeout)),
    ];
    rows.extend(keys::CHECK.fields::<Check>().map(|(key, field)| (key.name, (field.get)(check).to_string())));
    rows.push(("port", port.map_or_else(|| "the farm's or backend's".to_owned(), |port| port.to_string())));
    match kind {
        CheckKind::Tcp | CheckKind::Icmp => {}
        CheckKind::Http(http) => http_rows(http, &mut rows),
        CheckKind::Tls { tls, min_days } => {
            tls_rows(Some(tls), &mut rows);
            rows.push(("min_days", or_none(min_days.as_ref().map(ToString::to_string))));
        }
        CheckKind::Udp { send, expect } => {
            rows.push(("send", bytes_text(send)));
            rows.push(("expect", or_none(expect.as_deref().map(bytes_text))));
        }
        CheckKind::Dns { name, record, expect } => {
            rows.push(("name", whole(name)));
            rows.push(("record", record.clone()));
            rows.push(("expect", all_quoted(expect)));
        }
        CheckKind::Smtp { starttls } | CheckKind::Imap { starttls } | CheckKind::Pop3 { starttls } => {
            rows.push(("starttls", starttls.is_some().to_string()));
            tls_rows(starttls.as_ref(), &mut rows);
        }
        CheckKind::Command(CommandCheck { command, user, contract }) => {
            rows.push(("command", all_quoted(command)));
            rows.push(("user", user.clone()));
            rows.push(("contract", contract.word().to_owned()));
        }
    }
    rows
}

fn http_rows(http: &HttpCheck, rows: &mut Vec<Row>) {
    let HttpCheck { tls, paths, method, host, headers, status, body } = http;
    let (contains, pattern) = match body {
        None => (None, None),
        Some(BodyMatch::Contains(text)) => (Some(whole(text)), None),
        Some(BodyMatch::Regex(text)) => (None, Some(whole(text))),
    };
    let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    rows.push(("path", all_quoted(paths)));
    rows.push(("method", method.clone()));
    rows.push(("host", or_none(host.as_deref().map(whole))));
    rows.push(("headers", all_quoted(&headers)));
    rows.push(("status", list(&status.iter().map(|range| range_text(*range)).collect::<Vec<_>>())));
    rows.push(("body", or_none(contains)));
    rows.push(("body_regex", or_none(pattern)));
    tls_rows(tls.as_ref(), rows);
}

/// The same rows with TLS and without, so that two checks of a kind have as many.
fn tls_rows(tls: Option<&Tls>, rows: &mut Vec<Row>) {
    let (verify, server_name) = match tls {
        Some(Tls { verify, server_name }) => (Some(verify.to_string()), server_name.as_deref().map(whole)),
        None => (None, None),
    };
    rows.push(("verify", or_none(verify)));
    rows.push(("server_name", or_none(server_name)));
}

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| "none".to_owned())
}

/// `text` in quotes, on one line, not cut: of two long texts the end may differ.
pub(super) fn whole(text: &str) -> String {
    format!("{text:?}")
}

pub(super) fn all_quoted(texts: &[String]) -> String {
    if texts.is_empty() {
        return "none".to_owned();
    }
    list(&texts.iter().map(|text| whole(text)).collect::<Vec<_>>())
}

fn bytes_text(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}
