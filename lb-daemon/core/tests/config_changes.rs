//! What people are told of a new configuration.

#![allow(clippy::unwrap_used, reason = "what tests share may fail as they do")]

use std::time::Duration;

use lb_core::config::model::{
    Addresses, Backend, BackendName, Check, Config, Daemon, Farm, FarmName, Mode, Ports, Protocols,
    Scheduler, Timeouts, XdpMode,
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
            connections: 65536,
            manage_vips: true,
        },
        farms: vec![farm("web"), farm("dns")],
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
        (|c| c.farms[0].timeouts.udp = Duration::from_secs(90), &["farm 'web': timeouts.udp 1m -> 1m30s"]),
        (|c| c.farms[0].enabled = false, &["farm 'web': disabled"]),
        (
            |c| c.farms[0].checks.clear(),
            &["farm 'web': checks tcp every 10s, timeout 3s, rise 2, fall 3 -> none"],
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
        connections: 2048,
        manage_vips: false,
    };
    new.farms.clear();
    let keys = ["interfaces", "xdp_mode", "socket", "socket_group", "state_dir", "bpffs_dir", "connections"];
    assert_eq!(needs_restart(&old, &new), keys);
}
