//! What people are told of a new configuration.

#![allow(clippy::unwrap_used, reason = "what tests share may fail as they do")]

use std::sync::Arc;
use std::time::Duration;

use lb_core::config::model::{
    Addresses, Affinity, Backend, BackendName, BodyMatch, Check, CheckKind, CommandCheck, CommandContract,
    Config, Daemon, Echo, Eject, Farm, FarmName, Hook, HttpCheck, Lists, Mode, OnDown, Passive, Ports,
    Protocols, Scheduler, Timeouts, Tls, WhenAllDown, XdpMode,
};
use lb_core::config::{changes, needs_restart};

fn backend(last: u8) -> Backend {
    let v4 = std::net::Ipv4Addr::new(10, 0, 0, last);
    let name = BackendName::new(&v4.to_string()).unwrap();
    Backend { name, address: Addresses { v4: Some(v4), v6: None }, port: None, weight: 1, priority: 0 }
}

fn farm(name: &str) -> Farm {
    Farm {
        name: FarmName::new(name).unwrap(),
        vips: vec!["192.0.2.10".parse().unwrap()],
        ports: Ports::Ranges(vec![(80, 80), (443, 443)]),
        protocols: Protocols { tcp: true, udp: false },
        mode: Mode::Nat,
        scheduler: Scheduler::Maglev,
        timeouts: Timeouts::default(),
        enabled: true,
        backends: vec![backend(11), backend(12)],
        checks: vec![Check::tcp()],
        ..Farm::new(FarmName::new("x").unwrap())
    }
}

fn config() -> Config {
    Config {
        daemon: Daemon {
            interfaces: vec!["eth0".to_owned()],
            xdp_mode: XdpMode::Auto,
            socket: "/run/drover/control.sock".into(),
            socket_group: None,
            state_dir: "/var/lib/drover".into(),
            bpffs_dir: "/sys/fs/bpf/drover".into(),
            connections: None,
            manage_vips: true,
        },
        farms: vec![farm("web"), farm("dns")],
    }
}

fn lists(allow: &[&str], deny: &[&str]) -> Arc<Lists> {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Arc::new(Lists::new(nets(allow), nets(deny)))
}

#[test]
fn of_long_lists_it_is_said_how_many_of_their_prefixes_differ() {
    let numbered = |range: std::ops::Range<u32>| {
        range.map(|i| format!("10.{}.{}.0/24", i / 256, i % 256).parse().unwrap()).collect()
    };
    let with = |range| {
        let mut config = config();
        config.farms[0].lists = Arc::new(Lists::new(Vec::new(), numbered(range)));
        config
    };
    let table = [
        (0..10_000, 0..10_000, None),
        (0..10_000, 3..10_001, Some("10,000 prefixes -> 9,998 prefixes (1 added, 3 removed)")),
        (0..10_000, 1..10_001, Some("10,000 prefixes -> 10,000 prefixes (1 added, 1 removed)")),
        (0..2, 0..5000, Some("10.0.0.0/24, 10.0.1.0/24 -> 5,000 prefixes (4,998 added, 0 removed)")),
        (0..1500, 0..0, Some("1,500 prefixes -> nobody (0 added, 1,500 removed)")),
    ];
    for (old, new, expected) in table {
        let told = changes(&with(old), &with(new));
        let expected: Vec<String> =
            expected.map(|text| format!("farm 'web': deny {text}")).into_iter().collect();
        assert_eq!(told, expected);
    }
}

#[test]
fn each_change_is_one_line() {
    type Change = fn(&mut Config);
    let table: &[(Change, &[&str])] = &[
        (|_| {}, &[]),
        (|c| c.farms.push(farm("new")), &["farm 'new': added, 2 backends"]),
        (|c| c.farms.truncate(1), &["farm 'dns': removed"]),
        (|c| c.farms.reverse(), &["farms: in another order"]),
        (
            |c| c.farms[0].lists = lists(&["10.0.0.0/8"], &["192.0.2.0/24", "2001:db8::/32"]),
            &[
                "farm 'web': allow everyone -> 10.0.0.0/8",
                "farm 'web': deny nobody -> 192.0.2.0/24, 2001:db8::/32",
            ],
        ),
        (|c| c.farms[0].backends.push(backend(13)), &["farm 'web': backend '10.0.0.13' added"]),
        (|c| c.farms[0].backends.truncate(1), &["farm 'web': backend '10.0.0.12' removed"]),
        (|c| c.farms[0].backends.reverse(), &["farm 'web': backends in another order"]),
        (|c| c.farms[0].backends[1].weight = 5, &["farm 'web': backend '10.0.0.12': weight 1 -> 5"]),
        (
            |c| c.farms[0].backends[1].port = Some(8080),
            &["farm 'web': backend '10.0.0.12': port the client's -> 8080"],
        ),
        (
            |c| c.farms[0].backends[1].address.v6 = Some("2001:db8::12".parse().unwrap()),
            &["farm 'web': backend '10.0.0.12': address 10.0.0.12 -> 10.0.0.12, 2001:db8::12"],
        ),
        (|c| c.farms[0].ports = Ports::Ranges(vec![(80, 90)]), &["farm 'web': ports 80, 443 -> 80-90"]),
        (|c| c.farms[0].ports = Ports::All, &["farm 'web': ports 80, 443 -> *"]),
        (
            |c| c.farms[0].vips.push("192.0.2.11".parse().unwrap()),
            &["farm 'web': vip 192.0.2.10 -> 192.0.2.10, 192.0.2.11"],
        ),
        (|c| c.farms[0].protocols.udp = true, &["farm 'web': protocol tcp -> tcp, udp"]),
        (|c| c.farms[0].mode = Mode::Dnat, &["farm 'web': mode nat -> dnat"]),
        (|c| c.farms[0].timeouts.udp = Duration::from_secs(90), &["farm 'web': timeouts.udp 2m -> 1m30s"]),
        (
            |c| c.farms[0].affinity = Some(Affinity::default()),
            &["farm 'web': affinity none -> by source (/32, /128) for 30m"],
        ),
        (
            |c| {
                c.farms[0].timeouts.established = Duration::from_secs(3600);
                c.farms[0].timeouts.half_closed = Duration::from_secs(60);
            },
            &["farm 'web': timeouts.established 2h4m -> 1h", "farm 'web': timeouts.half_closed 4m -> 1m"],
        ),
        (|c| c.farms[0].enabled = false, &["farm 'web': disabled"]),
        (
            |c| c.farms[0].checks.clear(),
            &["farm 'web': checks tcp every 10s, timeout 3s, rise 2, fall 3 -> none"],
        ),
        (
            |c| {
                c.farms[0].checks[0].kind = CheckKind::Icmp;
                c.farms[0].checks[0].rise = 1;
            },
            &["farm 'web': checks tcp every 10s, timeout 3s, rise 2, fall 3 -> \
               icmp every 10s, timeout 3s, rise 1, fall 3"],
        ),
        (
            |c| {
                c.farms[0].checks[0].fast_interval = Duration::from_millis(100);
                c.farms[0].checks[0].port = Some(80);
            },
            &[
                "farm 'web': check 1 (tcp): fast_interval 1s -> 100ms",
                "farm 'web': check 1 (tcp): port the farm's or backend's -> 80",
            ],
        ),
        (|c| c.farms[0].on_down = OnDown::Keep, &["farm 'web': on_down cut -> keep"]),
        (
            |c| c.farms[0].when_all_down = WhenAllDown::TryAll,
            &["farm 'web': when_all_down refuse -> try-all"],
        ),
        (|c| c.farms[0].echo = Echo::Never, &["farm 'web': echo up -> never"]),
        (|c| c.farms[0].slow_start = Duration::from_secs(30), &["farm 'web': slow_start 0s -> 30s"]),
        (
            |c| {
                let eject = Some(Eject { hold: Duration::from_secs(10), at_most: 50 });
                c.farms[0].passive = Passive { suspect: false, eject };
            },
            &[
                "farm 'web': passive.suspect true -> false",
                "farm 'web': passive.eject false -> for 10s and longer, at most 50%",
            ],
        ),
        (
            |c| {
                let command = vec!["tell".to_owned(), "me now".to_owned()];
                let timeout = Duration::from_secs(10);
                c.farms[0].on_change = vec![Hook { command, user: "nobody".to_owned(), timeout }];
            },
            &["farm 'web': on_change none -> \"tell\", \"me now\" as nobody within 10s"],
        ),
        (|c| c.farms[0].backends[1].priority = 5, &["farm 'web': backend '10.0.0.12': priority 0 -> 5"]),
        (
            |c| c.daemon.connections = Some(65_536),
            &["daemon: connections by the machine's memory -> 65536 (after a restart)"],
        ),
        (|c| c.daemon.manage_vips = false, &["daemon: manage_vips true -> false"]),
        (
            |c| c.daemon.interfaces.push("eth1".to_owned()),
            &["daemon: interfaces eth0 -> eth0, eth1 (after a restart)"],
        ),
        (
            |c| {
                c.daemon.socket_group = Some("drover".to_owned());
                c.farms[1].mode = Mode::Dnat;
                c.farms[1].backends.remove(0);
            },
            &[
                "daemon: socket_group none -> drover (after a restart)",
                "farm 'dns': mode nat -> dnat",
                "farm 'dns': backend '10.0.0.11' removed",
            ],
        ),
    ];
    for (change, lines) in table {
        let (old, mut new) = (config(), config());
        change(&mut new);
        assert_eq!(changes(&old, &new), *lines);
    }
}

fn http() -> HttpCheck {
    HttpCheck {
        tls: Some(Tls { verify: true, server_name: None }),
        paths: vec!["/".to_owned()],
        method: "GET".to_owned(),
        host: None,
        headers: Vec::new(),
        status: vec![(200, 399)],
        body: None,
    }
}

fn command() -> CommandCheck {
    let (command, user) = (vec!["check".to_owned()], "nobody".to_owned());
    CommandCheck { command, user, contract: CommandContract::FarmGuardian }
}

fn http_with(change: fn(&mut HttpCheck)) -> CheckKind {
    let mut http = http();
    change(&mut http);
    CheckKind::Http(http)
}

fn command_with(change: fn(&mut CommandCheck)) -> CheckKind {
    let mut command = command();
    change(&mut command);
    CheckKind::Command(command)
}

#[test]
fn each_change_of_a_check_is_one_line_too() {
    let tls = |verify| Tls { verify, server_name: None };
    let min_days = |min_days| CheckKind::Tls { tls: tls(true), min_days };
    let udp = |send: &[u8], expect: Option<&[u8]>| CheckKind::Udp {
        send: send.to_vec(),
        expect: expect.map(Vec::from),
    };
    let dns = |name: &str, record: &str, expect: &[&str]| CheckKind::Dns {
        name: name.to_owned(),
        record: record.to_owned(),
        expect: expect.iter().map(|&text| text.to_owned()).collect(),
    };
    let table = [
        (
            http_with(|_| {}),
            http_with(|http| http.paths.push("/ews".to_owned())),
            "(https): path \"/\" -> \"/\", \"/ews\"",
        ),
        (http_with(|_| {}), http_with(|http| http.method = "HEAD".to_owned()), "(https): method GET -> HEAD"),
        (
            http_with(|_| {}),
            http_with(|http| http.host = Some("a.example".to_owned())),
            "(https): host none -> \"a.example\"",
        ),
        (
            http_with(|_| {}),
            http_with(|http| http.headers.push(("X-A".to_owned(), "b".to_owned()))),
            "(https): headers none -> \"X-A: b\"",
        ),
        (
            http_with(|_| {}),
            http_with(|http| http.status = vec![(200, 200), (300, 399)]),
            "(https): status 200-399 -> 200, 300-399",
        ),
        (
            http_with(|_| {}),
            http_with(|http| http.body = Some(BodyMatch::Contains("OK\n".to_owned()))),
            "(https): body none -> \"OK\\n\"",
        ),
        (
            http_with(|_| {}),
            http_with(|http| http.body = Some(BodyMatch::Regex("O.".to_owned()))),
            "(https): body_regex none -> \"O.\"",
        ),
        (
            http_with(|_| {}),
            http_with(|http| http.tls = Some(Tls { verify: false, server_name: None })),
            "(https): verify true -> false",
        ),
        (
            http_with(|_| {}),
            http_with(|http| {
                http.tls = Some(Tls { verify: true, server_name: Some("a.example".to_owned()) });
            }),
            "(https): server_name none -> \"a.example\"",
        ),
        (min_days(None), min_days(Some(14)), "(tls): min_days none -> 14"),
        (udp(b"", None), udp(b"\xff\n", None), "(udp): send \"\" -> \"\\xff\\n\""),
        (udp(b"", None), udp(b"", Some(b"OK")), "(udp): expect none -> \"OK\""),
        (dns("a", "A", &[]), dns("b", "A", &[]), "(dns): name \"a\" -> \"b\""),
        (dns("a", "A", &[]), dns("a", "MX", &[]), "(dns): record A -> MX"),
        (dns("a", "A", &[]), dns("a", "A", &["192.0.2.1"]), "(dns): expect none -> \"192.0.2.1\""),
        (
            CheckKind::Imap { starttls: Some(tls(true)) },
            CheckKind::Imap { starttls: Some(tls(false)) },
            "(imap): verify true -> false",
        ),
        (
            command_with(|_| {}),
            command_with(|check| check.command.push("-v".to_owned())),
            "(command): command \"check\" -> \"check\", \"-v\"",
        ),
        (
            command_with(|_| {}),
            command_with(|check| check.user = "checks".to_owned()),
            "(command): user nobody -> checks",
        ),
        (
            command_with(|_| {}),
            command_with(|check| check.contract = CommandContract::Haproxy),
            "(command): contract farmguardian -> haproxy",
        ),
    ];
    for (from, to, line) in table {
        let with = |kind: &CheckKind| {
            let mut config = config();
            config.farms[0].checks.push(Check { kind: kind.clone(), ..Check::tcp() });
            config
        };
        assert_eq!(changes(&with(&from), &with(&to)), [format!("farm 'web': check 2 {line}")]);
        assert_eq!(changes(&with(&to), &with(&to)), Vec::<String>::new());
    }
    let (mut old, mut new) = (config(), config());
    old.farms[0].checks[0].kind = CheckKind::Smtp { starttls: None };
    new.farms[0].checks[0].kind = CheckKind::Smtp { starttls: Some(tls(true)) };
    let lines = ["starttls false -> true", "verify none -> true"]
        .map(|line| format!("farm 'web': check 1 (smtp): {line}"));
    assert_eq!(changes(&old, &new), lines);
}

#[test]
fn what_a_reload_cannot_change_is_named() {
    let (old, mut new) = (config(), config());
    new.daemon = Daemon {
        interfaces: vec!["eth1".to_owned()],
        xdp_mode: XdpMode::Generic,
        socket: "/run/other".into(),
        socket_group: Some("x".to_owned()),
        state_dir: "/var/other".into(),
        bpffs_dir: "/sys/other".into(),
        connections: Some(2048),
        manage_vips: false,
    };
    new.farms.clear();
    let keys = ["interfaces", "xdp_mode", "socket", "socket_group", "state_dir", "bpffs_dir", "connections"];
    assert_eq!(needs_restart(&old, &new), keys);
}
