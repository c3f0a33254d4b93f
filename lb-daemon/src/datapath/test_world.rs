//! The tables on ordinary memory, with connections entered as the program enters them.

use std::sync::atomic::{AtomicU64, Ordering};

use lb_common::abi::{
    BACKENDS_MAX, BackendEntry, FARMS_MAX, FlowKey, LOADS_MAX, PORT_SETS, PortSet, Schedule, TimeoutTicks,
    VIPS_MAX, map,
};
use lb_common::affinity::{BUCKETS, Bucket};
use lb_common::load::Load;
use lb_common::table::{Claim, Hop, Line as _, Lines as _, Meta, New, State, opening};
use lb_common::tcp::Direction;
use lb_common::wire::protocol::{TCP, UDP};

use super::control;
use super::flows::{Family, View};
use super::mapping::words_of;
use super::tables::Tables;

pub const VIP: [u8; 4] = [192, 0, 2, 10];
pub const VIP_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
pub const VIP_NUMBER: u16 = 3;
pub const TIMEOUTS: TimeoutTicks =
    TimeoutTicks { syn: 50, established: 1000, half_closed: 200, fin: 100, udp: 300 };
pub const INTERFACE: u16 = 7;

pub type World = Tables<Vec<AtomicU64>>;

pub fn zeros(words: usize) -> Vec<AtomicU64> {
    (0..words).map(|_| AtomicU64::new(0)).collect()
}

/// Tables of `lines` each, with backends 0 to 9 of the farms 0 to 4.
pub fn world(lines: usize) -> World {
    let memory = |name: &str| {
        let size = match name {
            map::CONNECTIONS_V4 | map::CONNECTIONS_V6 => lines * 8,
            map::BACKENDS => BACKENDS_MAX as usize * 16,
            map::VIPS => VIPS_MAX as usize * 2,
            map::PORTS => PORT_SETS as usize * size_of::<PortSet>() / 8,
            map::CONTROL => control::WORDS,
            map::AFFINITIES => BUCKETS as usize * size_of::<Bucket>() / 8,
            map::LOADS => LOADS_MAX as usize * size_of::<Load>() / 8,
            map::SCHEDULES => FARMS_MAX as usize * size_of::<Schedule>() / 8,
            name => panic!("{name}"),
        };
        let memory = zeros(size);
        if name == map::BACKENDS {
            for number in 0..10 {
                let entry = BackendEntry {
                    timeouts: TIMEOUTS,
                    farm: number / 2,
                    address_v6: backend_v6(number),
                    ..BackendEntry::default()
                };
                let place = memory[usize::from(number) * 16..].iter();
                place.zip(words_of::<_, 16>(&entry)).for_each(|(to, word)| to.store(word, Ordering::Relaxed));
            }
        }
        if name == map::VIPS {
            for (to, bytes) in memory[usize::from(VIP_NUMBER) * 2..].iter().zip(VIP_V6.chunks(8)) {
                to.store(u64::from_ne_bytes(bytes.try_into().unwrap()), Ordering::Relaxed);
            }
        }
        Ok(memory)
    };
    let world = World::new(memory).unwrap();
    world.control().set_table_seed([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);
    world.control().set_now(10_000);
    world
}

pub fn backend_v6(number: u16) -> [u8; 16] {
    let mut address = [0; 16];
    (address[0], address[15]) = (0xfd, number as u8 + 1);
    address
}

/// A connection to be entered.
#[derive(Clone, Copy)]
pub struct Opened<A> {
    pub client: A,
    pub port: u16,
    pub protocol: u8,
    pub backend: u16,
    pub state: State,
    pub last_seen: u32,
    pub dnat: bool,
    /// It was reset in its handshake.
    pub reset: bool,
}

pub fn v4(client: u8, port: u16, backend: u16, state: State) -> Opened<[u8; 4]> {
    let protocol = if state == State::OneSided { UDP } else { TCP };
    let client = [10, 0, 0, client];
    Opened { client, port, protocol, backend, state, last_seen: 10_000, dnat: false, reset: false }
}

pub fn v6(client: u8, port: u16, backend: u16, state: State) -> Opened<[u8; 16]> {
    let mut address = VIP_V6;
    (address[4], address[15]) = (9, client);
    Opened {
        client: address,
        port,
        protocol: TCP,
        backend,
        state,
        last_seen: 10_000,
        dnat: false,
        reset: false,
    }
}

pub trait Addresses: Family {
    fn vip_address() -> Self;
    fn backend_address(number: u16) -> Self;
    fn view(world: &World) -> View<'_, Self>;
}

impl Addresses for [u8; 4] {
    fn vip_address() -> Self {
        VIP
    }
    fn backend_address(number: u16) -> Self {
        [10, 1, 0, number as u8 + 1]
    }
    fn view(world: &World) -> View<'_, Self> {
        world.v4()
    }
}

impl Addresses for [u8; 16] {
    fn vip_address() -> Self {
        VIP_V6
    }
    fn backend_address(number: u16) -> Self {
        backend_v6(number)
    }
    fn view(world: &World) -> View<'_, Self> {
        world.v6()
    }
}

pub fn claim<A: Addresses>(table: &View<'_, A>, key: &FlowKey<A>, now: u32) -> Option<(u32, Meta)> {
    let homes = table.0.homes(key);
    match table.claim(&homes, key, now, 0) {
        Claim::At { index, meta, evicted: false } => Some((index, meta)),
        Claim::Full => None,
        other @ (Claim::At { .. } | Claim::Taken) => panic!("{other:?}"),
    }
}

pub fn open<A: Addresses>(world: &World, of: &Opened<A>) -> (u32, u32) {
    try_open(world, of).unwrap()
}

/// Enters both lines; the numbers of the forward one and of the reverse one. `None`: there was no room.
pub fn try_open<A: Addresses>(world: &World, of: &Opened<A>) -> Option<(u32, u32)> {
    let table = A::view(world);
    let key = FlowKey::new(of.client, A::vip_address(), of.port.to_be_bytes(), [1, 187], of.protocol);
    let source = if of.dnat { of.client } else { A::vip_address() };
    let backend = A::backend_address(of.backend);
    let to = FlowKey::new(source, backend, of.port.to_be_bytes(), [0x1f, 0x90], of.protocol);
    let write = |(at, meta): (u32, Meta), is_reverse: bool, peer: u32| {
        let (key, to) = if is_reverse { (to.reversed(), key.reversed()) } else { (key, to) };
        let tail = if is_reverse { Hop::new(INTERFACE, &[1; 6]).0 } else { opening(of.last_seen, 0) };
        let new = New {
            key: &key,
            to: &to,
            reverse: is_reverse,
            backend: of.backend,
            vip: VIP_NUMBER,
            peer,
            now: of.last_seen,
            acknowledgment: 0,
            tail,
        };
        A::write(table.0.at(at).unwrap(), &new);
        let direction = if is_reverse { Direction::Reverse } else { Direction::Forward };
        meta.of(direction, of.protocol == UDP, of.dnat)
    };
    let forward = claim(&table, &key, of.last_seen)?;
    let forward = (forward.0, write(forward, false, 0));
    let Some(reverse) = claim(&table, &to.reversed(), of.last_seen) else {
        table.give_back(forward.0, forward.1, &table.0.homes(&key));
        return None;
    };
    let reverse_meta = write(reverse, true, forward.0);
    write(forward, false, reverse.0);
    // Closed as an established connection is, unless it is said to have been reset in its handshake.
    let fins = if of.state == State::Closed && !of.reset { 0b11 } else { 0 };
    for (index, meta) in [forward, (reverse.0, reverse_meta)] {
        table.publish(index, meta.with_state(of.state).with_fins(fins));
    }
    Some((forward.0, reverse.0))
}

pub fn state<A: Addresses>(world: &World, index: u32) -> State {
    A::view(world).0.at(index).unwrap().meta().state()
}

/// What no line may be without, and how many are live.
pub fn live<A: Addresses>(world: &World) -> usize {
    let table = A::view(world);
    let (mut count, mut far, mut bits) = (0, 0, 0);
    for index in 0..=table.0.mask() {
        let line = table.0.at(index).unwrap();
        bits += (line.hops() & 0xffff).count_ones();
        far += line.hops() >> 16;
        if !line.meta().is_live() {
            continue;
        }
        count += 1;
        let key = A::key(line, line.meta(), &table.0.numbers).unwrap();
        assert_eq!(table.find(&table.0.homes(&key), &key).map(|found| found.0), Some(index), "it is found");
        bits -= u32::from(line.meta().distance() != 0);
        far -= u32::from(line.meta().is_second());
    }
    assert_eq!((bits, far), (0, 0), "nothing is left of lines that are gone");
    count
}
