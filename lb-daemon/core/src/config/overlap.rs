//! The rules between farms: unique names, no overlap, no VIP as a backend, and the limits of the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::draft::FarmDraft;
use super::fields::{Errors, Spot};
use super::limits::{BACKENDS_MAX, FARMS_MAX, SERVICES_MAX};
use super::lists;
use super::model::Ports;
use super::text::range_text;

/// Reports every rule that farms break together.
pub fn judge(farms: &[FarmDraft], errors: &mut Errors) {
    judge_names(farms, errors);
    judge_overlaps(farms, errors);
    judge_backend_addresses(farms, errors);
    judge_size(farms, errors);
    lists::judge(farms.iter().filter_map(|farm| farm.lists.as_ref()), errors);
}

fn judge_names(farms: &[FarmDraft], errors: &mut Errors) {
    let mut names = BTreeMap::new();
    for farm in farms {
        let Some((name, spot)) = &farm.name else { continue };
        if let Some(first) = names.get(name) {
            let message = format!("the name '{name}' is already {first}'s");
            errors.push(spot, message, "names of farms are unique: choose another");
        } else {
            names.insert(name, farm.spot.path.clone());
        }
    }
}

/// A range of ports of a farm on one VIP and protocol.
struct Claim<'a> {
    range: (u16, u16),
    farm: usize,
    spot: &'a Spot,
}

fn judge_overlaps(farms: &[FarmDraft], errors: &mut Errors) {
    let mut claims: BTreeMap<(IpAddr, &str), Vec<Claim<'_>>> = BTreeMap::new();
    for (index, farm) in farms.iter().enumerate() {
        let (Some(ports), Some((protocols, _))) = (&farm.ports, &farm.protocols) else { continue };
        let protocols = [("tcp", protocols.tcp), ("udp", protocols.udp)];
        for vip in &farm.vips {
            for (protocol, _) in protocols.iter().filter(|(_, used)| *used) {
                let of_vip = claims.entry((vip.ip, *protocol)).or_default();
                of_vip.extend(ports.ranges.iter().map(|(range, spot)| Claim {
                    range: *range,
                    farm: index,
                    spot,
                }));
            }
        }
    }
    let mut told = BTreeSet::new();
    for ((vip, protocol), mut claims) in claims {
        claims.sort_by_key(|claim| (claim.range.0, claim.farm));
        // Ranges of one farm do not overlap each other, so the claim that reaches farthest is the one to compare.
        let mut farthest: Option<&Claim<'_>> = None;
        for claim in &claims {
            if let Some(other) = farthest.filter(|other| other.range.1 >= claim.range.0) {
                let (first, second) = if other.farm < claim.farm { (other, claim) } else { (claim, other) };
                if first.farm != second.farm && told.insert((first.farm, second.farm)) {
                    tell_overlap(farms, first, second, vip, protocol, errors);
                }
            }
            if farthest.is_none_or(|other| claim.range.1 > other.range.1) {
                farthest = Some(claim);
            }
        }
    }
}

fn tell_overlap(
    farms: &[FarmDraft],
    first: &Claim<'_>,
    second: &Claim<'_>,
    vip: IpAddr,
    protocol: &str,
    errors: &mut Errors,
) {
    let common = (first.range.0.max(second.range.0), first.range.1.min(second.range.1));
    let ports = match common {
        (0, _) => "every port".to_owned(),
        (first, last) if first == last => format!("port {first}"),
        range => format!("ports {}", range_text(range)),
    };
    let title = |claim: &Claim<'_>| farms.get(claim.farm).map(FarmDraft::title).unwrap_or_default();
    let message =
        format!("{} overlaps {}: both take {protocol} {ports} of {vip}", title(second), title(first));
    let hint = match first.range.0 == 0 || second.range.0 == 0 {
        true => {
            "a farm with ports \"*\" is the only one on its VIP and protocol: list the ports it shall have"
        }
        false => "give one of them another VIP or other ports",
    };
    errors.push(second.spot, message, hint);
}

/// A packet for a VIP is balanced; sent to a backend that is a VIP it would come back.
fn judge_backend_addresses(farms: &[FarmDraft], errors: &mut Errors) {
    let mut vips: BTreeMap<IpAddr, &FarmDraft> = BTreeMap::new();
    for farm in farms {
        for vip in &farm.vips {
            vips.entry(vip.ip).or_insert(farm);
        }
    }
    for address in farms.iter().flat_map(|farm| &farm.backends).flat_map(|backend| &backend.addresses) {
        if let Some(farm) = vips.get(&address.ip) {
            let message = format!("{} is a VIP of {}", address.ip, farm.title());
            errors.push(&address.spot, message, "write the backend's own address");
        }
    }
}

fn judge_size(farms: &[FarmDraft], errors: &mut Errors) {
    if let Some(farm) = farms.get(FARMS_MAX) {
        let message =
            format!("is one farm too many: there are {}, and {FARMS_MAX} are the most", farms.len());
        errors.push(
            &farm.spot,
            message,
            "join farms that have the same backends: a farm may have many VIPs and ports",
        );
    }
    let mut backends = farms.iter().flat_map(|farm| &farm.backends);
    if let Some(backend) = backends.nth(BACKENDS_MAX) {
        let count = BACKENDS_MAX + 1 + backends.count();
        let message = format!("is one backend too many: there are {count}, and {BACKENDS_MAX} are the most");
        errors.push(&backend.spot, message, "remove backends, or run a second balancer");
    }
    let mut services = 0usize;
    for farm in farms {
        let (Some(placed), Some((protocols, _))) = (&farm.ports, &farm.protocols) else { continue };
        let ports = match &placed.ports {
            Ports::All => 1,
            Ports::Ranges(_) => placed.ports.count(),
        };
        services += ports * farm.vips.len() * (usize::from(protocols.tcp) + usize::from(protocols.udp));
        if services > SERVICES_MAX {
            let message = format!(
                "with this farm there are {services} combinations of VIP, protocol and port; \
                 {SERVICES_MAX} are the most"
            );
            let spot = placed.ranges.first().map_or(&farm.spot, |(_, spot)| spot);
            errors.push(spot, message, "write ports = \"*\" instead of wide ranges: it counts as one");
            return;
        }
    }
}
