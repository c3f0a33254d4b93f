//! What the connection tables know of the handshakes with backends: [`lb_core::health::passive`] asks when it suspects some.

use std::collections::BTreeMap;

use lb_common::table::{Fields, Line as _, Lines as _, State};
use lb_core::health::passive::{Fate, Witnesses};

use super::flows::{Family, View, consistent, each_connection, since};
use super::mapping::Memory;
use super::tables::Tables;

impl<M: Memory> Tables<M> {
    /// What is known of the handshakes with the backends of these numbers. Looks at every line once: some ten milliseconds
    /// for large tables.
    pub fn witnesses(&self, backends: &[u16]) -> BTreeMap<u16, Witnesses> {
        let mut found = backends.iter().map(|&id| (id, Witnesses::default())).collect();
        let now = self.control().now();
        gather(&self.v4(), now, &mut found);
        gather(&self.v6(), now, &mut found);
        found
    }
}

fn gather<A: Family>(table: &View<'_, A>, now: u32, found: &mut BTreeMap<u16, Witnesses>) {
    each_connection(table, |_, line, meta| {
        if meta.is_udp() {
            return;
        }
        let told = consistent(line, meta, || {
            let backend = A::backend(line);
            if !found.contains_key(&backend) {
                return None;
            }
            let key = A::key(line, meta, &table.0.numbers)?;
            let to = A::translated(line, meta, &table.0.numbers)?;
            let peer = table.0.at(line.peer())?;
            // What the backend's reset has left: a client that resets its own handshake leaves nothing.
            let refused = peer.acknowledgment() == Fields::opening(line).wrapping_add(1);
            let answered = line.acknowledgment() != 0;
            Some((backend, key.src, to.dst_port, since(now, line.created()), answered, refused))
        });
        let Some((backend, client, port, age, answered, refused)) = told else { return };
        let fate = match meta.state() {
            State::Unanswered => Fate::Waiting,
            // The number of a SYN-ACK is noted there, and what the client acknowledged of the backend's.
            State::Closed if !answered && refused => Fate::Refused,
            State::Closed if !answered => return,
            State::Answered | State::Established | State::HalfClosed | State::Closed | State::Cut => {
                Fate::Answered
            }
            State::Empty | State::Claimed | State::Leaving | State::OneSided => return,
        };
        if let Some(witnesses) = found.get_mut(&backend) {
            witnesses.note(client.into(), u16::from_be_bytes(port), age, fate);
        }
    });
}
