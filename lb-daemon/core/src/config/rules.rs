//! The rules inside one farm: families of addresses, names of backends, ports of checks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::draft::{BackendDraft, CheckDraft, FarmDraft};
use super::fields::{Errors, Spot};
use super::file::CHECKED_PORTS_MAX;
use super::model::Ports;
use super::text::duration_text;

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

/// A check that names no port must have somewhere to go, and not too many places.
fn judge_check(farm: &FarmDraft, check: &CheckDraft, errors: &mut Errors) {
    let subject = if check.default { "the default check (tcp on each port)" } else { "this check" };
    let hint = match check.default {
        true => "add [[farm.check]] with a `port`, or write check = [] above the first [[farm.backend]]",
        false => "give the check a `port`, or write check = [] in the farm instead",
    };
    if let Some((protocols, _)) = &farm.protocols
        && !protocols.tcp
    {
        let message = format!("{subject} is by TCP, and the farm is UDP only");
        errors.push(&check.spot, message, hint);
        return;
    }
    let some_without_port = farm.backends.iter().any(|backend| backend.port == Some(None));
    let (Some(placed), true) = (&farm.ports, some_without_port) else {
        return;
    };
    let message = match &placed.ports {
        Ports::All => format!("{subject} has no port, and the farm's ports are \"*\""),
        Ports::Ranges(_) if placed.ports.count() > CHECKED_PORTS_MAX => {
            let count = placed.ports.count();
            format!("{subject} would probe {count} ports of each backend; {CHECKED_PORTS_MAX} are the most")
        }
        Ports::Ranges(_) => return,
    };
    errors.push(&check.spot, message, hint);
}

pub fn timeout_too_long(spot: &Spot, timeout: Duration, interval: Duration, errors: &mut Errors) {
    let (timeout, interval) = (duration_text(timeout), duration_text(interval));
    let message = format!("{timeout} is longer than the check's interval of {interval}");
    errors.push(spot, message, format!("write \"{interval}\" or less, or a longer `interval`"));
}
