//! A check as JSON: one shape for every type, in which only the keys stand that the type has.

use std::collections::BTreeMap;

use lb_core::config::model::{self, BodyMatch, CheckKind, HttpCheck, Tls, Word as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{duration, ranges};

/// A `[[farm.check]]` table. Which keys it has depends on its type.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct CheckSettings {
    #[serde(rename = "type")]
    pub kind: String,
    pub interval: String,
    pub fast_interval: String,
    pub timeout: String,
    pub rise: u32,
    pub fall: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["200-399"]))]
    pub status: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_regex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_days: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starttls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contract: Option<String>,
}

impl From<&model::Check> for CheckSettings {
    fn from(of: &model::Check) -> Self {
        let mut settings = Self {
            kind: of.kind.as_str().to_owned(),
            interval: duration(of.interval),
            fast_interval: duration(of.fast_interval),
            timeout: duration(of.timeout),
            rise: of.rise,
            fall: of.fall,
            port: of.port,
            ..Self::default()
        };
        settings.set_kind(&of.kind);
        settings
    }
}

impl CheckSettings {
    fn set_kind(&mut self, kind: &CheckKind) {
        match kind {
            CheckKind::Tcp | CheckKind::Icmp => {}
            CheckKind::Http(http) => self.set_http(http),
            CheckKind::Tls { tls, min_days } => {
                self.set_tls(tls);
                self.min_days = *min_days;
            }
            CheckKind::Udp { send, expect } => {
                self.send = Some(bytes(send));
                self.expect = expect.as_deref().map(bytes);
            }
            CheckKind::Dns { name, record, expect } => {
                self.name = Some(name.clone());
                self.record = Some(record.clone());
                self.expect = (!expect.is_empty()).then(|| Value::from(expect.clone()));
            }
            CheckKind::Smtp { starttls } | CheckKind::Imap { starttls } | CheckKind::Pop3 { starttls } => {
                self.starttls = Some(starttls.is_some());
                if let Some(tls) = starttls {
                    self.set_tls(tls);
                }
            }
            CheckKind::Command(command) => {
                self.command = Some(command.command.clone());
                self.user = Some(command.user.clone());
                self.contract = Some(command.contract.word().to_owned());
            }
        }
    }

    fn set_http(&mut self, of: &HttpCheck) {
        self.path = Some(of.paths.clone());
        self.method = Some(of.method.clone());
        self.host = of.host.clone();
        self.headers = Some(of.headers.iter().cloned().collect());
        self.status = Some(ranges(&of.status));
        match &of.body {
            Some(BodyMatch::Contains(text)) => self.body = Some(text.clone()),
            Some(BodyMatch::Regex(pattern)) => self.body_regex = Some(pattern.clone()),
            None => {}
        }
        if let Some(tls) = &of.tls {
            self.set_tls(tls);
        }
    }

    fn set_tls(&mut self, of: &Tls) {
        self.verify = Some(of.verify);
        self.server_name = of.server_name.clone();
    }
}

fn bytes(of: &[u8]) -> Value {
    match std::str::from_utf8(of) {
        Ok(text) => Value::from(text),
        Err(_) => of.iter().copied().map(Value::from).collect(),
    }
}
