//! Clients, VIPs and backends of both families, and connections between them.

use std::fmt::Debug;
use std::hash::Hash;

use lb_common::abi::FlowKey;
use lb_common::table::{Layout, Meta, New, Raw};
use lb_common::tcp::Direction;

use crate::mapped::{LineAt, Numbers};

pub const VIPS: u16 = 2;
pub const BACKENDS: u16 = 4;

/// A family's addresses, by numbers.
pub trait Family: Layout + Hash + Debug + Send + Sync {
    fn client(number: u32) -> Self;
    fn vip(number: u16) -> Self;
    fn server(number: u16) -> Self;
}

impl Family for [u8; 4] {
    fn client(number: u32) -> Self {
        (0x0a00_0000 + number).to_be_bytes()
    }
    fn vip(number: u16) -> Self {
        [192, 0, 2, number as u8]
    }
    fn server(number: u16) -> Self {
        [198, 51, 100, number as u8]
    }
}

fn v6(group: u8, number: u32) -> [u8; 16] {
    let [a, b, c, d] = number.to_be_bytes();
    [0x20, 1, 0xd, 0xb8, 0, group, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

impl Family for [u8; 16] {
    fn client(number: u32) -> Self {
        v6(1, number)
    }
    fn vip(number: u16) -> Self {
        v6(2, number.into())
    }
    fn server(number: u16) -> Self {
        v6(3, number.into())
    }
}

/// What lines of IPv6 name by number.
pub fn numbers() -> Numbers {
    Numbers {
        vips: (0..VIPS).map(<[u8; 16]>::vip).collect(),
        backends: (0..BACKENDS).map(<[u8; 16]>::server).collect(),
    }
}

/// A connection's flows and what its lines say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection<A> {
    /// As the client sends.
    pub forward: FlowKey<A>,
    /// As the backend answers.
    pub reverse: FlowKey<A>,
    pub vip: u16,
    pub backend: u16,
    pub udp: bool,
    /// The backend sees the client's own address.
    pub dnat: bool,
}

impl<A: Family> Connection<A> {
    pub fn of(client: u32, client_port: u16, backend: u16, port: u16, udp: bool, dnat: bool) -> Self {
        let vip = (client % u32::from(VIPS)) as u16;
        let protocol = if udp { 17 } else { 6 };
        let (from, at) = (A::client(client), A::vip(vip));
        let forward = FlowKey::new(from, at, client_port.to_be_bytes(), [1, 187], protocol);
        let (source, port) = if dnat { (from, client_port) } else { (at, port) };
        let reverse = FlowKey::new(A::server(backend), source, [31, 144], port.to_be_bytes(), protocol);
        Self { forward, reverse, vip, backend, udp, dnat }
    }

    pub fn key(&self, direction: Direction) -> &FlowKey<A> {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Reverse => &self.reverse,
        }
    }

    /// Writes a direction into a line that was claimed for it; its first word.
    pub fn write(&self, line: LineAt<'_>, meta: Meta, direction: Direction, (peer, now): (u32, u32)) -> Meta {
        let (key, to) = match direction {
            Direction::Forward => (&self.forward, self.reverse.reversed()),
            Direction::Reverse => (&self.reverse, self.forward.reversed()),
        };
        let tail = seal(key, &to);
        let reverse = direction == Direction::Reverse;
        let (backend, vip) = (self.backend, self.vip);
        let new = New { key, to: &to, reverse, backend, vip, peer, now, acknowledgment: 0, tail };
        A::write(line, &new);
        meta.of(direction, self.udp, self.dnat)
    }
}

/// A number that only these two flows have: parts of two entries do not have each other's.
pub fn seal<A: Layout>(key: &FlowKey<A>, to: &FlowKey<A>) -> u64 {
    A::hash(key, &[1, 2]).rotate_left(7) ^ A::hash(to, &[3, 4])
}

/// The seal of what stands in a line.
pub fn sealed(line: LineAt<'_>) -> u64 {
    line.word(7)
}
