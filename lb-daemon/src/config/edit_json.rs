//! Edits of one farm in JSON: the farm's part of the text is replaced, and every other byte stays.

use std::ops::Range;

use lb_core::config::model::FarmName;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::edit::{Edit, EditError, Entries, not_found, ordered};
use super::json::{self, Slice};

pub fn edit(text: &str, farm: &FarmName, edit: &Edit) -> Result<String, EditError> {
    // Whatever can be wrong with the text as JSON, this says it with its place.
    json::tree(text).map_err(EditError::Invalid)?;
    let (range, new) = splice(text, farm, edit).map_err(|error| match error {
        Failure::Refused(error) => error,
        Failure::Json(error) => EditError::Json(error.to_string()),
    })?;
    let (before, after) = (text.get(..range.start).unwrap_or(text), text.get(range.end..).unwrap_or(""));
    Ok(format!("{before}{new}{after}"))
}

enum Failure {
    Refused(EditError),
    Json(serde_json::Error),
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

/// What to replace, and by what.
fn splice(text: &str, farm: &FarmName, edit: &Edit) -> Result<(Range<usize>, String), Failure> {
    let root = Slice::whole(text)?;
    let list = root.member("farm");
    if !root.is_object() || list.is_some_and(|list| !list.is_array()) {
        return Err(Failure::Refused(EditError::NoList));
    }
    let farms = match list {
        Some(list) => list.items()?,
        None => Vec::new(),
    };
    let names: Vec<_> =
        farms.iter().map(|farm| farm.member("name").and_then(|name| name.string().ok())).collect();
    let index = names.iter().position(|name| name.as_deref() == Some(farm.as_str()));
    let found = index.and_then(|index| Some((index, farms.get(index)?)));
    Ok(match (edit, found) {
        (Edit::Put(entries), Some((_, old))) => {
            (old.offset..old.end(), pretty(entries, indent_at(text, old.offset))?)
        }
        (Edit::Put(entries), None) => append(text, root, list, &farms, entries)?,
        (Edit::Enable(enabled), Some((_, old))) => enable(text, old, *enabled)?,
        (Edit::Delete, Some((index, old))) => (without(text, &farms, index, old), String::new()),
        (Edit::Delete | Edit::Enable(_), None) => {
            return Err(Failure::Refused(not_found(farm, names.into_iter().flatten().collect())));
        }
    })
}

/// A further farm at the end of the list, which may be empty or missing.
fn append(
    text: &str,
    root: Slice<'_>,
    list: Option<Slice<'_>>,
    farms: &[Slice<'_>],
    entries: &Entries,
) -> Result<(Range<usize>, String), Failure> {
    if let Some(last) = farms.last() {
        let indent = indent_at(text, last.offset);
        return Ok((last.end()..last.end(), format!(",\n{indent}{}", pretty(entries, indent)?)));
    }
    if let Some(list) = list {
        let outer = indent_at(text, list.offset);
        let indent = format!("{outer}  ");
        let new = format!("[\n{indent}{}\n{outer}]", pretty(entries, &indent)?);
        return Ok((list.offset..list.end(), new));
    }
    let members = root.members()?;
    let (start, comma) = match members.last() {
        Some((_, value)) => (value.end(), ","),
        None => (root.offset + 1, ""),
    };
    let new = format!("{comma}\n  \"farm\": [\n    {}\n  ]\n", pretty(entries, "    ")?);
    Ok((start..root.end() - 1, new))
}

fn enable(text: &str, farm: &Slice<'_>, enabled: bool) -> Result<(Range<usize>, String), Failure> {
    if let Some(old) = farm.member("enabled") {
        return Ok((old.offset..old.end(), enabled.to_string()));
    }
    let members = farm.members()?;
    // A farm that has been found has a name, so it has a last member.
    let end = members.last().map_or(farm.offset + 1, |(_, value)| value.end());
    if enabled {
        return Ok((end..end, String::new()));
    }
    let first = members.first().map_or(farm.offset, |(key, _)| key.offset);
    let gap = text.get(farm.offset + 1..first).unwrap_or("");
    let gap = if gap.contains('\n') { gap } else { " " };
    Ok((end..end, format!(",{gap}\"enabled\": false")))
}

/// The text of one farm and of the comma that goes with it.
fn without(text: &str, farms: &[Slice<'_>], index: usize, farm: &Slice<'_>) -> Range<usize> {
    if let Some(next) = farms.get(index + 1) {
        return farm.offset..next.offset;
    }
    match index.checked_sub(1).and_then(|before| farms.get(before)) {
        Some(before) => before.end()..farm.end(),
        None => {
            // The last farm takes the blanks around it along.
            let blanks = |text: &str| text.len() - text.trim_start().len();
            let before = text.get(..farm.offset).unwrap_or("");
            let after = text.get(farm.end()..).unwrap_or("");
            before.trim_end().len()..farm.end() + blanks(after)
        }
    }
}

/// The blanks that the line of `offset` begins with.
fn indent_at(text: &str, offset: usize) -> &str {
    let before = text.get(..offset).unwrap_or("");
    let line = text.get(before.rfind('\n').map_or(0, |index| index + 1)..).unwrap_or("");
    line.get(..line.len() - line.trim_start_matches([' ', '\t']).len()).unwrap_or("")
}

/// A farm over several lines, all but the first of them indented.
fn pretty(entries: &Entries, indent: &str) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string_pretty(&Ordered(entries))?;
    // A line break inside a string is written as \n, so every line here is one of the layout.
    Ok(text.replace('\n', &format!("\n{indent}")))
}

struct Ordered<'a>(&'a Entries);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(key, &OrderedValue(value))?;
        }
        map.end()
    }
}

struct OrderedValue<'a>(&'a Value);

impl Serialize for OrderedValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(map) => Ordered(&ordered(map)).serialize(serializer),
            Value::Array(items) => serializer.collect_seq(items.iter().map(OrderedValue)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                self.0.serialize(serializer)
            }
        }
    }
}
