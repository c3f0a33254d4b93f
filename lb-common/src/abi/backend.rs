//! Backends: where their packets go, what they are called, how much they carried.

use super::{MappedAddress, Port};
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

/// A backend as the data plane sees it. The established path reads one next hop of it, a new connection the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct BackendEntry {
    pub hop_v4: NextHop,
    pub hop_v6: NextHop,
    pub address_v4: [u8; 4],
    pub address_v6: MappedAddress,
    /// 0: the port that the client used.
    pub port: Port,
    /// Whether the Maglev table holds it, for user space: health survives a restart of the daemon.
    pub serving: u16,
    /// Fills a cache line.
    pub reserved: [u8; 8],
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

const _: () = assert!(size_of::<NextHop>() == 16 && size_of::<BackendEntry>() == 64);
const _: () = assert!(size_of::<BackendLabel>() == 128 && size_of::<BackendCounters>() == 64);

#[cfg(feature = "user")]
// SAFETY: integers and bytes, any bit pattern valid, no padding (4+6+6, 16+16+4+16+2+2+8).
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
