//! JSON text to a tree.
//!
//! serde_json keeps no positions. What it parses here are slices of the text, one level of nesting after the other;
//! where a slice begins in the text is where its value stands.

use std::borrow::Cow;
use std::fmt;

use lb_core::config::ConfigError;
use lb_core::config::tree::{Key, Node, Value};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::lines::Lines;

/// How deep values may be nested; a configuration needs six levels.
const DEPTH_MAX: usize = 32;

/// A slice of the text that holds one value, and where it begins.
#[derive(Debug, Clone, Copy)]
pub struct Slice<'a> {
    pub offset: usize,
    pub text: &'a str,
}

impl<'a> Slice<'a> {
    /// The one value of a whole text.
    pub fn whole(text: &'a str) -> Result<Self, serde_json::Error> {
        let value: &RawValue = serde_json::from_str(text)?;
        Ok(Self { offset: 0, text }.part(value))
    }

    pub fn end(&self) -> usize {
        self.offset + self.text.len()
    }

    /// A value that was parsed out of this slice.
    fn part(&self, value: &'a RawValue) -> Self {
        // Both point into the same text, and the value not before the slice's beginning.
        let inside = value.get().as_ptr().addr().saturating_sub(self.text.as_ptr().addr());
        Self { offset: self.offset + inside, text: value.get() }
    }

    pub fn is_object(&self) -> bool {
        self.text.starts_with('{')
    }

    pub fn is_array(&self) -> bool {
        self.text.starts_with('[')
    }

    /// The items of an array.
    pub fn items(&self) -> Result<Vec<Self>, serde_json::Error> {
        let items: Vec<&'a RawValue> = serde_json::from_str(self.text)?;
        Ok(items.into_iter().map(|item| self.part(item)).collect())
    }

    /// The members of an object, each key with its quotes.
    pub fn members(&self) -> Result<Vec<(Self, Self)>, serde_json::Error> {
        let Members(members) = serde_json::from_str(self.text)?;
        Ok(members.into_iter().map(|(key, value)| (self.part(key), self.part(value))).collect())
    }

    pub fn string(&self) -> Result<String, serde_json::Error> {
        serde_json::from_str(self.text)
    }

    /// The member of that name, if this is an object that has one.
    pub fn member(&self, name: &str) -> Option<Self> {
        let members = self.is_object().then(|| self.members().ok())??;
        let (_, value) = members.into_iter().find(|(key, _)| key.string().is_ok_and(|key| key == name))?;
        Some(value)
    }
}

struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    members.push(entry);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Parses JSON. What is no JSON is one error; keys that stand twice are told all.
pub fn tree(text: &str) -> Result<Node, Vec<ConfigError>> {
    // A byte order mark is no JSON, but some editors write it. Blanks in its place keep every position.
    let text = match text.strip_prefix('\u{feff}') {
        Some(rest) => Cow::Owned(format!("   {rest}")),
        None => Cow::Borrowed(text),
    };
    let lines = Lines::new(&text);
    let mut errors = Vec::new();
    let tree = match Slice::whole(&text) {
        Ok(whole) => node(whole, String::new(), DEPTH_MAX, &lines, &mut errors),
        Err(error) => {
            errors.push(syntax_error(&error, &text, &lines));
            return Err(errors);
        }
    };
    if errors.is_empty() { Ok(tree) } else { Err(errors) }
}

fn node(
    slice: Slice<'_>,
    path: String,
    depth: usize,
    lines: &Lines<'_>,
    errors: &mut Vec<ConfigError>,
) -> Node {
    let position = Some(lines.position(slice.offset));
    let mut tell = |message: String, hint: &str| {
        errors.push(ConfigError { path: path.clone(), at: position, message, hint: Some(hint.to_owned()) });
        Value::Other("nothing")
    };
    let value = match slice.text.as_bytes().first() {
        Some(b'{' | b'[') if depth == 0 => tell("is nested too deeply".to_owned(), "remove it"),
        Some(b'{') => match slice.members() {
            Ok(members) => Value::Table(table(members, &path, depth, lines, errors)),
            Err(error) => tell(format!("not JSON: {}", plain(&error)), "mend this object"),
        },
        Some(b'[') => match slice.items() {
            Ok(items) => {
                let items = items.into_iter().enumerate();
                let read = |(index, item)| node(item, format!("{path}[{index}]"), depth - 1, lines, errors);
                Value::Array(items.map(read).collect())
            }
            Err(error) => tell(format!("not JSON: {}", plain(&error)), "mend this list"),
        },
        Some(b'"') => match slice.string() {
            Ok(text) => Value::String(text),
            Err(error) => tell(format!("not JSON: {}", plain(&error)), "mend this string"),
        },
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'n') => Value::Other("null"),
        Some(_) | None => number(slice.text),
    };
    Node { position, value }
}

fn table(
    members: Vec<(Slice<'_>, Slice<'_>)>,
    path: &str,
    depth: usize,
    lines: &Lines<'_>,
    errors: &mut Vec<ConfigError>,
) -> Vec<(Key, Node)> {
    let mut entries: Vec<(Key, Node)> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (key, value) in members {
        let position = Some(lines.position(key.offset));
        let name = match key.string() {
            Ok(name) => name,
            Err(error) => {
                let message = format!("not JSON: {}", plain(&error));
                errors.push(ConfigError { path: path.to_owned(), at: position, message, hint: None });
                continue;
            }
        };
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if !seen.insert(name.clone()) {
            let (message, hint) =
                (format!("`{name}` stands here twice"), Some("keep one of them".to_owned()));
            errors.push(ConfigError { path, at: position, message, hint });
            continue;
        }
        entries.push((Key { name, position }, node(value, path, depth - 1, lines, errors)));
    }
    entries
}

fn number(text: &str) -> Value {
    if let Ok(number) = text.parse::<i64>() {
        return Value::Integer(number);
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && text.contains(['.', 'e', 'E']) => Value::Float(number),
        Ok(_) | Err(_) => Value::Other("a number out of range"),
    }
}

/// serde_json's message without its position.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((message, _)) => message.to_owned(),
        None => text,
    }
}

fn syntax_error(error: &serde_json::Error, text: &str, lines: &Lines<'_>) -> ConfigError {
    let offset = lines.offset(error.line(), error.column());
    let at = Some(lines.position(offset));
    let closes = text.get(offset..).is_some_and(|rest| rest.starts_with(['}', ']']));
    let message = plain(error);
    let first = text.trim_start();
    let hint = if !first.starts_with('{') {
        "a JSON configuration begins with {; is it TOML? Then its name must not end in .json"
    } else if text.lines().any(is_comment) {
        "JSON has no comments: remove them, or write the configuration in TOML"
    } else if message.contains("trailing comma") || (closes && message.starts_with("key must")) {
        "remove the comma before the closing bracket"
    } else if message.starts_with("EOF") {
        "close every { [ and \" that was opened"
    } else if message.starts_with("expected `,`") {
        "put a comma between the values"
    } else {
        "put keys and texts in double quotes, and commas between"
    };
    ConfigError {
        path: String::new(),
        at,
        message: format!("not JSON: {message}"),
        hint: Some(hint.to_owned()),
    }
}

fn is_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with('#') || line.starts_with("//") || line.starts_with("/*")
}
