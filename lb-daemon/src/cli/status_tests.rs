//! What the screen looks like, to the column.

use serde_json::json;

use super::*;
use crate::api::types::{
    AdminState, Backend, BackendStatus, CheckSettings, ConfigFile, ConnectionTable, Counts, Directions,
    FamilyTable, Farm, FarmStatus, LimitSettings, TimeoutSettings,
};

const PLAIN: Style = Style { colour: false, narrow: true };

/// All ages are counted from then.
fn now() -> SystemTime {
    humantime::parse_rfc3339("2026-11-03T12:00:00Z").unwrap()
}

pub fn status(counts: Counts) -> Status {
    let interface = |name: &str, xdp_mode: &str, up| Interface {
        name: name.to_owned(),
        index: 2,
        xdp_mode: xdp_mode.to_owned(),
        up,
        missing: false,
        mtu: 1500,
    };
    Status {
        version: "0.1.0".to_owned(),
        started: "2026-10-31T08:00:00.000Z".to_owned(),
        uptime_seconds: 273_600.0,
        config_generation: 4,
        config_path: "/etc/drover/drover.toml".to_owned(),
        config_file: ConfigFile { state: "same".to_owned(), detail: None },
        ills: Vec::new(),
        defects: Vec::new(),
        interfaces: vec![interface("eth0", "native", true), interface("eth1", "generic", false)],
        counts,
        connection_table: table(12),
    }
}

/// One that is full to so many percent, for IPv4.
fn table(load_percent: u64) -> ConnectionTable {
    let family = |family: &str, load_percent| FamilyTable {
        family: family.to_owned(),
        lines: 100,
        lines_used: load_percent,
        load_percent,
        measures: Vec::new(),
    };
    ConnectionTable {
        connections: 1_048_576,
        bytes: 512 << 20,
        families: vec![family("ipv4", load_percent), family("ipv6", 0)],
        ..ConnectionTable::default()
    }
}

fn farm(name: &str, status: FarmStatus, backends: Vec<Backend>) -> Farm {
    let second = || "1s".to_owned();
    Farm {
        name: name.to_owned(),
        status,
        vip: vec!["192.0.2.10".to_owned()],
        ports: json!([80, 443]),
        protocol: vec!["tcp".to_owned()],
        mode: "nat".to_owned(),
        scheduler: "maglev".to_owned(),
        allow: [].as_slice().into(),
        deny: [].as_slice().into(),
        limits: LimitSettings { connections: None, new_per_second: None, over: "drop".to_owned() },
        timeouts: TimeoutSettings {
            syn: second(),
            established: second(),
            half_closed: second(),
            fin: second(),
            udp: second(),
        },
        enabled: true,
        checks: Vec::<CheckSettings>::new(),
        connections: backends.iter().map(|backend| backend.connections).sum(),
        connections_opened: 0,
        packets: Directions::default(),
        bytes: Directions::default(),
        backends,
    }
}

fn backend(name: &str, address: &str, status: BackendStatus, reason: &str) -> Backend {
    Backend {
        name: name.to_owned(),
        address: vec![address.to_owned()],
        port: None,
        weight: 1,
        admin_state: AdminState::Up,
        status,
        since: "2026-11-03T11:57:00.000Z".to_owned(),
        reason: reason.to_owned(),
        unresolved: Vec::new(),
        connections: 6,
        connections_opened: 0,
        packets: Directions::default(),
        bytes: Directions::default(),
    }
}

#[test]
fn one_screen_tells_what_is_wrong() {
    let web = vec![
        backend("10.0.0.11", "10.0.0.11", BackendStatus::Up, "tcp: connected to 10.0.0.11:80"),
        Backend {
            port: Some(8080),
            ..backend("ex2", "10.0.0.12", BackendStatus::Down, "connection refused")
        },
    ];
    let mail = vec![backend("10.0.0.21", "10.0.0.21", BackendStatus::Draining, "drained by hand")];
    let counts = Counts {
        farms: 2,
        farms_degraded: 1,
        farms_down: 1,
        backends: 3,
        backends_up: 1,
        connections: 1234,
        ..Counts::default()
    };
    let farms = vec![farm("web", FarmStatus::Degraded, web), farm("mail", FarmStatus::Down, mail)];
    let expected = "\
1 farm DEGRADED, 1 DOWN, 1 of 3 backends up, eth1 DOWN, 1234 connections

drover 0.1.0, up 3d 4h, configuration 4 of /etc/drover/drover.toml
  eth0             XDP native   MTU  1500  up
! eth1             XDP generic  MTU  1500  DOWN
  connections      IPv4 12% full, IPv6 0% full; for 1048576, 512 MiB

! web  DEGRADED
    192.0.2.10; tcp ports 80, 443; nat; 12 connections
    STATUS       BACKEND             WEIGHT    CONNS  SINCE
    up           10.0.0.11                1        6  3m
!   DOWN         ex2 10.0.0.12:8080       1        6  3m     connection refused

! mail  DOWN
    192.0.2.10; tcp ports 80, 443; nat; 6 connections
    STATUS       BACKEND    WEIGHT    CONNS  SINCE
    draining     10.0.0.21       1        6  3m     drained by hand
";
    assert_eq!(screen(&status(counts), &Farms { farms }, PLAIN, now()), expected);
}

#[test]
fn what_does_not_fit_is_wrapped_and_never_cut() {
    let name = "a-very-long-name-that-somebody-has-thought-up-for-a-real-server";
    let unresolved = Backend {
        port: Some(443),
        unresolved: vec!["2001:db8:1::11".to_owned()],
        ..backend("2001:db8:1::11", "2001:db8:1::11", BackendStatus::Up, "")
    };
    let reason = "tcp: 10.0.0.12:443 did not answer within 3s, 4 times in a row; 10.0.0.12:80 too";
    let backends = vec![
        unresolved,
        Backend {
            address: vec!["10.0.0.12".to_owned(), "2001:db8:1::12".to_owned()],
            ..backend(name, "", BackendStatus::Down, reason)
        },
    ];
    let mut farm = farm(&name[..62], FarmStatus::Degraded, backends);
    farm.vip = ["192.0.2.10", "2001:db8::10", "2001:db8::11"].map(str::to_owned).to_vec();
    farm.ports = json!([25, 143, 443, "587-588", 993, 995]);
    let expected = "\
! a-very-long-name-that-somebody-has-thought-up-for-a-real-serve  DEGRADED
    192.0.2.10, 2001:db8::10, 2001:db8::11; tcp ports 25, 143, 443, 587-588,
    993, 995; nat; 12 connections
    STATUS       BACKEND               WEIGHT    CONNS  SINCE
    up           [2001:db8:1::11]:443       1        6  3m
                 next hop not known for 2001:db8:1::11: packets are dropped
!   DOWN         a-very-long-name-that-somebody-has-thought-up-for-a-real-server
                 10.0.0.12, 2001:db8:1::12
                                            1        6  3m
                 tcp: 10.0.0.12:443 did not answer within 3s, 4 times in a row;
                 10.0.0.12:80 too
";
    let block = view::farm(&farm, PLAIN, now());
    assert_eq!(block, expected);
    assert!(block.lines().all(|line| line.chars().count() <= text::WIDTH));
}

#[test]
fn a_table_that_is_nearly_full_catches_the_eye() {
    let mut full = ConnectionTable { refused: 7, ..table(80) };
    full.families[0].measures = vec!["UDP has its share".to_owned(), "handshakes give way".to_owned()];
    let expected = "\
! connections      IPv4 80% full, IPv6 0% full; for 1048576, 512 MiB
                   7 refused for want of a line; UDP has its share (IPv4);
                   handshakes give way (IPv4)
";
    assert_eq!(table_lines(&full, PLAIN), expected);
    assert!(
        table_lines(&full, Style { colour: true, narrow: true }).contains("\x1b[1;31mIPv4 80% full\x1b[0m")
    );
}

#[test]
fn what_is_wrong_with_the_daemon_itself_stands_first() {
    let ill = |kind: &str, message: &str| Ill {
        kind: kind.to_owned(),
        since: "2026-11-03T11:57:00.000Z".to_owned(),
        message: message.to_owned(),
    };
    let ills = vec![
        ill("log", "the log cannot be written (No space left on device): 12 lines of it are lost"),
        ill("config-file", "it differs from what runs"),
    ];
    let status = Status { ills, ..status(Counts { farms: 1, farms_up: 1, ..Counts::default() }) };
    let screen = screen(&status, &Farms { farms: vec![] }, PLAIN, now());
    let expected = "\
1 farm up, 0 of 0 backends up, eth1 DOWN, 0 connections
! the log cannot be written (No space left on device): 12 lines of it are lost

drover 0.1.0, up 3d 4h, configuration 4 of /etc/drover/drover.toml
  eth0 ";
    assert!(screen.starts_with(expected), "{screen}");
}

#[test]
fn of_many_farms_the_worst_come_first_and_the_rest_can_be_left_out() {
    let up = |name: &str| backend(name, "10.0.0.11", BackendStatus::Up, "");
    let down = || backend("ex2", "10.0.0.12", BackendStatus::Down, "connection refused");
    let blind = Backend { unresolved: vec!["10.0.0.13".to_owned()], ..up("ex3") };
    let farms = || Farms {
        farms: vec![
            farm("well", FarmStatus::Up, vec![up("ex1")]),
            farm("off", FarmStatus::Disabled, vec![]),
            farm("blind", FarmStatus::Up, vec![up("ex1"), blind.clone()]),
            farm("half", FarmStatus::Degraded, vec![up("ex1"), down()]),
            farm(
                "dns",
                FarmStatus::Unchecked,
                vec![backend("ex1", "10.0.0.11", BackendStatus::Unchecked, "")],
            ),
            farm("gone", FarmStatus::Down, vec![down(), down()]),
        ],
    };
    let told = |farms: Farms| -> Vec<String> {
        farms.farms.iter().map(|farm| format!("{} {}", farm.name, farm.backends.len())).collect()
    };
    assert_eq!(told(worst_first(farms())), ["gone 2", "half 2", "dns 1", "well 1", "off 0", "blind 2"]);
    assert_eq!(told(only_problems(farms())), ["gone 2", "half 1", "dns 1", "blind 1"]);
}

#[test]
fn a_file_that_is_not_what_runs_is_said() {
    let state = crate::config::FileState::Differs;
    let config_file = ConfigFile { state: state.as_str().to_owned(), detail: state.advice() };
    let status = Status { config_file, ..status(Counts::default()) };
    let expected = "\
drover 0.1.0, up 3d 4h, configuration 4 of /etc/drover/drover.toml
! configuration file: it differs from what runs: `drover reload` makes it what
  runs; until then changes through the API are refused
  eth0 ";
    let screen = screen(&status, &Farms { farms: vec![] }, PLAIN, now());
    assert!(screen.contains(expected), "{screen}");
}

#[test]
fn what_farms_lack_on_this_host_is_said_once_for_all_of_them() {
    let defect = |farm: &str, file: &str| Defect {
        farm: farm.to_owned(),
        path: "check[0].command".to_owned(),
        message: format!("there is no file {file}"),
        hint: "write the path of a program".to_owned(),
    };
    let two = [defect("web", "/usr/local/lib/drover/x"), defect("mail", "/usr/local/lib/drover/x")];
    let expected = "\
! web: check[0].command (and 1 more): there is no file /usr/local/lib/drover/x;
  write the path of a program
";
    assert_eq!(defect_lines(&two, PLAIN), expected);
    let many = ["/a", "/b", "/c", "/d", "/e", "/f"].map(|file| defect("web", file));
    let lines = defect_lines(&many, PLAIN);
    assert!(lines.ends_with("  and 2 more such; `drover status --json` has all\n"), "{lines}");
}

#[test]
fn nothing_configured_is_said_with_what_to_do() {
    let expected = "\
no farms: nothing is balanced. Add one to /etc/drover/drover.toml, then `drover
reload`

drover 0.1.0, up 3d 4h, configuration 4 of /etc/drover/drover.toml
  eth0             XDP native   MTU  1500  up
! eth1             XDP generic  MTU  1500  DOWN
  connections      IPv4 12% full, IPv6 0% full; for 1048576, 512 MiB
";
    assert_eq!(screen(&status(Counts::default()), &Farms { farms: vec![] }, PLAIN, now()), expected);
    let empty = farm("web", FarmStatus::Down, vec![]);
    let expected = "\
! web  DOWN
    192.0.2.10; tcp ports 80, 443; nat; 0 connections
    no backends: nobody is served
";
    assert_eq!(view::farm(&empty, PLAIN, now()), expected);
}

#[test]
fn unchecked_is_never_written_as_up() {
    let counts =
        Counts { farms: 1, farms_unchecked: 1, backends: 1, backends_unchecked: 1, ..Counts::default() };
    let first = summary(&status(counts), PLAIN);
    assert_eq!(first, "1 farm unchecked, 0 of 1 backends up, eth1 DOWN, 0 connections\n");
}

#[test]
fn colours_only_repeat_what_the_words_say() {
    let web = farm("web", FarmStatus::Down, vec![backend("a", "10.0.0.1", BackendStatus::Down, "refused")]);
    let coloured = view::farm(&web, Style { colour: true, narrow: true }, now());
    assert!(coloured.contains("\x1b[1;31mDOWN\x1b[0m"), "{coloured:?}");
    let mut bare = String::new();
    for (n, part) in coloured.split('\x1b').enumerate() {
        bare += if n == 0 { part } else { part.split_once('m').unwrap().1 };
    }
    assert_eq!(bare, view::farm(&web, PLAIN, now()));
}
