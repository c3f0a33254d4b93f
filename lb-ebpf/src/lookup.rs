//! Whose packet it is: the connection tables, and what a packet does to the state of its connection.

use lb_common::abi::{Connection, FlowKey, NextHop};
use lb_common::tcp::{self, Direction, State, flag};
use lb_common::verdict::Verdict;
use lb_common::wire::{Tcp, protocol};

use crate::context::Frame;
use crate::maps::{self, Family};
use crate::parse::Packet;

/// What the tables know of a packet.
pub enum Found<'a, A> {
    Connection(&'a Connection<A>),
    Nothing,
}

/// The connection with a complete handshake that a packet belongs to.
///
/// A client that opens a new connection from the port of a closed one is not held to the old backend: the old entry is
/// forgotten and nothing is found.
#[inline(always)]
pub fn established<F: Family>(packet: &Packet<F::Addr>, now: u32) -> Option<&'static Connection<F::Addr>> {
    let entry = F::connections().get_ptr_mut(&packet.key)?;
    // SAFETY: the entry stays readable until this run of the program ends (RCU); fields are written by plain stores of
    // one word, and a store lost between two CPUs costs a longer time-out at most.
    let connection = unsafe { &mut *entry };
    if connection.last_seen != now {
        connection.last_seen = now;
    }
    if tcp::steers(packet.flags) {
        if tcp::opens(packet.flags) && State::from_raw(connection.state).is_over() {
            let peer = connection.peer(&packet.key);
            // An entry that is gone already is what was wanted.
            F::connections().remove(&peer).ok();
            F::connections().remove(&packet.key).ok();
            return None;
        }
        steer(connection, packet.flags);
        if let Some(peer) = F::connections().get_ptr_mut(connection.peer(&packet.key)) {
            // SAFETY: as above.
            let peer = unsafe { &mut *peer };
            (peer.state, peer.fins) = (connection.state, connection.fins);
        }
    }
    Some(connection)
}

/// The half-open connection that a packet belongs to. A packet that completes the handshake moves both entries to the
/// table of established connections.
///
/// # Errors
///
/// [`Verdict::NoConnection`] for an acknowledgment of nothing that the backend has sent: a handshake that only the client
/// has seen. [`Verdict::TableFull`].
///
/// A function of its own, as [`crate::select::open`] is, so that neither's stack weighs on the established path.
#[inline(never)]
pub fn half_open<F: Family>(
    frame: &Frame,
    packet: &Packet<F::Addr>,
    now: u32,
) -> Result<Found<'static, F::Addr>, Verdict> {
    let Some(entry) = F::opening().get_ptr_mut(&packet.key) else { return Ok(Found::Nothing) };
    // SAFETY: as in `established`. The LRU may give the entry to another flow while this packet is on its way: it would
    // then go where that flow goes and be refused there; no memory is at stake.
    let connection = unsafe { &mut *entry };
    connection.last_seen = now;
    let peer_key = connection.peer(&packet.key);
    let peer = F::opening().get_ptr_mut(&peer_key);
    let forward = connection.direction == Direction::Forward as u8;
    if packet.key.protocol == protocol::UDP {
        // The first answer makes it a conversation.
        if !forward && let Some(peer) = peer {
            // SAFETY: as above.
            establish::<F>(&packet.key, connection, &peer_key, unsafe { &mut *peer })?;
        }
        return Ok(Found::Connection(connection));
    }
    if forward && tcp::opens(packet.flags) && State::from_raw(connection.state) == State::Closed {
        F::opening().remove(&peer_key).ok();
        F::opening().remove(&packet.key).ok();
        return Ok(Found::Nothing);
    }
    // Without its other half (evicted) a handshake cannot be completed; the client starts again.
    let peer = match peer {
        // SAFETY: as above.
        Some(peer) => unsafe { &mut *peer },
        None => return Ok(Found::Connection(connection)),
    };
    if tcp::steers(packet.flags) {
        steer(connection, packet.flags);
        (peer.state, peer.fins) = (connection.state, connection.fins);
        if !forward && packet.flags & (flag::SYN | flag::ACK) == flag::SYN | flag::ACK {
            let header = frame.view::<Tcp>(packet.transport).ok_or(Verdict::TruncatedTransport)?;
            if connection.synack_seen == 0 {
                maps::count_answer(connection.backend, false);
            }
            (connection.synack, connection.synack_seen) = (header.sequence(), 1);
        } else if !forward && packet.flags & flag::RST != 0 && connection.synack_seen == 0 {
            maps::count_answer(connection.backend, true);
        }
    } else if forward && packet.flags & flag::ACK != 0 {
        let header = frame.view::<Tcp>(packet.transport).ok_or(Verdict::TruncatedTransport)?;
        if peer.synack_seen == 0 || !tcp::completes_handshake(peer.synack, header.acknowledgment()) {
            return Err(Verdict::NoConnection);
        }
        establish::<F>(&packet.key, connection, &peer_key, peer)?;
    }
    Ok(Found::Connection(connection))
}

/// Moves both entries of a connection to the table of established ones. At every moment each is in one table at least,
/// so that nobody else can take its port.
#[inline(always)]
fn establish<F: Family>(
    key: &FlowKey<F::Addr>,
    connection: &mut Connection<F::Addr>,
    peer_key: &FlowKey<F::Addr>,
    peer: &mut Connection<F::Addr>,
) -> Result<(), Verdict> {
    connection.state = State::Established as u8;
    peer.state = State::Established as u8;
    if F::connections().insert(peer_key, &*peer, 0).is_err() {
        return Err(Verdict::TableFull);
    }
    if F::connections().insert(key, &*connection, 0).is_err() {
        F::connections().remove(peer_key).ok();
        return Err(Verdict::TableFull);
    }
    // The pointers into the half-open table stay readable until this run ends; the LRU alone may reuse them.
    F::opening().remove(peer_key).ok();
    F::opening().remove(key).ok();
    Ok(())
}

#[inline(always)]
fn steer<A>(connection: &mut Connection<A>, flags: u8) {
    let direction = if connection.direction == Direction::Forward as u8 {
        Direction::Forward
    } else {
        Direction::Reverse
    };
    connection.fins = tcp::fins(connection.fins, direction, flags);
    connection.state = tcp::after(State::from_raw(connection.state), connection.fins, flags) as u8;
}

/// Where the packets of a connection go next: the client's side as it was learnt, the backend's as the daemon knows it.
#[inline(always)]
pub fn next_hop<F: Family>(connection: &Connection<F::Addr>) -> Result<&NextHop, Verdict> {
    if connection.direction == Direction::Reverse as u8 {
        return Ok(&connection.client_hop);
    }
    match maps::backend(connection.backend).map(F::hop) {
        Some(hop) if hop.ifindex != 0 => Ok(hop),
        Some(_) => Err(Verdict::NoNextHop),
        None => Err(Verdict::Inconsistent),
    }
}
