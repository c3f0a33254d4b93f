//! What the steps of the slow way hand on.

use lb_common::abi::{FlowKey, ListKey};
use lb_common::table::{Homes, Meta};

use crate::extended::Part;
use crate::select::Choice;

/// A packet on the slow way, and what opening a connection builds up: too much for the stack's 512 bytes, which the functions
/// that call each other share.
#[repr(C)]
pub struct Scratch<A> {
    /// The flow as it came.
    pub key: FlowKey<A>,
    /// The flow as the backend sees it.
    pub to: FlowKey<A>,
    /// The same, reversed: the key of the reverse line.
    pub reverse: FlowKey<A>,
    /// The flow as the client sees its answers.
    pub back: FlowKey<A>,
    /// Where `key` belongs in the connection table, and where `reverse` does.
    pub homes: Homes,
    pub reverse_homes: Homes,
    /// Who is to serve the flow.
    pub choice: Choice,
    /// The first word of the line that it is to be sent on by, when that was found, and the line's number.
    pub meta: Meta,
    pub index: u32,
    /// The line that the reverse direction of a new connection is to get.
    pub reverse_index: u32,
    pub last_resort: LastResort,
    pub leg: Leg,
    /// Which step is next if it is not too large.
    pub next: u64,
    /// The number of the interface that it came in by.
    pub interface: u32,
    /// Bytes of transport header and payload.
    pub length: u32,
    /// TCP's; 0 for UDP.
    pub flags: u32,
    /// What is counted of a packet that is handed on as it is, if that succeeds.
    pub verdict: u32,
    /// The number of the backend whose tunnel it takes, or on whose way it is too large.
    pub backend: u32,
    /// Bytes of the largest packet that would have fitted.
    pub mtu: u32,
    /// Not 0: what it has done to its connection's state is to be noted elsewhere, too.
    pub notes: u32,
    /// Of a fragment.
    pub part: Part,
    /// Where a farm's list is asked for its source.
    pub listed: ListKey,
}

/// A connection whose source port is taken if no other is found.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct LastResort {
    /// The first word of its reverse line, when that was looked at; 0: there is none.
    pub meta: u64,
    pub index: u32,
    /// How long it has been idle, in ticks, and one.
    pub idle: u32,
    pub port: [u8; 2],
    pub reserved: [u16; 3],
}

impl LastResort {
    pub const NONE: Self = Self { meta: 0, index: 0, idle: 0, port: [0; 2], reserved: [0; 3] };
}

/// What rewriting needs to know of a packet.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Leg {
    /// Where the transport header is in the frame, in the low byte; and what the packet is a part of.
    pub transport: u32,
    pub protocol: u16,
    pub ttl: u16,
}

impl Leg {
    /// The packet is the first fragment of a datagram.
    pub const FIRST: u32 = 1 << 8;
    /// It is another one: it has no transport header.
    pub const LATER: u32 = 1 << 9;
}
