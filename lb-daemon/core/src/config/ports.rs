//! The ports of a farm: numbers, ranges, or all.

use super::fields::{Errors, Place, Spot};
use super::model::Ports;
use super::text::range_text;
use super::tree::{Value, quoted};

/// The ports of a farm and where each range stands.
#[derive(Debug, Clone)]
pub struct PlacedPorts {
    pub ports: Ports,
    /// Sorted as in `ports`; for all ports one range from 0 to 65535.
    pub ranges: Vec<((u16, u16), Spot)>,
}

enum Item {
    All,
    Range((u16, u16)),
}

/// Reads `80`, `"80-90"`, `"*"` or a list of numbers and ranges.
pub fn read_ports(place: &Place<'_>, errors: &mut Errors) -> Option<PlacedPorts> {
    let items = place.items();
    if items.is_empty() {
        errors.push(&place.spot, "must hold at least one port", "write [80, 443], or \"*\" for every port");
        return None;
    }
    let alone = items.len() == 1;
    let mut whole = true;
    let mut ranges: Vec<((u16, u16), Spot)> = Vec::new();
    for item in items {
        match read_item(&item, errors) {
            Some(Item::Range(range)) => ranges.push((range, item.spot)),
            Some(Item::All) if alone => {
                return Some(PlacedPorts { ports: Ports::All, ranges: vec![((0, 65535), item.spot)] });
            }
            Some(Item::All) => {
                let hint = "write ports = \"*\", or remove it from the list";
                errors.push(&item.spot, "\"*\" means every port and stands alone", hint);
                whole = false;
            }
            None => whole = false,
        }
    }
    // Stable: of two equal ranges the one written first stays first.
    ranges.sort_by_key(|&(range, _)| range);
    for pair in ranges.windows(2) {
        if let [(first, first_spot), (second, second_spot)] = pair
            && second.0 <= first.1
        {
            let (spot, range, other) = match second_spot.at >= first_spot.at {
                true => (second_spot, *second, *first),
                false => (first_spot, *first, *second),
            };
            let message = match range == other {
                true => format!("port {} stands here twice", range_text(range)),
                false => format!("{} overlaps {}", range_text(range), range_text(other)),
            };
            errors.push(spot, message, "name each port of a farm once");
            whole = false;
        }
    }
    let ports = Ports::Ranges(ranges.iter().map(|&(range, _)| range).collect());
    whole.then_some(PlacedPorts { ports, ranges })
}

fn read_item(item: &Place<'_>, errors: &mut Errors) -> Option<Item> {
    const WANTED: &str = "a port from 1 to 65535, a range like \"587-588\", or \"*\"";
    let refuse = |hint: String, errors: &mut Errors| {
        errors.push(&item.spot, format!("must be {WANTED}, not {}", item.value.describe()), hint);
        None
    };
    match item.value {
        Value::Integer(number) => match u16::try_from(*number) {
            Ok(port) if port > 0 => Some(Item::Range((port, port))),
            Ok(_) | Err(_) => refuse("the least is 1, the most 65535".to_owned(), errors),
        },
        Value::String(text) if text == "*" => Some(Item::All),
        Value::String(text) => match parse_range(text) {
            Ok(range) => Some(Item::Range(range)),
            Err(hint) => refuse(hint, errors),
        },
        Value::Table(_) | Value::Array(_) | Value::Float(_) | Value::Bool(_) | Value::Other(_) => {
            refuse("write [80, \"587-588\"], for example".to_owned(), errors)
        }
    }
}

/// Parses `587-588`; the error is a hint.
fn parse_range(text: &str) -> Result<(u16, u16), String> {
    let limits = || "the least is 1, the most 65535".to_owned();
    let number = |text: &str| text.trim().parse::<i64>().ok();
    if let Some(number) = number(text) {
        return Err(match u16::try_from(number) {
            Ok(port) if port > 0 => format!("write {port}, without quotes"),
            Ok(_) | Err(_) => limits(),
        });
    }
    if text.contains(',') {
        return Err("write several ports as a list: [80, 443]".to_owned());
    }
    let ends = text.split_once('-').or_else(|| text.split_once(':')).or_else(|| text.split_once(".."));
    let Some((Some(first), Some(last))) = ends.map(|(first, last)| (number(first), number(last))) else {
        return Err(match text.trim() {
            "all" | "any" | "" => "write \"*\" for every port".to_owned(),
            _ => format!("{} has no port numbers in it; write \"587-588\", for example", quoted(text)),
        });
    };
    let (Ok(first), Ok(last)) = (u16::try_from(first), u16::try_from(last)) else {
        return Err(limits());
    };
    match (first, last) {
        (0, _) | (_, 0) => Err(limits()),
        _ if first > last => Err(format!("the range is reversed: write \"{last}-{first}\"")),
        _ if text != format!("{first}-{last}") => Err(format!("write \"{first}-{last}\"")),
        _ => Ok((first, last)),
    }
}
