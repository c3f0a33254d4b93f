//! What of layout 1 is brought over: its types, with names of their own, since those of `lb_common::abi` go on.

use std::path::Path;

use anyhow::Context as _;
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData};
use lb_common::abi::{
    Address, BACKEND_LISTED, BACKEND_LIVES, BACKEND_SERVES, BACKEND_TAKES, BackendEntry, FlowKey,
    MappedAddress, NextHop, Port,
};
use lb_common::table::State;
use lb_common::tcp::Direction;
use lb_core::config::model::Timeouts;
use lb_core::desired::ticks;

use super::super::flows::Family;
use super::super::maps;

/// A backend in layout 1.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct OldBackend {
    pub hop_v4: NextHop,
    pub hop_v6: NextHop,
    pub address_v4: [u8; 4],
    pub address_v6: MappedAddress,
    pub port: Port,
    pub serving: u16,
    pub reserved: [u8; 8],
}

/// One direction of a connection in layout 1. The key of the other one's entry is the translated flow, reversed.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct OldConnection<A> {
    pub client_hop: NextHop,
    pub source: A,
    pub destination: A,
    pub source_port: Port,
    pub destination_port: Port,
    pub deltas: [u16; 2],
    pub farm: u16,
    pub backend: u16,
    pub last_seen: u32,
    pub created: u32,
    /// In the reverse entry, if `synack_seen`.
    pub synack: u32,
    pub direction: u8,
    pub state: u8,
    pub fins: u8,
    pub synack_seen: u8,
}

const _: () = assert!(size_of::<OldBackend>() == 64);
const _: () =
    assert!(size_of::<OldConnection<[u8; 4]>>() == 52 && size_of::<OldConnection<[u8; 16]>>() == 76);

// SAFETY: integers and bytes, any bit pattern valid, no padding (16+16+4+16+2+2+8).
unsafe impl Pod for OldBackend {}
// SAFETY: integers and bytes, any bit pattern valid, no padding (16 + 8 + 28).
unsafe impl Pod for OldConnection<[u8; 4]> {}
// SAFETY: the same (16 + 32 + 28).
unsafe impl Pod for OldConnection<[u8; 16]> {}

/// States in layout 1, by their numbers.
const OPENING: u8 = 0;
const ESTABLISHED: u8 = 1;
const CLOSING: u8 = 2;

impl OldBackend {
    /// Time-outs are the defaults until the next plan.
    pub fn entry(&self, farm: u16) -> BackendEntry {
        let serves = BACKEND_SERVES | BACKEND_TAKES | BACKEND_LIVES | BACKEND_LISTED;
        BackendEntry {
            hop_v4: self.hop_v4,
            hop_v6: self.hop_v6,
            timeouts: ticks(&Timeouts::default()),
            farm,
            flags: if self.serving != 0 { serves } else { BACKEND_LIVES | BACKEND_LISTED },
            address_v4: self.address_v4,
            port: self.port,
            address_v6: self.address_v6,
            ..BackendEntry::default()
        }
    }
}

impl<A: Address> OldConnection<A> {
    /// The flow that packets of this direction get.
    pub fn translated(&self, protocol: u8) -> FlowKey<A> {
        FlowKey::new(self.source, self.destination, self.source_port, self.destination_port, protocol)
    }

    /// The state that a forward entry tells of; `None` for a connection that is over.
    pub fn state(&self, reverse: &Self, udp: bool) -> Option<State> {
        match self.state {
            OPENING if !udp && reverse.synack_seen != 0 => Some(State::Answered),
            OPENING => Some(State::Unanswered),
            ESTABLISHED => Some(State::Established),
            CLOSING => Some(State::HalfClosed),
            _ => None,
        }
    }
}

/// A family's tables.
pub(super) struct Former<A>
where
    FlowKey<A>: Pod,
    OldConnection<A>: Pod,
{
    established: OldTable<A>,
    opening: OldTable<A>,
}

type OldTable<A> = HashMap<MapData, FlowKey<A>, OldConnection<A>>;

impl<A: Family> Former<A>
where
    FlowKey<A>: Pod,
    OldConnection<A>: Pod,
{
    pub fn open(pins: &Path, established: &str, opening: &str) -> anyhow::Result<Self> {
        Ok(Self { established: hash(pins, established)?, opening: hash(pins, opening)? })
    }

    /// Calls `visit` with the flow and both entries of each connection.
    pub fn each(
        &self,
        opening: bool,
        mut visit: impl FnMut(&FlowKey<A>, &OldConnection<A>, &OldConnection<A>),
    ) -> anyhow::Result<()> {
        for table in std::iter::once(&self.established).chain(opening.then_some(&self.opening)) {
            for entry in table.iter() {
                let (key, forward) = entry?;
                if forward.direction != Direction::Forward as u8 {
                    continue;
                }
                // One without its other half is nobody's.
                if let Ok(reverse) = table.get(&forward.translated(key.protocol).reversed(), 0) {
                    visit(&key, &forward, &reverse);
                }
            }
        }
        Ok(())
    }
}

pub(super) fn array<V: Pod>(pins: &Path, name: &str) -> anyhow::Result<Array<MapData, V>> {
    Array::try_from(Map::Array(maps::pinned(pins, name)?)).with_context(|| mismatch(name))
}

pub(super) fn hash<K: Pod, V: Pod>(pins: &Path, name: &str) -> anyhow::Result<HashMap<MapData, K, V>> {
    HashMap::try_from(Map::HashMap(maps::pinned(pins, name)?)).with_context(|| mismatch(name))
}

fn mismatch(name: &str) -> String {
    format!("the pinned map {name} is not of the version before; stop that version first")
}
