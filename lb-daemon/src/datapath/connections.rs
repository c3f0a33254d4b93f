//! The connection tables from user space: ageing, cutting, listing, counting.
//!
//! [`Reader`] holds file descriptors of its own, so API handlers and the sweep run beside the daemon's loop. Entries are
//! created by the kernel alone; user space only deletes them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use aya::Pod;
use aya::maps::{Array, Map, MapData, PerCpuArray};
use lb_common::abi::{Address, BackendCounters, Connection, FlowKey, Port, TICK_MILLISECONDS, map};
use lb_common::tcp::{Direction, State};
use lb_common::verdict::Verdict;
use lb_common::wire::protocol;
use lb_core::ageing::{self, Idle};
use lb_core::config::model::Timeouts;
use lb_core::health::passive::Pulse;
use lb_core::state::{self, ConnectionFilter, Protocol, Traffic};

use super::table::Table;
use super::{maps, maps_dir};
use crate::handle::DataplaneReader;

/// Reads counters and connection tables, and deletes connections.
pub struct Reader {
    v4: Tables<[u8; 4]>,
    v6: Tables<[u8; 16]>,
    counters: PerCpuArray<MapData, BackendCounters>,
    verdicts: PerCpuArray<MapData, u64>,
    clock: Array<MapData, u32>,
}

/// What a sweep found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Live connections of each backend, by number: those that are not closed.
    pub live: HashMap<u16, u64>,
    /// All connections, closed ones too, by backend.
    pub tracked: HashMap<u16, u64>,
    /// Connections forgotten.
    pub expired: u64,
}

impl Reader {
    /// Opens the maps pinned under `dir`.
    ///
    /// # Errors
    ///
    /// If they are not there, or have another layout.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let pins = maps_dir(dir);
        Ok(Self {
            v4: Tables::open(&pins, map::CONNECTIONS_V4, map::OPENING_V4)?,
            v6: Tables::open(&pins, map::CONNECTIONS_V6, map::OPENING_V6)?,
            counters: maps::per_cpu(&pins, map::COUNTERS)?,
            verdicts: maps::per_cpu(&pins, map::VERDICTS)?,
            clock: Array::try_from(Map::Array(maps::pinned(&pins, map::CLOCK)?))?,
        })
    }

    /// Forgets connections that have been idle for longer than `timeouts` allows for their farm, and counts the others.
    ///
    /// `floor` is the tick since when the clock has been kept: nobody ages by time in which it stood still. May take a
    /// second per few million entries; call it where blocking is allowed.
    ///
    /// # Errors
    ///
    /// If a table cannot be read.
    pub fn sweep(&self, floor: u32, timeouts: impl Fn(u16) -> Timeouts) -> anyhow::Result<Sweep> {
        let now = self.now()?;
        let mut sweep = Sweep::default();
        self.v4.sweep(now, floor, &timeouts, &mut sweep)?;
        self.v6.sweep(now, floor, &timeouts, &mut sweep)?;
        Ok(sweep)
    }

    /// Deletes the connections that match. Returns how many.
    ///
    /// # Errors
    ///
    /// If a table cannot be read.
    pub fn cut(&self, filter: &ConnectionFilter) -> anyhow::Result<u64> {
        let mut cut = 0;
        self.cut_if(|connection| {
            let matches = filter.matches(connection);
            cut += u64::from(matches);
            matches
        })?;
        Ok(cut)
    }

    /// Cuts the connections for which `doomed` says so; it is asked of each connection once.
    ///
    /// # Errors
    ///
    /// If a table cannot be read.
    pub fn cut_if(&self, mut doomed: impl FnMut(&state::Connection) -> bool) -> anyhow::Result<()> {
        let now = self.now()?;
        self.v4.cut(now, &mut doomed)?;
        self.v6.cut(now, &mut doomed)
    }

    /// How a backend has taken its handshakes, by number.
    ///
    /// # Errors
    ///
    /// If the number is out of range.
    pub fn pulse(&self, backend: u16) -> anyhow::Result<Pulse> {
        let mut sum = Pulse::default();
        for cpu in self.counters.get(&u32::from(backend), 0)?.iter() {
            sum.handshakes += cpu.handshakes;
            sum.answered += cpu.answered;
            sum.reset += cpu.reset;
        }
        Ok(sum)
    }

    /// What a backend carried, by number.
    ///
    /// # Errors
    ///
    /// If the number is out of range.
    pub fn traffic(&self, backend: u16) -> anyhow::Result<Traffic> {
        let mut sum = Traffic::default();
        for cpu in self.counters.get(&u32::from(backend), 0)?.iter() {
            sum += Traffic {
                packets_in: cpu.packets[0],
                bytes_in: cpu.bytes[0],
                packets_out: cpu.packets[1],
                bytes_out: cpu.bytes[1],
                opened: cpu.opened,
            };
        }
        Ok(sum)
    }

    fn now(&self) -> anyhow::Result<u32> {
        Ok(self.clock.get(&0, 0)?)
    }
}

impl DataplaneReader for Reader {
    fn connections(
        &self,
        filter: &ConnectionFilter,
        limit: usize,
    ) -> anyhow::Result<(Vec<state::Connection>, u64)> {
        let now = self.now()?;
        let (mut found, mut total) = (Vec::new(), 0);
        let mut take = |connection: state::Connection| {
            if filter.matches(&connection) {
                total += 1;
                if found.len() < limit {
                    found.push(connection);
                }
            }
        };
        self.v4.for_each(now, &mut take)?;
        self.v6.for_each(now, &mut take)?;
        Ok((found, total))
    }

    fn verdicts(&self) -> anyhow::Result<Vec<(&'static str, u64)>> {
        let mut all = Vec::new();
        for verdict in Verdict::ALL {
            all.push((verdict.name(), self.verdicts.get(&(*verdict as u32), 0)?.iter().sum()));
        }
        Ok(all)
    }
}

/// The two tables of one address family.
struct Tables<A: Address>
where
    FlowKey<A>: Pod,
    Connection<A>: Pod,
{
    established: Table<FlowKey<A>, Connection<A>>,
    opening: Table<FlowKey<A>, Connection<A>>,
}

impl<A: Address + Into<IpAddr>> Tables<A>
where
    FlowKey<A>: Pod,
    Connection<A>: Pod,
{
    fn open(pins: &Path, established: &str, opening: &str) -> anyhow::Result<Self> {
        Ok(Self {
            established: Table::new(maps::pinned(pins, established)?)?,
            opening: Table::new(maps::pinned(pins, opening)?)?,
        })
    }

    fn both(&self) -> [&Table<FlowKey<A>, Connection<A>>; 2] {
        [&self.established, &self.opening]
    }

    fn sweep(
        &self,
        now: u32,
        floor: u32,
        timeouts: &impl Fn(u16) -> Timeouts,
        sweep: &mut Sweep,
    ) -> anyhow::Result<()> {
        for table in self.both() {
            let mut idle = Vec::new();
            table.for_each(|key: &FlowKey<A>, connection: &Connection<A>| {
                if connection.direction == Direction::Forward as u8 {
                    *sweep.tracked.entry(connection.backend).or_default() += 1;
                    if !State::from_raw(connection.state).is_over() {
                        *sweep.live.entry(connection.backend).or_default() += 1;
                    }
                }
                if expired(key, connection, now, floor, timeouts) {
                    idle.push(*key);
                }
            })?;
            // One direction may be silent while the other talks: only together they are idle. An entry without its other
            // half is of no use.
            for key in idle {
                let Some(connection) = table.get(&key)? else { continue };
                let peer = table.get(&connection.peer(&key))?;
                let talking = peer.is_some_and(|peer| !expired(&key, &peer, now, floor, timeouts));
                if talking || !expired(&key, &connection, now, floor, timeouts) {
                    continue;
                }
                if table.remove(&key)? && connection.direction == Direction::Forward as u8 {
                    sweep.expired += 1;
                }
            }
        }
        Ok(())
    }

    fn cut(&self, now: u32, matches: &mut impl FnMut(&state::Connection) -> bool) -> anyhow::Result<()> {
        for table in self.both() {
            let mut doomed = Vec::new();
            table.for_each(|key: &FlowKey<A>, connection: &Connection<A>| {
                if listed(key, connection, now).is_some_and(|listed| matches(&listed)) {
                    doomed.push((*key, connection.peer(key)));
                }
            })?;
            for (key, peer) in doomed {
                // A datagram's sender is to find another backend; a TCP client is to be told, when it speaks next.
                if key.protocol == protocol::TCP && std::ptr::eq(table, &self.established) {
                    mark_cut(table, &key)?;
                    mark_cut(table, &peer)?;
                } else {
                    table.remove(&key)?;
                    table.remove(&peer)?;
                }
            }
        }
        Ok(())
    }

    fn for_each(&self, now: u32, take: &mut impl FnMut(state::Connection)) -> anyhow::Result<()> {
        for table in self.both() {
            table.for_each(|key: &FlowKey<A>, connection: &Connection<A>| {
                if let Some(connection) = listed(key, connection, now) {
                    take(connection);
                }
            })?;
        }
        Ok(())
    }
}

/// Leaves the entry as a memorial: whoever sends another packet of it is answered with a reset. Whether it was there.
fn mark_cut<A: Address>(table: &Table<FlowKey<A>, Connection<A>>, key: &FlowKey<A>) -> std::io::Result<bool>
where
    FlowKey<A>: Pod,
    Connection<A>: Pod,
{
    let Some(connection) = table.get(key)? else { return Ok(false) };
    table.replace(key, &Connection { state: State::Cut as u8, ..connection })
}

fn expired<A: Address>(
    key: &FlowKey<A>,
    connection: &Connection<A>,
    now: u32,
    floor: u32,
    timeouts: &impl Fn(u16) -> Timeouts,
) -> bool {
    let idle = Idle { now, floor, last_seen: connection.last_seen };
    ageing::expired(&timeouts(connection.farm), protocol_of(key), State::from_raw(connection.state), idle)
}

/// A connection for people; `None` for the entry of the reverse direction.
fn listed<A: Address + Into<IpAddr>>(
    key: &FlowKey<A>,
    connection: &Connection<A>,
    now: u32,
) -> Option<state::Connection> {
    if connection.direction != Direction::Forward as u8 || connection.state == State::Cut as u8 {
        return None;
    }
    let to = &connection.translation;
    let since =
        |tick: u32| Duration::from_millis(u64::from(now.saturating_sub(tick)) * u64::from(TICK_MILLISECONDS));
    Some(state::Connection {
        protocol: protocol_of(key),
        client: socket(key.src, key.src_port),
        vip: socket(key.dst, key.dst_port),
        backend: socket(to.dst, to.dst_port),
        source: socket(to.src, to.src_port),
        farm_id: connection.farm,
        backend_id: connection.backend,
        state: State::from_raw(connection.state).as_str(),
        age: since(connection.created),
        idle: since(connection.last_seen),
    })
}

fn socket<A: Into<IpAddr>>(address: A, port: Port) -> SocketAddr {
    SocketAddr::new(address.into(), u16::from_be_bytes(port))
}

fn protocol_of<A>(key: &FlowKey<A>) -> Protocol {
    if key.protocol == protocol::UDP { Protocol::Udp } else { Protocol::Tcp }
}
