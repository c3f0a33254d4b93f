//! A farm as far as it could be read: every value that was right, and where it stands.
//!
//! Values that were refused are `None`, so that rules which need them are not judged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::address::{Kind, PlacedAddress, read_addresses};
use super::check::{CheckDraft, read_checks};
use super::fields::{Errors, Place, Spot, Table};
use super::keys;
use super::keys::plain::Values;
use super::lists::{PlacedLists, read_lists};
use super::model::{
    Addresses, Affinity, Backend, BackendName, Farm, FarmName, Limits, Mode, NAME_MAX, Protocols, Timeouts,
};
use super::ports::{PlacedPorts, read_ports};
use super::reaction::{Reaction, read_reaction};
use super::tree::{Value, quoted};

/// A farm that has been read but not judged against the others.
#[derive(Debug)]
pub struct FarmDraft {
    pub spot: Spot,
    pub name: Option<(FarmName, Spot)>,
    pub vips: Vec<PlacedAddress>,
    /// Whether `vips` is all that the file says.
    pub vips_whole: bool,
    pub ports: Option<PlacedPorts>,
    pub protocols: Option<(Protocols, Spot)>,
    pub backends: Vec<BackendDraft>,
    pub checks: Vec<CheckDraft>,
    pub mode: Option<Mode>,
    /// Where it says that backends are ejected, if it does.
    pub ejects: Option<Spot>,
    /// Where it says that clients keep their backend, if it does.
    pub affine: Option<Spot>,
    pub lists: Option<PlacedLists>,
    /// What is left to make a farm of it, if every value was right.
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Rest {
    plain: Values<Farm>,
    affinity: Option<Affinity>,
    timeouts: Timeouts,
    limits: Limits,
    reaction: Reaction,
}

#[derive(Debug)]
pub struct BackendDraft {
    pub spot: Spot,
    pub name: Option<(BackendName, Spot)>,
    pub addresses: Vec<PlacedAddress>,
    pub addresses_whole: bool,
    /// `None` if it was refused; `Some(None)` if there is none.
    pub port: Option<Option<u16>>,
    /// Where that stands.
    pub port_spot: Option<Spot>,
    plain: Option<Values<Backend>>,
}

impl FarmDraft {
    pub fn read(place: &Place<'_>, errors: &mut Errors) -> Option<Self> {
        let table = Table::open(place, &keys::FARM, errors)?;
        let name = read_farm_name(&table, errors);
        let kind = table.known_word("type", errors).is_some();
        let (vips, vips_whole) =
            match table.need("vip", "write vip = \"192.0.2.10\", the address clients connect to", errors) {
                Some(place) => read_addresses(&place, Kind::Vip, errors),
                None => (Vec::new(), false),
            };
        let ports = table
            .need("ports", "write ports = [80, 443], or ports = \"*\" for every port", errors)
            .and_then(|place| read_ports(&place, errors));
        let protocols = match table.get("protocol") {
            Some(place) => read_protocols(&place, errors).map(|protocols| (protocols, place.spot)),
            None => Some((Protocols { tcp: true, udp: false }, table.spot.clone())),
        };
        let plain: Option<Values<Farm>> = table.plain(errors);
        let nameless = || Farm::new(FarmName(String::new()));
        let mode = plain.as_ref().and_then(|plain| Some(plain.fill(nameless())?.mode));
        let affinity =
            table.get("affinity").map_or(Some(None), |place| read_affinity(&place, errors).map(Some));
        let timeouts =
            table.get("timeouts").map_or(Some(Timeouts::default()), |place| read_timeouts(&place, errors));
        let limits = table.get("limits").map_or(Some(Limits::default()), |place| read_limits(&place, errors));
        let lists = read_lists(&table, errors);
        let reaction = read_reaction(&table, errors);
        let ejects = reaction.as_ref().is_some_and(|reaction| reaction.passive.eject.is_some());
        let ejects = table.key_spot("passive").filter(|_| ejects);
        let affine = table.key_spot("affinity");
        let (backends, backends_whole) = read_backends(&table, errors);
        let (checks, checks_whole) = read_checks(&table, errors);
        let rest = match (plain, affinity, timeouts, limits, reaction) {
            (Some(plain), Some(affinity), Some(timeouts), Some(limits), Some(reaction))
                if kind && backends_whole && checks_whole =>
            {
                Some(Rest { plain, affinity, timeouts, limits, reaction })
            }
            _ => None,
        };
        let spot = table.spot;
        Some(Self {
            spot,
            name,
            vips,
            vips_whole,
            ports,
            protocols,
            backends,
            checks,
            lists,
            mode,
            ejects,
            affine,
            rest,
        })
    }

    /// The farm, if nothing of it was refused.
    pub fn finish(self) -> Option<Farm> {
        let rest = self.rest?;
        let (name, reaction) = (self.name?.0, rest.reaction);
        rest.plain.fill(Farm {
            vips: self.vips.into_iter().map(|vip| vip.ip).collect(),
            ports: self.ports?.ports,
            protocols: self.protocols?.0,
            affinity: rest.affinity,
            timeouts: rest.timeouts,
            limits: rest.limits,
            lists: Arc::new(self.lists?.lists),
            backends: self.backends.into_iter().map(BackendDraft::finish).collect::<Option<_>>()?,
            checks: self.checks.into_iter().map(|draft| draft.check).collect::<Option<_>>()?,
            passive: reaction.passive,
            on_change: reaction.on_change,
            ..Farm::new(name)
        })
    }

    /// What errors of other farms call this one.
    pub fn title(&self) -> String {
        match &self.name {
            Some((name, _)) => format!("farm '{name}'"),
            None => self.spot.path.clone(),
        }
    }
}

impl BackendDraft {
    fn finish(self) -> Option<Backend> {
        let (mut v4, mut v6): (Option<Ipv4Addr>, Option<Ipv6Addr>) = (None, None);
        for address in &self.addresses {
            match address.ip {
                IpAddr::V4(ip) => v4 = Some(ip),
                IpAddr::V6(ip) => v6 = Some(ip),
            }
        }
        let address = Addresses { v4, v6 };
        let (name, port) = (self.name?.0, self.port?);
        self.plain?.fill(Backend { port, ..Backend::new(name, address) })
    }
}

fn read_farm_name(table: &Table<'_>, errors: &mut Errors) -> Option<(FarmName, Spot)> {
    let place = table.need("name", "write name = \"web\", for example", errors)?;
    let text = place.string("a name", "web", errors)?;
    if let Some(name) = FarmName::new(text) {
        return Some((name, place.spot));
    }
    let likely = lettered(text, |c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let message = format!("{} is not a farm's name: a-z, 0-9 and '-', 1 to {NAME_MAX} of them", quoted(text));
    errors.push(&place.spot, message, format!("write \"{likely}\", for example"));
    None
}

/// A legal name like `text`.
fn lettered(text: &str, legal: impl Fn(char) -> bool) -> String {
    let lower = text.trim().to_lowercase();
    let name: String = lower.chars().map(|c| if legal(c) { c } else { '-' }).take(NAME_MAX).collect();
    if name.chars().any(legal) { name.trim_matches('-').to_owned() } else { "web".to_owned() }
}

fn read_protocols(place: &Place<'_>, errors: &mut Errors) -> Option<Protocols> {
    let items = place.items();
    if items.is_empty() {
        errors.push(
            &place.spot,
            "must name at least one protocol",
            "write \"tcp\", \"udp\" or [\"tcp\", \"udp\"]",
        );
        return None;
    }
    let mut protocols = Protocols { tcp: false, udp: false };
    let mut whole = true;
    for item in items {
        let Some(udp) = item.choice(&[("tcp", false), ("udp", true)], &[], errors) else {
            whole = false;
            continue;
        };
        let flag = if udp { &mut protocols.udp } else { &mut protocols.tcp };
        if std::mem::replace(flag, true) {
            errors.push(&item.spot, format!("{} stands here twice", item.value.describe()), "remove it");
        }
    }
    whole.then_some(protocols)
}

fn read_affinity(place: &Place<'_>, errors: &mut Errors) -> Option<Affinity> {
    if !matches!(place.value, Value::Table(_)) {
        let message = format!("must be a table, not {}", place.value.describe());
        errors.push(&place.spot, message, "write affinity = { by = \"source\" }");
        return None;
    }
    let table = Table::open(place, &keys::AFFINITY, errors)?;
    let (by, plain) = (table.known_word("by", errors), table.plain(errors));
    by.and(plain)?.fill(Affinity::default())
}

fn read_timeouts(place: &Place<'_>, errors: &mut Errors) -> Option<Timeouts> {
    let table = Table::open(place, &keys::TIMEOUTS, errors)?;
    table.plain(errors)?.fill(Timeouts::default())
}

fn read_limits(place: &Place<'_>, errors: &mut Errors) -> Option<Limits> {
    let table = Table::open(place, &keys::LIMITS, errors)?;
    let connections = table.number_if_any("connections", errors);
    let (plain, new_per_second) = (table.plain(errors), table.number_if_any("new_per_second", errors));
    let (connections, new_per_second) = (connections?, new_per_second?);
    plain?.fill(Limits { connections, new_per_second, ..Limits::default() })
}

/// The backends, and whether they are all that the file names.
fn read_backends(table: &Table<'_>, errors: &mut Errors) -> (Vec<BackendDraft>, bool) {
    let Some(place) = table.get("backend") else {
        return (Vec::new(), true);
    };
    let Some(places) = place.tables("[[farm.backend]]", errors) else {
        return (Vec::new(), false);
    };
    let count = places.len();
    let drafts: Vec<_> = places.iter().filter_map(|place| read_backend(place, errors)).collect();
    let whole = drafts.len() == count;
    (drafts, whole)
}

fn read_backend(place: &Place<'_>, errors: &mut Errors) -> Option<BackendDraft> {
    let table = Table::open(place, &keys::BACKEND, errors)?;
    let (addresses, addresses_whole) = match table.need("address", "write address = \"10.0.0.11\"", errors) {
        Some(place) => read_addresses(&place, Kind::Backend, errors),
        None => (Vec::new(), false),
    };
    let name = match table.get("name") {
        Some(place) => read_backend_name(&place, errors),
        // An address is a legal name.
        None => addresses
            .first()
            .and_then(|first| Some((BackendName::new(&first.ip.to_string())?, first.spot.clone()))),
    };
    let port = table.number_if_any("port", errors);
    let port_spot = table.key_spot("port");
    let plain = table.plain(errors);
    Some(BackendDraft { spot: table.spot, name, addresses, addresses_whole, port, port_spot, plain })
}

fn read_backend_name(place: &Place<'_>, errors: &mut Errors) -> Option<(BackendName, Spot)> {
    let text = place.string("a name", "web1", errors)?;
    if let Some(name) = BackendName::new(text) {
        return Some((name, place.spot.clone()));
    }
    let likely = lettered(text, |c| c.is_ascii_alphanumeric() || ".:_".contains(c));
    let message = format!(
        "{} is not a backend's name: letters, digits and '.:_-', 1 to {NAME_MAX} of them",
        quoted(text)
    );
    errors.push(&place.spot, message, format!("write \"{likely}\", for example"));
    None
}
