//! The configuration's keys in the API are those of their table.

use std::collections::BTreeSet;

use lb_core::config::keys::{self, Schema};
use lb_daemon::api::types::ConfigSettings;
use lb_daemon::config::parse;
use lb_daemon::handle::Format;
use serde_json::{Value, json};

use super::{fixture, get};

const TYPES: [(&str, &str, &Schema); 8] = [
    ("DaemonSettings", "DaemonKeys", &keys::DAEMON),
    ("FarmSettings", "FarmKeys", &keys::FARM),
    ("TimeoutSettings", "TimeoutKeys", &keys::TIMEOUTS),
    ("LimitSettings", "LimitKeys", &keys::LIMITS),
    ("PassiveSettings", "PassiveKeys", &keys::PASSIVE),
    ("HookSettings", "HookKeys", &keys::ON_CHANGE),
    ("BackendSettings", "BackendKeys", &keys::BACKEND),
    ("CheckSettings", "CheckKeys", &keys::CHECK),
];

#[tokio::test]
async fn the_types_of_the_api_have_the_keys_of_the_table_and_no_others() {
    let (_fake, router) = fixture();
    let description = get(&router, "/openapi.json").await.json();
    for (answer, put, schema) in TYPES {
        let own: BTreeSet<&str> = schema.names().into_iter().collect();
        for name in [answer, put] {
            let properties = description["components"]["schemas"][name]["properties"].as_object().unwrap();
            let mut told: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
            if name == "FarmSettings" {
                // There is one type of farm so far.
                assert!(told.insert("type"));
            }
            assert_eq!(told, own, "{name}");
            for (name, property) in properties {
                let words = schema.key(name).unwrap().words;
                let told = property["description"].as_str().unwrap_or_default();
                assert!(told.contains(words), "{answer}.{name}: {told}");
            }
        }
    }
    let weight = &description["components"]["schemas"]["BackendKeys"]["properties"]["weight"];
    assert_eq!(
        (&weight["minimum"], &weight["maximum"], &weight["default"]),
        (&json!(0), &json!(256), &json!(1))
    );
    let modes = &description["components"]["schemas"]["FarmSettings"]["properties"]["mode"]["enum"];
    assert_eq!(*modes, json!(["nat", "dnat", "dsr", "ipip", "gue"]));
    let put = &description["paths"]["/v1/farms/{farm}"]["put"]["requestBody"]["content"];
    assert_eq!(put["application/json"]["schema"]["$ref"], "#/components/schemas/FarmKeys");
}

/// Every type of check, with the keys that it must have.
fn checks() -> Vec<Value> {
    let check = |kind: &&str| match *kind {
        "dns" => json!({"type": "dns", "port": 53, "name": "example.org", "expect": "192.0.2.1"}),
        "udp" => json!({"type": "udp", "port": 53, "expect": "a"}),
        "tls" => json!({"type": "tls", "min_days": 1, "server_name": "a"}),
        "http" => json!({"type": "http", "body": "a", "host": "a", "port": 1}),
        "https" => json!({"type": "https", "body_regex": "a"}),
        "command" => json!({"type": "command", "command": "true"}),
        kind => json!({"type": kind}),
    };
    keys::CHECK_TYPES.iter().map(check).collect()
}

#[test]
fn what_the_api_spells_out_says_every_key_and_is_read_back_as_it_was() {
    let daemon = json!({"interfaces": "eth0", "socket_group": "root", "connections": 4096});
    let farm = json!({"name": "web", "vip": "192.0.2.10", "ports": 80, "check": checks(), "on_change": ["true"],
        "passive": {"eject": true}, "affinity": {}, "limits": {"connections": 9, "new_per_second": 7}, "allow": ["10.0.0.0/8"], "deny": "10.1.2.3",
        "backend": [{"address": "10.0.0.11", "port": 8080}]});
    let text = json!({"daemon": daemon, "farm": [farm]}).to_string();
    let config = parse(&text, Format::Json).unwrap();
    let told = json!(ConfigSettings::from(&config));
    assert_eq!(parse(&told.to_string(), Format::Json).unwrap(), config, "{told}");
    let keys_of = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let farm = &told["farm"][0];
    let all: BTreeSet<String> = farm["check"].as_array().unwrap().iter().flat_map(keys_of).collect();
    for (schema, told) in [
        (&keys::DAEMON, keys_of(&told["daemon"])),
        (&keys::FARM, keys_of(farm)),
        (&keys::AFFINITY, keys_of(&farm["affinity"])),
        (&keys::TIMEOUTS, keys_of(&farm["timeouts"])),
        (&keys::LIMITS, keys_of(&farm["limits"])),
        (&keys::PASSIVE, keys_of(&farm["passive"])),
        (&keys::ON_CHANGE, keys_of(&farm["on_change"][0])),
        (&keys::BACKEND, keys_of(&farm["backend"][0])),
        (&keys::CHECK, all),
    ] {
        let missing: Vec<_> = schema.names().into_iter().filter(|name| !told.contains(*name)).collect();
        assert!(missing.is_empty() || missing == ["type"], "{}: {missing:?}", schema.title);
    }
    for (check, kind) in farm["check"].as_array().unwrap().iter().zip(keys::CHECK_TYPES) {
        for key in keys_of(check) {
            let owners = keys::owners(&key);
            assert!(owners.is_none_or(|owners| owners.contains(&kind)), "{kind} has no {key}");
        }
    }
}
