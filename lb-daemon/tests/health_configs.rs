//! Checks and what follows from them: the models that files become, and the way back to a file.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what tests share may fail as they do")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lb_core::config::model::{
    BodyMatch, Check, CheckKind, CommandCheck, CommandContract, Config, Echo, Eject, Farm, Hook, HttpCheck,
    OnDown, Passive, Tls, WhenAllDown,
};
use lb_core::config::{ConfigError, changes};
use lb_daemon::api::types::ConfigSettings;
use lb_daemon::config::{edit, load, parse};
use lb_daemon::handle::{FarmEdit, Format};
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/good-configs")
}

/// A file with one farm of one backend; the backend has no port of its own.
fn file(farm: &str, check: &str) -> String {
    format!(
        "[daemon]\ninterfaces = ['eth0']\n[[farm]]\nname = 'web'\nvip = '192.0.2.10'\n{farm}\n\
         [[farm.backend]]\naddress = '10.0.0.11'\n[[farm.check]]\n{check}\n"
    )
}

fn farm(farm: &str, check: &str) -> Result<Farm, Vec<ConfigError>> {
    parse(&file(farm, check), Format::Toml).map(|config| config.farms[0].clone())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn check(kind: CheckKind, port: Option<u16>) -> Check {
    Check { kind, port, ..Check::tcp() }
}

fn tls(verify: bool, server_name: Option<&str>) -> Tls {
    Tls { verify, server_name: server_name.map(str::to_owned) }
}

fn http() -> HttpCheck {
    HttpCheck {
        tls: None,
        paths: words(&["/"]),
        method: "GET".to_owned(),
        host: None,
        headers: Vec::new(),
        status: vec![(200, 399)],
        body: None,
    }
}

fn every_kind() -> Vec<Check> {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let command = |command: &[&str], user: &str, contract| {
        CheckKind::Command(CommandCheck { command: words(command), user: user.to_owned(), contract })
    };
    let dns = |name: &str, record: &str, expect: &[&str]| CheckKind::Dns {
        name: name.to_owned(),
        record: record.to_owned(),
        expect: words(expect),
    };
    vec![
        Check {
            kind: CheckKind::Http(HttpCheck {
                tls: Some(tls(false, Some("owa.example.org"))),
                paths: words(&["/owa/healthcheck.htm", "/ews/healthcheck.htm?deep=1"]),
                method: "POST".to_owned(),
                host: Some("mail.example.org:8443".to_owned()),
                headers: vec![header("accept", "text/html, */*"), header("X-Check", "drover")],
                status: vec![(200, 202), (204, 204), (300, 401)],
                body: Some(BodyMatch::Regex("(?i)200 ok\n".to_owned())),
            }),
            interval: Duration::from_secs(5),
            fast_interval: Duration::from_millis(500),
            timeout: Duration::from_secs(2),
            rise: 1,
            fall: 2,
            port: Some(443),
        },
        check(
            CheckKind::Http(HttpCheck { body: Some(BodyMatch::Contains("200 OK".to_owned())), ..http() }),
            Some(80),
        ),
        check(CheckKind::Tls { tls: tls(true, Some("imap.example.org")), min_days: Some(14) }, Some(993)),
        check(
            CheckKind::Udp {
                send: b"OPTIONS sip:check SIP/2.0\r\n\r\n".to_vec(),
                expect: Some(b"SIP/2.0".to_vec()),
            },
            Some(5060),
        ),
        check(CheckKind::Udp { send: vec![12, 0, 255], expect: Some(vec![2]) }, Some(1812)),
        check(dns("www.example.org", "AAAA", &["2001:db8::1", "2001:db8::2"]), Some(53)),
        check(dns("_sip._tcp.example.org.", "SRV", &[]), Some(53)),
        check(CheckKind::Icmp, None),
        check(CheckKind::Smtp { starttls: None }, Some(25)),
        check(CheckKind::Imap { starttls: Some(tls(true, None)) }, Some(143)),
        check(CheckKind::Pop3 { starttls: Some(tls(false, Some("pop.example.org"))) }, Some(110)),
        check(command(&["sh", "-c", "", "HOST", "PORT"], "nobody", CommandContract::FarmGuardian), None),
        check(command(&["true"], "daemon", CommandContract::Haproxy), None),
    ]
}

#[test]
fn every_key_of_health_arrives_in_the_model() {
    let (_, _, config) = load(&folder().join("health.toml")).unwrap();
    let hook = |command: &[&str], seconds| Hook {
        command: words(command),
        user: "nobody".to_owned(),
        timeout: Duration::from_secs(seconds),
    };
    let farm = &config.farms[0];
    let expected = Farm {
        on_down: OnDown::Keep,
        when_all_down: WhenAllDown::TryAll,
        echo: Echo::Always,
        slow_start: Duration::from_secs(30),
        passive: Passive {
            suspect: false,
            eject: Some(Eject { hold: Duration::from_secs(60), at_most: 30 }),
        },
        on_change: vec![hook(&["sh", "-c", "cat"], 2), hook(&["true"], 10)],
        checks: every_kind(),
        ..farm.clone()
    };
    assert_eq!(farm.checks, expected.checks);
    assert_eq!(*farm, expected);
    assert_eq!(farm.backends.iter().map(|backend| backend.priority).collect::<Vec<_>>(), [0, 65535]);
}

#[test]
fn what_a_check_leaves_out_has_its_default() {
    let http = |tls| CheckKind::Http(HttpCheck { tls, ..http() });
    let command = |contract| {
        CheckKind::Command(CommandCheck { command: words(&["true"]), user: "nobody".to_owned(), contract })
    };
    let dns = CheckKind::Dns { name: "a.example".to_owned(), record: "A".to_owned(), expect: Vec::new() };
    for (keys, kind) in [
        ("", CheckKind::Tcp),
        ("type = 'http'", http(None)),
        // It trusts nobody unless told to.
        ("type = 'https'", http(Some(tls(true, None)))),
        ("type = 'tls'", CheckKind::Tls { tls: tls(true, None), min_days: None }),
        ("type = 'udp'", CheckKind::Udp { send: Vec::new(), expect: None }),
        ("type = 'dns'\nname = 'a.example'", dns),
        ("type = 'icmp'", CheckKind::Icmp),
        ("type = 'smtp'", CheckKind::Smtp { starttls: None }),
        ("type = 'imap'\nstarttls = false", CheckKind::Imap { starttls: None }),
        ("type = 'pop3'", CheckKind::Pop3 { starttls: None }),
        ("type = 'command'\ncommand = ['true']", command(CommandContract::FarmGuardian)),
    ] {
        let farm = farm("ports = [53]\nprotocol = ['tcp', 'udp']", keys).unwrap();
        assert_eq!(farm.checks, [check(kind, None)], "{keys}");
    }
    let quick = farm("ports = 80", "interval = '200ms'").unwrap();
    assert_eq!(quick.checks[0].fast_interval, Duration::from_millis(200));
    let farm = farm("ports = 80\non_change = ['sh', '-c', 'cat']\npassive = { eject = true }", "").unwrap();
    let eject = Some(Eject { hold: Duration::from_secs(10), at_most: 50 });
    assert_eq!(farm.passive, Passive { suspect: true, eject });
    let timeout = Duration::from_secs(10);
    let hook = Hook { command: words(&["sh", "-c", "cat"]), user: "nobody".to_owned(), timeout };
    assert_eq!(farm.on_change, [hook]);
}

#[test]
fn a_check_without_a_port_needs_ports_of_its_protocol() {
    let (tcp, udp, both) = ("protocol = 'tcp'", "protocol = 'udp'", "protocol = ['tcp', 'udp']");
    let (few, many, all) = ("ports = ['1-64']", "ports = ['1-65']", "ports = '*'");
    let plain = "type = 'command'\ncommand = ['true', 'HOST']";
    let with_port = "type = 'command'\ncommand = ['true', 'PORT']";
    for (check, protocol, ports, probed) in [
        ("type = 'http'", tcp, few, Some(64)),
        ("type = 'http'", both, few, Some(64)),
        ("type = 'http'", udp, few, None),
        ("type = 'http'\nport = 80", udp, all, Some(1)),
        ("type = 'smtp'", tcp, many, None),
        ("type = 'tls'", tcp, all, None),
        ("type = 'udp'", udp, few, Some(64)),
        ("type = 'udp'", tcp, few, None),
        ("type = 'udp'\nport = 5060", tcp, few, Some(1)),
        ("type = 'dns'\nname = 'a.example'", tcp, few, None),
        ("type = 'dns'\nname = 'a.example'", udp, all, None),
        ("type = 'icmp'", udp, all, Some(1)),
        ("type = 'icmp'", tcp, many, Some(1)),
        (plain, udp, few, Some(64)),
        (plain, udp, many, None),
        (plain, udp, all, Some(1)),
        (with_port, udp, few, Some(64)),
        (with_port, udp, all, None),
        ("type = 'command'\ncommand = ['true']\ncontract = 'haproxy'", tcp, all, None),
    ] {
        let read = farm(&format!("{protocol}\n{ports}"), check);
        let found = read.as_ref().ok().map(|farm| farm.checks[0].ports(farm, &farm.backends[0]).len());
        assert_eq!(found, probed, "{check} {protocol} {ports}: {read:?}");
        if let Err(errors) = read {
            assert_eq!(errors.len(), 1, "{errors:#?}");
        }
    }
}

/// The configuration as the API shows it.
fn canonical(config: &Config) -> Value {
    serde_json::to_value(ConfigSettings::from(config)).unwrap()
}

#[test]
fn what_the_api_shows_can_be_put_back_and_means_the_same() {
    for name in ["smallest.toml", "everything.toml", "exchange.toml", "health.toml"] {
        let (text, format, config) = load(&folder().join(name)).unwrap();
        let shown = canonical(&config);
        let put =
            parse(&shown.to_string(), Format::Json).unwrap_or_else(|errors| panic!("{name}: {errors:#?}"));
        assert_eq!(changes(&config, &put), Vec::<String>::new(), "{name}");
        assert_eq!(put, config, "{name}");
        assert_eq!(canonical(&put), shown, "{name}");
        // And farm by farm, into the file that it came from.
        for (farm, shown) in config.farms.iter().zip(shown["farm"].as_array().unwrap()) {
            let edited = edit(&text, format, &farm.name, &FarmEdit::Put(shown.clone())).unwrap();
            let put = parse(&edited, format).unwrap_or_else(|errors| panic!("{name}: {errors:#?}\n{edited}"));
            assert_eq!(put, config, "{edited}");
        }
    }
}

#[test]
fn the_api_shows_only_the_keys_that_a_type_has() {
    let keys = |check: &str| {
        let config = parse(&file("ports = 80\nprotocol = ['tcp', 'udp']", check), Format::Toml).unwrap();
        let shown = canonical(&config)["farm"][0]["check"][0].clone();
        let common = ["type", "interval", "fast_interval", "timeout", "rise", "fall"];
        let own = shown.as_object().unwrap().iter().filter(|(key, _)| !common.contains(&key.as_str()));
        Value::Object(own.map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    let http = json!({"path": ["/"], "method": "GET", "headers": {}, "status": ["200-399"]});
    for (check, expected) in [
        ("", json!({})),
        ("type = 'icmp'", json!({})),
        ("type = 'http'", http),
        ("type = 'tls'\nport = 443", json!({"port": 443, "verify": true})),
        ("type = 'udp'", json!({"send": ""})),
        ("type = 'udp'\nsend = [255]", json!({"send": [255]})),
        ("type = 'dns'\nname = 'a.example'", json!({"name": "a.example", "record": "A"})),
        ("type = 'smtp'", json!({"starttls": false})),
        ("type = 'smtp'\nstarttls = true", json!({"starttls": true, "verify": true})),
        (
            "type = 'command'\ncommand = 'true'",
            json!({"command": ["true"], "user": "nobody", "contract": "farmguardian"}),
        ),
    ] {
        assert_eq!(keys(check), expected, "{check}");
    }
}

#[test]
fn a_program_that_others_can_replace_is_refused_with_its_line() {
    let scene = tempfile::tempdir().unwrap();
    let mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(scene.path(), 0o755);
    let script = scene.path().join("check.sh");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let shown = script.display();
    for (of_script, of_folder, wrong) in [
        (0o755, 0o755, None),
        (0o757, 0o755, Some("can be written by everybody")),
        (0o755, 0o757, Some("everybody can write to")),
        (0o644, 0o755, Some("is not executable")),
        (0o744, 0o755, Some("the user 'nobody' may not run")),
        (0o755, 0o700, Some("is closed to it")),
    ] {
        mode(&script, of_script);
        mode(scene.path(), of_folder);
        for (text, path, line) in [
            (
                file("ports = 80", &format!("type = 'command'\ncommand = ['{shown}', 'HOST']")),
                "farm[0].check[0].command[0]",
                11,
            ),
            (file(&format!("ports = 80\non_change = ['{shown}']"), ""), "farm[0].on_change[0]", 7),
            (
                file(&format!("ports = 80\non_change = {{ command = '{shown}' }}"), ""),
                "farm[0].on_change.command",
                7,
            ),
        ] {
            let read = parse(&text, Format::Toml);
            let Some(wrong) = wrong else {
                assert!(read.is_ok(), "{read:?}");
                continue;
            };
            let errors = read.unwrap_err();
            let [error] = errors.as_slice() else { panic!("{errors:#?}") };
            assert!(error.message.contains(wrong), "{error}");
            assert_eq!((error.path.as_str(), error.at.unwrap().line), (path, line), "{error}");
        }
    }
    mode(scene.path(), 0o755);
}

#[test]
fn mistakes_of_the_file_and_of_the_host_are_told_together_and_once() {
    let text = "[daemon]\ninterfaces = []\n[[farm]]\nname = 'web'\nvip = '192.0.2.10'\nports = 80\n\
                [[farm.check]]\ntype = 'command'\ncommand = ['no-such-plugin', 5]\nuser = 'root'\n\
                [[farm.check]]\ntype = 'http'\nbody_regex = '('\npath = 'x'\n\
                [[farm.check]]\ntype = 'tcp'\ncommand = ['no-such-plugin']\n";
    let errors = parse(text, Format::Toml).unwrap_err();
    let places: Vec<_> = errors.iter().map(|error| (error.at.unwrap().line, error.path.as_str())).collect();
    assert_eq!(
        places,
        [
            (2, "daemon.interfaces"),
            (9, "farm[0].check[0].command[0]"),
            (9, "farm[0].check[0].command[1]"),
            (10, "farm[0].check[0].user"),
            (13, "farm[0].check[1].body_regex"),
            (14, "farm[0].check[1].path"),
            (17, "farm[0].check[2].command"),
        ],
        "{errors:#?}"
    );
}
