//! What the daemon that is none says of a packet.

use lb_common::trace::Chosen;
use lb_common::verdict::Verdict;
use lb_core::explain::{Explanation, Port, Question, Sent, Step};
use lb_core::state::Connection;

/// That it opens this connection, whatever it is.
pub fn opens(question: &Question, entry: Connection) -> Explanation {
    let port = Port { source: entry.source, tries: 0, taken: false, transparent: false };
    let (source, destination) = (entry.source, entry.backend);
    Explanation {
        ingress: question.interface.unwrap_or(question.usual_interface),
        sequence: question.sequence.unwrap_or(1000),
        acknowledgment: question.acknowledgment.unwrap_or(0),
        steps: vec![
            Step::Service { farm: 1, wildcard: false },
            Step::Unknown,
            Step::Chosen { backend: 1, by: Chosen::Flow, slot: Some(4711) },
            Step::Source(port),
        ],
        verdict: Verdict::Opened,
        action: 4,
        sent: Some(Sent { egress: 2, source, destination, next_hop: [2, 0, 0, 0, 0, 3], answer: false }),
        entry: Some(entry),
        frame: Vec::new(),
    }
}
