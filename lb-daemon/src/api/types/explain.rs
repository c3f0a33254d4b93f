//! What a made-up packet would meet.

use std::net::SocketAddr;

use lb_core::explain::{self, Explanation, Names, Question, Step};
use lb_core::state::Snapshot;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Connection;

/// A packet that somebody makes up. Addresses are `IP:PORT`, an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Whom it comes from: a client, or a backend.
    #[schema(min_length = 1)]
    pub source: String,
    /// Whom it is for: a VIP, or what a backend takes for its client.
    #[schema(min_length = 1)]
    pub destination: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub protocol: Option<PacketProtocol>,
    /// TCP's, a letter each: `S` SYN, `A` ACK, `F` FIN, `R` RST, `P` PSH, as in `SA`. `S` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = "^[SAFRP]+$")]
    pub flags: Option<String>,
    /// The interface that it comes in by; unless given the one that leads to its source if that is a backend, else the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1)]
    pub interface: Option<String>,
    /// TCP's sequence number; unless given the one that its connection expects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub sequence: Option<u32>,
    /// TCP's acknowledgment number, the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub acknowledgment: Option<u32>,
}

/// `tcp` unless given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PacketProtocol {
    #[default]
    Tcp,
    Udp,
}

/// What the program would do with a packet, if it came now. Nothing was changed by asking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explained {
    pub packet: ExplainedPacket,
    /// The program's decisions, in the order in which they were come to.
    pub steps: Vec<ExplainedStep>,
    /// The reason of the outcome, as in the metric `drover_packets_total`.
    pub verdict: String,
    /// The same in words.
    pub outcome: String,
    /// `sent`: the packet is sent on. `answered`: it is not, and its sender gets an answer. `passed`: it is the host's. `dropped`.
    pub action: String,
    /// What leaves; null if nothing does.
    pub sent: Option<SentPacket>,
    /// The connection that the packet would open; null if it opens none.
    pub entry: Option<Connection>,
}

/// The packet as it was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedPacket {
    pub protocol: PacketProtocol,
    pub source: String,
    pub destination: String,
    pub interface: String,
    /// Empty for UDP.
    pub flags: String,
    pub sequence: u32,
    pub acknowledgment: u32,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedStep {
    /// `service`, `list`, `connection`, `state`, `flood`, `backend`, `room` or `source`.
    pub about: String,
    /// For people.
    pub text: String,
}

/// A packet that leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SentPacket {
    pub source: String,
    pub destination: String,
    pub interface: String,
    /// The hardware address of the next hop.
    pub next_hop: String,
}

/// Names of numbers, as the daemon has published them.
pub struct Known<'a>(pub &'a Snapshot);

impl Names for Known<'_> {
    fn farm(&self, number: u16) -> String {
        let farm = self.0.farms.iter().find(|farm| farm.id == number);
        farm.map_or_else(|| "(gone)".to_owned(), |farm| farm.name.to_string())
    }
    fn backend(&self, number: u16) -> String {
        let backends = self.0.farms.iter().flat_map(|farm| &farm.backends);
        let mut named = backends.filter(|backend| backend.id == number);
        named.next().map_or_else(|| "(gone)".to_owned(), |backend| backend.name.to_string())
    }
}

impl Known<'_> {
    fn interface(&self, number: u32) -> String {
        let interface = self.0.interfaces.iter().find(|interface| interface.index == number);
        interface.map_or_else(|| format!("interface {number}"), |interface| interface.name.clone())
    }
}

impl Explained {
    pub fn new(told: &Explanation, question: &Question, flags: &str, snapshot: &Snapshot) -> Self {
        let names = Known(snapshot);
        let step = |step: &Step| {
            let (about, text) = explain::words(step, question.destination, &names);
            ExplainedStep { about: about.to_owned(), text }
        };
        let sent = told.sent.as_ref().map(|sent| SentPacket {
            source: address(sent.source),
            destination: address(sent.destination),
            interface: names.interface(sent.egress),
            next_hop: explain::mac(sent.next_hop),
        });
        Self {
            packet: ExplainedPacket {
                protocol: question.protocol.into(),
                source: question.source.to_string(),
                destination: question.destination.to_string(),
                interface: names.interface(told.ingress),
                flags: flags.to_owned(),
                sequence: told.sequence,
                acknowledgment: told.acknowledgment,
            },
            steps: told.steps.iter().map(step).collect(),
            verdict: told.verdict.name().to_owned(),
            outcome: explain::outcome(told),
            action: explain::action(told).to_owned(),
            sent,
            entry: told.entry.as_ref().map(|entry| Connection::new(entry, snapshot)),
        }
    }
}

/// An end of a packet; one that has no ports is told by its address alone.
fn address(of: SocketAddr) -> String {
    if of.port() == 0 { of.ip().to_string() } else { of.to_string() }
}

impl From<lb_core::state::Protocol> for PacketProtocol {
    fn from(of: lb_core::state::Protocol) -> Self {
        match of {
            lb_core::state::Protocol::Tcp => Self::Tcp,
            lb_core::state::Protocol::Udp => Self::Udp,
        }
    }
}
