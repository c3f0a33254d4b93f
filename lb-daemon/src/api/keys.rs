//! What the description of the API says of the configuration's keys, made of their table.

use lb_core::config::keys::{self, Key, Schema, Takes};
use serde_json::{Map, Value, json};

/// The types of the API that have a table's keys, and the name under which the table itself is described.
const TYPES: [(&str, &str, &Schema); 9] = [
    ("DaemonSettings", "DaemonKeys", &keys::DAEMON),
    ("FarmSettings", "FarmKeys", &keys::FARM),
    ("AffinitySettings", "AffinityKeys", &keys::AFFINITY),
    ("TimeoutSettings", "TimeoutKeys", &keys::TIMEOUTS),
    ("LimitSettings", "LimitKeys", &keys::LIMITS),
    ("PassiveSettings", "PassiveKeys", &keys::PASSIVE),
    ("HookSettings", "HookKeys", &keys::ON_CHANGE),
    ("BackendSettings", "BackendKeys", &keys::BACKEND),
    ("CheckSettings", "CheckKeys", &keys::CHECK),
];

/// Adds to an OpenAPI description what each key means and takes: in the answers that spell a configuration out, where those
/// that hold one plain value have no field of their own, and of the farm that is put.
pub fn describe(openapi: &mut Value) {
    let Some(types) = openapi.pointer_mut("/components/schemas").and_then(Value::as_object_mut) else {
        return;
    };
    for (answer, _, schema) in TYPES {
        let properties =
            types.get_mut(answer).and_then(|it| it.get_mut("properties")).and_then(Value::as_object_mut);
        let Some(properties) = properties else { continue };
        let plain = schema.keys.iter().filter(|key| key.place.is_some());
        let plain: Vec<&str> =
            plain.map(|key| key.name).filter(|name| !properties.contains_key(*name)).collect();
        for name in &plain {
            let kind = schema.key(name).and_then(|key| kinds(key).first());
            properties.insert((*name).to_owned(), json!({"type": kind}));
        }
        for (name, property) in properties.iter_mut() {
            if let (Some(key), Some(property)) = (schema.key(name), property.as_object_mut()) {
                property.extend(told(key, schema));
            }
        }
        if let Some(required) =
            types.get_mut(answer).and_then(|it| it.get_mut("required")).and_then(Value::as_array_mut)
        {
            required.extend(plain.into_iter().map(Value::from));
        }
    }
    for (_, put, schema) in TYPES {
        types.insert(put.to_owned(), table(schema));
    }
    let body =
        openapi.pointer_mut("/paths/~1v1~1farms~1{farm}/put/requestBody/content/application~1json/schema");
    if let Some(body) = body {
        *body = reference("FarmKeys");
    }
}

/// What an answer's property says of its key. An answer spells lists out: what may be written in their place is not said.
fn told(key: &Key, schema: &Schema) -> Map<String, Value> {
    let mut told = Map::new();
    let limits = key.limits();
    let gap = if limits.is_empty() { "" } else { " " };
    // The same name in another type of check.
    let others = schema.keys.iter().filter(|other| other.name == key.name && !std::ptr::eq(*other, key));
    let words: Vec<String> = std::iter::once(key)
        .chain(others)
        .map(|key| match key.of {
            [] => format!("{}{gap}{limits}", key.words),
            types => format!("Of {}: {}{gap}{limits}", types.join(", "), key.words),
        })
        .collect();
    told.insert("description".to_owned(), words.join(" ").into());
    match key.takes {
        Takes::Number { least, most, .. } => {
            told.insert("minimum".to_owned(), least.into());
            told.insert("maximum".to_owned(), most.into());
        }
        Takes::Word { words, .. } => {
            told.insert("enum".to_owned(), words().into());
        }
        Takes::Boolean(_) | Takes::Duration { .. } | Takes::Text { .. } | Takes::Other { .. } => {}
    }
    told
}

/// A table as it may be sent.
fn table(schema: &Schema) -> Value {
    let property = |name: &&str| Some(((*name).to_owned(), property(schema.key(name)?, schema)));
    let properties: Map<String, Value> = schema.names().iter().filter_map(property).collect();
    // Of a farm the path has the name; and what one type of check requires, others do not have.
    let required = |key: &&Key| key.absent == Some("required") && key.of.is_empty() && key.name != "name";
    let required: Vec<&str> = schema.keys.iter().filter(required).map(|key| key.name).collect();
    json!({
        "type": "object",
        "description": if schema.title.starts_with('[') { format!("The keys of {}", schema.title) } else { format!("The keys of `{}`", schema.title) },
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(key: &Key, schema: &Schema) -> Value {
    let mut property = told(key, schema);
    let kinds = kinds(key);
    let below = TYPES.iter().find(|(_, _, below)| header(below) == (schema.title, key.name));
    match below {
        Some((_, name, _)) if kinds == ["object"] => {
            property.insert("allOf".to_owned(), json!([reference(name)]));
        }
        Some((_, name, _)) if kinds == ["array"] => {
            property.insert("type".to_owned(), "array".into());
            property.insert("items".to_owned(), reference(name));
        }
        // Null is as good as a key that is not there.
        Some(_) | None => {
            // A hook is a list of words, or tables.
            let more = if below.is_some() { &["object", "null"][..] } else { &["null"] };
            property.insert("type".to_owned(), kinds.iter().chain(more).copied().collect());
        }
    }
    if let Some(Value::Array(words)) = property.get_mut("enum") {
        words.push(Value::Null);
    }
    if let Some(default) = key.default().and_then(|text| serde_json::from_str::<Value>(&text).ok()) {
        property.insert("default".to_owned(), default);
    }
    Value::Object(property)
}

/// The types of JSON that a key takes.
fn kinds(key: &Key) -> &'static [&'static str] {
    match key.takes {
        Takes::Boolean(_) => &["boolean"],
        Takes::Number { .. } => &["integer"],
        Takes::Duration { .. } | Takes::Word { .. } | Takes::Text { .. } => &["string"],
        Takes::Other { json, .. } => json,
    }
}

/// In which table, and under which key, a table stands.
fn header(schema: &Schema) -> (&'static str, &'static str) {
    match schema.title {
        "[[farm.backend]]" => (keys::FARM.title, "backend"),
        "[[farm.check]]" => (keys::FARM.title, "check"),
        "[[farm]]" => ("", "farm"),
        "[daemon]" => ("", "daemon"),
        title => (keys::FARM.title, title),
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}
