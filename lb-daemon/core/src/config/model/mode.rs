//! How packets reach backends.

use std::net::IpAddr;

use super::{Addresses, Word};

/// Where packets that are wrapped in UDP are taken unless the file says otherwise (IANA: `gue`).
pub const GUE_PORT: u16 = 6080;

/// How packets reach a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Source and destination rewritten.
    Nat,
    /// Destination only; the backend routes back through the balancer.
    Dnat,
    /// Nothing but the frame's addresses; the backend has the VIP itself and answers the client.
    Dsr,
    /// Nothing; the packet is put into another one, to a backend that takes it out, and then as above.
    Ipip,
    /// The same, with UDP in between.
    Gue,
}

impl Mode {
    /// Whether backends answer their clients themselves: their part of a connection is not seen.
    pub fn is_direct(self) -> bool {
        match self {
            Self::Nat | Self::Dnat => false,
            Self::Dsr | Self::Ipip | Self::Gue => true,
        }
    }

    /// Whether packets are wrapped on their way to backends.
    pub fn is_tunnel(self) -> bool {
        match self {
            Self::Nat | Self::Dnat | Self::Dsr => false,
            Self::Ipip | Self::Gue => true,
        }
    }
}

impl Word for Mode {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("nat", Self::Nat),
        ("dnat", Self::Dnat),
        ("dsr", Self::Dsr),
        ("ipip", Self::Ipip),
        ("gue", Self::Gue),
    ];
}

impl Addresses {
    /// To which address packets of IPv4 for the backend go, and those of IPv6.
    pub fn ends(&self, mode: Mode) -> (Option<IpAddr>, Option<IpAddr>) {
        let (v4, v6) = (self.v4.map(IpAddr::V4), self.v6.map(IpAddr::V6));
        if mode.is_tunnel() { (v4.or(v6), v6.or(v4)) } else { (v4, v6) }
    }
}
