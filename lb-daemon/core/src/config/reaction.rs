//! What follows from a backend's health, as far as a farm says it in tables of their own: `passive`, `on_change`.

use super::fields::{Errors, Place, Table};
use super::keys;
use super::model::{Eject, Hook, Passive, USER};
use super::probe::{read_command, read_user};
use super::tree::Value;

/// The most hooks of a farm: each is a process at every change.
const HOOKS_MAX: usize = 8;

#[derive(Debug)]
pub struct Reaction {
    pub passive: Passive,
    pub on_change: Vec<Hook>,
}

pub fn read_reaction(table: &Table<'_>, errors: &mut Errors) -> Option<Reaction> {
    let passive = table.get("passive").map_or(Some(Passive::default()), |place| read_passive(&place, errors));
    let on_change = table.get("on_change").map_or(Some(Vec::new()), |place| read_hooks(&place, errors));
    Some(Reaction { passive: passive?, on_change: on_change? })
}

fn read_passive(place: &Place<'_>, errors: &mut Errors) -> Option<Passive> {
    if let Value::Bool(flag) = place.value {
        let hint = format!("write passive = {{ suspect = {flag} }}");
        errors.push(&place.spot, format!("must be a table, not {flag}"), hint);
        return None;
    }
    let table = Table::open(place, &keys::PASSIVE, errors)?;
    let (plain, eject) = (table.plain(errors), table.boolean("eject", errors));
    let (hold, at_most) = (table.duration("hold", errors), table.number("at_most", errors));
    let eject = match eject? {
        true => Some(Eject { hold: hold?, at_most: at_most? }),
        false => {
            let superfluous: Vec<_> =
                ["hold", "at_most"].iter().filter_map(|key| table.key_spot(key)).collect();
            for spot in &superfluous {
                errors.push(
                    spot,
                    "means nothing without eject = true",
                    "write eject = true as well, or remove it",
                );
            }
            superfluous.is_empty().then_some(None)?
        }
    };
    plain?.fill(Passive { eject, ..Passive::default() })
}

/// One command as a list of its words, or tables that say more.
fn read_hooks(place: &Place<'_>, errors: &mut Errors) -> Option<Vec<Hook>> {
    let tables = match place.value {
        Value::Table(_) => true,
        Value::Array(items) => items.iter().any(|item| matches!(item.value, Value::Table(_))),
        Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::Other(_) => false,
    };
    let items = place.items();
    if matches!(place.value, Value::Array(_)) && items.is_empty() {
        return Some(Vec::new());
    }
    if !tables {
        let command = read_command(place, errors)?;
        let timeout = keys::ON_CHANGE.duration("timeout")?;
        return Some(vec![Hook { command, user: USER.to_owned(), timeout }]);
    }
    if items.len() > HOOKS_MAX {
        let message = format!("has {} commands; {HOOKS_MAX} are the most", items.len());
        errors.push(&place.spot, message, "write a script that runs them, and name that");
        return None;
    }
    let hooks: Vec<_> = items.iter().map(|item| read_hook(item, errors)).collect();
    hooks.into_iter().collect()
}

fn read_hook(place: &Place<'_>, errors: &mut Errors) -> Option<Hook> {
    let table = Table::open(place, &keys::ON_CHANGE, errors)?;
    let command = table
        .need("command", "write command = [\"/etc/drover/changed\"], for example", errors)
        .and_then(|place| read_command(&place, errors));
    let user = table.get("user").map_or(Some(USER.to_owned()), |place| read_user(&place, errors));
    let timeout = table.duration("timeout", errors);
    Some(Hook { command: command?, user: user?, timeout: timeout? })
}
