//! A parsed file before anybody has judged it, the same for every format.

use super::error::Position;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where the value begins; of a TOML table, its header.
    pub position: Option<Position>,
    pub value: Value,
}

/// The name of an entry and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    pub name: String,
    pub position: Option<Position>,
}

/// What a configuration file can hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Names should be unique; of a repeated one only the first is read.
    Table(Vec<(Key, Node)>),
    Array(Vec<Node>),
    String(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// Something that no key takes, by name: `null`, `a date`.
    Other(&'static str),
}

impl Node {
    /// The entry of that name, if this is a table that has one.
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node),
            Value::Array(_)
            | Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Bool(_)
            | Value::Other(_) => None,
        }
    }
}

impl Value {
    /// The value as an error names it: short, and on one line.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Table(_) => "a table".to_owned(),
            Self::Array(items) if items.is_empty() => "an empty list".to_owned(),
            Self::Array(_) => "a list".to_owned(),
            Self::String(text) => quoted(text),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => format!("{number:?}"),
            Self::Bool(flag) => flag.to_string(),
            Self::Other(what) => (*what).to_owned(),
        }
    }
}

/// `text` in quotes, without control characters, cut after 40 characters.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
    // `escape_debug` also escapes the apostrophe, which needs none in double quotes.
    shown = shown.replace("\\'", "'");
    let more = if text.chars().nth(40).is_some() { "..." } else { "" };
    format!("\"{shown}{more}\"")
}
