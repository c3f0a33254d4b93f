//! What the daemon gets to work with: files that are valid, and the models they become.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what tests share may fail as they do")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use lb_core::config::changes;
use lb_core::config::model::{
    Addresses, Affinity, Backend, BackendName, Check, CheckKind, Config, Daemon, Farm, FarmName, Mode, Ports,
    Protocols, Scheduler, Timeouts, XdpMode,
};
use lb_daemon::cli::check::summary;
use lb_daemon::config::{load, parse};
use lb_daemon::handle::Format;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/good-configs").join(name)
}

fn backend(name: &str, v4: Option<&str>, v6: Option<&str>, port: Option<u16>, weight: u16) -> Backend {
    let address = Addresses { v4: v4.map(|ip| ip.parse().unwrap()), v6: v6.map(|ip| ip.parse().unwrap()) };
    Backend { name: BackendName::new(name).unwrap(), address, port, weight, priority: 0 }
}

fn farm(name: &str, vip: &str, ports: Ports, backends: Vec<Backend>) -> Farm {
    Farm {
        name: FarmName::new(name).unwrap(),
        vips: vec![vip.parse().unwrap()],
        ports,
        protocols: Protocols { tcp: true, udp: false },
        mode: Mode::Nat,
        scheduler: Scheduler::Maglev,
        timeouts: Timeouts::default(),
        enabled: true,
        backends,
        checks: vec![Check::tcp()],
        ..Farm::new(FarmName::new(name).unwrap())
    }
}

#[test]
fn what_the_smallest_file_leaves_out_has_its_default() {
    let (_, format, config) = load(&file("smallest.toml")).unwrap();
    let backends = ["10.0.0.11", "10.0.0.12"].map(|ip| backend(ip, Some(ip), None, None, 1)).to_vec();
    let expected = Config {
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
        farms: vec![farm("web", "192.0.2.10", Ports::Ranges(vec![(80, 80), (443, 443)]), backends)],
    };
    assert_eq!(format, Format::Toml);
    assert_eq!(config, expected);
    assert_eq!(summary(Path::new("f.toml"), &config), "f.toml: valid: 1 farm, 2 backends");
}

#[test]
fn every_supported_key_arrives_in_the_model() {
    let (_, _, config) = load(&file("everything.toml")).unwrap();
    let seconds = Duration::from_secs;
    let expected = Config {
        daemon: Daemon {
            interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
            xdp_mode: XdpMode::Native,
            socket: "/run/drover/other.sock".into(),
            socket_group: Some("drover".to_owned()),
            state_dir: "/var/lib/other".into(),
            bpffs_dir: "/sys/fs/bpf/other".into(),
            connections: Some(65536),
            manage_vips: false,
        },
        farms: vec![
            Farm {
                vips: vec!["192.0.2.20".parse().unwrap(), "2001:db8::20".parse().unwrap()],
                protocols: Protocols { tcp: true, udp: true },
                mode: Mode::Dnat,
                scheduler: Scheduler::WeightedRoundRobin,
                affinity: Some(Affinity { timeout: seconds(3600), prefix_v4: 24, prefix_v6: 64 }),
                timeouts: Timeouts {
                    syn: seconds(5),
                    established: seconds(7200),
                    half_closed: seconds(180),
                    fin: seconds(90),
                    udp: Duration::from_millis(500),
                },
                enabled: false,
                checks: vec![
                    Check {
                        kind: CheckKind::Tcp,
                        interval: seconds(5),
                        fast_interval: seconds(1),
                        timeout: seconds(1),
                        rise: 1,
                        fall: 5,
                        port: Some(443),
                    },
                    // The default time-out gives way to a shorter interval.
                    Check {
                        interval: seconds(1),
                        fast_interval: seconds(1),
                        timeout: seconds(1),
                        ..Check::tcp()
                    },
                ],
                ..farm(
                    "exchange",
                    "192.0.2.20",
                    Ports::Ranges(vec![(25, 25), (143, 143), (443, 443), (587, 588), (993, 993)]),
                    vec![
                        backend("ex1", Some("10.0.0.11"), Some("2001:db8::11"), Some(443), 256),
                        backend("2001:db8::12", Some("10.0.0.12"), Some("2001:db8::12"), None, 0),
                    ],
                )
            },
            Farm {
                protocols: Protocols { tcp: false, udp: true },
                checks: Vec::new(),
                ..farm("dns", "192.0.2.20", Ports::Ranges(vec![(53, 53)]), Vec::new())
            },
            Farm {
                checks: Vec::new(),
                ..farm(
                    "voip",
                    "192.0.2.21",
                    Ports::All,
                    vec![backend("10.0.0.11", Some("10.0.0.11"), None, None, 1)],
                )
            },
        ],
    };
    assert_eq!(changes(&expected, &config), Vec::<String>::new());
    assert_eq!(config, expected);
}

#[test]
fn json_with_the_same_keys_is_the_same_configuration() {
    let json = r#"{
        "daemon": {"interfaces": ["eth0"]},
        "farm": [{
            "name": "web", "vip": "192.0.2.10", "ports": [80, 443],
            "backend": [{"address": "10.0.0.11"}, {"address": "10.0.0.12"}]
        }]
    }"#;
    let (_, _, toml) = load(&file("smallest.toml")).unwrap();
    assert_eq!(parse(json, Format::Json).unwrap(), toml);
}

#[test]
fn farms_that_only_seem_to_overlap_are_accepted() {
    let farm = |name, vip, ports, protocol| {
        format!(
            "[[farm]]\nname = '{name}'\nvip = {vip}\nports = {ports}\nprotocol = '{protocol}'\ncheck = []\n"
        )
    };
    for (what, first, second) in [
        ("another VIP", ("'192.0.2.10'", "'*'", "tcp"), ("'192.0.2.11'", "'*'", "tcp")),
        ("another family", ("'192.0.2.10'", "'*'", "tcp"), ("'2001:db8::10'", "'*'", "tcp")),
        ("another protocol", ("'192.0.2.10'", "[53]", "tcp"), ("'192.0.2.10'", "[53]", "udp")),
        ("the next port", ("'192.0.2.10'", "['80-90']", "tcp"), ("'192.0.2.10'", "['91-99', 79]", "tcp")),
    ] {
        let text = format!(
            "[daemon]\ninterfaces = ['eth0']\n{}{}",
            farm("one", first.0, first.1, first.2),
            farm("two", second.0, second.1, second.2)
        );
        assert!(parse(&text, Format::Toml).is_ok(), "{what}: {:?}", parse(&text, Format::Toml));
    }
}

#[test]
fn the_examples_of_the_documentation_are_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let document = std::fs::read_to_string(path).unwrap();
    let examples: Vec<&str> =
        document.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 8, "only {} examples found", examples.len());
    for example in examples {
        let daemon = if example.contains("[daemon]") { "" } else { "[daemon]\ninterfaces = ['eth0']\n" };
        let farm = match example.contains("[[farm]]") {
            true => "",
            false => "[[farm]]\nname = 'web'\nvip = ['192.0.2.10', '2001:db8::10']\nports = [80]\n",
        };
        // Not every machine has the plugin.
        let text = format!("{daemon}{farm}{example}").replace("\"check_http\"", "\"true\"");
        assert!(parse(&text, Format::Toml).is_ok(), "{:#?}\n{text}", parse(&text, Format::Toml));
    }
}

#[test]
fn a_configuration_without_farms_is_valid() {
    let config = parse("[daemon]\ninterfaces = 'eth0'\n", Format::Toml).unwrap();
    assert!(config.farms.is_empty());
}

#[test]
fn prefixes_may_lie_in_one_another_and_stand_in_any_order() {
    let text = "[daemon]\ninterfaces = ['eth0']\n[[farm]]\nname = 'web'\nvip = '192.0.2.1'\nports = 80\n\
                allow = ['2001:db8::/32', '10.0.0.0/8', '10.1.2.3', '2001:db8::/64']\ndeny = '10.1.0.0/16'\n";
    let lists = &parse(text, Format::Toml).unwrap().farms[0].lists;
    let told = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(told(lists.allow()), ["10.0.0.0/8", "10.1.2.3/32", "2001:db8::/32", "2001:db8::/64"]);
    assert_eq!(told(lists.deny()), ["10.1.0.0/16"]);
}

#[test]
fn the_limits_are_told_where_they_are_passed() {
    let daemon = "[daemon]\ninterfaces = ['eth0']\n";
    let farms = |count: usize| -> String {
        let farm =
            |i: usize| format!("[[farm]]\nname = 'f{i}'\nvip = '10.9.{}.{}'\nports = 80\n", i / 250, i % 250);
        daemon.to_owned() + &(1..=count).map(farm).collect::<String>()
    };
    assert_eq!(parse(&farms(512), Format::Toml).unwrap().farms.len(), 512);
    let errors = parse(&farms(513), Format::Toml).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].path == "farm[512]" && errors[0].message.contains("512 are the most"), "{errors:?}");

    let backends = |count: usize| -> String {
        let backend = |i: usize| format!("[[farm.backend]]\naddress = '10.1.{}.{}'\n", i / 250, i % 250 + 1);
        format!("{daemon}[[farm]]\nname = 'web'\nvip = '192.0.2.10'\nports = 80\n")
            + &(0..count).map(backend).collect::<String>()
    };
    assert_eq!(parse(&backends(8192), Format::Toml).unwrap().farms[0].backends.len(), 8192);
    let errors = parse(&backends(8193), Format::Toml).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].path.ends_with("backend[8192]"), "{errors:?}");
}
