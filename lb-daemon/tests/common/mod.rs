//! A daemon that is none: it publishes a state, answers commands from a table, and keeps what it was asked.

// Each test binary uses a part of it.
#![allow(dead_code)]

mod explained;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use lb_core::config::model::{
    Addresses, Backend, BackendName, Check, Config, Daemon, Farm, FarmName, Mode, Ports, Protocols,
    Scheduler, Timeouts, XdpMode,
};
use lb_core::config::{ConfigError, Position};
use lb_core::explain::{Explanation, Question};
use lb_core::health::Judgement;
use lb_core::ills::{Ill, Organ};
use lb_core::state::tables::Table;
use lb_core::state::{
    AdminState, BackendState, BackendStatus, CheckLoad, CheckReport, CheckRun, CheckVerdict, Connection,
    ConnectionFilter, EventKind, EventLevel, FarmState, FarmStatus, Histogram, InterfaceState, News,
    Occurrences, Protocol, ResultRecord, Snapshot, Tables, Traffic,
};
use lb_daemon::config::FileState;
use lb_daemon::handle::{
    Changes, CheckQuery, Checks, ChecksTold, Command, DataplaneReader, Events, Handle, Order, Refusal,
};
use lb_daemon::ills::Condition;
use lb_daemon::precondition::{Precondition, Version};
use lb_daemon::refusal::{Conflict, Failed, Thing};
use tokio::sync::{mpsc, watch};

/// What the tests hold of the fake daemon.
pub struct Fake {
    pub handle: Handle,
    /// What it was asked, in `Debug`, without the way back.
    pub asked: Arc<Mutex<Vec<String>>>,
    pub task: tokio::task::JoinHandle<()>,
    /// What is said of the configuration file.
    pub file: watch::Sender<FileState>,
}

/// The text in force.
pub const TEXT: &str = "# the file\n";

impl Fake {
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// Starts one with the farms `web` (a backend up, one down) and `dns` (unchecked, dual stack).
pub fn start() -> Fake {
    let (commands, inbox) = mpsc::channel(8);
    let (publisher, snapshots) = watch::channel(Arc::new(snapshot()));
    let events = Arc::new(Events::default());
    for n in 1..=3 {
        event(&events, n);
    }
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (checks, queries) = Checks::new();
    tokio::spawn(answer_checks(queries));
    let (file_state, file) = watch::channel(FileState::Same);
    let dataplane = Arc::new(FakeDataplane);
    let defects = watch::channel(Arc::from([])).1;
    let condition = watch::channel(Arc::new(ailing())).1;
    let vitals = Arc::default();
    let handle = Handle { commands, snapshots, events, dataplane, checks, file, defects, condition, vitals };
    let task = tokio::spawn(answer(inbox, publisher, asked.clone()));
    Fake { handle, asked, task, file: file_state }
}

/// A daemon that loses lines of its log.
fn ailing() -> Condition {
    let mut loop_latency = Histogram::default();
    loop_latency.record(Duration::from_millis(3));
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
    let message = "the log cannot be written (no storage space): 12 lines of it are lost".to_owned();
    let ills = vec![Ill { organ: Organ::Log, since, message }];
    let sweep_age = Duration::from_millis(600);
    Condition {
        ills,
        loop_latency,
        log_written: 51,
        log_lost: 12,
        events_lost: 13,
        hooks_lost: 14,
        sweep_age,
    }
}

/// Publishes an event `n` minutes after 1970 began.
pub fn event(events: &Events, n: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(60 * n);
    let news = News {
        level: EventLevel::Warning,
        kind: EventKind::BackendDown,
        farm: Some("web"),
        backend: Some("ex2"),
        by: None,
        message: format!("event {n}"),
    };
    events.publish(|log| log.push(time, news));
}

async fn answer(
    mut inbox: mpsc::Receiver<Order>,
    publisher: watch::Sender<Arc<Snapshot>>,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let note = |text: String| asked.lock().unwrap().push(text);
    while let Some(Order { command, .. }) = inbox.recv().await {
        match command {
            Command::PatchBackend { farm, backend, patch, reply } => {
                note(format!("patch {farm} {backend} {patch:?}"));
                publisher.send_modify(|snapshot| {
                    let farms = &mut Arc::make_mut(snapshot).farms;
                    let farm = farms.iter_mut().find(|f| f.name == farm).unwrap();
                    let backend = farm.backends.iter_mut().find(|b| b.name == backend).unwrap();
                    backend.weight = patch.weight.unwrap_or(backend.weight);
                    backend.admin = patch.admin.unwrap_or(backend.admin);
                    if backend.admin == AdminState::Drain {
                        backend.status = BackendStatus::Draining;
                    }
                });
                reply.send(Ok(())).unwrap();
            }
            Command::EditFarm { farm, edit, only_if, reply } => {
                note(format!("edit {farm} {edit:?}{}", condition(&only_if)));
                let here = snapshot().config.farm(farm.as_str()).map(Version::of);
                let stale = || Err(Refusal::Stale(Thing::Farm(farm.clone())));
                let done = || Ok(changes(&[&format!("farm '{farm}' edited")]));
                reply.send(if only_if.holds(here) { done() } else { stale() }).unwrap();
            }
            Command::Apply { text, format, only_if, reply } => {
                note(format!("apply {format:?} {text}{}", condition(&only_if)));
                let stale = || Err(Refusal::Stale(Thing::Configuration));
                let fits = only_if.holds(Some(Version::of(TEXT)));
                reply.send(if fits { judge(&text) } else { stale() }).unwrap();
            }
            Command::DryRun { text, format, reply } => {
                note(format!("dry run {format:?} {text}"));
                reply.send(judge(&text)).unwrap();
            }
            Command::Reload { reply } => {
                note("reload".to_owned());
                reply.send(Err(Conflict::NeedsRestart(vec!["interfaces".to_owned()]).into())).unwrap();
            }
            Command::Ping { reply } => reply.send(Ok(())).unwrap(),
            Command::Cut { filter, reply } => {
                note(format!("cut {filter:?}"));
                reply.send(Ok(7)).unwrap();
            }
        }
    }
}

async fn answer_checks(mut queries: mpsc::Receiver<CheckQuery>) {
    while let Some(query) = queries.recv().await {
        match query {
            CheckQuery::Tell { farm, backend, history, reply } => {
                let checks = vec![check("10.0.0.11", true, history), check("ex2", false, history)];
                let mut told = ChecksTold { checks, ..ChecksTold::default() };
                told.checks.retain(|check| farm.as_ref().is_none_or(|farm| *farm == check.farm));
                told.checks.retain(|check| backend.as_ref().is_none_or(|backend| *backend == check.backend));
                told.load.targets = told.checks.len();
                told.load.lateness.record(Duration::from_millis(3));
                reply.send(told).unwrap();
            }
            CheckQuery::Load { reply } => drop(reply.send(CheckLoad::default())),
            CheckQuery::Run { farm, backend, reply } => {
                let all = [("10.0.0.11", true), ("ex2", false)].into_iter();
                let wanted = all.filter(|(name, _)| backend.as_ref().is_none_or(|it| it.as_str() == *name));
                let run = |(name, passed): (&str, bool)| {
                    let check = check(name, passed, 1);
                    let output = if passed { "OK\nall is\x1b[2J well\n" } else { "" };
                    CheckRun {
                        farm: farm.clone(),
                        backend: check.backend,
                        name: check.name,
                        kind: check.kind,
                        address: check.address,
                        verdict: CheckVerdict::of(passed),
                        took: Duration::from_millis(12),
                        reason: check.reason,
                        output: output.to_owned(),
                    }
                };
                reply.send(wanted.map(run).collect()).unwrap();
            }
            CheckQuery::Suspect { .. } => {}
        }
    }
}

fn check(backend: &str, passed: bool, history: usize) -> CheckReport {
    let address: SocketAddr = if passed { "10.0.0.11:80" } else { "10.0.0.12:8080" }.parse().unwrap();
    let reason = if passed { "connected in 0.4 ms" } else { "connection refused" };
    let last = ResultRecord {
        ago: Duration::from_millis(2500),
        took: Duration::from_micros(400),
        verdict: CheckVerdict::of(passed),
        reason: reason.into(),
    };
    let mut durations = Histogram::default();
    durations.record(last.took);
    CheckReport {
        farm: FarmName::new("web").unwrap(),
        backend: BackendName::new(backend).unwrap(),
        name: format!("tcp {address}"),
        kind: "tcp",
        address,
        judgement: if passed { Judgement::Up } else { Judgement::Down },
        reason: reason.to_owned(),
        held_for: Duration::from_secs(200),
        history: vec![last.clone(); history.min(2)],
        last: Some(last),
        running: false,
        next_run_in: Duration::from_millis(7500),
        transitions: 3,
        untried: 0,
        durations,
        shared_with: 0,
    }
}

fn changes(lines: &[&str]) -> Changes {
    let lines = lines.iter().map(|&line| line.to_owned()).collect();
    Changes {
        generation: 5,
        lines,
        orphaned_connections: 2,
        affected: Vec::new(),
        version: Some(Version::of("after")),
    }
}

/// What a change was made to depend on, for the notes.
fn condition(only_if: &Precondition) -> String {
    if *only_if == Precondition::None { String::new() } else { format!(" {only_if:?}") }
}

fn judge(text: &str) -> Result<Changes, Refusal> {
    match text {
        "bad" => Err(Refusal::Invalid(vec![ConfigError {
            path: "farm[0].backend[1].weight".to_owned(),
            at: Some(Position { line: 7, column: 10 }),
            message: "must be 0 to 256, not 300".to_owned(),
            hint: Some("use 256 for the largest share".to_owned()),
        }])),
        "by hand" => Err(Refusal::FileChanged("/etc/drover/drover.toml".into())),
        "unwritable" => {
            Err(Failed::File("cannot write /etc/drover/drover.toml: read-only".to_owned()).into())
        }
        _good => Ok(changes(&["farm 'web': backend '10.0.0.13' added"])),
    }
}

struct FakeDataplane;

impl DataplaneReader for FakeDataplane {
    fn connections(&self, filter: &ConnectionFilter, limit: usize) -> anyhow::Result<(Vec<Connection>, u64)> {
        let all = [connection(1, 1, 40_000), connection(1, 2, 40_001), connection(9, 9, 40_002)];
        let matching: Vec<_> = all.into_iter().filter(|connection| filter.matches(connection)).collect();
        let total = matching.len() as u64;
        Ok((matching.into_iter().take(limit).collect(), total))
    }

    fn verdicts(&self) -> anyhow::Result<Vec<(&'static str, u64)>> {
        Ok(vec![("forwarded", 41), ("not_for_a_vip", 1)])
    }

    fn occurrences(&self) -> anyhow::Result<Occurrences> {
        Ok(Occurrences { away: 31, full: 32, evicted: 33, ports_taken: 34 })
    }

    fn turned_away(&self, farm: u16) -> anyhow::Result<Vec<(&'static str, u64)>> {
        Ok(vec![("denied", 50 + u64::from(farm)), ("limit_rate", 0), ("limit_connections", 0)])
    }

    fn explain(&self, question: &Question) -> anyhow::Result<Explanation> {
        Ok(explained::opens(question, Connection { state: "unanswered", ..connection(1, 1, 40_000) }))
    }

    /// What the snapshot says of it stands.
    fn traffic_of(&self, _: Vec<u16>) -> anyhow::Result<HashMap<u16, Traffic>> {
        Ok(HashMap::new())
    }
}

fn connection(farm_id: u16, backend_id: u16, port: u16) -> Connection {
    let socket = |ip: &str, port| SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port);
    Connection {
        protocol: Protocol::Tcp,
        client: socket("2001:db8::7", port),
        vip: socket("2001:db8::10", 443),
        backend: socket("2001:db8:1::11", 8443),
        source: socket("2001:db8::10", 1024),
        farm_id,
        backend_id,
        state: "established",
        age: Duration::from_millis(90_500),
        idle: Duration::from_millis(250),
    }
}

pub fn snapshot() -> Snapshot {
    let web = farm("web", &["192.0.2.10"], Ports::Ranges(vec![(80, 80), (587, 588)]), vec![Check::tcp()]);
    let dns = farm("dns", &["192.0.2.53", "2001:db8::53"], Ports::All, vec![]);
    let status = [BackendStatus::Up, BackendStatus::Down];
    let unchecked = [BackendStatus::Unchecked; 2];
    let farms =
        vec![state(&web, 1, FarmStatus::Degraded, status), state(&dns, 2, FarmStatus::Unchecked, unchecked)];
    let daemon = Daemon {
        interfaces: vec!["eth0".to_owned()],
        xdp_mode: XdpMode::Auto,
        socket: "/run/drover/control.sock".into(),
        socket_group: None,
        state_dir: "/var/lib/drover".into(),
        bpffs_dir: "/sys/fs/bpf/drover".into(),
        connections: None,
        manage_vips: true,
    };
    Snapshot {
        version: "0.1.0",
        started: SystemTime::now() - Duration::from_secs(90),
        generation: 4,
        config: Arc::new(Config { daemon, farms: vec![web, dns] }),
        text: TEXT.into(),
        config_path: "/etc/drover/drover.toml".to_owned(),
        interfaces: vec![InterfaceState {
            name: "eth0".to_owned(),
            index: 2,
            xdp_mode: "native",
            up: true,
            missing: false,
            mtu: 1500,
        }],
        tables: Tables {
            connections: 1024,
            bytes: 524_288,
            families: vec![
                Table { family: "ipv4", lines: 4096, used: 3300, policy: lb_common::abi::POLICY_UDP_FULL },
                Table { family: "ipv6", lines: 4096, used: 2, policy: 0 },
            ],
        },
        tick_lateness: Histogram::default(),
        farms,
    }
}

fn farm(name: &str, vips: &[&str], ports: Ports, checks: Vec<Check>) -> Farm {
    let backend = |name: &str, last, port| Backend {
        name: BackendName::new(name).unwrap(),
        address: Addresses { v4: Some([10, 0, 0, last].into()), v6: None },
        port,
        weight: 1,
        priority: 0,
    };
    Farm {
        name: FarmName::new(name).unwrap(),
        vips: vips.iter().map(|ip| ip.parse().unwrap()).collect(),
        ports,
        protocols: Protocols { tcp: true, udp: checks.is_empty() },
        mode: Mode::Nat,
        scheduler: Scheduler::Maglev,
        timeouts: Timeouts::default(),
        enabled: true,
        backends: vec![backend("10.0.0.11", 11, None), backend("ex2", 12, Some(8080))],
        checks,
        ..Farm::new(FarmName::new("x").unwrap())
    }
}

fn state(farm: &Farm, id: u16, status: FarmStatus, statuses: [BackendStatus; 2]) -> FarmState {
    let backends = farm.backends.iter().zip(statuses).zip(1..);
    let backends = backends.map(|((backend, status), n): (_, u16)| BackendState {
        name: backend.name.clone(),
        id: n,
        status,
        admin: AdminState::Up,
        weight: backend.weight,
        since: SystemTime::now() - Duration::from_secs(200),
        reason: format!("reason {n}"),
        connections: u64::from(n),
        traffic: Traffic {
            packets_in: 10 * u64::from(n),
            bytes_in: 1000,
            packets_out: 20,
            bytes_out: 2000,
            opened: 3,
        },
        unresolved: vec![],
    });
    FarmState { name: farm.name.clone(), id, status, backends: backends.collect() }
}
