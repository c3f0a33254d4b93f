//! Somebody who opens, changes and frees connections as the program does.

use lb_common::abi::TimeoutTicks;
use lb_common::table::{Claim, Fields, Line, Lines, Meta, State, Table};
use lb_common::tcp::Direction;

use crate::mapped::{LineAt, Mapping};
use crate::world::{self, Connection, Family, seal, sealed};

pub const TIMEOUTS: TimeoutTicks =
    TimeoutTicks { syn: 50, established: 2000, half_closed: 300, fin: 30, udp: 400 };

pub fn mapping<A: Family>(lines: usize, seed: u64) -> Mapping<A> {
    Mapping::new(lines, [seed, seed.rotate_left(17) ^ 0x5555], TIMEOUTS, world::numbers())
}

/// What became of an attempt to open a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    Yes,
    /// It is there.
    Known,
    /// Its source port is another's who keeps it.
    NoPort,
    Full,
}

pub fn line<'a, A: Family>(table: &Table<&'a Mapping<A>>, index: u32) -> LineAt<'a> {
    table.0.at(index).unwrap()
}

/// The line of a direction, if it is there; it must be the connection's, whole.
pub fn find<A: Family>(
    table: &Table<&Mapping<A>>,
    connection: &Connection<A>,
    direction: Direction,
) -> Option<(u32, Meta)> {
    let key = connection.key(direction);
    let (index, meta) = table.find(&table.0.homes_of(key), key)?;
    let line = line(table, index);
    let to = A::translated(line, meta, &table.0.numbers).unwrap();
    assert_eq!(A::key(line, meta, &table.0.numbers).as_ref(), Some(key));
    assert_eq!(sealed(line), seal(key, &to));
    assert_eq!(meta.direction(), direction);
    // A port may be another connection's by now.
    (to.reversed() == *connection.key(opposite(direction))).then_some((index, meta))
}

pub fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Forward => Direction::Reverse,
        Direction::Reverse => Direction::Forward,
    }
}

pub fn open<A: Family>(
    table: &Table<&Mapping<A>>,
    connection: &Connection<A>,
    now: u32,
    policy: u32,
) -> Opened {
    let (key, back) = (&connection.forward, &connection.reverse);
    let homes = table.0.homes_of(key);
    if let Some((index, meta)) = table.find(&homes, key) {
        if !table.expired(index, line(table, index), meta, now) {
            return Opened::Known;
        }
        assert!(table.free_pair(index, meta));
    }
    let Claim::At { index, meta, .. } = table.claim(&homes, key, now, policy) else { return Opened::Full };
    let back_homes = table.0.homes_of(back);
    let (peer, peer_meta) = match table.find(&back_homes, back) {
        Some((peer, other)) if gives_port(table, peer, other, now) => {
            (peer, table.take_over(peer, other).unwrap())
        }
        Some(_) => {
            table.give_back(index, meta, &homes);
            return Opened::NoPort;
        }
        None => match table.claim(&back_homes, back, now, policy) {
            Claim::At { index, meta, .. } => (index, meta),
            Claim::Taken | Claim::Full => {
                table.give_back(index, meta, &homes);
                return Opened::Full;
            }
        },
    };
    let meta = connection.write(line(table, index), meta, Direction::Forward, (peer, now));
    let peer_meta = connection.write(line(table, peer), peer_meta, Direction::Reverse, (index, now));
    let unanswered = |meta: Meta| meta.with_state(State::Unanswered);
    assert!(table.publish_pair(index, unanswered(meta), peer, unanswered(peer_meta)));
    Opened::Yes
}

fn gives_port<A: Family>(table: &Table<&Mapping<A>>, index: u32, meta: Meta, now: u32) -> bool {
    meta.is(State::Unanswered)
        || meta.state().is_over()
        || table.expired(index, line(table, index), meta, now)
}

/// Both lines' state.
pub fn step<A: Family>(table: &Table<&Mapping<A>>, connection: &Connection<A>, state: State) {
    for direction in [Direction::Forward, Direction::Reverse] {
        let (index, meta) = find(table, connection, direction).unwrap();
        // Closed as an established connection is.
        let fins = if state == State::Closed { 0b11 } else { 0 };
        assert!(line(table, index).swap_meta(meta, meta.with_state(state).with_fins(fins)));
    }
}

/// A packet of that direction comes by.
pub fn see<A: Family>(
    table: &Table<&Mapping<A>>,
    connection: &Connection<A>,
    direction: Direction,
    now: u32,
) {
    let (index, _) = find(table, connection, direction).unwrap();
    line(table, index).see(now);
}

pub fn free<A: Family>(table: &Table<&Mapping<A>>, connection: &Connection<A>, direction: Direction) {
    let (index, meta) = find(table, connection, direction).unwrap();
    assert!(table.free_pair(index, meta));
}
