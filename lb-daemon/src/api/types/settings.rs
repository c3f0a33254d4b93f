//! The configuration as JSON: the file's keys, every default spelt out, always in the longest of the shapes that
//! the file may use (a list where the file may have a single value). What a key means, the description of the API takes from
//! the table of keys ([`lb_core::config::keys`]).

use std::time::Duration;

use lb_core::config::keys::plain::{Model, Plain};
use lb_core::config::keys::{self, Schema};
use lb_core::config::model::{self, Config, Ports, Word as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

mod check;

pub use check::CheckSettings;

/// A whole configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigSettings {
    pub daemon: DaemonSettings,
    pub farm: Vec<FarmSettings>,
}

impl From<&Config> for ConfigSettings {
    fn from(of: &Config) -> Self {
        Self { daemon: (&of.daemon).into(), farm: of.farms.iter().map(Into::into).collect() }
    }
}

/// The `[daemon]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DaemonSettings {
    pub interfaces: Vec<String>,
    pub xdp_mode: String,
    pub socket: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_group: Option<String>,
    pub state_dir: String,
    pub bpffs_dir: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    pub manage_vips: bool,
}

impl From<&model::Daemon> for DaemonSettings {
    fn from(of: &model::Daemon) -> Self {
        Self {
            interfaces: of.interfaces.clone(),
            xdp_mode: of.xdp_mode.word().to_owned(),
            socket: of.socket.display().to_string(),
            socket_group: of.socket_group.clone(),
            state_dir: of.state_dir.display().to_string(),
            bpffs_dir: of.bpffs_dir.display().to_string(),
            connections: of.connections,
            manage_vips: of.manage_vips,
        }
    }
}

/// A `[[farm]]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FarmSettings {
    pub name: String,
    pub vip: Vec<String>,
    #[schema(example = json!([443, "587-588"]))]
    pub ports: Value,
    pub protocol: Vec<String>,
    /// The keys that hold one plain value, by their table.
    #[serde(flatten)]
    #[schema(ignore)]
    pub plain: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<AffinitySettings>,
    pub timeouts: TimeoutSettings,
    pub limits: LimitSettings,
    pub allow: Vec<String>,
    pub deny: Vec<String>,
    pub passive: PassiveSettings,
    pub on_change: Vec<HookSettings>,
    pub backend: Vec<BackendSettings>,
    pub check: Vec<CheckSettings>,
}

impl From<&model::Farm> for FarmSettings {
    fn from(of: &model::Farm) -> Self {
        Self {
            name: of.name.to_string(),
            vip: texts(&of.vips),
            ports: ports(&of.ports),
            protocol: protocols(of.protocols),
            plain: plain(&keys::FARM, of),
            affinity: of.affinity.as_ref().map(Into::into),
            timeouts: (&of.timeouts).into(),
            limits: (&of.limits).into(),
            allow: texts(of.lists.allow()),
            deny: texts(of.lists.deny()),
            passive: (&of.passive).into(),
            on_change: of.on_change.iter().map(Into::into).collect(),
            backend: of.backends.iter().map(Into::into).collect(),
            check: of.checks.iter().map(Into::into).collect(),
        }
    }
}

fn texts(of: &[impl ToString]) -> Vec<String> {
    of.iter().map(ToString::to_string).collect()
}

/// The keys of a table that hold one plain value.
fn plain<M: Model>(schema: &'static Schema, of: &M) -> Map<String, Value> {
    let value = |value| match value {
        Plain::Boolean(value) => Value::from(value),
        Plain::Number(value) => Value::from(value),
        Plain::Duration(value) => Value::from(duration(value)),
        Plain::Word(value) => Value::from(value),
    };
    schema.fields::<M>().map(|(key, field)| (key.name.to_owned(), value((field.get)(of)))).collect()
}

pub(super) fn ports(of: &Ports) -> Value {
    match of {
        Ports::All => Value::from("*"),
        Ports::Ranges(all) => Value::from(ranges(all)),
    }
}

/// Inclusive ranges as numbers and `"a-b"`.
fn ranges(of: &[(u16, u16)]) -> Vec<Value> {
    let value = |&(first, last): &(u16, u16)| match first == last {
        true => Value::from(first),
        false => Value::from(format!("{first}-{last}")),
    };
    of.iter().map(value).collect()
}

pub(super) fn protocols(of: model::Protocols) -> Vec<String> {
    let named = [(of.tcp, "tcp"), (of.udp, "udp")];
    named.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned()).collect()
}

/// A client keeps the backend that it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AffinitySettings {
    pub by: String,
    pub timeout: String,
    pub prefix_v4: u8,
    pub prefix_v6: u8,
}

impl From<&model::Affinity> for AffinitySettings {
    fn from(of: &model::Affinity) -> Self {
        Self {
            by: "source".to_owned(),
            timeout: duration(of.timeout),
            prefix_v4: of.prefix_v4,
            prefix_v6: of.prefix_v6,
        }
    }
}

/// How long a connection may stay idle in each of its states, as in `"10s"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimeoutSettings {
    pub syn: String,
    pub established: String,
    pub half_closed: String,
    pub fin: String,
    pub udp: String,
}

impl From<&model::Timeouts> for TimeoutSettings {
    fn from(of: &model::Timeouts) -> Self {
        Self {
            syn: duration(of.syn),
            established: duration(of.established),
            half_closed: duration(of.half_closed),
            fin: duration(of.fin),
            udp: duration(of.udp),
        }
    }
}

/// How many may come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitSettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_per_second: Option<u32>,
    pub over: String,
}

impl From<&model::Limits> for LimitSettings {
    fn from(of: &model::Limits) -> Self {
        let (connections, new_per_second) = (of.connections, of.new_per_second);
        Self { connections, new_per_second, over: of.over.word().to_owned() }
    }
}

/// A `[[farm.backend]]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BackendSettings {
    pub name: String,
    pub address: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The keys that hold one plain value, by their table.
    #[serde(flatten)]
    #[schema(ignore)]
    pub plain: Map<String, Value>,
}

impl From<&model::Backend> for BackendSettings {
    fn from(of: &model::Backend) -> Self {
        Self {
            name: of.name.to_string(),
            address: of.address.iter().map(|ip| ip.to_string()).collect(),
            port: of.port,
            plain: plain(&keys::BACKEND, of),
        }
    }
}

/// What the traffic itself says of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PassiveSettings {
    pub suspect: bool,
    pub eject: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<u8>,
}

impl From<&model::Passive> for PassiveSettings {
    fn from(of: &model::Passive) -> Self {
        Self {
            suspect: of.suspect,
            eject: of.eject.is_some(),
            hold: of.eject.as_ref().map(|eject| duration(eject.hold)),
            at_most: of.eject.as_ref().map(|eject| eject.at_most),
        }
    }
}

/// A command that is told of every change of a backend's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookSettings {
    pub command: Vec<String>,
    pub user: String,
    pub timeout: String,
}

impl From<&model::Hook> for HookSettings {
    fn from(of: &model::Hook) -> Self {
        Self { command: of.command.clone(), user: of.user.clone(), timeout: duration(of.timeout) }
    }
}

/// As the file writes it: one number and the largest unit that divides it.
fn duration(of: Duration) -> String {
    match u64::try_from(of.as_millis()).unwrap_or(u64::MAX) {
        ms if ms % 1000 != 0 => format!("{ms}ms"),
        0 => "0s".to_owned(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms => format!("{}s", ms / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_written_as_the_file_would() {
        let cases = [(0, "0s"), (500, "500ms"), (1500, "1500ms"), (10_000, "10s"), (90_000, "90s")];
        let cases = cases.into_iter().chain([(300_000, "5m"), (3_600_000, "1h"), (86_400_000, "24h")]);
        for (ms, expected) in cases {
            assert_eq!(duration(Duration::from_millis(ms)), expected);
        }
    }

    #[test]
    fn ports_keep_the_shape_of_the_file() {
        let some = Ports::Ranges(vec![(25, 25), (587, 588)]);
        assert_eq!(ports(&some), serde_json::json!([25, "587-588"]));
        assert_eq!(ports(&Ports::All), serde_json::json!("*"));
    }
}
