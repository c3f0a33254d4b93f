//! Edits of one farm in TOML: what does not change keeps its comments, its order and its spelling.

use lb_core::config::model::FarmName;
use serde_json::Value as Json;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value};

use super::edit::{Edit, EditError, Entries, not_found, ordered};

pub fn edit(text: &str, farm: &FarmName, edit: &Edit) -> Result<String, EditError> {
    let mut document: DocumentMut = match text.parse() {
        Ok(document) => document,
        Err(_) => return Err(EditError::Invalid(super::toml::tree(text).err().unwrap_or_default())),
    };
    let empty = |item: &Item| item.as_array().is_some_and(Array::is_empty);
    if document.get("farm").is_none_or(empty) {
        document.insert("farm", Item::ArrayOfTables(ArrayOfTables::new()));
    }
    let mut orphaned = String::new();
    match document.get_mut("farm") {
        Some(Item::ArrayOfTables(farms)) => orphaned = edit_tables(farms, farm, edit)?,
        Some(Item::Value(Value::Array(farms))) => edit_inline(farms, farm, edit)?,
        Some(Item::None | Item::Value(_) | Item::Table(_)) | None => {
            // The text does not parse as a configuration, and its errors say why.
            return Err(EditError::NoList);
        }
    }
    if document.get("farm").and_then(Item::as_array_of_tables).is_some_and(ArrayOfTables::is_empty) {
        document.remove("farm");
    }
    if !orphaned.is_empty() {
        let trailing = format!("{orphaned}{}", document.trailing().as_str().unwrap_or_default());
        document.set_trailing(trailing);
    }
    Ok(document.to_string())
}

fn name_of(table: &dyn toml_edit::TableLike) -> Option<String> {
    table.get("name").and_then(Item::as_str).map(str::to_owned)
}

/// Edits `[[farm]]` tables. The answer is comments that belonged to no farm and have lost their place.
fn edit_tables(farms: &mut ArrayOfTables, farm: &FarmName, edit: &Edit) -> Result<String, EditError> {
    let names: Vec<_> = farms.iter().map(|table| name_of(table)).collect();
    let index = names.iter().position(|name| name.as_deref() == Some(farm.as_str()));
    let found = index.and_then(|index| Some((index, farms.get_mut(index)?)));
    match (edit, found) {
        (Edit::Put(entries), Some((_, table))) => {
            merge(table, entries);
            release_children(table);
        }
        (Edit::Put(entries), None) => farms.push(new_table(entries)),
        (Edit::Enable(enabled), Some((_, table))) => set_enabled(table, *enabled),
        (Edit::Delete, Some((index, table))) => {
            let kept =
                detached_comment(table.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or(""));
            farms.remove(index);
            let Some(next) = farms.get_mut(index) else { return Ok(kept) };
            if !kept.is_empty() {
                let own = next.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or("\n").to_owned();
                next.decor_mut().set_prefix(format!("{kept}{own}"));
            }
        }
        (Edit::Delete | Edit::Enable(_), None) => {
            return Err(not_found(farm, names.into_iter().flatten().collect()));
        }
    }
    Ok(String::new())
}

/// Of what stands above a header: the comments that a blank line sets off from it.
fn detached_comment(prefix: &str) -> String {
    match prefix.rsplit_once("\n\n") {
        Some((above, _)) if above.contains('#') => format!("{above}\n"),
        Some(_) | None => String::new(),
    }
}

/// Edits `farm = [{ ... }]`.
fn edit_inline(farms: &mut Array, farm: &FarmName, edit: &Edit) -> Result<(), EditError> {
    let names: Vec<_> =
        farms.iter().map(|value| value.as_inline_table().and_then(|table| name_of(table))).collect();
    let index = names.iter().position(|name| name.as_deref() == Some(farm.as_str()));
    match (edit, index) {
        (Edit::Put(entries), Some(index)) => {
            farms.replace(index, inline(entries));
        }
        (Edit::Put(entries), None) => farms.push(inline(entries)),
        (Edit::Delete, Some(index)) => {
            farms.remove(index);
        }
        (Edit::Enable(enabled), Some(index)) => {
            if let Some(table) = farms.get_mut(index).and_then(Value::as_inline_table_mut) {
                set_enabled(table, *enabled);
            }
        }
        (Edit::Delete | Edit::Enable(_), None) => {
            return Err(not_found(farm, names.into_iter().flatten().collect()));
        }
    }
    Ok(())
}

fn set_enabled(table: &mut dyn toml_edit::TableLike, enabled: bool) {
    match table.get_mut("enabled") {
        Some(item) => replace_value(item, Value::from(enabled)),
        None if enabled => {}
        None => {
            table.insert("enabled", Item::Value(Value::from(false)));
        }
    }
}

/// Puts a value in another's place, with the comment and the blanks around it.
fn replace_value(item: &mut Item, mut value: Value) {
    if let Item::Value(old) = item {
        *value.decor_mut() = old.decor().clone();
    }
    *item = Item::Value(value);
}

/// Makes `table` say what `entries` say, and leaves alone what says it already.
fn merge(table: &mut Table, entries: &Entries) {
    table.retain(|key, _| entries.iter().any(|(name, _)| name == key));
    for (key, new) in entries {
        match (table.get_mut(key), new) {
            (Some(Item::Value(old)), new) if to_json(old) == *new => {}
            (Some(Item::Table(old)), Json::Object(map)) => merge(old, &ordered(map)),
            (Some(Item::ArrayOfTables(old)), Json::Array(items)) if is_tables(items) => {
                merge_list(old, items)
            }
            (Some(item @ Item::Value(_)), new) if !new.as_array().is_some_and(|items| is_tables(items)) => {
                replace_value(item, to_value(new));
            }
            (Some(_) | None, new) => {
                table.remove(key);
                table.insert(key, to_item(new));
            }
        }
    }
}

/// Makes a list of tables say what `items` say. A table that stands for the same backend is merged, not replaced.
fn merge_list(list: &mut ArrayOfTables, items: &[Json]) {
    let mut old: Vec<Option<Table>> = list.iter().cloned().map(Some).collect();
    list.clear();
    for (index, item) in items.iter().enumerate() {
        let Json::Object(map) = item else { continue };
        let wanted = identity(item);
        let same = match &wanted {
            Some(_) => old
                .iter_mut()
                .find(|table| table.as_ref().is_some_and(|table| identity(&table_to_json(table)) == wanted)),
            None => old.get_mut(index),
        };
        match same.and_then(Option::take) {
            Some(mut table) => {
                merge(&mut table, &ordered(map));
                list.push(table);
            }
            None => list.push(new_child(&ordered(map))),
        }
    }
}

/// What tells a backend from another: its name, which is its first address if it has none of its own.
fn identity(item: &Json) -> Option<String> {
    let address = || {
        let address = item.get("address")?;
        address.as_array().map_or(Some(address), |items| items.first())?.as_str()
    };
    item.get("name").and_then(Json::as_str).or_else(address).map(str::to_owned)
}

/// Lets every table below follow its parent, so that the file has them in the list's order.
fn release_children(table: &mut Table) {
    for (_, item) in table.iter_mut() {
        match item {
            Item::Table(child) => {
                child.set_position(None);
                release_children(child);
            }
            Item::ArrayOfTables(children) => {
                for child in children.iter_mut() {
                    child.set_position(None);
                    release_children(child);
                }
            }
            Item::None | Item::Value(_) => {}
        }
    }
}

/// Whether a list is written as tables with headers: an empty one has no header to be written with.
fn is_tables(items: &[Json]) -> bool {
    !items.is_empty() && items.iter().all(Json::is_object)
}

fn new_table(entries: &Entries) -> Table {
    let mut table = Table::new();
    for (key, value) in entries {
        table.insert(key, to_item(value));
    }
    table
}

/// A table that stands right below what is above it.
fn new_child(entries: &Entries) -> Table {
    let mut table = new_table(entries);
    table.decor_mut().set_prefix("");
    table
}

fn to_item(value: &Json) -> Item {
    match value.as_array() {
        Some(items) if is_tables(items) => {
            let maps = items.iter().filter_map(Json::as_object);
            Item::ArrayOfTables(maps.map(|map| new_child(&ordered(map))).collect())
        }
        Some(_) | None => Item::Value(to_value(value)),
    }
}

fn inline(entries: &Entries) -> InlineTable {
    entries.iter().map(|(key, value)| (key.as_str(), to_value(value))).collect()
}

fn to_value(value: &Json) -> Value {
    match value {
        // Only inside a list; as an entry it has been left out. No key takes it, and the parser says so.
        Json::Null => Value::from("null"),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::from(number),
            None => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::Array(items.iter().map(to_value).collect()),
        Json::Object(map) => Value::InlineTable(inline(&ordered(map))),
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::String(text) => Json::from(text.value().as_str()),
        Value::Integer(number) => Json::from(*number.value()),
        Value::Float(number) => Json::from(*number.value()),
        Value::Boolean(flag) => Json::from(*flag.value()),
        // No key takes one, so it equals nothing that is put.
        Value::Datetime(_) => Json::Null,
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::InlineTable(table) => {
            Json::Object(table.iter().map(|(key, value)| (key.to_owned(), to_json(value))).collect())
        }
    }
}

fn table_to_json(table: &Table) -> Json {
    let values = table.iter().filter_map(|(key, item)| Some((key.to_owned(), to_json(item.as_value()?))));
    Json::Object(values.collect())
}
