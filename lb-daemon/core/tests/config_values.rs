//! What single keys of a configuration are read as.

#![allow(clippy::unwrap_used, reason = "it is a test")]

use std::time::Duration;

use lb_core::config::model::{Config, Timeouts};
use lb_core::config::tree::{Key, Node, Value};
use lb_core::config::{ConfigError, read};

fn node(value: Value) -> Node {
    Node { position: None, value }
}

fn text(text: &str) -> Node {
    node(Value::String(text.to_owned()))
}

fn table(entries: Vec<(&str, Node)>) -> Node {
    let key = |name: &str| Key { name: name.to_owned(), position: None };
    node(Value::Table(entries.into_iter().map(|(name, node)| (key(name), node)).collect()))
}

/// The smallest configuration, with more keys in `[daemon]` and in its farm.
fn with(daemon: Vec<(&str, Node)>, farm: Vec<(&str, Node)>) -> Result<Config, Vec<ConfigError>> {
    let daemon = std::iter::once(("interfaces", text("eth0"))).chain(daemon).collect();
    let required = [("name", text("web")), ("vip", text("192.0.2.10")), ("ports", node(Value::Integer(80)))];
    let farm = table(required.into_iter().chain(farm).collect());
    read(&table(vec![("daemon", table(daemon)), ("farm", node(Value::Array(vec![farm])))]))
}

#[test]
fn connections_are_a_number_or_left_to_the_machine() {
    assert_eq!(with(vec![], vec![]).unwrap().daemon.connections, None);
    let read = |number: i64| with(vec![("connections", node(Value::Integer(number)))], vec![]);
    for number in [1024, 1_000_000, 1 << 24] {
        assert_eq!(read(number).unwrap().daemon.connections, Some(number as u32));
    }
    for number in [-1, 0, 1023, (1 << 24) + 1, i64::MAX] {
        let errors = read(number).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].path, "daemon.connections");
        assert!(errors[0].message.contains("1024 to 16777216"), "{}", errors[0]);
    }
}

#[test]
fn each_time_out_has_a_key() {
    type Field = fn(&mut Timeouts) -> &mut Duration;
    let fields: [(&str, Field); 5] = [
        ("syn", |timeouts| &mut timeouts.syn),
        ("established", |timeouts| &mut timeouts.established),
        ("half_closed", |timeouts| &mut timeouts.half_closed),
        ("fin", |timeouts| &mut timeouts.fin),
        ("udp", |timeouts| &mut timeouts.udp),
    ];
    assert_eq!(with(vec![], vec![]).unwrap().farms[0].timeouts, Timeouts::default());
    for (key, field) in fields {
        let timeouts = table(vec![(key, text("1m30s"))]);
        let mut expected = Timeouts::default();
        *field(&mut expected) = Duration::from_secs(90);
        assert_eq!(with(vec![], vec![("timeouts", timeouts)]).unwrap().farms[0].timeouts, expected, "{key}");
        let wrong = with(vec![], vec![("timeouts", table(vec![(key, text("0s"))]))]).unwrap_err();
        assert_eq!(wrong[0].path, format!("farm[0].timeouts.{key}"));
    }
}
