//! Edits of one farm in a configuration's text, with everything else left as it is.

use lb_core::config::ConfigError;
use lb_core::config::keys;
use lb_core::config::model::FarmName;
use serde_json::{Map, Value};

use super::ends::keeping_ends;
use super::{Format, edit_json, edit_toml};

/// An edit of one farm, written back to the configuration file with its comments kept.
#[derive(Debug, Clone, PartialEq)]
pub enum FarmEdit {
    /// Create or replace; the value has the keys of a `[[farm]]` table, and a `name`, if given, equal to the farm's.
    Put(serde_json::Value),
    Delete,
    Enable(bool),
}

/// Why an edit was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("there is no farm '{farm}'")]
    NoFarm { farm: FarmName, there: Vec<String> },
    /// The text is none, or what is put is no farm of that name.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<ConfigError>),
    #[error("`farm` in it is not a list of tables")]
    NoList,
    #[error("{0}")]
    Json(String),
}

/// The text after an edit. What is put is not judged here: the caller parses the new text before anything uses it.
///
/// Refused are a text that cannot be parsed, a farm that is not there to be deleted or enabled, and a value that
/// is no farm of that name.
pub fn edit(text: &str, format: Format, farm: &FarmName, edit: &FarmEdit) -> Result<String, EditError> {
    let edit = match edit {
        FarmEdit::Put(value) => Edit::Put(farm_table(farm, value)?),
        FarmEdit::Delete => Edit::Delete,
        FarmEdit::Enable(enabled) => Edit::Enable(*enabled),
    };
    keeping_ends(text, |text| match format {
        Format::Toml => edit_toml::edit(text, farm, &edit),
        Format::Json => edit_json::edit(text, farm, &edit),
    })
}

/// An edit whose value has been looked at.
pub enum Edit {
    /// The farm's keys, in the order in which people write them; its name is among them.
    Put(Entries),
    Delete,
    Enable(bool),
}

/// Keys and values in order.
pub type Entries = Vec<(String, Value)>;

pub fn not_found(farm: &FarmName, there: Vec<String>) -> EditError {
    EditError::NoFarm { farm: farm.clone(), there }
}

pub fn invalid(path: &str, message: &str, hint: &str) -> EditError {
    let (path, message, hint) = (path.to_owned(), message.to_owned(), Some(hint.to_owned()));
    EditError::Invalid(vec![ConfigError { path, at: None, message, hint }])
}

fn farm_table(farm: &FarmName, value: &Value) -> Result<Entries, EditError> {
    let Value::Object(map) = value else {
        return Err(invalid("", "a farm must be an object", "send the keys of a [[farm]] table"));
    };
    let mut entries = ordered(map);
    match map.get("name") {
        None | Some(Value::Null) => entries.insert(0, ("name".to_owned(), Value::from(farm.as_str()))),
        Some(Value::String(name)) if name == farm.as_str() => {}
        Some(_) => {
            let hint = format!("write \"{farm}\", or leave the key out; a farm cannot be renamed in place");
            return Err(invalid("name", "is not the name of the farm that is put", &hint));
        }
    }
    Ok(entries)
}

/// An object's entries in the order in which people write them, without those that are null (TOML has no null).
pub fn ordered(map: &Map<String, Value>) -> Entries {
    let mut entries: Entries = map
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    entries.sort_by_cached_key(|(key, _)| (rank(key), key.clone()));
    entries
}

fn rank(key: &str) -> usize {
    let tables =
        [&keys::FARM, &keys::BACKEND, &keys::CHECK, &keys::TIMEOUTS, &keys::PASSIVE, &keys::ON_CHANGE];
    let mut names = tables.iter().flat_map(|table| table.keys).map(|key| key.name);
    names.position(|known| known == key).unwrap_or(usize::MAX)
}
