//! What the program would do with a packet that somebody makes up, step by step, in plain data and in words.

use std::net::SocketAddr;
use std::time::Duration;

use lb_common::trace::{Chosen, Over};
use lb_common::verdict::{Disposition, Verdict};

use crate::state::{Connection, Protocol};

/// The packet to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub protocol: Protocol,
    /// TCP's.
    pub flags: u8,
    /// The number of the interface that it comes in by; if nobody says: by the one that leads to its source if that is a backend, else by
    /// this one.
    pub interface: Option<u32>,
    pub usual_interface: u32,
    /// TCP's numbers; those that its connection expects, if nobody says.
    pub sequence: Option<u32>,
    pub acknowledgment: Option<u32>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The number of the interface that it came in by.
    pub ingress: u32,
    pub sequence: u32,
    pub acknowledgment: u32,
    /// In the order in which they were come to.
    pub steps: Vec<Step>,
    pub verdict: Verdict,
    /// The XDP action.
    pub action: u32,
    /// What leaves, if something does: the packet, or the answer to it.
    pub sent: Option<Sent>,
    /// The connection that it would open.
    pub entry: Option<Connection>,
    /// The whole frame as the program has left it.
    pub frame: Vec<u8>,
}

/// A frame that leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The number of the interface that it leaves by.
    pub egress: u32,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// The hardware address that it is for.
    pub next_hop: [u8; 6],
    /// It is the answer to the packet, and not the packet.
    pub answer: bool,
}

/// A decision of the program's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The farm of this number serves the destination; `wildcard`: as one of all ports.
    Service { farm: u16, wildcard: bool },
    /// No farm does.
    NoService,
    /// The farm's list lets the source in, or does not.
    Listed { allows: bool },
    /// A connection holds the flow; `reverse`: the packet is one of its backend's.
    Known { connection: Connection, reverse: bool },
    /// No connection does.
    Unknown,
    /// The connection that held it does so no more.
    Over(Over),
    /// The connection's state after the packet.
    State { before: &'static str, after: &'static str },
    /// In a flood its sender is asked whether it is there, unless it has shown that it is.
    Asked { vouched: bool },
    /// The backend of this number was chosen, from this slot of the farm's table.
    Chosen { backend: u16, by: Chosen, slot: Option<u32> },
    /// What the backend sees as the source.
    Source(Port),
    /// Room in the connection table was made by forgetting another connection.
    Evicts,
}

/// The source of a connection towards its backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub source: SocketAddr,
    /// Ports that were tried before.
    pub tries: u32,
    /// A half-open, closed or silent connection had it before.
    pub taken: bool,
    /// It is the client's own address.
    pub transparent: bool,
}

/// What the words need to know of numbers.
pub trait Names {
    fn farm(&self, number: u16) -> String;
    fn backend(&self, number: u16) -> String;
}

/// A step in words: what it is about, and what was decided.
pub fn words(step: &Step, destination: SocketAddr, names: &impl Names) -> (&'static str, String) {
    match step {
        Step::Service { farm, wildcard } => {
            let as_one = if *wildcard { ", as one of all ports" } else { "" };
            ("service", format!("farm '{}' serves {destination}{as_one}", names.farm(*farm)))
        }
        Step::NoService => ("service", format!("no farm serves {destination}")),
        Step::Listed { allows: true } => ("list", "the farm's list lets the source in".to_owned()),
        Step::Listed { allows: false } => ("list", "the farm's list keeps the source out".to_owned()),
        Step::Known { connection, reverse } => {
            let whose = if *reverse { "answers of" } else { "packets of" };
            let (client, state) = (connection.client, connection.state);
            let (age, idle) = (tenths(connection.age), tenths(connection.idle));
            let text = format!(
                "{whose} {client}: {state}, {age} old, idle for {idle}, served by {}",
                connection.backend
            );
            ("connection", text)
        }
        Step::Unknown => ("connection", "none holds this flow".to_owned()),
        Step::Over(Over::Expired) => ("connection", "it has been idle for too long: forgotten".to_owned()),
        Step::Over(Over::Half) => ("connection", "its other direction is gone: forgotten".to_owned()),
        Step::Over(Over::Anew) => ("connection", "the packet ends it: another may open".to_owned()),
        Step::State { before, after } if before == after => ("state", format!("stays {after}")),
        Step::State { before, after } => ("state", format!("{before} becomes {after}")),
        Step::Asked { vouched: true } => ("flood", "the source has shown that it is there".to_owned()),
        Step::Asked { vouched: false } => ("flood", "the source is asked whether it is there".to_owned()),
        Step::Chosen { backend, by, slot } => {
            let backend = names.backend(*backend);
            let how = match by {
                Chosen::Flow => "by the flow's hash",
                Chosen::Turn => "whose turn it is",
                Chosen::Source => "by the hash of the source's address",
                Chosen::Affinity => "which the source had before (affinity)",
                Chosen::Load => "which has less to do than another one",
            };
            let slot = slot.map_or_else(String::new, |slot| format!(", slot {slot} of the farm's table"));
            ("backend", format!("{backend}, {how}{slot}"))
        }
        Step::Source(port) if port.transparent => ("source", format!("{}, the client itself", port.source)),
        Step::Source(port) => {
            let taken = if port.taken { "; taken from a connection that nothing is expected of" } else { "" };
            let which = match port.tries {
                0 => "the client's own port".to_owned(),
                1 => "another port, since the client's own is taken".to_owned(),
                tries => format!("another port, since {tries} are taken"),
            };
            ("source", format!("{}, {which}{taken}", port.source))
        }
        Step::Evicts => ("room", "an unanswered connection gives way".to_owned()),
    }
}

/// The verdict in words.
pub fn outcome(told: &Explanation) -> String {
    format!("{}: it {}", told.verdict.name(), told.verdict.text())
}

/// What becomes of the packet, in a word.
pub fn action(told: &Explanation) -> &'static str {
    match (&told.sent, told.verdict.disposition()) {
        (Some(sent), _) => {
            if sent.answer {
                "answered"
            } else {
                "sent"
            }
        }
        (None, Disposition::Pass) => "passed",
        (None, Disposition::Drop | Disposition::Forward) => "dropped",
    }
}

/// A hardware address.
pub fn mac([a, b, c, d, e, f]: [u8; 6]) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

fn tenths(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Numbered;

    impl Names for Numbered {
        fn farm(&self, number: u16) -> String {
            format!("farm-{number}")
        }
        fn backend(&self, number: u16) -> String {
            format!("b{number}")
        }
    }

    #[test]
    fn each_step_is_a_sentence() {
        let to: SocketAddr = "192.0.2.10:80".parse().unwrap();
        let source: SocketAddr = "192.0.2.10:40000".parse().unwrap();
        let port = |tries, taken, transparent| Step::Source(Port { source, tries, taken, transparent });
        let chosen = |by| Step::Chosen { backend: 7, by, slot: (by != Chosen::Affinity).then_some(9) };
        let cases = [
            (
                Step::Service { farm: 3, wildcard: true },
                "farm 'farm-3' serves 192.0.2.10:80, as one of all ports",
            ),
            (Step::NoService, "no farm serves 192.0.2.10:80"),
            (Step::Listed { allows: false }, "the farm's list keeps the source out"),
            (Step::Over(Over::Expired), "it has been idle for too long: forgotten"),
            (Step::State { before: "answered", after: "established" }, "answered becomes established"),
            (Step::State { before: "established", after: "established" }, "stays established"),
            (Step::Asked { vouched: false }, "the source is asked whether it is there"),
            (chosen(Chosen::Turn), "b7, whose turn it is, slot 9 of the farm's table"),
            (chosen(Chosen::Affinity), "b7, which the source had before (affinity)"),
            (port(0, false, false), "192.0.2.10:40000, the client's own port"),
            (port(0, false, true), "192.0.2.10:40000, the client itself"),
            (port(1, false, false), "192.0.2.10:40000, another port, since the client's own is taken"),
            (
                port(4, true, false),
                "192.0.2.10:40000, another port, since 4 are taken; taken from a connection that nothing is expected of",
            ),
        ];
        for (step, expected) in cases {
            assert_eq!(words(&step, to, &Numbered).1, expected, "{step:?}");
        }
    }

    #[test]
    fn what_becomes_of_a_packet_is_a_word() {
        let end: SocketAddr = "192.0.2.10:80".parse().unwrap();
        let sent = |answer| Some(Sent { egress: 2, source: end, destination: end, next_hop: [2; 6], answer });
        let told = |verdict, sent| {
            let (steps, entry, frame) = (Vec::new(), None, Vec::new());
            action(&Explanation {
                ingress: 1,
                sequence: 0,
                acknowledgment: 0,
                steps,
                verdict,
                action: 0,
                sent,
                entry,
                frame,
            })
        };
        assert_eq!(told(Verdict::Opened, sent(false)), "sent");
        assert_eq!(told(Verdict::Challenged, sent(true)), "answered");
        assert_eq!(told(Verdict::HostPort, None), "passed");
        assert_eq!(told(Verdict::Denied, None), "dropped");
    }
}
