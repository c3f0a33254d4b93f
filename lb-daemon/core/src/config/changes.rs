//! What differs between two configurations, for people.

use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;

use super::keys::plain::Model;
use super::keys::{self, Schema};
use super::model::{Addresses, Affinity, Backend, Config, Daemon, Farm, Hook, Passive, Protocols, Word as _};
use super::text::{duration_text, grouped, is_long, ports_text, prefixes_text};

mod checks;

/// One line for each difference, in the new configuration's order; empty if and only if they are equal.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = daemon_changes(&old.daemon, &new.daemon).iter().map(Change::line).collect::<Vec<_>>();
    for farm in &new.farms {
        match old.farm(farm.name.as_str()) {
            Some(before) => farm_changes(before, farm, &mut lines),
            None => {
                lines.push(format!("farm '{}': added, {}", farm.name, count(farm.backends.len(), "backend")))
            }
        }
    }
    for farm in old.farms.iter().filter(|farm| new.farm(farm.name.as_str()).is_none()) {
        lines.push(format!("farm '{}': removed", farm.name));
    }
    let moved = reordered(&old.farms, &new.farms, |farm| farm.name.as_str());
    if moved {
        lines.push("farms: in another order".to_owned());
    }
    lines
}

/// The keys of `[daemon]` that differ and take effect only at the next start.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let changes = daemon_changes(&old.daemon, &new.daemon);
    changes.iter().filter(|change| change.restart).map(|change| change.key.to_owned()).collect()
}

struct Change {
    key: &'static str,
    from: String,
    to: String,
    /// Whether a running daemon cannot follow it.
    restart: bool,
}

impl Change {
    fn line(&self) -> String {
        let note = if self.restart { " (after a restart)" } else { "" };
        format!("daemon: {} {} -> {}{note}", self.key, self.from, self.to)
    }
}

fn daemon_changes(old: &Daemon, new: &Daemon) -> Vec<Change> {
    // Taken apart, so that a new key is not forgotten here.
    let Daemon { interfaces, xdp_mode, socket, socket_group, state_dir, bpffs_dir, connections, manage_vips } =
        new;
    let group = |group: &Option<String>| group.clone().unwrap_or_else(|| "none".to_owned());
    let rows = [
        ("interfaces", old.interfaces.join(", "), interfaces.join(", "), true),
        ("xdp_mode", old.xdp_mode.word().to_owned(), xdp_mode.word().to_owned(), true),
        ("socket", old.socket.display().to_string(), socket.display().to_string(), true),
        ("socket_group", group(&old.socket_group), group(socket_group), true),
        ("state_dir", old.state_dir.display().to_string(), state_dir.display().to_string(), true),
        ("bpffs_dir", old.bpffs_dir.display().to_string(), bpffs_dir.display().to_string(), true),
        ("connections", connections_text(old.connections), connections_text(*connections), true),
        ("manage_vips", old.manage_vips.to_string(), manage_vips.to_string(), false),
    ];
    rows.into_iter()
        .filter(|(_, from, to, _)| from != to)
        .map(|(key, from, to, restart)| Change { key, from, to, restart })
        .collect()
}

fn connections_text(connections: Option<u32>) -> String {
    connections.map_or_else(|| "by the machine's memory".to_owned(), |connections| connections.to_string())
}

/// What differs of the keys of a table that hold one plain value: key, before, after.
fn plain_changes<M: Model>(schema: &'static Schema, old: &M, new: &M) -> Vec<(&'static str, String, String)> {
    let rows = schema.fields::<M>().map(|(key, field)| (key.name, (field.get)(old), (field.get)(new)));
    let differ = rows.filter(|(_, old, new)| old != new);
    differ.map(|(name, old, new)| (name, old.to_string(), new.to_string())).collect()
}

fn farm_changes(old: &Farm, new: &Farm, lines: &mut Vec<String>) {
    let Farm { name, enabled, backends, checks, .. } = new;
    let title = format!("farm '{name}'");
    for (what, from, to) in farm_rows(old, new) {
        if from != to {
            lines.push(format!("{title}: {what} {from} -> {to}"));
        }
    }
    lines.extend(checks::check_changes(&old.checks, checks).iter().map(|line| format!("{title}: {line}")));
    if old.enabled != *enabled {
        lines.push(format!("{title}: {}", if *enabled { "enabled" } else { "disabled" }));
    }
    for backend in backends {
        match old.backends.iter().find(|before| before.name == backend.name) {
            Some(before) => backend_changes(&title, before, backend, lines),
            None => lines.push(format!("{title}: backend '{}' added", backend.name)),
        }
    }
    for backend in &old.backends {
        if !backends.iter().any(|after| after.name == backend.name) {
            lines.push(format!("{title}: backend '{}' removed", backend.name));
        }
    }
    if reordered(&old.backends, backends, |backend| backend.name.as_str()) {
        lines.push(format!("{title}: backends in another order"));
    }
}

/// The keys of a farm that differ, in the table's order, and others beside them: key, before, after.
fn farm_rows(old: &Farm, new: &Farm) -> Vec<(String, String, String)> {
    let row = |what: &str, from: String, to: String| vec![(what.to_owned(), from, to)];
    let plain = plain_changes(&keys::FARM, old, new);
    let rows = keys::FARM.keys.iter().flat_map(|key| match key.name {
        "vip" => row("vip", list(&old.vips), list(&new.vips)),
        "ports" => row("ports", ports_text(&old.ports), ports_text(&new.ports)),
        "protocol" => row("protocol", protocols_text(old.protocols), protocols_text(new.protocols)),
        "affinity" => match (&old.affinity, &new.affinity) {
            (Some(old), Some(new)) => below("affinity", plain_changes(&keys::AFFINITY, old, new)),
            (old, new) => row("affinity", affinity_text(*old), affinity_text(*new)),
        },
        "timeouts" => below("timeouts", plain_changes(&keys::TIMEOUTS, &old.timeouts, &new.timeouts)),
        "passive" => {
            let mut rows = below("passive", plain_changes(&keys::PASSIVE, &old.passive, &new.passive));
            rows.extend(row("passive.eject", eject_text(&old.passive), eject_text(&new.passive)));
            rows
        }
        "limits" => {
            let (old, new) = (&old.limits, &new.limits);
            let text =
                |limit: Option<u32>| limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
            let mut rows = row("limits.connections", text(old.connections), text(new.connections));
            rows.extend(row("limits.new_per_second", text(old.new_per_second), text(new.new_per_second)));
            rows.extend(below("limits", plain_changes(&keys::LIMITS, old, new)));
            rows
        }
        "allow" => {
            let [from, to] = prefixes_change(old.lists.allow(), new.lists.allow(), "everyone");
            row("allow", from, to)
        }
        "deny" => {
            let [from, to] = prefixes_change(old.lists.deny(), new.lists.deny(), "nobody");
            row("deny", from, to)
        }
        "on_change" => row("on_change", hooks_text(&old.on_change), hooks_text(&new.on_change)),
        // Is said in a line of its own.
        "enabled" => Vec::new(),
        name => plain
            .iter()
            .find(|(key, ..)| *key == name)
            .map_or_else(Vec::new, |(_, from, to)| row(name, from.clone(), to.clone())),
    });
    rows.collect()
}

/// Both lists in words, which are the same if the lists are. Of long ones it is said how many of their prefixes differ. They are in
/// order.
fn prefixes_change(old: &[IpNet], new: &[IpNet], none: &str) -> [String; 2] {
    let [from, to] =
        [old, new].map(|nets| if nets.is_empty() { none.to_owned() } else { prefixes_text(nets) });
    if old == new || from != to && !is_long(old) && !is_long(new) {
        return [from, to];
    }
    let both = common(old, new);
    let to = format!("{to} ({} added, {} removed)", grouped(new.len() - both), grouped(old.len() - both));
    [from, to]
}

/// How many prefixes are in both, which are in order.
fn common(mut some: &[IpNet], mut others: &[IpNet]) -> usize {
    let mut both = 0;
    while let ([first, rest @ ..], [other, other_rest @ ..]) = (some, others) {
        let order = first.cmp(other);
        both += usize::from(order.is_eq());
        some = if order.is_le() { rest } else { some };
        others = if order.is_ge() { other_rest } else { others };
    }
    both
}

fn below(table: &str, rows: Vec<(&str, String, String)>) -> Vec<(String, String, String)> {
    rows.into_iter().map(|(key, from, to)| (format!("{table}.{key}"), from, to)).collect()
}

fn backend_changes(farm: &str, old: &Backend, new: &Backend, lines: &mut Vec<String>) {
    let Backend { name, address, port, .. } = new;
    let mut differ = |what: &str, from: String, to: String| {
        if from != to {
            lines.push(format!("{farm}: backend '{name}': {what} {from} -> {to}"));
        }
    };
    differ("address", addresses_text(&old.address), addresses_text(address));
    differ("port", port_text(old.port), port_text(*port));
    for (key, from, to) in plain_changes(&keys::BACKEND, old, new) {
        differ(key, from, to);
    }
}

fn port_text(port: Option<u16>) -> String {
    port.map_or_else(|| "the client's".to_owned(), |port| port.to_string())
}

fn addresses_text(addresses: &Addresses) -> String {
    list(&addresses.iter().collect::<Vec<IpAddr>>())
}

fn protocols_text(protocols: Protocols) -> String {
    let names = [("tcp", protocols.tcp), ("udp", protocols.udp)];
    list(&names.into_iter().filter(|(_, used)| *used).map(|(name, _)| name).collect::<Vec<_>>())
}

fn affinity_text(affinity: Option<Affinity>) -> String {
    affinity.map_or_else(
        || "none".to_owned(),
        |Affinity { timeout, prefix_v4, prefix_v6 }| {
            format!("by source (/{prefix_v4}, /{prefix_v6}) for {}", duration_text(timeout))
        },
    )
}

fn eject_text(passive: &Passive) -> String {
    passive.eject.as_ref().map_or_else(
        || "false".to_owned(),
        |eject| format!("for {} and longer, at most {}%", duration_text(eject.hold), eject.at_most),
    )
}

fn hooks_text(hooks: &[Hook]) -> String {
    if hooks.is_empty() {
        return "none".to_owned();
    }
    let text = |Hook { command, user, timeout }: &Hook| {
        format!("{} as {user} within {}", checks::all_quoted(command), duration_text(*timeout))
    };
    hooks.iter().map(text).collect::<Vec<_>>().join("; ")
}

fn list(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Whether those that are in both lists stand in another order.
fn reordered<T>(old: &[T], new: &[T], name: impl Fn(&T) -> &str) -> bool {
    let common = |list: &[T], other: &[T]| {
        let there: std::collections::BTreeSet<String> =
            other.iter().map(|item| name(item).to_owned()).collect();
        list.iter().map(|item| name(item).to_owned()).filter(|name| there.contains(name)).collect::<Vec<_>>()
    };
    common(old, new) != common(new, old)
}
