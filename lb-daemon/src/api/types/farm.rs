//! A farm and its backends: what was configured and how it is.

use ipnet::IpNet;
use lb_core::config::model::{self, Word as _};
use lb_core::state::{self, AdminState, FarmState, Snapshot, Traffic};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::settings::{self, CheckSettings, LimitSettings, TimeoutSettings};
use super::timestamp;
use crate::handle;

/// So many prefixes of a list are told.
const PREFIXES_TOLD: usize = 10;

/// All farms, in the configuration's order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Farms {
    pub farms: Vec<Farm>,
}

/// One farm: its configuration under the file's keys (but for `backends` and `checks`), its status and its counters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Farm {
    pub name: String,
    pub status: FarmStatus,
    pub vip: Vec<String>,
    /// Numbers and `"a-b"`, or the single string `"*"`.
    #[schema(example = json!([443, "587-588"]))]
    pub ports: Value,
    /// Of `tcp` and `udp`.
    pub protocol: Vec<String>,
    pub mode: String,
    pub scheduler: String,
    pub timeouts: TimeoutSettings,
    pub limits: LimitSettings,
    pub allow: Prefixes,
    pub deny: Prefixes,
    pub enabled: bool,
    /// All of them must pass; none: nobody checks.
    pub checks: Vec<CheckSettings>,
    /// Connections tracked now.
    pub connections: u64,
    pub connections_opened: u64,
    pub packets: Directions,
    pub bytes: Directions,
    pub backends: Vec<Backend>,
}

impl Farm {
    /// `None` if the snapshot's configuration does not have the farm.
    pub fn new(snapshot: &Snapshot, of: &FarmState) -> Option<Self> {
        let config = snapshot.config.farm(of.name.as_str())?;
        let backends: Vec<_> = of.backends.iter().filter_map(|state| Backend::new(config, state)).collect();
        let traffic = total_traffic(of);
        Some(Self {
            name: of.name.to_string(),
            status: of.status.into(),
            vip: config.vips.iter().map(ToString::to_string).collect(),
            ports: settings::ports(&config.ports),
            protocol: settings::protocols(config.protocols),
            mode: config.mode.word().to_owned(),
            scheduler: config.scheduler.word().to_owned(),
            timeouts: (&config.timeouts).into(),
            limits: (&config.limits).into(),
            allow: config.lists.allow().into(),
            deny: config.lists.deny().into(),
            enabled: config.enabled,
            checks: config.checks.iter().map(Into::into).collect(),
            connections: of.backends.iter().map(|backend| backend.connections).sum(),
            connections_opened: traffic.opened,
            packets: Directions { r#in: traffic.packets_in, out: traffic.packets_out },
            bytes: Directions { r#in: traffic.bytes_in, out: traffic.bytes_out },
            backends,
        })
    }
}

/// A list of prefixes, which may be very long: the configuration has all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Prefixes {
    pub count: usize,
    /// The first of them in their order; of short lists all.
    #[schema(max_items = 10)]
    pub first: Vec<String>,
}

impl From<&[IpNet]> for Prefixes {
    fn from(of: &[IpNet]) -> Self {
        Self { count: of.len(), first: of.iter().take(PREFIXES_TOLD).map(ToString::to_string).collect() }
    }
}

/// A farm's traffic is its backends'.
pub(in crate::api) fn total_traffic(of: &FarmState) -> Traffic {
    of.backends.iter().fold(Traffic::default(), |mut sum, backend| {
        sum += backend.traffic;
        sum
    })
}

/// One backend of a farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Backend {
    pub name: String,
    /// One address, or one of each family.
    pub address: Vec<String>,
    /// Null: the port that the client used.
    pub port: Option<u16>,
    /// The weight in force; 0 takes no new connections.
    pub weight: u16,
    #[schema(schema_with = admin_states)]
    pub admin_state: AdminState,
    pub status: BackendStatus,
    /// Since when the status is what it is.
    #[schema(format = DateTime)]
    pub since: String,
    /// Why, in the check's or the operator's words.
    pub reason: String,
    /// Addresses whose next hop is not known: packets for them are dropped.
    pub unresolved: Vec<String>,
    /// Connections tracked now.
    pub connections: u64,
    pub connections_opened: u64,
    pub packets: Directions,
    pub bytes: Directions,
}

impl Backend {
    /// `None` if the configuration does not have the backend.
    pub fn new(farm: &model::Farm, of: &state::BackendState) -> Option<Self> {
        let config = farm.backends.iter().find(|backend| backend.name == of.name)?;
        Some(Self {
            name: of.name.to_string(),
            address: config.address.iter().map(|ip| ip.to_string()).collect(),
            port: config.port,
            weight: of.weight,
            admin_state: of.admin,
            status: of.status.into(),
            since: timestamp(of.since),
            reason: of.reason.clone(),
            unresolved: of.unresolved.iter().map(ToString::to_string).collect(),
            connections: of.connections,
            connections_opened: of.traffic.opened,
            packets: Directions { r#in: of.traffic.packets_in, out: of.traffic.packets_out },
            bytes: Directions { r#in: of.traffic.bytes_in, out: of.traffic.bytes_out },
        })
    }
}

/// `in`: from clients to backends; `out`: from backends to clients. Since the data plane was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Directions {
    pub r#in: u64,
    pub out: u64,
}

/// `up`: all backends in use; `degraded`: some are down or not judged yet; `down`: none can serve; `unchecked`:
/// nobody knows; `disabled`: taken out by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FarmStatus {
    Up,
    Degraded,
    Down,
    Unchecked,
    Disabled,
}

impl From<state::FarmStatus> for FarmStatus {
    fn from(of: state::FarmStatus) -> Self {
        match of {
            state::FarmStatus::Up => Self::Up,
            state::FarmStatus::Degraded => Self::Degraded,
            state::FarmStatus::Down => Self::Down,
            state::FarmStatus::Unchecked => Self::Unchecked,
            state::FarmStatus::Disabled => Self::Disabled,
        }
    }
}

/// `starting`: not judged yet, takes no traffic; `draining`: no new connections; `maintenance`: taken out by hand;
/// `unchecked`: takes traffic, and nobody knows whether it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackendStatus {
    Up,
    Down,
    Starting,
    Draining,
    Maintenance,
    Standby,
    Unchecked,
}

impl From<state::BackendStatus> for BackendStatus {
    fn from(of: state::BackendStatus) -> Self {
        match of {
            state::BackendStatus::Up => Self::Up,
            state::BackendStatus::Down => Self::Down,
            state::BackendStatus::Starting => Self::Starting,
            state::BackendStatus::Draining => Self::Draining,
            state::BackendStatus::Maintenance => Self::Maintenance,
            state::BackendStatus::Standby => Self::Standby,
            state::BackendStatus::Unchecked => Self::Unchecked,
        }
    }
}

/// How the words of [`AdminState`] are described.
fn admin_states() -> utoipa::openapi::Object {
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::Type::String)
        .enum_values(Some(AdminState::ALL.map(|state| serde_json::json!(state))))
        .description(Some(
            "What an operator asks of a backend. `drain`: no new connections, the old ones go on; `maintenance`: the same, and \
             checks go on but do not bring it back.",
        ))
        .build()
}

/// What to change in a farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FarmPatch {
    pub enabled: bool,
}

/// What to change in a backend; what is absent stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(min_properties = 1)]
pub struct BackendPatch {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = admin_states)]
    pub admin_state: Option<AdminState>,
    /// 0 to 256; 0 takes no new connections.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "whole_number")]
    #[schema(maximum = 256, nullable = false)]
    pub weight: Option<u16>,
}

/// A number without a fraction, however it is written: to JSON Schema 5.0 is an integer, and some languages write it so.
fn whole_number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(from)? else { return Ok(None) };
    let whole =
        number.as_f64().filter(|value| value.fract() == 0.0 && (0.0..=f64::from(u16::MAX)).contains(value));
    let wrong = || D::Error::custom(format!("must be a whole number from 0 to 256, not {number}"));
    whole.map(|value| Some(value as u16)).ok_or_else(wrong)
}

impl From<BackendPatch> for handle::BackendPatch {
    fn from(of: BackendPatch) -> Self {
        Self { admin: of.admin_state, weight: of.weight }
    }
}
