//! Whatever stands in a file, reading it ends in a configuration or in errors that can be shown.

use lb_core::config::tree::{Key, Node, Value};
use lb_core::config::{Position, changes, needs_restart, read};
use proptest::prelude::*;

/// Words that mean something somewhere, so that trees get past the first look.
const WORDS: [&str; 92] = [
    "daemon",
    "farm",
    "backend",
    "check",
    "interfaces",
    "name",
    "vip",
    "ports",
    "protocol",
    "mode",
    "scheduler",
    "timeouts",
    "enabled",
    "address",
    "port",
    "weight",
    "type",
    "interval",
    "timeout",
    "rise",
    "fall",
    "syn",
    "half_closed",
    "udp",
    "connections",
    "socket",
    "eth0",
    "web",
    "192.0.2.10",
    "2001:db8::10",
    "10.0.0.11",
    "10.0.0.12",
    "2001:db8::11",
    "80-90",
    "85-443",
    "*",
    "0-",
    "tcp",
    "nat",
    "maglev",
    "10s",
    "1m30s",
    "9999999h",
    "/run/x",
    "l4",
    "dsr",
    "affinity",
    "http",
    "https",
    "tls",
    "dns",
    "icmp",
    "smtp",
    "command",
    "path",
    "/owa",
    "method",
    "headers",
    "status",
    "200-399",
    "body",
    "body_regex",
    "server_name",
    "verify",
    "min_days",
    "send",
    "expect",
    "record",
    "AAAA",
    "starttls",
    "user",
    "root",
    "contract",
    "haproxy",
    "HOST",
    "PORT",
    "fast_interval",
    "on_down",
    "keep",
    "when_all_down",
    "echo",
    "slow_start",
    "passive",
    "eject",
    "hold",
    "at_most",
    "on_change",
    "priority",
    "\u{1f980}\u{301}",
    "\u{1b}[31m",
    "",
    "::ffff:1.2.3.4/33",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![8 => prop::sample::select(&WORDS[..]).prop_map(str::to_owned), 1 => ".{0,80}"]
}

fn position() -> impl Strategy<Value = Option<Position>> {
    prop::option::of((1..99u32, 1..99u32).prop_map(|(line, column)| Position { line, column }))
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        4 => word().prop_map(Value::String),
        2 => (0..500i64).prop_map(Value::Integer),
        1 => any::<i64>().prop_map(Value::Integer),
        1 => any::<f64>().prop_map(Value::Float),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => Just(Value::Other("null")),
    ];
    let leaf = (position(), leaf).prop_map(|(position, value)| Node { position, value });
    leaf.prop_recursive(6, 200, 12, |inner| {
        let key = (word(), position()).prop_map(|(name, position)| Key { name, position });
        let value = prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((key, inner), 0..12).prop_map(Value::Table),
        ];
        (position(), value).prop_map(|(position, value)| Node { position, value })
    })
}

/// A tree that has the shape of a configuration, with a value replaced or a key added here and there.
fn nearly_right() -> impl Strategy<Value = Node> {
    let odd = || prop::collection::vec((word(), node()), 0..2);
    let kinds = ["tcp", "http", "https", "tls", "udp", "dns", "icmp", "smtp", "imap", "pop3", "command"];
    let check = (prop::sample::select(kinds.to_vec()), own_keys());
    let farm = (prop::sample::select(&["a", "b", "web"][..]), 1..4u8, 78..90i64, 0..3usize, odd(), check);
    (prop::collection::vec(farm, 0..4), odd()).prop_map(|(farms, odd)| {
        let farms = farms.into_iter().map(|(name, vip, port, backends, odd, (kind, of_check))| {
            let backends =
                (0..backends).map(|i| table([("address", text(&format!("10.0.0.{i}")))], Vec::new()));
            let vip = text(&format!("192.0.2.{vip}"));
            let entries = [
                ("name", text(name)),
                ("vip", vip),
                ("ports", plain(Value::Array(vec![plain(Value::Integer(port)), text("80-82")]))),
                ("backend", plain(Value::Array(backends.collect()))),
                ("check", plain(Value::Array(vec![table([("type", text(kind))], of_check)]))),
            ];
            table(entries, odd)
        });
        let farms = plain(Value::Array(farms.collect()));
        table([("daemon", table([("interfaces", text("eth0"))], Vec::new())), ("farm", farms)], odd)
    })
}

/// Keys that some type of check has, with a value that fits some of them.
fn own_keys() -> impl Strategy<Value = Vec<(String, Node)>> {
    let keys = lb_core::config::keys::CHECK.names();
    let value = prop_oneof![
        word().prop_map(|word| text(&word)),
        prop::collection::vec(word().prop_map(|word| text(&word)), 0..4)
            .prop_map(|items| plain(Value::Array(items))),
        any::<bool>().prop_map(|flag| plain(Value::Bool(flag))),
        (0..700i64).prop_map(|number| plain(Value::Integer(number))),
        prop::collection::vec((word(), word()), 0..3).prop_map(|entries| {
            table([], entries.into_iter().map(|(name, value)| (name, text(&value))).collect())
        }),
    ];
    prop::collection::vec((prop::sample::select(keys).prop_map(str::to_owned), value), 0..4)
}

fn plain(value: Value) -> Node {
    Node { position: None, value }
}

fn text(text: &str) -> Node {
    plain(Value::String(text.to_owned()))
}

/// Of a repeated key the first counts, so the odd ones come first.
fn table<const N: usize>(entries: [(&str, Node); N], odd: Vec<(String, Node)>) -> Node {
    let entries = entries.into_iter().map(|(name, node)| (name.to_owned(), node));
    let key = |(name, node)| (Key { name, position: None }, node);
    plain(Value::Table(odd.into_iter().chain(entries).map(key).collect()))
}

fn judge(root: &Node) -> Result<(), TestCaseError> {
    match read(root) {
        Ok(config) => {
            prop_assert!(!config.daemon.interfaces.is_empty());
            prop_assert!(changes(&config, &config).is_empty());
            prop_assert!(needs_restart(&config, &config).is_empty());
        }
        Err(errors) => {
            prop_assert!(!errors.is_empty());
            for error in errors {
                let shown = error.to_string();
                prop_assert!(!shown.contains(char::is_control), "{shown:?}");
                prop_assert!(!error.message.is_empty() && error.hint.is_some_and(|hint| !hint.is_empty()));
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_tree_is_read_or_refused(root in node()) {
        judge(&root)?;
    }

    #[test]
    fn a_tree_that_is_nearly_right_is_read_or_refused(root in nearly_right()) {
        judge(&root)?;
    }
}
