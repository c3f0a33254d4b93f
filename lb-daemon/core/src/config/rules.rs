//! The rules inside one farm: families of addresses, names of backends, ports of checks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::check::CheckDraft;
use super::draft::{BackendDraft, FarmDraft};
use super::fields::{Errors, Spot};
use super::limits::CHECKED_PORTS_MAX;
use super::model::{CheckKind, Mode, Ports, Word as _};

/// Reports every rule that a farm breaks by itself.
pub fn judge(farm: &FarmDraft, errors: &mut Errors) {
    let mut names = BTreeMap::new();
    for backend in &farm.backends {
        if farm.vips_whole && backend.addresses_whole {
            judge_families(farm, backend, errors);
        }
        let Some((name, spot)) = &backend.name else { continue };
        if let Some(first) = names.get(name) {
            let message = format!("the name '{name}' is already {first}'s");
            let hint = "names of backends are unique in a farm, and the default is the first address: \
                        give one of them a `name`, or remove it";
            errors.push(spot, message, hint);
        } else {
            names.insert(name.clone(), backend.spot.path.clone());
        }
    }
    for check in farm.checks.iter().filter(|check| !check.has_port) {
        judge_check(farm, check, errors);
    }
    if let Some(mode) = farm.mode.filter(|mode| mode.is_direct()) {
        judge_direct(farm, mode, errors);
    }
}

/// Backends that answer their clients themselves see what the client sent, and nobody sees what they answer.
fn judge_direct(farm: &FarmDraft, mode: Mode, errors: &mut Errors) {
    let mode = mode.word();
    for spot in farm.backends.iter().filter_map(|backend| backend.port_spot.as_ref()) {
        let message = format!("cannot be in mode \"{mode}\", which leaves the client's port as it is");
        let hint =
            "remove it and have the backend listen on the farm's port, or write mode = \"nat\" or \"dnat\"";
        errors.push(spot, message, hint);
    }
    if let Some(spot) = &farm.ejects {
        let message =
            format!("cannot eject in mode \"{mode}\": what backends answer does not pass the balancer");
        errors.push(spot, message, "remove `eject`; checks find out who is down");
    }
    if let Some(spot) = &farm.affine {
        let message = format!("cannot be in mode \"{mode}\", where nobody sees whether a client is there");
        errors.push(spot, message, "remove it, or write scheduler = \"source-hash\" in its place");
    }
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// A backend has one address of each family that the VIPs have.
fn judge_families(farm: &FarmDraft, backend: &BackendDraft, errors: &mut Errors) {
    let (mut missing, mut superfluous) = (Vec::new(), Vec::new());
    for is_v4 in [true, false] {
        let vip = farm.vips.iter().find(|vip| vip.ip.is_ipv4() == is_v4);
        let mut own = backend.addresses.iter().filter(|address| address.ip.is_ipv4() == is_v4);
        let (first, second) = (own.next(), own.next());
        if let Some(second) = second {
            let message = format!("{} is a second {} address", second.ip, family(second.ip));
            let hint =
                "a backend has one address of a family; write a further [[farm.backend]] for another server";
            errors.push(&second.spot, message, hint);
        }
        match (vip, first) {
            (Some(vip), None) => missing.push(vip),
            (None, Some(address)) => superfluous.push(address),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    let spot = |fallback: &Spot| match backend.addresses.as_slice() {
        [only] => only.spot.clone(),
        _ => fallback.clone(),
    };
    // In a tunnel, what goes to an address may be of the other family.
    if farm.mode.is_some_and(Mode::is_tunnel) && !backend.addresses.is_empty() {
        missing.clear();
        if superfluous.len() == backend.addresses.len() {
            superfluous.clear();
        }
    }
    match (missing.first(), superfluous.first()) {
        (Some(vip), Some(address)) => {
            let message = format!(
                "{} is an {} address, but the farm's VIP {} is {}",
                address.ip,
                family(address.ip),
                vip.ip,
                family(vip.ip)
            );
            errors.push(&address.spot, message, format!("write the backend's {} address", family(vip.ip)));
        }
        (Some(vip), None) => {
            let message = format!("has no {} address, but the farm has the VIP {}", family(vip.ip), vip.ip);
            let example = if vip.ip.is_ipv4() { "10.0.0.11" } else { "2001:db8::11" };
            let hint = format!("add one, as in [..., \"{example}\"], or put that VIP into a farm of its own");
            errors.push(&spot(&backend.spot), message, hint);
        }
        (None, Some(address)) => {
            let message =
                format!("{} is an {} address, but the farm has no such VIP", address.ip, family(address.ip));
            errors.push(&address.spot, message, format!("remove it, or add an {} VIP", family(address.ip)));
        }
        (None, None) => {}
    }
}

/// What a check needs of the ports that it is not told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Ports of the farm that are served by this protocol.
    Tcp,
    Udp,
    /// Some port, of whatever protocol.
    Port,
    /// If the farm's ports cannot be listed it does without, and runs once.
    IfAny,
    Nothing,
}

fn needs(kind: &CheckKind) -> Needs {
    match kind {
        CheckKind::Tcp
        | CheckKind::Http(_)
        | CheckKind::Tls { .. }
        | CheckKind::Smtp { .. }
        | CheckKind::Imap { .. }
        | CheckKind::Pop3 { .. } => Needs::Tcp,
        CheckKind::Udp { .. } | CheckKind::Dns { .. } => Needs::Udp,
        CheckKind::Icmp => Needs::Nothing,
        CheckKind::Command(command) if command.takes_port() => Needs::Port,
        CheckKind::Command(_) => Needs::IfAny,
    }
}

/// A check that names no port must have somewhere to go, and not too many places.
fn judge_check(farm: &FarmDraft, check: &CheckDraft, errors: &mut Errors) {
    let Some(kind) = &check.kind else { return };
    let needs = needs(kind);
    if needs == Needs::Nothing {
        return;
    }
    let subject = if check.default { "the default check (tcp on each port)" } else { "this check" };
    let protocols = farm.protocols.as_ref().map(|(protocols, _)| protocols);
    let mismatch = match needs {
        Needs::Tcp => protocols.filter(|protocols| !protocols.tcp).map(|_| ("TCP", "UDP")),
        Needs::Udp => protocols.filter(|protocols| !protocols.udp).map(|_| ("UDP", "TCP")),
        Needs::Port | Needs::IfAny | Needs::Nothing => None,
    };
    if let Some((by, only)) = mismatch {
        let fitting = match by {
            "TCP" => "\"udp\", \"dns\" or \"icmp\"",
            _ => "\"tcp\", \"http\" or \"icmp\"",
        };
        let hint = match check.default {
            true => format!(
                "add [[farm.check]] with type = {fitting}, or write check = [] above the first [[farm.backend]]"
            ),
            false => format!("write type = {fitting}, or the `port` on which the backends answer it"),
        };
        errors.push(&check.spot, format!("{subject} is by {by}, and the farm is {only} only"), hint);
        return;
    }
    let some_without_port = farm.backends.iter().any(|backend| backend.port == Some(None));
    let (Some(placed), true) = (&farm.ports, some_without_port) else {
        return;
    };
    let message = match &placed.ports {
        Ports::All if needs == Needs::IfAny => return,
        Ports::All => format!("{subject} has no port, and the farm's ports are \"*\""),
        Ports::Ranges(_) if placed.ports.count() > CHECKED_PORTS_MAX => {
            let count = placed.ports.count();
            format!("{subject} would probe {count} ports of each backend; {CHECKED_PORTS_MAX} are the most")
        }
        Ports::Ranges(_) => return,
    };
    let hint = match check.default {
        true => {
            "add [[farm.check]] with a `port` or with type = \"icmp\", or write check = [] above the first \
             [[farm.backend]]"
        }
        false => "give the check a `port`, or write type = \"icmp\", or check = [] in the farm instead",
    };
    errors.push(&check.spot, message, hint);
}
