//! `allow` and `deny`: prefixes, as many as a hundred thousand of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::fields::{Errors, Place, Spot, Table};
use super::limits::{LIST_MAX, PREFIXES_MAX};
use super::model::Lists;
use super::tree::{Value, quoted};

/// So many mistakes of one list are told. Who has sent another kind of list is not told of each of its lines.
const TOLD_MAX: usize = 10;

/// A farm's lists, and where the longer one stands.
#[derive(Debug)]
pub struct PlacedLists {
    pub lists: Lists,
    pub spot: Spot,
}

/// Reads both lists of a farm.
pub fn read_lists(table: &Table<'_>, errors: &mut Errors) -> Option<PlacedLists> {
    let mut seen = HashMap::new();
    let places = ["allow", "deny"].map(|key| table.get(key));
    let mut read = |place: &Option<Place<'_>>| match place {
        Some(place) => read_list(place, &mut seen, errors),
        None => Some(Vec::new()),
    };
    let [allow, deny] = &places;
    let (allow, deny) = (read(allow), read(deny));
    let (allow, deny) = (allow?, deny?);
    let longer = usize::from(deny.len() > allow.len());
    let spot =
        places.into_iter().nth(longer).flatten().map_or_else(|| table.spot.clone(), |place| place.spot);
    let lists = Lists::new(allow, deny);
    if lists.len() > LIST_MAX {
        let message = format!("`allow` and `deny` have {} prefixes; {LIST_MAX} are the most", lists.len());
        errors.push(
            &spot,
            message,
            "join prefixes that lie side by side, or let the firewall before it decide",
        );
        return None;
    }
    Some(PlacedLists { lists, spot })
}

/// Reports farms whose lists do not find room beside the others'. What says the same is there once.
pub fn judge<'a>(farms: impl Iterator<Item = &'a PlacedLists>, errors: &mut Errors) {
    let mut known = HashMap::new();
    for farm in farms {
        known.entry(farm.lists.id()).or_insert(farm.lists.len());
        let all: usize = known.values().sum();
        if all > PREFIXES_MAX {
            let message =
                format!("with this list there are {all} prefixes in all; {PREFIXES_MAX} are the most");
            let hint = "lists that say the same, in whatever order, count once: give farms the same lists";
            return errors.push(&farm.spot, message, hint);
        }
    }
}

/// The prefixes of one list. `seen`: where those of the farm stand that were read before.
fn read_list(
    place: &Place<'_>,
    seen: &mut HashMap<IpNet, String>,
    errors: &mut Errors,
) -> Option<Vec<IpNet>> {
    let (items, before) = (place.items(), errors.0.len());
    let mut nets = Vec::with_capacity(items.len());
    for item in items {
        if errors.0.len() - before == TOLD_MAX {
            break;
        }
        let Some(net) = read_prefix(&item, errors) else { continue };
        if let Some(first) = seen.get(&net) {
            let hint = format!("remove it from one of both places; the other is {first}");
            errors.push(&item.spot, format!("{net} stands here twice"), hint);
            continue;
        }
        seen.insert(net, item.spot.path);
        nets.push(net);
    }
    (errors.0.len() == before).then_some(nets)
}

/// A prefix, or an address for itself alone.
fn read_prefix(item: &Place<'_>, errors: &mut Errors) -> Option<IpNet> {
    let Value::String(text) = item.value else {
        item.string("a prefix", "198.51.100.0/24", errors)?;
        return None;
    };
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => match text.parse::<IpAddr>() {
            Ok(address) => address.into(),
            Err(_) => {
                let message = format!("must be a prefix, not {}", quoted(text));
                errors.push(&item.spot, message, hint(text));
                return None;
            }
        },
    };
    if let IpAddr::V6(v6) = net.addr()
        && let Some(meant) = clothed(v6, net.prefix_len())
    {
        errors.push(&item.spot, format!("{net} is IPv4 in IPv6 clothing"), format!("write \"{meant}\""));
        return None;
    }
    if net != net.trunc() {
        let message = format!("{net} has bits beyond its length");
        let hint = format!("write \"{}\", or \"{}\" for that address alone", net.trunc(), net.addr());
        errors.push(&item.spot, message, hint);
        return None;
    }
    Some(net)
}

/// What was meant by a prefix of IPv4 in IPv6's clothes (RFC 4291, section 2.5.5.2).
fn clothed(address: Ipv6Addr, bits: u8) -> Option<IpNet> {
    let v4 = address.to_ipv4_mapped()?;
    IpNet::new(v4.into(), bits.checked_sub(96)?).ok()
}

/// What somebody meant who wrote `text` for a prefix.
fn hint(text: &str) -> String {
    let trimmed = text.trim();
    if trimmed.contains(',') || trimmed.contains(char::is_whitespace) && trimmed.parse::<IpNet>().is_err() {
        return "write several prefixes as a list: [\"...\", \"...\"]".to_owned();
    }
    if trimmed.parse::<IpNet>().is_ok() {
        return format!("write \"{trimmed}\"");
    }
    if let Some((address, length)) = trimmed.split_once('/')
        && let Ok(address) = address.parse::<IpAddr>()
    {
        // 255.255.255.0
        if let Ok(IpAddr::V4(mask)) = length.parse::<IpAddr>()
            && let Ok(bits) = ipnet::ip_mask_to_prefix(mask.into())
        {
            return format!("write \"{address}/{bits}\"");
        }
        let most = if address.is_ipv4() { 32 } else { 128 };
        return format!("the length of {address}'s prefix is a number from 0 to {most}");
    }
    if let Some((first, last)) = trimmed.split_once('-')
        && first.trim().parse::<IpAddr>().is_ok()
        && last.trim().parse::<IpAddr>().is_ok()
    {
        return "ranges are not read: write the prefixes that cover it".to_owned();
    }
    if trimmed.bytes().any(|b| b.is_ascii_alphabetic()) && !trimmed.contains(':') {
        return "names and countries are not looked up: write the prefixes themselves".to_owned();
    }
    "write \"198.51.100.0/24\" or \"2001:db8::/32\", for example".to_owned()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::ops::Range;

    use super::super::keys;
    use super::super::tree::{Key, Node};
    use super::*;

    fn address(number: usize) -> Ipv4Addr {
        Ipv4Addr::from(0x0a00_0000 + number as u32)
    }

    fn read(lists: &[(&str, Vec<String>)]) -> Result<Lists, Vec<(String, String)>> {
        let node = |value| Node { position: None, value };
        let list = |texts: &[String]| {
            Value::Array(texts.iter().map(|text| node(Value::String(text.clone()))).collect())
        };
        let entry = |(key, texts): &(&str, Vec<String>)| {
            (Key { name: (*key).to_owned(), position: None }, node(list(texts)))
        };
        let root = node(Value::Table(lists.iter().map(entry).collect()));
        let mut errors = Errors::default();
        let table = Table::open(&Place::root(&root), &keys::FARM, &mut errors).unwrap();
        let read = read_lists(&table, &mut errors);
        let told = errors.0.into_iter().map(|error| (error.path, error.message)).collect();
        read.map(|placed| placed.lists).ok_or(told)
    }

    fn addresses(range: Range<usize>) -> Vec<String> {
        range.map(|number| address(number).to_string()).collect()
    }

    #[test]
    fn a_farm_has_a_hundred_thousand_prefixes_and_no_more() {
        let deny = addresses(0..60_000);
        let most = read(&[("allow", addresses(100_000..140_000)), ("deny", deny.clone())]).unwrap();
        assert_eq!(most.len(), LIST_MAX);
        let told = read(&[("allow", addresses(100_000..140_001)), ("deny", deny)]).unwrap_err();
        let message = "`allow` and `deny` have 100001 prefixes; 100000 are the most".to_owned();
        assert_eq!(told, [("deny".to_owned(), message)]);
    }

    #[test]
    fn whoever_has_sent_another_kind_of_list_is_told_of_its_first_lines() {
        let nonsense = (0..1000).map(|number| format!("nonsense {number}")).collect();
        let told = read(&[("deny", nonsense)]).unwrap_err();
        assert_eq!(told.len(), TOLD_MAX);
        assert_eq!(told[9].0, "deny[9]");
    }

    #[test]
    fn lists_that_say_the_same_count_once_in_a_configuration() {
        let farm = |number: usize, from: usize| {
            let deny = (from..from + LIST_MAX).map(|number| IpAddr::from(address(number)));
            let spot = Spot { path: format!("farm[{number}].deny"), at: None };
            PlacedLists { lists: Lists::new(Vec::new(), deny.map(IpNet::from).collect()), spot }
        };
        let same = || (0..6).map(|number| farm(number, 0));
        let judged = |others: usize| {
            let farms: Vec<_> = same().chain((6..6 + others).map(|number| farm(number, number))).collect();
            let mut errors = Errors::default();
            judge(farms.iter(), &mut errors);
            errors.0.into_iter().map(|error| (error.path, error.message)).collect::<Vec<_>>()
        };
        assert_eq!(judged(4), []);
        let message = "with this list there are 600000 prefixes in all; 523264 are the most".to_owned();
        assert_eq!(judged(5), [("farm[10].deny".to_owned(), message)]);
    }
}
