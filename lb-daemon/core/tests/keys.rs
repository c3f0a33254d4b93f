//! The table of keys, and what is made of it or must agree with it: the reader, and the tables in the documents.
//!
//! `DROVER_WRITE_DOCS=1 cargo test -p lb-core --test keys` writes the tables of `docs/configuration.md` anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "it is a test")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use lb_core::config::keys::{self, CHECK_TYPES, Key, Schema, Takes};
use lb_core::config::model::{Check, Farm};
use lb_core::config::tree::{Key as Name, Node, Value};
use lb_core::config::{ConfigError, changes, duration_text, read};

fn node(value: Value) -> Node {
    Node { position: None, value }
}

fn text(text: &str) -> Node {
    node(Value::String(text.to_owned()))
}

fn table(entries: Vec<(&str, Node)>) -> Node {
    let name = |name: &str| Name { name: name.to_owned(), position: None };
    node(Value::Table(entries.into_iter().map(|(key, node)| (name(key), node)).collect()))
}

fn list(items: Vec<Node>) -> Node {
    node(Value::Array(items))
}

/// Every table, and where its keys stand in a file.
const TABLES: [(&Schema, &str); 9] = [
    (&keys::DAEMON, "daemon"),
    (&keys::FARM, "farm[0]"),
    (&keys::AFFINITY, "farm[0].affinity"),
    (&keys::TIMEOUTS, "farm[0].timeouts"),
    (&keys::LIMITS, "farm[0].limits"),
    (&keys::PASSIVE, "farm[0].passive"),
    (&keys::ON_CHANGE, "farm[0].on_change"),
    (&keys::BACKEND, "farm[0].backend[0]"),
    (&keys::CHECK, "farm[0].check[0]"),
];

/// The smallest file in which `key` may stand, with that value for it.
fn file(schema: &Schema, key: &Key, value: Option<Node>) -> Node {
    let name = key.name;
    let with = |own: Vec<(&'static str, Node)>, schema_is: &Schema| {
        let here = std::ptr::eq(schema, schema_is);
        // One that must be there stays if no other is given.
        let own = own.into_iter().filter(|(own, _)| !here || *own != name || value.is_none());
        let more = value.clone().filter(|_| here).map(|value| (name, value));
        table(own.chain(more).collect())
    };
    let kind = key.of.first().copied().unwrap_or("tcp");
    let mut check = match kind {
        "dns" => {
            vec![("type", text(kind)), ("port", node(Value::Integer(53))), ("name", text("example.org"))]
        }
        "udp" => vec![("type", text(kind)), ("port", node(Value::Integer(53)))],
        "command" => vec![("type", text(kind)), ("command", text("true"))],
        _ => vec![("type", text(kind))],
    };
    if ["timeout", "fast_interval"].contains(&key.name) {
        check.push(("interval", text("720h")));
    }
    // A key that needs another, or does not go with it, has what it needs.
    let eject = vec![("eject", node(Value::Bool(key.name != "mode")))];
    let backend = with(vec![("address", text("10.0.0.11"))], &keys::BACKEND);
    let mut farm = vec![
        ("name", text("web")),
        ("vip", text("192.0.2.10")),
        ("ports", node(Value::Integer(80))),
        ("timeouts", with(vec![], &keys::TIMEOUTS)),
        ("limits", with(vec![], &keys::LIMITS)),
        ("passive", with(eject, &keys::PASSIVE)),
        ("on_change", with(vec![("command", text("true"))], &keys::ON_CHANGE)),
        ("backend", list(vec![backend])),
        ("check", list(vec![with(check, &keys::CHECK)])),
    ];
    if key.name != "mode" {
        farm.push(("affinity", with(vec![], &keys::AFFINITY)));
    }
    let daemon = with(vec![("interfaces", text("eth0"))], &keys::DAEMON);
    table(vec![("daemon", daemon), ("farm", list(vec![with(farm, &keys::FARM)]))])
}

/// What the reader has against a value of a key.
fn complaint(schema: &Schema, place: &str, key: &Key, value: Value) -> Option<ConfigError> {
    let errors = read(&file(schema, key, Some(node(value.clone())))).err()?;
    let path = format!("{place}.{}", key.name);
    let found = errors.iter().find(|error| error.path == path);
    Some(found.unwrap_or_else(|| panic!("{path} = {value:?} is refused elsewhere: {errors:?}")).clone())
}

#[test]
fn the_reader_has_the_limits_and_words_of_the_table() {
    let string = |text: &str| Value::String(text.to_owned());
    for (schema, place) in TABLES {
        for key in schema.keys {
            let (good, bad): (Vec<Value>, Vec<Value>) = match key.takes {
                Takes::Boolean(_) => (vec![Value::Bool(true), Value::Bool(false)], vec![string("yes")]),
                Takes::Number { least, most, .. } => (
                    vec![Value::Integer(least), Value::Integer(most)],
                    vec![Value::Integer(least - 1), Value::Integer(most + 1)],
                ),
                Takes::Duration { least, .. } => {
                    let below =
                        least.checked_sub(Duration::from_millis(1)).map(|it| string(&duration_text(it)));
                    let bad = below.into_iter().chain([Value::Integer(10), string("721h")]);
                    (vec![string(&duration_text(least)), string("720h")], bad.collect())
                }
                // Other types of checks need other keys.
                Takes::Word { .. } if key.name == "type" && place.contains("check") => {
                    (vec![string("tcp")], vec![string("nonsense")])
                }
                Takes::Word { words, later } => {
                    let bad = later.iter().copied().chain(["nonsense"]);
                    (words().into_iter().map(string).collect(), bad.map(string).collect())
                }
                // What their readers say of them has tests of its own.
                Takes::Text { .. } | Takes::Other { .. } => (vec![], vec![Value::Other("a date or time")]),
            };
            for value in good {
                assert_eq!(complaint(schema, place, key, value.clone()), None, "{place}.{}", key.name);
            }
            for value in bad {
                let refused = complaint(schema, place, key, value.clone());
                assert!(refused.is_some(), "{place}.{} = {value:?} is taken", key.name);
            }
        }
    }
}

/// A default as the table has it.
fn value(text: &str) -> Value {
    match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(text) => Value::String(text.to_owned()),
        None => text.parse().map(Value::Bool).or_else(|_| text.parse().map(Value::Integer)).unwrap(),
    }
}

#[test]
fn a_default_that_is_written_out_changes_nothing() {
    for (schema, place) in TABLES {
        for key in schema.keys {
            let Some(default) = key.default() else { continue };
            // Of what is required or must be given the smallest file has another value.
            let without = read(&file(schema, key, None)).unwrap();
            let with = read(&file(schema, key, Some(node(value(&default))))).unwrap();
            if key.name == "eject" || (key.name == "type" && key.of.is_empty()) {
                continue;
            }
            assert_eq!(with, without, "{place}.{}", key.name);
        }
    }
}

/// Values of a key, of which at least one is not its default.
fn values(key: &Key) -> Vec<Value> {
    match key.takes {
        Takes::Boolean(_) => vec![Value::Bool(false), Value::Bool(true)],
        Takes::Number { least, most, .. } => vec![Value::Integer(least), Value::Integer(most)],
        Takes::Duration { least, .. } => {
            vec![Value::String(duration_text(least)), Value::String("700h".to_owned())]
        }
        Takes::Word { words, .. } => words().into_iter().map(|word| Value::String(word.to_owned())).collect(),
        Takes::Text { .. } | Takes::Other { .. } => vec![],
    }
}

#[test]
fn each_value_of_a_key_is_kept_and_a_change_of_it_is_told_by_its_name() {
    for (schema, place) in TABLES {
        for key in schema.keys.iter().filter(|key| key.name != "type") {
            let read = |value| read(&file(schema, key, Some(node(value)))).unwrap();
            let configs: Vec<_> = values(key).into_iter().map(read).collect();
            for [before, after] in configs.array_windows() {
                let told = changes(before, after);
                assert_ne!(before, after, "{place}.{} is read, and lost", key.name);
                // What some are told by.
                let name = match key.name {
                    "enabled" => "abled",
                    "hold" | "at_most" => "eject",
                    "timeout" if place.ends_with("on_change") => "on_change",
                    name => name,
                };
                assert!(told.iter().any(|line| line.contains(name)), "{place}.{}: {told:?}", key.name);
            }
        }
    }
}

#[test]
fn the_models_own_defaults_are_those_of_the_table() {
    let farm = vec![("name", text("web")), ("vip", text("192.0.2.10")), ("ports", node(Value::Integer(80)))];
    let with_check = table(farm.iter().cloned().chain([("check", list(vec![table(vec![])]))]).collect());
    let daemon = table(vec![("interfaces", text("eth0"))]);
    let config = read(&table(vec![("daemon", daemon), ("farm", list(vec![table(farm)]))])).unwrap();
    let read = &config.farms[0];
    let made = Farm { vips: read.vips.clone(), ports: read.ports.clone(), ..Farm::new(read.name.clone()) };
    assert_eq!(*read, made);
    let named =
        table(vec![("daemon", table(vec![("interfaces", text("eth0"))])), ("farm", list(vec![with_check]))]);
    assert_eq!(lb_core::config::read(&named).unwrap().farms[0].checks, [Check::tcp()]);
}

#[test]
fn every_key_says_what_it_means_and_what_happens_without_it() {
    for (schema, place) in TABLES {
        for key in schema.keys {
            let name = format!("{place}.{}", key.name);
            assert!(!key.words.is_empty(), "{name}");
            assert!(
                key.absent.is_some() || key.default().is_some(),
                "{name} has neither a default nor words for it"
            );
            assert!(key.of.iter().all(|kind| CHECK_TYPES.contains(kind)), "{name}");
            if let Takes::Word { words, .. } = key.takes
                && key.name != "type"
            {
                for word in words() {
                    assert!(key.words.contains(&format!("\"{word}\"")), "{name} does not explain \"{word}\"");
                }
            }
        }
    }
}

/// A key's row in the documents.
fn row(key: &Key, schema: &Schema) -> String {
    let default = key.absent.map(str::to_owned).or_else(|| key.default().map(|it| format!("`{it}`")));
    let (name, default) = (key.name, default.unwrap_or_default());
    if std::ptr::eq(schema, &keys::TIMEOUTS) {
        return format!("| `{name}` | {default} | {} |\n", key.words);
    }
    let kind = match key.takes {
        Takes::Boolean(_) => "boolean",
        Takes::Number { .. } => "number",
        Takes::Duration { .. } => "duration",
        Takes::Word { .. } => "string",
        Takes::Text { kind, .. } | Takes::Other { kind, .. } => kind,
    };
    let limits = key.limits();
    let gap = if limits.is_empty() { "" } else { " " };
    format!("| `{name}` | {kind} | {default} | {}{gap}{limits} |\n", key.words)
}

/// The table that a mark such as `check http, https` stands for.
fn rows(mark: &str) -> String {
    let (name, types) = mark.split_once(' ').unwrap_or((mark, ""));
    let (schema, _) = TABLES
        .iter()
        .find(|(_, place)| {
            place.trim_end_matches("[0]").rsplit('.').next().unwrap().trim_end_matches("[0]") == name
        })
        .unwrap_or_else(|| panic!("there is no table {mark}"));
    let types: Vec<&str> = types.split(", ").filter(|kind| !kind.is_empty()).collect();
    let mut text = match name {
        "timeouts" => "| key of `timeouts` | default | a connection that |\n| --- | --- | --- |\n".to_owned(),
        "affinity" | "limits" | "passive" | "on_change" => {
            format!("| key of `{name}` | type | default | meaning and limits |\n| --- | --- | --- | --- |\n")
        }
        _ => "| key | type | default | meaning and limits |\n| --- | --- | --- | --- |\n".to_owned(),
    };
    for key in schema.keys {
        // The port stands with the keys of all types: one type alone has none.
        let common = key.of.is_empty() || key.name == "port";
        let here =
            if types.is_empty() { common } else { !common && types.iter().any(|kind| key.of.contains(kind)) };
        if here {
            text.write_str(&row(key, schema)).unwrap();
        }
    }
    text
}

#[test]
fn the_tables_of_the_documents_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let written = std::fs::read_to_string(&path).unwrap();
    let (mut made, mut rest, mut tables) = (String::new(), written.as_str(), 0);
    while let Some((before, after)) = rest.split_once("<!-- keys: ") {
        let (mark, after) = after.split_once(" -->\n").unwrap();
        let (_, after) = after.split_once("<!-- end -->").unwrap();
        made += &format!("{before}<!-- keys: {mark} -->\n{}<!-- end -->", rows(mark));
        (rest, tables) = (after, tables + 1);
    }
    made += rest;
    assert_eq!(tables, 15);
    if std::env::var_os("DROVER_WRITE_DOCS").is_some() {
        return std::fs::write(&path, &made).unwrap();
    }
    let differing = made.lines().zip(written.lines()).find(|(made, written)| made != written);
    assert!(
        made == written,
        "docs/configuration.md differs at {differing:?}; DROVER_WRITE_DOCS=1 cargo test -p lb-core --test keys writes it anew"
    );
}
