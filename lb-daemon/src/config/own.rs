//! Tunnels that lead back: a backend that packets are wrapped for must not be this host.
//!
//! Judged when a configuration is read and not while it runs: who gets such an address later is `down`, for there is no way to it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lb_core::config::model::{Mode, Word as _};
use lb_core::config::tree::{Node, Value};

use crate::program::Unfit;

/// A value in the text, and what is wrong with it.
pub(super) type Found<'a> = (&'a Node, String, Unfit);

/// Whether a farm's packets are wrapped on their way to its backends.
pub(super) fn is_tunnel(farm: &Node) -> bool {
    let word = farm.get("mode").and_then(text);
    Mode::WORDS.iter().any(|(name, mode)| mode.is_tunnel() && Some(*name) == word)
}

/// This host's addresses; none, if the kernel does not tell.
pub(super) fn addresses() -> BTreeSet<IpAddr> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return BTreeSet::new() };
    let address = |it: nix::ifaddrs::InterfaceAddress| {
        let address = it.address?;
        let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    };
    all.filter_map(address).collect()
}

/// Every address in a backend's table, at `path`, that is one of `own`.
pub(super) fn judge<'a>(backend: &'a Node, path: &str, own: &BTreeSet<IpAddr>) -> Vec<Found<'a>> {
    let Some(entry) = backend.get("address") else { return Vec::new() };
    let path = format!("{path}.address");
    let items: Vec<(&Node, String)> = match &entry.value {
        Value::Array(items) => {
            items.iter().enumerate().map(|(index, item)| (item, format!("{path}[{index}]"))).collect()
        }
        Value::String(_)
        | Value::Table(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Bool(_)
        | Value::Other(_) => vec![(entry, path)],
    };
    let found = items.into_iter().filter_map(|(item, path)| {
        let address: IpAddr = text(item)?.parse().ok()?;
        let message =
            format!("{address} is an address of this host, and a tunnel to it would lead back here");
        let hint = "write the address of another machine".to_owned();
        own.contains(&address).then_some((item, path, Unfit { message, hint }))
    });
    found.collect()
}

fn text(node: &Node) -> Option<&str> {
    if let Value::String(text) = &node.value { Some(text) } else { None }
}
