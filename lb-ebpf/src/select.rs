//! Who serves a new connection: the farm, the backend by its Maglev table, a source port that is free, two entries.

use aya_ebpf::bindings::BPF_NOEXIST;
use lb_common::abi::{Address, Connection, FlowKey, NO_TABLE, NextHop, TABLE_SIZE};
use lb_common::hash;
use lb_common::tcp::{self, Direction, State};
use lb_common::verdict::Verdict;
use lb_common::wire::protocol;

use crate::maps::{self, Family, Scratch};

/// Ports tried for one connection before it is refused: its own first, then a run that starts at its hash.
const ATTEMPTS: u32 = 32;
/// The ports that are tried after the client's own: those that are not privileged.
const FIRST_PORT: u32 = 1024;

/// Opens a connection for the flow `key`: picks its backend, enters both directions, and returns the forward one. It stays
/// where it is until the program ends.
#[inline(never)]
pub fn open<F: Family>(
    key: &FlowKey<F::Addr>,
    flags: u8,
    client_hop: &NextHop,
    now: u32,
) -> Result<&'static Connection<F::Addr>, Verdict> {
    let opens = key.protocol == protocol::UDP || tcp::opens(flags);
    let farm_id = maps::farm_id(key);
    let Some(farm) = maps::farm(farm_id) else { return Err(stranger(key, opens)) };
    if !opens {
        return Err(Verdict::NoConnection);
    }
    if key.src.is_impossible_source() || key.src == key.dst {
        return Err(Verdict::BadSource);
    }
    if key.src_port == [0, 0] || key.dst_port == [0, 0] {
        return Err(Verdict::BadTransportHeader);
    }
    if farm.table == NO_TABLE {
        return Err(Verdict::NoBackend);
    }
    let hash = hash::flow(key);
    let backend_id =
        maps::backend_at(farm.table, hash::slot(hash, TABLE_SIZE)).ok_or(Verdict::Inconsistent)?;
    let backend = maps::backend(backend_id).ok_or(Verdict::Inconsistent)?;
    if F::hop(backend).ifindex == 0 {
        return Err(Verdict::NoNextHop);
    }
    let Scratch { to, reverse, back, connection } = maps::scratch::<F>().ok_or(Verdict::Inconsistent)?;
    *to = *key;
    to.dst = F::address(backend);
    if farm.source_is_vip != 0 {
        to.src = key.dst;
    }
    if backend.port != [0, 0] {
        to.dst_port = backend.port;
    }
    back.set_reverse_of(key);
    connection.client_hop = *client_hop;
    (connection.farm, connection.backend) = (farm_id as u16, backend_id);
    (connection.last_seen, connection.created) = (now, now);
    (connection.synack, connection.synack_seen) = (0, 0);
    (connection.state, connection.fins) = (State::Opening as u8, 0);
    connection.direction = Direction::Reverse as u8;
    enter_reverse::<F>(hash, to, reverse, back, connection)?;
    connection.translation.set(key, to);
    connection.direction = Direction::Forward as u8;
    if F::opening().insert(key, &*connection, 0).is_err() {
        F::opening().remove(&*reverse).ok();
        return Err(Verdict::TableFull);
    }
    Ok(connection)
}

/// Enters the reverse direction under a source port that no other connection to the same backend has, and leaves that
/// port in `to`. The insertion itself is the test, so two CPUs cannot take the same port.
#[inline(always)]
fn enter_reverse<F: Family>(
    hash: u32,
    to: &mut FlowKey<F::Addr>,
    reverse: &mut FlowKey<F::Addr>,
    back: &FlowKey<F::Addr>,
    connection: &mut Connection<F::Addr>,
) -> Result<(), Verdict> {
    reverse.set_reverse_of(to);
    connection.translation.set(reverse, back);
    let mut candidate = hash::slot(hash.rotate_left(16), 65536 - FIRST_PORT);
    for _ in 0..ATTEMPTS {
        if F::opening().insert(&*reverse, &*connection, u64::from(BPF_NOEXIST)).is_ok() {
            // Whoever is established was half open before: looking here second leaves no gap between the tables.
            if F::connections().get_ptr(&*reverse).is_none() {
                return Ok(());
            }
            F::opening().remove(&*reverse).ok();
        }
        to.src_port = ((FIRST_PORT + candidate) as u16).to_be_bytes();
        connection.translation.arriving_at(reverse.dst_port, to.src_port);
        reverse.dst_port = to.src_port;
        candidate = if candidate + 1 >= 65536 - FIRST_PORT { 0 } else { candidate + 1 };
    }
    Err(Verdict::PortsExhausted)
}

/// The verdict on a packet that no farm serves.
///
/// A backend's late packet must not reach the host's own TCP, which would answer with a reset (RFC 9293, section 3.10.7.1).
#[inline(always)]
fn stranger<A: Address>(key: &FlowKey<A>, opens: bool) -> Verdict {
    if !maps::is_vip(&key.dst) {
        Verdict::NotForVip
    } else if !opens && maps::is_backend(&key.src) {
        Verdict::NoConnection
    } else {
        Verdict::HostPort
    }
}
