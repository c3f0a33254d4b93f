//! Addresses in the filter: those of IPv4 as packets have them.

use lb_common::abi::{AddressFilter, MappedAddress};

pub fn admit(filter: &mut AddressFilter, address: MappedAddress) {
    match unmapped(&address) {
        Some(v4) => filter.insert(&v4),
        None => filter.insert(&address),
    }
}

pub fn contains(filter: &AddressFilter, address: MappedAddress) -> bool {
    match unmapped(&address) {
        Some(v4) => filter.may_contain(&v4),
        None => filter.may_contain(&address),
    }
}

fn unmapped(address: &MappedAddress) -> Option<[u8; 4]> {
    std::net::Ipv6Addr::from(*address).to_ipv4_mapped().map(|v4| v4.octets())
}
