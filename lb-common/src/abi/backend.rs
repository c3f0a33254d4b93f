//! Backends: where their packets go, what they are called, how much they carried.

use super::{MappedAddress, Port};
use crate::table::{Meta, State};
use crate::wire::eth::Mac;

/// The Ethernet neighbour that a packet goes to next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct NextHop {
    /// The interface it leaves by; 0: not known.
    pub ifindex: u32,
    pub destination: Mac,
    /// That interface's own address.
    pub source: Mac,
}

impl NextHop {
    /// As it stands in memory. Whoever replaces a hop that others read sets the first word to 0, then the second, then the
    /// first: who reads the first again after the second has never read two hops' halves.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 2] {
        let ([a, b, c, d], [e, f, g, h, i, j], [k, l, m, n, o, p]) =
            (self.ifindex.to_ne_bytes(), self.destination, self.source);
        [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
    }
    #[inline(always)]
    pub const fn from_words([first, second]: [u64; 2]) -> Self {
        let [a, b, c, d, e, f, g, h] = first.to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = second.to_ne_bytes();
        Self {
            ifindex: u32::from_ne_bytes([a, b, c, d]),
            destination: [e, f, g, h, i, j],
            source: [k, l, m, n, o, p],
        }
    }
}

/// How long a connection of a backend may be idle, in ticks, by what state it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct TimeoutTicks {
    /// TCP, before the handshake is complete.
    pub syn: u32,
    pub established: u32,
    /// One side has sent its FIN.
    pub half_closed: u32,
    /// Both have, or one has reset the connection, or it was cut.
    pub fin: u32,
    pub udp: u32,
}

impl TimeoutTicks {
    /// How long a line may be idle.
    #[inline(always)]
    pub const fn of(&self, meta: Meta) -> u32 {
        if meta.is_udp() {
            return self.udp;
        }
        match meta.state() {
            State::Unanswered | State::Answered => self.syn,
            State::Established => self.established,
            State::HalfClosed => self.half_closed,
            State::OneSided if meta.fins() == 0 => self.established,
            State::OneSided => self.half_closed,
            State::Empty | State::Claimed | State::Leaving | State::Closed | State::Cut => self.fin,
        }
    }
}

/// It takes new connections, weight permitting: what a new daemon knows the one before it held to be up by.
pub const BACKEND_SERVES: u16 = 1;
/// It takes new connections.
pub const BACKEND_TAKES: u16 = 2;
/// It is not known to be down.
pub const BACKEND_LIVES: u16 = 4;
/// The configuration names it. One that it does not name any more has only connections of old.
pub const BACKEND_LISTED: u16 = 8;
/// It serves though its checks hold it to be down, since its farm tries all. For the next daemon; the program does not look.
pub const BACKEND_TRIED: u16 = 16;
/// It serves, and nobody checks it. For the next daemon; the program does not look.
pub const BACKEND_UNCHECKED: u16 = 32;
/// Its farm has affinity: whoever is connected to it is noted.
pub const BACKEND_AFFINE: u16 = 64;
/// Whoever had it before may come back to it, though it may take nobody new.
pub const BACKEND_RETURNS: u16 = 128;
/// Its connections are counted: its farm gives new ones to who has least.
pub const BACKEND_COUNTED: u16 = 256;

/// Its farm takes so many new connections a second: who is connected is to be counted.
pub const BACKEND_PACED: u16 = 512;

/// A backend as the data plane sees it. The first 64 bytes are all that the established path reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct BackendEntry {
    /// Where packets of IPv4 for it go next, and those of IPv6. In a tunnel they may be addressed to the same one.
    pub hop_v4: NextHop,
    pub hop_v6: NextHop,
    /// Its farm's.
    pub timeouts: TimeoutTicks,
    /// Its farm's number.
    pub farm: u16,
    /// `BACKEND_*`.
    pub flags: u16,
    pub address_v4: [u8; 4],
    /// 0: the port that the client used.
    pub port: Port,
    /// How packets reach it: `MODE_DSR` and those above it, or 0, where they are translated as their line says. A backend whose mode
    /// changes is another one, so that its connections keep the mode that they have.
    pub mode: u8,
    pub reserved: u8,
    pub address_v6: MappedAddress,
    pub path: Path,
    /// Its share, for a farm that compares backends by it; else 0.
    pub weight: u32,
    pub reserved_too: u32,
    /// Fills a cache line.
    pub padding: u64,
}

/// What is known of the ways to a backend's addresses: what outer headers of packets for it say. Zeros: it is not known, or not
/// looked for by the daemon that wrote the entry.
///
/// Written word by word: while the source of IPv6 changes, a packet may get two addresses' halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Path {
    /// This host's own addresses towards it.
    pub source_v6: MappedAddress,
    pub source_v4: [u8; 4],
    /// Bytes of the largest packet that the ways carry.
    pub mtu_v4: u16,
    pub mtu_v6: u16,
    /// Where it takes packets that are wrapped in UDP.
    pub port: Port,
    pub reserved: [u16; 3],
}

/// A name, padded with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Label(pub [u8; 64]);

impl Default for Label {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Label {
    /// `None` for a text that is empty, longer than 64 bytes or has a zero byte.
    pub fn new(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.is_empty() || bytes.contains(&0) {
            return None;
        }
        let mut label = [0; 64];
        label.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self(label))
    }

    /// The name; `None` for an unused label or one that is no UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        let length = self.0.iter().position(|&b| b == 0).unwrap_or(self.0.len());
        if length == 0 { None } else { core::str::from_utf8(&self.0[..length]).ok() }
    }
}

/// Which backend of which farm has a number: what a new daemon learns its predecessor's numbering from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct BackendLabel {
    pub farm: Label,
    pub name: Label,
}

/// What a backend carried, on one CPU. Bytes are of whole frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct BackendCounters {
    /// By [`crate::tcp::Direction`].
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
    /// Connections opened.
    pub opened: u64,
    /// Of those by TCP: what passive health goes by.
    pub handshakes: u64,
    /// Handshakes that the backend has answered with a SYN-ACK.
    pub answered: u64,
    /// Handshakes that it has answered with a reset.
    pub reset: u64,
}

const _: () =
    assert!(size_of::<Path>() == 32 && size_of::<NextHop>() == 16 && size_of::<BackendEntry>() == 128);
const _: () = assert!(size_of::<BackendLabel>() == 128 && size_of::<BackendCounters>() == 64);

#[cfg(feature = "user")]
// SAFETY: integers and bytes, any bit pattern valid, no padding (16+16+20+2+2+4+2+1+1, 16+(16+4+2+2+2+6)+4+4+8).
unsafe impl aya::Pod for BackendEntry {}
#[cfg(feature = "user")]
// SAFETY: bytes.
unsafe impl aya::Pod for Label {}
#[cfg(feature = "user")]
// SAFETY: bytes.
unsafe impl aya::Pod for BackendLabel {}
#[cfg(feature = "user")]
// SAFETY: u64 throughout.
unsafe impl aya::Pod for BackendCounters {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_hold_what_they_were_given() {
        assert_eq!(Label::new("exchange").unwrap().as_str(), Some("exchange"));
        let longest = "x".repeat(64);
        assert_eq!(Label::new(&longest).unwrap().as_str(), Some(longest.as_str()));
        assert_eq!(Label::new(&"x".repeat(65)), None);
        assert_eq!(Label::new(""), None);
        assert_eq!(Label::new("a\0b"), None);
        assert_eq!(Label::default().as_str(), None);
    }
}
