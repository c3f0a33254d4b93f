//! What the trace of a run says, with the lines that it speaks of.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;

use anyhow::Context as _;
use lb_common::abi::{FlowKey, LIST_ALLOWS};
use lb_common::table::{Line as _, Meta, State};
use lb_common::trace::{Chosen, Decision, NONE, Over, Paged, Trace};
use lb_common::verdict::{Disposition, Verdict};
use lb_core::explain::{Explanation, Port, Sent, Step};
use lb_core::state::Connection;

use super::instance::{Instance, Run};
use super::pages::{self, Pages};
use crate::datapath::connections::Reader;
use crate::datapath::flows::{self, Family, View, since};
use crate::datapath::mapping::MappedLine;

/// A run in plain data.
pub fn tell(
    reader: &Reader,
    instance: &Instance,
    run: Run,
    asked: &[u8],
    ingress: u32,
) -> anyhow::Result<Explanation> {
    let outcome = run.trace.of(Decision::Outcome).context("the packet has come to no outcome")?;
    let verdict = Verdict::from_raw(outcome as u32);
    let mut steps = Steps { trace: run.trace, steps: Vec::new() };
    steps.tell_service();
    let (source, destination, protocol) = super::ends(asked).unwrap_or((NOWHERE, NOWHERE, 0));
    let ports = (source.port().to_be_bytes(), destination.port().to_be_bytes());
    let mut entry = None;
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let key = FlowKey::new(from.octets(), to.octets(), ports.0, ports.1, protocol);
            let table = Copied {
                view: reader.v4(),
                pages: instance.pages(Paged::ConnectionsV4),
                now: reader.control().now(),
            };
            entry = steps.tell_flow(&table, &key, verdict);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let key = FlowKey::new(from.octets(), to.octets(), ports.0, ports.1, protocol);
            let table = Copied {
                view: reader.v6(),
                pages: instance.pages(Paged::ConnectionsV6),
                now: reader.control().now(),
            };
            entry = steps.tell_flow(&table, &key, verdict);
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {}
    }
    let egress = (outcome >> 32) as u32;
    let sent = sent(&run, egress, verdict);
    let (action, frame, steps) = (run.action, run.frame, steps.steps);
    Ok(Explanation { ingress, sequence: 0, acknowledgment: 0, steps, verdict, action, sent, entry, frame })
}

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

fn sent(run: &Run, egress: u32, verdict: Verdict) -> Option<Sent> {
    if egress == 0 {
        return None;
    }
    let (source, destination, _) = super::ends(&run.frame)?;
    let turned = matches!(verdict, Verdict::Refused | Verdict::EchoAnswered);
    let answer = turned || verdict.disposition() != Disposition::Forward;
    Some(Sent { egress, source, destination, next_hop: run.frame.get(..6)?.try_into().ok()?, answer })
}

struct Steps {
    trace: Trace,
    steps: Vec<Step>,
}

/// A family's table with the copies that the run has worked on.
struct Copied<'a, A> {
    view: View<'a, A>,
    pages: Option<&'a dyn Pages>,
    now: u32,
}

impl Steps {
    fn tell_service(&mut self) {
        match self.trace.of(Decision::Service) {
            Some(word) if word & NONE != 0 => self.steps.push(Step::NoService),
            Some(word) => self.steps.push(Step::Service { farm: word as u16, wildcard: word >> 32 & 1 != 0 }),
            None => {}
        }
        if let Some(word) = self.trace.of(Decision::Listed) {
            self.steps.push(Step::Listed { allows: word as u32 == LIST_ALLOWS });
        }
    }

    /// What was decided of the flow; the connection that the packet opens.
    fn tell_flow<A: Family>(
        &mut self,
        table: &Copied<'_, A>,
        key: &FlowKey<A>,
        verdict: Verdict,
    ) -> Option<Connection> {
        self.tell_line(table, key, verdict);
        if let Some(word) = self.trace.of(Decision::Asked) {
            self.steps.push(Step::Asked { vouched: word & 2 != 0 });
        }
        if let Some(word) = self.trace.of(Decision::Backend) {
            let chosen = [Chosen::Flow, Chosen::Turn, Chosen::Source, Chosen::Affinity, Chosen::Load];
            let by = chosen.into_iter().find(|by| *by as u64 == word >> 32).unwrap_or(Chosen::Flow);
            let slot = self.trace.of(Decision::Slot).map(|slot| slot as u32);
            self.steps.push(Step::Chosen {
                backend: word as u16,
                by,
                slot: slot.filter(|_| by != Chosen::Affinity),
            });
        }
        let (forward, reverse) = (self.trace.of(Decision::Forward)?, self.trace.of(Decision::Reverse)?);
        if (forward | reverse) >> 32 & 1 != 0 {
            self.steps.push(Step::Evicts);
        }
        let (_, line) = table.after(forward as u32)?;
        let (connection, meta) = table.connection(&line)?;
        let source = connection.source;
        self.steps.push(Step::Source(Port {
            source,
            tries: (reverse >> 40) as u32 & 0xff,
            taken: reverse >> 33 & 1 != 0,
            transparent: meta.is_dnat(),
        }));
        (verdict == Verdict::Opened).then_some(connection)
    }

    fn tell_line<A: Family>(&mut self, table: &Copied<'_, A>, key: &FlowKey<A>, verdict: Verdict) {
        let noted = self.trace.of(Decision::Line).map(|index| index as u32);
        // The way of plain packets takes no notes: it is found here as the program finds it.
        let plain = || table.view.find(&table.view.0.homes(key), key).map(|(index, _)| index);
        let may_be_plain = matches!(
            verdict,
            Verdict::Forwarded | Verdict::WrongInterface | Verdict::NoNextHop | Verdict::TtlExpired
        );
        let index = if may_be_plain { noted.or_else(plain) } else { noted };
        let Some(index) = index else {
            if self.trace.of(Decision::Service).is_some_and(|word| word & NONE == 0) {
                self.steps.push(Step::Unknown);
            }
            return;
        };
        let Some(line) = table.before(index) else { return };
        let meta = pages::meta(&line);
        let forward = if meta.is_reverse() { table.peer_of(&line) } else { Some(line) };
        if let Some((connection, _)) = forward.and_then(|line| table.connection(&line)) {
            self.steps.push(Step::Known { connection, reverse: meta.is_reverse() });
        }
        let over = self.trace.of(Decision::Over);
        let over = over.and_then(|word| {
            [Over::Expired, Over::Half, Over::Anew].into_iter().find(|over| *over as u64 == word)
        });
        if let Some(over) = over {
            self.steps.push(Step::Over(over));
        } else {
            let noted =
                self.trace.of(Decision::State).and_then(|word| State::ALL.get(word as usize & 0xff).copied());
            let after = noted.unwrap_or(meta.state());
            self.steps.push(Step::State { before: meta.state().as_str(), after: after.as_str() });
        }
    }
}

/// A line's words.
type Words = Vec<u64>;

impl<A: Family> Copied<'_, A> {
    fn before(&self, index: u32) -> Option<Words> {
        self.pages?.before(index).map(<[u64]>::to_vec)
    }

    fn after(&self, index: u32) -> Option<(Meta, Words)> {
        let line = self.pages?.after(index)?;
        Some((pages::meta(&line), line))
    }

    /// The line of a line's other direction, as it was.
    fn peer_of(&self, line: &Words) -> Option<Words> {
        let memory = memory(line);
        self.before(MappedLine::at(&memory, 0)?.peer())
    }

    /// The connection of a forward line.
    fn connection(&self, line: &Words) -> Option<(Connection, Meta)> {
        let (memory, meta) = (memory(line), pages::meta(line));
        let line = MappedLine::at(&memory, 0)?;
        let idle = since(self.now, line.last_seen());
        let peer = self.before(line.peer()).map(|peer| memory_of_last_seen(&peer, self.now));
        let idle = peer.map_or(idle, |peer| peer.min(idle));
        Some((flows::describe::<A>(&self.view.0.numbers, line, meta, self.now, idle)?, meta))
    }
}

fn memory(line: &Words) -> Vec<AtomicU64> {
    line.iter().map(|&word| AtomicU64::new(word)).collect()
}

fn memory_of_last_seen(line: &Words, now: u32) -> std::time::Duration {
    let memory = memory(line);
    MappedLine::at(&memory, 0).map_or(std::time::Duration::MAX, |line| since(now, line.last_seen()))
}
