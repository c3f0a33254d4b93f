//! What entries of backends say of the ways to them.

use std::net::IpAddr;

use lb_common::abi::{BackendEntry, NextHop, Path};

use super::observed::{addresses, mode_of};
use crate::config::model::Addresses;
use crate::desired::{NextHops, Paths};

/// What is known now.
pub(super) struct Ways<'a> {
    pub hops: &'a NextHops,
    pub paths: &'a Paths,
}

impl Ways<'_> {
    /// Has an entry say what is known now, or else what `known` says.
    pub fn lead_to(&self, entry: &mut BackendEntry, known: &BackendEntry) {
        let address = addresses(entry);
        let (v4, v6) = address.ends(mode_of(entry));
        (entry.hop_v4, entry.hop_v6) = (self.hop(v4, known.hop_v4), self.hop(v6, known.hop_v6));
        entry.path = self.path(&address, known.path);
    }

    fn hop(&self, address: Option<IpAddr>, known: NextHop) -> NextHop {
        address.and_then(|address| self.hops.get(&address)).copied().unwrap_or(known)
    }

    fn path(&self, address: &Addresses, mut path: Path) -> Path {
        for address in address.iter() {
            let Some(found) = self.paths.get(&address) else { continue };
            let mtu = u16::try_from(found.mtu).unwrap_or(u16::MAX);
            match found.source {
                IpAddr::V4(source) => (path.source_v4, path.mtu_v4) = (source.octets(), mtu),
                IpAddr::V6(source) => (path.source_v6, path.mtu_v6) = (source.octets(), mtu),
            }
        }
        path
    }
}
