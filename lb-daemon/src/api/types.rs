//! What goes over the wire: answers and request bodies, made from the daemon's state.
//!
//! The command line reads its answers back into the same types. Times are RFC 3339 in UTC; a duration is a number of
//! seconds and its name says so, but for the configuration's own keys, which look as they do in the file.

mod changes;
mod check;
mod explain;
mod farm;
mod settings;
mod table;

use std::time::{Duration, SystemTime};

use lb_core::config::ConfigError;
use lb_core::ills;
use lb_core::state::{self, InterfaceState, Occurrences, Snapshot};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::{self, FileState};
use crate::ills::Condition;
use crate::program::Unfit;

pub use changes::{AffectedBackend, Changes};
pub use check::{
    Check, CheckResult, CheckRun, CheckRunRequest, CheckRuns, CheckSchedule, CheckState, CheckVerdict, Checks,
};
pub use explain::{ExplainRequest, Explained, ExplainedPacket, ExplainedStep, PacketProtocol, SentPacket};
pub(super) use farm::total_traffic as farm_traffic;
pub use farm::{
    Backend, BackendPatch, BackendStatus, Directions, Farm, FarmPatch, FarmStatus, Farms, Prefixes,
};
pub use lb_core::state::AdminState;
pub use settings::{
    BackendSettings, CheckSettings, ConfigSettings, DaemonSettings, FarmSettings, HookSettings,
    LimitSettings, PassiveSettings, TimeoutSettings,
};
pub use table::{ConnectionTable, FamilyTable};

/// RFC 3339 in UTC, to the millisecond.
pub fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// Seconds, to the millisecond.
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// The node as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    pub version: String,
    /// When the daemon started. The data plane may have been running for longer.
    #[schema(format = DateTime)]
    pub started: String,
    pub uptime_seconds: f64,
    /// Counts the configurations applied since the start, from 1.
    pub config_generation: u64,
    pub config_path: String,
    pub config_file: ConfigFile,
    /// What is wrong with the daemon itself, the worst first. It is looked for every second.
    #[serde(default)]
    pub ills: Vec<Ill>,
    /// What farms need of this host and do not find. It is looked for every ten seconds.
    #[serde(default)]
    pub defects: Vec<Defect>,
    pub interfaces: Vec<Interface>,
    pub counts: Counts,
    pub connection_table: ConnectionTable,
}

impl Status {
    pub fn new(
        snapshot: &Snapshot,
        (file, defects, condition): (&FileState, &[config::Defect], &Condition),
        occurrences: &Occurrences,
        now: SystemTime,
    ) -> Self {
        Self {
            version: snapshot.version.to_owned(),
            started: timestamp(snapshot.started),
            uptime_seconds: seconds(now.duration_since(snapshot.started).unwrap_or_default()),
            config_generation: snapshot.generation,
            config_path: snapshot.config_path.clone(),
            config_file: ConfigFile { state: file.as_str().to_owned(), detail: file.advice() },
            ills: condition.ills.iter().map(Ill::new).collect(),
            defects: defects.iter().map(Defect::from).collect(),
            interfaces: snapshot.interfaces.iter().map(Interface::new).collect(),
            counts: Counts::new(snapshot),
            connection_table: ConnectionTable::new(&snapshot.tables, occurrences),
        }
    }
}

/// The configuration file beside what runs. It is looked at every second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigFile {
    /// `same`, `differs`, `missing` or `unreadable`.
    pub state: String,
    /// What is wrong and what to do; null when it is the same.
    pub detail: Option<String>,
}

/// Something is wrong with the daemon itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ill {
    /// `loop`, `data-plane`, `sweep`, `cut`, `checks`, `connection-table`, `overrides`, `config-file`, `hooks`, `log`, `events`,
    /// `socket` or `former-maps`.
    pub kind: String,
    #[schema(format = DateTime)]
    pub since: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Ill {
    fn new(of: &ills::Ill) -> Self {
        let kind = of.organ.as_str().to_owned();
        Self { kind, since: timestamp(of.since), message: of.message.clone() }
    }
}

/// A farm needs something of this host, a program or a user, that is not there or cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Defect {
    pub farm: String,
    /// The key, within the farm, as in `check[0].command`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl From<&config::Defect> for Defect {
    fn from(of: &config::Defect) -> Self {
        let config::Defect { farm, path, unfit: Unfit { message, hint } } = of;
        Self { farm: farm.to_string(), path: path.clone(), message: message.clone(), hint: hint.clone() }
    }
}

/// An interface that the XDP program is to be attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    /// `native` or `generic`; `none`: the program is not attached.
    pub xdp_mode: String,
    pub up: bool,
    /// There is no such interface now.
    #[serde(default)]
    pub missing: bool,
    pub mtu: u32,
}

impl Interface {
    fn new(of: &InterfaceState) -> Self {
        let xdp_mode = of.xdp_mode.to_owned();
        let InterfaceState { index, up, missing, mtu, .. } = *of;
        Self { name: of.name.clone(), index, xdp_mode, up, missing, mtu }
    }
}

/// How many there are of what, by status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    pub farms: u64,
    pub farms_up: u64,
    pub farms_degraded: u64,
    pub farms_down: u64,
    pub farms_unchecked: u64,
    pub farms_disabled: u64,
    pub backends: u64,
    pub backends_up: u64,
    pub backends_down: u64,
    pub backends_starting: u64,
    pub backends_draining: u64,
    pub backends_maintenance: u64,
    pub backends_standby: u64,
    pub backends_unchecked: u64,
    /// Connections tracked.
    pub connections: u64,
}

impl Counts {
    fn new(snapshot: &Snapshot) -> Self {
        let mut counts = Self::default();
        for farm in &snapshot.farms {
            counts.farms += 1;
            *match farm.status {
                state::FarmStatus::Up => &mut counts.farms_up,
                state::FarmStatus::Degraded => &mut counts.farms_degraded,
                state::FarmStatus::Down => &mut counts.farms_down,
                state::FarmStatus::Unchecked => &mut counts.farms_unchecked,
                state::FarmStatus::Disabled => &mut counts.farms_disabled,
            } += 1;
            for backend in &farm.backends {
                counts.backends += 1;
                counts.connections += backend.connections;
                *match backend.status {
                    state::BackendStatus::Up => &mut counts.backends_up,
                    state::BackendStatus::Down => &mut counts.backends_down,
                    state::BackendStatus::Starting => &mut counts.backends_starting,
                    state::BackendStatus::Draining => &mut counts.backends_draining,
                    state::BackendStatus::Maintenance => &mut counts.backends_maintenance,
                    state::BackendStatus::Standby => &mut counts.backends_standby,
                    state::BackendStatus::Unchecked => &mut counts.backends_unchecked,
                } += 1;
            }
        }
        counts
    }
}

/// Tracked connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Connections {
    /// How many match, listed or not.
    pub total: u64,
    pub connections: Vec<Connection>,
}

/// One tracked connection. Addresses are `IP:PORT`, an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Connection {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `unanswered`, `answered`, `one-sided`, `established`, `half-closed` or `closed`.
    pub state: String,
    pub client: String,
    /// What the client connected to.
    pub vip: String,
    /// Null when the configuration no longer has the farm.
    pub farm: Option<String>,
    /// The backend's name; null when the configuration no longer has it.
    pub backend: Option<String>,
    /// Where the packets go.
    pub backend_address: String,
    /// What the backend sees as the source: the client itself in mode `dnat`.
    pub source: String,
    pub age_seconds: f64,
    pub idle_seconds: f64,
}

impl Connection {
    pub fn new(of: &state::Connection, snapshot: &Snapshot) -> Self {
        let farm = snapshot.farms.iter().find(|farm| farm.id == of.farm_id);
        let backend = farm.and_then(|farm| farm.backends.iter().find(|backend| backend.id == of.backend_id));
        Self {
            protocol: of.protocol.as_str().to_owned(),
            state: of.state.to_owned(),
            client: of.client.to_string(),
            vip: of.vip.to_string(),
            farm: farm.map(|farm| farm.name.to_string()),
            backend: backend.map(|backend| backend.name.to_string()),
            backend_address: of.backend.to_string(),
            source: of.source.to_string(),
            age_seconds: seconds(of.age),
            idle_seconds: seconds(of.idle),
        }
    }
}

/// How many connections were cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cut {
    pub cut: u64,
}

/// The events kept, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Events {
    pub events: Vec<Event>,
}

/// Something that an operator would want to know afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Counts all events since the daemon's start, from 1.
    pub id: u64,
    #[schema(format = DateTime)]
    pub time: String,
    /// `info`, `warning` or `error`.
    pub level: String,
    /// What happened, as in `backend-down`.
    pub kind: String,
    pub farm: Option<String>,
    pub backend: Option<String>,
    /// Who asked for it on the control socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Peer>,
    /// One line for people.
    pub message: String,
}

/// Events that a reader of a stream has missed, since it was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LostEvents {
    pub lost: u64,
}

/// A process that has asked for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    pub uid: u32,
    /// The process may have ended since.
    pub pid: Option<i32>,
}

impl Event {
    pub fn new(of: &state::Event) -> Self {
        Self {
            id: of.id,
            time: timestamp(of.time),
            level: of.level.as_str().to_owned(),
            kind: of.kind.as_str().to_owned(),
            farm: of.farm.clone(),
            backend: of.backend.clone(),
            by: of.by.map(|state::Peer { uid, pid }| Peer { uid, pid }),
            message: of.message.clone(),
        }
    }
}

/// The configuration in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigAnswer {
    /// How `text` is written: `toml` or `json`.
    pub format: String,
    /// The configuration file's text.
    pub text: String,
    pub config: ConfigSettings,
}

/// One thing that is wrong with what was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemItem {
    /// The key, as in `farm[0].backend[1].weight`; empty when the whole is meant.
    pub path: String,
    /// What is wrong and what was expected.
    pub message: String,
    /// Counts from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Counts from 1, in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl From<&ConfigError> for ProblemItem {
    fn from(of: &ConfigError) -> Self {
        Self {
            path: of.path.clone(),
            message: of.message.clone(),
            line: of.at.map(|at| at.line),
            column: of.at.map(|at| at.column),
            hint: of.hint.clone(),
        }
    }
}
