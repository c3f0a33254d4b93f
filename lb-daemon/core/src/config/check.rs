//! One `[[farm.check]]`: the keys that every type of check has. What a type has besides is read by [`super::probe`].

use std::time::Duration;

use super::fields::{Errors, Place, Spot, Table};
use super::keys::{self, CHECK_TYPES, owners};
use super::model::{Check, CheckKind};
use super::probe;
use super::text::duration_text;

#[derive(Debug)]
pub struct CheckDraft {
    /// The check's table, or the farm's if the file names no check.
    pub spot: Spot,
    /// Whether it is the check that a farm gets when the file names none.
    pub default: bool,
    /// Whether the file names a port, right or wrong.
    pub has_port: bool,
    /// `None` if it was refused.
    pub kind: Option<CheckKind>,
    pub check: Option<Check>,
}

/// The checks, and whether they are all that the file names. None named: the default one; an empty list: none.
pub fn read_checks(table: &Table<'_>, errors: &mut Errors) -> (Vec<CheckDraft>, bool) {
    let Some(place) = table.get("check") else {
        let (spot, check) = (table.spot.clone(), Check::tcp());
        let kind = Some(check.kind.clone());
        return (vec![CheckDraft { spot, default: true, has_port: false, kind, check: Some(check) }], true);
    };
    let Some(places) = place.tables("[[farm.check]]", errors) else {
        return (Vec::new(), false);
    };
    let count = places.len();
    let drafts: Vec<_> = places.iter().filter_map(|place| read_check(place, errors)).collect();
    let whole = drafts.len() == count;
    (drafts, whole)
}

fn read_check(place: &Place<'_>, errors: &mut Errors) -> Option<CheckDraft> {
    let table = Table::open(place, &keys::CHECK, errors)?;
    let default = Check::tcp();
    let word = match table.get("type") {
        Some(place) => place.choice(&CHECK_TYPES.map(|word| (word, word)), &[], errors),
        None => Some(default.kind.as_str()),
    };
    let kind = word.and_then(|word| {
        judge_keys(&table, word, errors);
        probe::read_kind(&table, word, errors)
    });
    let interval = table.duration("interval", errors);
    // A short interval alone is no mistake: the defaults give way.
    let timeout = read_within(&table, "timeout", interval, errors);
    let fast_interval = read_within(&table, "fast_interval", interval, errors);
    let plain = table.plain::<Check>(errors);
    // What a type does not have is told already.
    let port = if word == Some("icmp") { Some(None) } else { table.number_if_any("port", errors) };
    let make = || {
        plain?.fill(Check {
            kind: kind.clone()?,
            interval: interval?,
            fast_interval: fast_interval?,
            timeout: timeout?,
            port: port?,
            ..default
        })
    };
    let check = make();
    let has_port = table.get("port").is_some();
    Some(CheckDraft { spot: table.spot, default: false, has_port, kind, check })
}

/// A duration that is not longer than the check's interval.
fn read_within(
    table: &Table<'_>,
    key: &str,
    interval: Option<Duration>,
    errors: &mut Errors,
) -> Option<Duration> {
    let duration = table.duration(key, errors)?;
    let Some(interval) = interval.filter(|interval| duration > *interval) else { return Some(duration) };
    let Some(place) = table.get(key) else { return Some(interval) };
    let (duration, interval) = (duration_text(duration), duration_text(interval));
    let message = format!("{duration} is longer than the check's interval of {interval}");
    errors.push(&place.spot, message, format!("write \"{interval}\" or less, or a longer `interval`"));
    None
}

/// Reports each key that checks of another type have.
fn judge_keys(table: &Table<'_>, word: &str, errors: &mut Errors) {
    for key in keys::CHECK.names() {
        let Some(owners) = owners(key).filter(|owners| !owners.contains(&word)) else { continue };
        let Some(spot) = table.key_spot(key) else { continue };
        if key == "port" {
            errors.push(
                &spot,
                "a check of type \"icmp\" has no port",
                "remove it: a ping goes to the address",
            );
            continue;
        }
        let types = owners.iter().map(|owner| format!("\"{owner}\"")).collect::<Vec<_>>().join(", ");
        let hint = match (table.get("type"), owners.first()) {
            (None, Some(owner)) => {
                format!("write type = \"{owner}\" as well; without a `type` a check is by TCP alone")
            }
            (Some(_), _) | (None, None) => "remove it, or write another `type`".to_owned(),
        };
        errors.push(&spot, format!("`{key}` belongs to checks of type {types}, not \"{word}\""), hint);
    }
}
