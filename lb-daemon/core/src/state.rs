//! The state that the daemon publishes: one immutable snapshot after each change, in plain data.

mod checks;
mod status;
pub mod tables;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config::model::{BackendName, Config, FarmName};

pub use checks::{CheckLoad, CheckReport, CheckRun, CheckVerdict, Histogram, ResultRecord};
pub use status::{AdminState, BackendStatus, FarmStatus};
pub use tables::{Occurrences, Tables};

/// Packets, bytes (of whole frames) and connections since the data plane was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// From clients to backends.
    pub packets_in: u64,
    pub bytes_in: u64,
    /// From backends to clients.
    pub packets_out: u64,
    pub bytes_out: u64,
    /// Connections opened.
    pub opened: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.packets_in += other.packets_in;
        self.bytes_in += other.bytes_in;
        self.packets_out += other.packets_out;
        self.bytes_out += other.bytes_out;
        self.opened += other.opened;
    }
}

/// All that can be told of the running daemon, but for what lives in the data plane (counters, connections).
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub version: &'static str,
    pub started: SystemTime,
    /// Counts the configurations applied since the start, from 1.
    pub generation: u64,
    pub config: Arc<Config>,
    /// What `config` was read from: the text of the file, unless somebody has changed that since.
    pub text: Arc<str>,
    pub config_path: String,
    pub interfaces: Vec<InterfaceState>,
    pub tables: Tables,
    /// How much later than due the daemon's loop got to its ticks.
    pub tick_lateness: Histogram,
    /// In the configuration's order.
    pub farms: Vec<FarmState>,
}

impl Snapshot {
    pub fn farm(&self, name: &str) -> Option<&FarmState> {
        self.farms.iter().find(|farm| farm.name.as_str() == name)
    }
}

/// An interface that the program is to be attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceState {
    pub name: String,
    pub index: u32,
    /// `"native"`, `"generic"`, or `"none"`: the program is not attached.
    pub xdp_mode: &'static str,
    pub up: bool,
    /// There is no such interface now.
    pub missing: bool,
    pub mtu: u32,
}

/// A farm as it is.
#[derive(Debug, Clone)]
pub struct FarmState {
    pub name: FarmName,
    /// The number by which counters and connections in the data plane know the farm.
    pub id: u16,
    pub status: FarmStatus,
    /// In the configuration's order.
    pub backends: Vec<BackendState>,
}

/// A backend as it is.
#[derive(Debug, Clone)]
pub struct BackendState {
    pub name: BackendName,
    /// The number by which counters and connections in the data plane know the backend.
    pub id: u16,
    pub status: BackendStatus,
    pub admin: AdminState,
    /// The weight in force: the configuration's, unless an operator has set another.
    pub weight: u16,
    /// Since when the status is what it is.
    pub since: SystemTime,
    /// Why, in the check's or the operator's words.
    pub reason: String,
    /// Connections now tracked, as of the last sweep of the table (at most a second or two old).
    pub connections: u64,
    pub traffic: Traffic,
    /// The addresses whose next hop is not known yet: packets for them are dropped.
    pub unresolved: Vec<IpAddr>,
}

/// Who asked for something on the control socket, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    /// Of the process that connected, which may have ended since.
    pub pid: Option<i32>,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "uid {}", self.uid)?;
        self.pid.map_or(Ok(()), |pid| write!(f, ", pid {pid}"))
    }
}

/// Something that an operator would want to know afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Counts all events since the start, from 1.
    pub id: u64,
    pub time: SystemTime,
    pub level: EventLevel,
    pub kind: EventKind,
    pub farm: Option<String>,
    pub backend: Option<String>,
    /// Who has asked for it.
    pub by: Option<Peer>,
    /// One line for people.
    pub message: String,
}

/// What becomes an [`Event`] when the log has given it a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News<'a> {
    pub level: EventLevel,
    pub kind: EventKind,
    pub farm: Option<&'a str>,
    pub backend: Option<&'a str>,
    pub by: Option<Peer>,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventLevel {
    Info,
    Warning,
    Error,
}

impl EventLevel {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    DaemonStarted,
    DaemonStopping,
    ConfigApplied,
    ConfigRefused,
    /// The configuration file is no longer what runs, or is again.
    ConfigFile,
    /// A farm needs something of this host that is not there or cannot be used, or no longer does.
    HostDefect,
    BackendUp,
    BackendDown,
    /// One that was up cannot be checked any more.
    BackendUnchecked,
    BackendAdmin,
    ConnectionsCut,
    NextHop,
    Interface,
    /// A connection table is nearly full, or no longer.
    ConnectionTable,
    /// A farm has so many half-open connections that newcomers are challenged, or has no more.
    Flood,
    /// A task of the daemon's has ended that must not, and the daemon ends with it.
    TaskEnded,
    /// Something is wrong with the daemon itself, or no longer.
    DaemonIll,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DaemonStarted => "daemon-started",
            Self::DaemonStopping => "daemon-stopping",
            Self::ConfigApplied => "config-applied",
            Self::ConfigRefused => "config-refused",
            Self::ConfigFile => "config-file",
            Self::HostDefect => "host-defect",
            Self::BackendUp => "backend-up",
            Self::BackendDown => "backend-down",
            Self::BackendUnchecked => "backend-unchecked",
            Self::BackendAdmin => "backend-admin",
            Self::ConnectionsCut => "connections-cut",
            Self::NextHop => "next-hop",
            Self::Interface => "interface",
            Self::ConnectionTable => "connection-table",
            Self::Flood => "flood",
            Self::TaskEnded => "task-ended",
            Self::DaemonIll => "daemon-ill",
        }
    }
}

/// The last events, oldest first, bounded.
#[derive(Debug, Default)]
pub struct EventLog {
    events: VecDeque<Event>,
    next: u64,
}

impl EventLog {
    /// How many events are kept.
    pub const KEPT: usize = 1000;

    /// Numbers and keeps an event; the oldest gives way when the log is full.
    pub fn push(&mut self, time: SystemTime, news: News<'_>) -> Event {
        self.next += 1;
        let News { level, kind, farm, backend, by, message } = news;
        let (farm, backend) = (farm.map(str::to_owned), backend.map(str::to_owned));
        let event = Event { id: self.next, time, level, kind, farm, backend, by, message };
        if self.events.len() == Self::KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event.clone());
        event
    }

    /// The events kept, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }
}

/// One tracked connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    pub protocol: Protocol,
    pub client: SocketAddr,
    /// What the client connected to.
    pub vip: SocketAddr,
    /// Where the packets go.
    pub backend: SocketAddr,
    /// What the backend sees as the source: the client itself in mode `dnat`.
    pub source: SocketAddr,
    pub farm_id: u16,
    pub backend_id: u16,
    /// As the connection table names it: `unanswered`, `answered`, `one-sided`, `established`, `half-closed`, `closed`.
    pub state: &'static str,
    pub age: Duration,
    pub idle: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Which connections are meant; every field that is set must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionFilter {
    pub farm_id: Option<u16>,
    /// Backends by number: a backend that an earlier configuration had may still have connections.
    pub backend_id: Option<u16>,
    pub client: Option<IpAddr>,
}

impl ConnectionFilter {
    pub fn matches(&self, connection: &Connection) -> bool {
        self.farm_id.is_none_or(|id| id == connection.farm_id)
            && self.backend_id.is_none_or(|id| id == connection.backend_id)
            && self.client.is_none_or(|ip| ip == connection.client.ip())
    }
}
