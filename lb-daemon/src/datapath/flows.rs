//! The connection table of one address family, on memory that the program works in at the same time.
//!
//! Reading takes nothing from anybody. What is taken out is taken out by the table's own protocol
//! ([`lb_common::table`]), so any number of readers, the sweep and the program may work side by side.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use lb_common::abi::{FlowKey, Port, TICK_MILLISECONDS, map};
use lb_common::table::{Fields as _, Homes, Hop, Layout, Line as _, Lines, Meta, State, Table};
use lb_common::wire::protocol;
use lb_core::state::{self, ConnectionFilter, Protocol};

use super::interfaces::{Move, Moves};
use super::mapping::{MappedLine, Memory};
use super::numbers::Numbers;

/// Tries of something that a packet may get in the way of each time.
const TRIES: usize = 8;

/// An address family, for the tables.
pub trait Family: Layout + Into<IpAddr> {
    /// The map's name.
    const MAP: &'static str;
    /// For people.
    const NAME: &'static str;
    /// The address, if it is of this family.
    fn of(address: IpAddr) -> Option<Self>;
    /// The number by which a line names its VIP, if it does.
    fn vip(line: MappedLine<'_>) -> Option<u16>;
}

impl Family for [u8; 4] {
    const MAP: &'static str = map::CONNECTIONS_V4;
    const NAME: &'static str = "ipv4";

    fn of(address: IpAddr) -> Option<Self> {
        if let IpAddr::V4(address) = address { Some(address.octets()) } else { None }
    }
    fn vip(_: MappedLine<'_>) -> Option<u16> {
        None
    }
}

impl Family for [u8; 16] {
    const MAP: &'static str = map::CONNECTIONS_V6;
    const NAME: &'static str = "ipv6";

    fn of(address: IpAddr) -> Option<Self> {
        if let IpAddr::V6(address) = address { Some(address.octets()) } else { None }
    }
    fn vip(line: MappedLine<'_>) -> Option<u16> {
        Some(Self::target(line).delta_and_vip_v6().1)
    }
}

/// The lines of a family's table.
pub struct Flows<A, M> {
    memory: M,
    _family: PhantomData<fn() -> A>,
}

impl<A: Family, M: Memory> Flows<A, M> {
    /// # Errors
    ///
    /// If the number of lines is no power of two.
    pub fn new(memory: M) -> anyhow::Result<Self> {
        let lines = memory.words().len() / 8;
        anyhow::ensure!(
            lines.is_power_of_two() && u32::try_from(lines).is_ok(),
            "{} has {lines} lines, which is no power of two",
            A::MAP
        );
        Ok(Self { memory, _family: PhantomData })
    }

    /// The table, as one operation sees it. `seed` is that of the table's hash.
    pub fn view<'a>(&'a self, numbers: Numbers<'a>, seed: [u64; 2]) -> View<'a, A> {
        Table(Seen { lines: self.memory.words(), numbers, seed, _family: PhantomData })
    }
}

/// A table with its protocol.
pub type View<'a, A> = Table<Seen<'a, A>>;

/// Lines, and what is needed to understand them.
pub struct Seen<'a, A> {
    pub lines: &'a [AtomicU64],
    pub numbers: Numbers<'a>,
    seed: [u64; 2],
    _family: PhantomData<fn() -> A>,
}

impl<A: Family> Seen<'_, A> {
    /// Of the table's hash.
    pub fn seed(&self) -> [u64; 2] {
        self.seed
    }

    /// Where a flow belongs.
    pub fn homes(&self, key: &FlowKey<A>) -> Homes {
        Homes::of(A::hash(key, &self.seed), self.mask())
    }
}

impl<'a, A: Family> Lines for Seen<'a, A> {
    type Line = MappedLine<'a>;
    type Key = FlowKey<A>;

    fn at(&self, index: u32) -> Option<MappedLine<'a>> {
        MappedLine::at(self.lines, index)
    }
    fn mask(&self) -> u32 {
        // A power of two that fits; see `Flows::new`.
        (self.lines.len() / 8) as u32 - 1
    }
    fn holds(&self, line: MappedLine<'a>, meta: Meta, key: &FlowKey<A>) -> bool {
        A::holds(line, meta, key, &self.numbers)
    }
    fn timeout(&self, line: MappedLine<'a>, meta: Meta) -> u32 {
        self.numbers.timeout(A::backend(line), meta)
    }
    fn first_home(&self, line: MappedLine<'a>, meta: Meta) -> Option<u32> {
        let key = A::key(line, meta, &self.numbers)?;
        Some(self.homes(&key).first)
    }
}

/// What `read` makes of a live line; `None` if the line got another entry meanwhile, so that `read` may have seen two halves.
pub(super) fn consistent<T>(line: MappedLine<'_>, meta: Meta, read: impl FnOnce() -> Option<T>) -> Option<T> {
    let result = read();
    // What was read is read before the version is looked at again.
    fence(Ordering::Acquire);
    if line.meta().version() == meta.version() { result } else { None }
}

/// Which connections of one family are meant; [`ConnectionFilter`], made ready.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<A> {
    farm: Option<u16>,
    backend: Option<u16>,
    client: Option<A>,
}

impl<A: Family> Wanted<A> {
    /// `None`: none of this family.
    pub fn of(filter: &ConnectionFilter) -> Option<Self> {
        let client = match filter.client {
            Some(client) => Some(A::of(client)?),
            None => None,
        };
        Some(Self { farm: filter.farm_id, backend: filter.backend_id, client })
    }

    /// Whether a forward line's connection is one of them. What costs least is asked first.
    fn matches(&self, table: &View<'_, A>, line: MappedLine<'_>, meta: Meta) -> bool {
        let numbers = &table.0.numbers;
        let backend = A::backend(line);
        self.backend.is_none_or(|wanted| wanted == backend)
            && self.farm.is_none_or(|wanted| wanted == numbers.settings(backend).1)
            && self
                .client
                .is_none_or(|wanted| A::key(line, meta, numbers).is_some_and(|key| key.src == wanted))
    }
}

/// Calls `visit` with every forward line of a connection that was not cut, and its first word as it was.
pub(super) fn each_connection<'a, A: Family>(
    table: &View<'a, A>,
    mut visit: impl FnMut(u32, MappedLine<'a>, Meta),
) {
    for (index, line) in (0..).zip(MappedLine::each(table.0.lines)) {
        let meta = line.meta();
        if meta.is_live() && !meta.is_reverse() && !meta.is(State::Cut) {
            visit(index, line, meta);
        }
    }
}

/// Finds the connections that match: how many they are, and the first of them until `found` is as long as `limit`.
pub fn list<A: Family>(
    table: &View<'_, A>,
    wanted: &Wanted<A>,
    now: u32,
    limit: usize,
    found: &mut Vec<state::Connection>,
) -> u64 {
    let mut total = 0;
    each_connection(table, |index, line, meta| {
        if found.len() < limit {
            let connection = consistent(line, meta, || {
                if wanted.matches(table, line, meta) { told(table, index, line, meta, now) } else { None }
            });
            total += u64::from(connection.is_some());
            found.extend(connection);
        } else {
            let matches = || wanted.matches(table, line, meta).then_some(());
            total += u64::from(consistent(line, meta, matches).is_some());
        }
    });
    total
}

/// Cuts the connections that match. Returns how many.
pub fn cut<A: Family>(table: &View<'_, A>, wanted: &Wanted<A>) -> u64 {
    let mut count = 0;
    each_connection(table, |index, line, meta| {
        let matches = || wanted.matches(table, line, meta).then_some(());
        if consistent(line, meta, matches).is_some() {
            count += u64::from(cut_one(table, index, meta));
        }
    });
    count
}

/// Cuts the connections that opened before the tick `before` and whose backend is `doomed`; it is asked once of each. A look
/// at all lines takes a while, and who opens a connection meanwhile has been led there for good reason.
pub fn cut_backends<A: Family>(table: &View<'_, A>, before: u32, doomed: &mut impl FnMut(u16) -> bool) {
    each_connection(table, |index, line, meta| {
        let old = || (before.wrapping_sub(line.created()) as i32 > 0).then(|| A::backend(line));
        if consistent(line, meta, old).is_some_and(&mut *doomed) {
            cut_one(table, index, meta);
        }
    });
}

/// Cuts the connections to VIPs that are `gone`.
pub fn cut_vips<A: Family>(table: &View<'_, A>, gone: &[A]) {
    each_connection(table, |index, line, meta| {
        let to = consistent(line, meta, || A::key(line, meta, &table.0.numbers).map(|key| key.dst));
        if to.is_some_and(|vip| gone.contains(&vip)) {
            cut_one(table, index, meta);
        }
    });
}

/// How many of each backend's connections are to VIPs of `of`, by its number; those that are over do not count.
pub fn count_to_vips<A: Family>(table: &View<'_, A>, of: &[A], counts: &mut HashMap<u16, u64>) {
    each_connection(table, |_, line, meta| {
        let seen = || A::key(line, meta, &table.0.numbers).map(|key| (key.dst, A::backend(line)));
        let to = consistent(line, meta, seen).filter(|_| !meta.state().is_over());
        if let Some((_, backend)) = to.filter(|(vip, _)| of.contains(vip)) {
            *counts.entry(backend).or_default() += 1;
        }
    });
}

/// Cuts the connection whose forward line is at `index` and has the version of `meta`; whether it was still there.
///
/// A datagram's sender is to find another backend; so is a client whose handshake is not complete. An established TCP connection
/// stays as a memorial, so that whoever speaks next is told by a reset.
pub fn cut_one<A: Family>(table: &View<'_, A>, index: u32, mut meta: Meta) -> bool {
    let Some(line) = table.0.at(index) else { return false };
    for _ in 0..TRIES {
        if !meta.is_udp() && matches!(meta.state(), State::Established | State::HalfClosed) {
            let peer = line.peer();
            if line.swap_meta(meta, meta.with_state(State::Cut)) {
                mark_peer(table, peer, index);
                return true;
            }
        } else if table.free_pair(index, meta) {
            return true;
        }
        // A packet has moved the connection on, or it is gone.
        let now = line.meta();
        if now.version() != meta.version() || !now.is_live() {
            return false;
        }
        meta = now;
    }
    false
}

/// Cuts the other direction of a connection whose line at `index` was cut. Each try fails only by a packet that changes the
/// state.
fn mark_peer<A: Family>(table: &View<'_, A>, peer: u32, index: u32) {
    let Some(line) = table.0.at(peer) else { return };
    for _ in 0..TRIES {
        match table.peer_at(peer, index) {
            Some(meta) if !line.swap_meta(meta, meta.with_state(State::Cut)) => {}
            _ => return,
        }
    }
}

/// Makes every line that names an interface by number name what `moves` says.
pub fn rewrite_interfaces<A: Family>(table: &View<'_, A>, moves: &Moves) {
    for (index, line) in (0..).zip(MappedLine::each(table.0.lines)) {
        let meta = line.meta();
        if !meta.is_live() || !meta.is_reverse() {
            continue;
        }
        let hop = line.hop();
        match moves.get(usize::from(hop.interface())).copied().unwrap_or(Move::Stay) {
            Move::Stay => {}
            // If it fails, the client has just been seen on the interface that it is reached by now.
            Move::To(number) => drop(line.replace_hop(hop, Hop::new(number, &hop.mac()))),
            Move::Free => drop(table.free_pair(index, meta)),
        }
    }
}

/// A connection for people, by its forward line.
fn told<A: Family>(
    table: &View<'_, A>,
    index: u32,
    line: MappedLine<'_>,
    meta: Meta,
    now: u32,
) -> Option<state::Connection> {
    let idle = since(now, line.last_seen());
    let peer = line.peer();
    let other = table.peer_at(peer, index).and_then(|_| table.0.at(peer));
    let idle = other.map_or(idle, |peer| since(now, peer.last_seen()).min(idle));
    describe::<A>(&table.0.numbers, line, meta, now, idle)
}

/// The same, of a connection that has been idle for so long.
pub(super) fn describe<A: Family>(
    numbers: &Numbers<'_>,
    line: MappedLine<'_>,
    meta: Meta,
    now: u32,
    idle: Duration,
) -> Option<state::Connection> {
    let key = A::key(line, meta, numbers)?;
    let to = A::translated(line, meta, numbers)?;
    let backend_id = A::backend(line);
    let mut backend: IpAddr = to.dst.into();
    // What it is sent is for the VIP.
    if meta.is_direct() {
        backend = numbers.backend_address(backend_id, backend.is_ipv4()).unwrap_or(backend);
    }
    Some(state::Connection {
        protocol: if key.protocol == protocol::UDP { Protocol::Udp } else { Protocol::Tcp },
        client: socket(key.src, key.src_port),
        vip: socket(key.dst, key.dst_port),
        backend: socket(backend, to.dst_port),
        source: socket(to.src, to.src_port),
        farm_id: numbers.settings(backend_id).1,
        backend_id,
        state: meta.state().as_str(),
        age: since(now, line.created()),
        idle,
    })
}

/// How long ago a tick was.
pub(super) fn since(now: u32, tick: u32) -> Duration {
    // The program's clock may be a tick ahead.
    let ticks = (now.wrapping_sub(tick) as i32).max(0).unsigned_abs();
    Duration::from_millis(u64::from(ticks) * u64::from(TICK_MILLISECONDS))
}

fn socket<A: Into<IpAddr>>(address: A, port: Port) -> SocketAddr {
    SocketAddr::new(address.into(), u16::from_be_bytes(port))
}
