//! What every command prints, with the longest names and addresses that there may be, on 80 columns.

use serde_json::{Value, json};

use super::text::{Style, WIDTH};
use super::{backend, changes, checks, connections, events, explain, farms, status};
use crate::api::types::{
    Backend, Changes, CheckRuns, Checks, Connections, Event, Explained, Farm, Farms, Status,
};

const PLAIN: Style = Style { colour: false, narrow: true };

fn name(letter: &str) -> String {
    letter.repeat(63)
}

fn address(last: u16) -> String {
    format!("2001:db8:1111:2222:3333:4444:5555:{last:x}")
}

fn directions() -> Value {
    json!({"in": u64::MAX, "out": u64::MAX})
}

fn a_backend() -> Value {
    json!({
        "name": name("b"), "address": ["192.168.100.200", address(0xffff)], "port": 65535, "weight": 256,
        "admin_state": "maintenance", "status": "maintenance", "since": "2026-11-03T11:57:00.000Z",
        "reason": format!("put into maintenance by an operator; tcp [{}]:65535: connection refused", address(1)),
        "unresolved": ["192.168.100.200", address(0xffff)], "connections": 12_345_678,
        "connections_opened": u64::MAX, "packets": directions(), "bytes": directions(),
    })
}

fn prefixes() -> Value {
    let prefix = |i: u16| format!("{}/128", address(0xffff - i));
    json!({"count": 100_000, "first": (0..10).map(prefix).collect::<Vec<_>>()})
}

fn a_farm() -> Value {
    let second = "86400s";
    json!({
        "name": name("f"), "status": "degraded", "vip": ["192.168.100.200", address(0xffff), address(0xfffe)],
        "ports": [25, 80, 143, 443, 465, "587-588", 993, 995, 8080, 8443], "protocol": ["tcp", "udp"],
        "mode": "nat", "scheduler": "maglev", "allow": prefixes(), "deny": prefixes(), "enabled": true, "checks": [], "connections": 12_345_678,
        "limits": {"connections": u32::MAX, "new_per_second": u32::MAX, "over": "refuse"},
        "timeouts": {"syn": second, "established": second, "half_closed": second, "fin": second, "udp": second},
        "connections_opened": u64::MAX, "packets": directions(), "bytes": directions(),
        "backends": [a_backend(), a_backend()],
    })
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn assert_fits(command: &str, printed: &str) {
    for line in printed.lines() {
        assert!(line.chars().count() <= WIDTH, "drover {command}: {} columns: {line}", line.chars().count());
    }
}

#[test]
fn every_command_fits_on_80_columns() {
    let now = humantime::parse_rfc3339("2026-11-03T12:00:00Z").unwrap();
    let farm: Farm = read(a_farm());
    assert_fits("farm show", &farms::show(&farm, PLAIN, now));
    assert_fits("farms", &farms::lines(&Farms { farms: vec![farm] }, PLAIN));
    let backend: Backend = read(a_backend());
    assert_fits("backend", &backend::told(&name("f"), &backend));

    let check = json!({
        "farm": name("f"), "backend": name("b"), "check": format!("command [{}]:65535 #12", address(0xffff)),
        "kind": "command", "address": format!("[{}]:65535", address(0xffff)), "state": "unchecked",
        "since": "2026-11-03T11:00:00Z", "reason": "connection refused", "running": false,
        "next_run_in_seconds": 0.5, "transitions": 1, "shared_with": 0, "history": [],
        "last": {"time": "2026-11-03T11:00:00Z", "result": "failed", "duration_seconds": 1.5,
                 "reason": "status 503, which is none of 200-399, and 12 more words"},
    });
    let schedule = json!({"checks": 1, "distinct": 1, "running": 0, "lateness_p99_seconds": 0.0, "lateness_max_seconds": 0.0});
    let listed: Checks = read(json!({"checks": [check], "schedule": schedule}));
    assert_fits("checks", &checks::listed(&listed, PLAIN, now));
    let run = json!({
        "farm": name("f"), "backend": name("b"), "check": "command", "kind": "command",
        "address": format!("[{}]:65535", address(1)), "result": "untried", "duration_seconds": 1.5,
        "reason": "there is no file /usr/lib/nagios/plugins/check_something, or it is no program", "output": "",
    });
    let runs: CheckRuns = read(json!({"passed": false, "runs": [run]}));
    assert_fits("checks run", &checks::said(&runs, PLAIN));

    let socket = |last| format!("[{}]:65535", address(last));
    let connection = json!({
        "protocol": "tcp", "client": socket(1), "vip": socket(2), "backend_address": socket(3), "source": socket(2),
        "farm": name("f"), "backend": name("b"), "state": "established", "age_seconds": 86400.0, "idle_seconds": 7200.0,
    });
    let connections: Connections = read(json!({"total": 1, "connections": [connection.clone()]}));
    assert_fits("connections", &connections::listed(&connections, PLAIN));

    let packet = json!({
        "protocol": "tcp", "source": socket(1), "destination": socket(2), "interface": "enp193s0f1np1.4094", "flags": "SAFRP",
        "sequence": u32::MAX, "acknowledgment": u32::MAX,
    });
    let step = |text: String| json!({"about": "connection", "text": text});
    let steps = [
        format!("farm '{}' serves {}, as one of all ports", name("f"), socket(2)),
        format!(
            "answers of {}: half-closed, 12345.6 s old, idle for 12345.6 s, served by {}",
            socket(1),
            socket(3)
        ),
    ];
    let explained: Explained = read(json!({
        "packet": packet, "steps": steps.map(step), "verdict": "opened", "action": "sent",
        "outcome": "challenged: it opens a connection in a flood; its sender was asked whether it is there",
        "sent": {"source": socket(1), "destination": socket(2), "interface": "enp193s0f1np1", "next_hop": "02:00:00:00:00:03"},
        "entry": connection,
    }));
    assert_fits("explain", &explain::explained(&explained, PLAIN));

    let message = format!(
        "BackEnd [{}]:65535 down in farm: '{}': connection refused; 12 connections cut",
        address(1),
        name("f")
    );
    let event: Event = read(json!({
        "id": 1, "time": "2026-11-03T11:00:00.000Z", "level": "warning", "kind": "backend-down",
        "farm": name("f"), "backend": name("b"), "message": message,
    }));
    let told = events::line(&event, PLAIN);
    assert_fits("events", &told);
    assert_eq!(told.split_whitespace().skip(2).collect::<Vec<_>>().join(" "), message, "{told}");
    let program = Style { narrow: false, ..PLAIN };
    assert_eq!(events::line(&event, program).lines().count(), 1, "a script reads lines");

    let line = format!("farm '{}': backend '{}' added, with weight 256", name("f"), name("b"));
    let changed: Changes =
        read(json!({"config_generation": 4, "changes": [&line], "orphaned_connections": 123_456_789}));
    assert_fits("reload", &changes::done(&changed));
    let backend =
        json!({"farm": name("f"), "backend": name("b"), "orphaned": 123_456_789, "cut": 123_456_789});
    let dry: Changes = read(json!({
        "config_generation": 4, "changes": [line], "orphaned_connections": 123_456_789, "affected": [backend],
    }));
    assert_fits("apply", &changes::would(&dry));
}

#[test]
fn the_first_line_of_the_status_fits_too() {
    let counts = json!({
        "farms": 5000, "farms_up": 4000, "farms_degraded": 300, "farms_down": 300, "farms_unchecked": 200,
        "farms_disabled": 200, "backends": 50_000, "backends_up": 49_000, "backends_down": 0, "backends_starting": 0,
        "backends_draining": 0, "backends_maintenance": 0, "backends_standby": 0, "backends_unchecked": 0,
        "connections": 123_456_789,
    });
    let status: Status = status::tests::status(read(counts));
    assert_fits("status", &status::summary(&status, PLAIN));
}
