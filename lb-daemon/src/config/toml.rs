//! TOML text to a tree.

use lb_core::config::ConfigError;
use lb_core::config::tree::{Key, Node, Value};
use toml::de::{DeInteger, DeTable, DeValue, Error};

use super::lines::Lines;

/// Parses TOML. Of what is no TOML the first error is told, since the rest is often what follows from it; keys
/// that stand twice are told all.
pub fn tree(text: &str) -> Result<Node, Vec<ConfigError>> {
    let lines = Lines::new(text);
    let (table, mut errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let mut root = node(&DeValue::Table(table.into_inner()), 0, &lines);
        // The parser's place for the whole file is empty; missing tables are told at its beginning.
        root.position = Some(lines.position(0));
        return Ok(root);
    }
    errors.sort_by_key(start);
    if !errors.iter().all(is_duplicate) {
        errors.retain(|error| !is_duplicate(error));
        errors.truncate(1);
    }
    Err(errors.iter().map(|error| explain(error, text, &lines)).collect())
}

fn start(error: &Error) -> usize {
    error.span().map_or(0, |span| span.start)
}

fn is_duplicate(error: &Error) -> bool {
    error.message().starts_with("duplicate key")
}

fn node(value: &DeValue<'_>, offset: usize, lines: &Lines<'_>) -> Node {
    let value = match value {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Integer(number) => integer(number),
        DeValue::Float(number) => match number.as_str().replace('_', "").parse() {
            Ok(number) => Value::Float(number),
            Err(_) => Value::Other("a number out of range"),
        },
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|item| node(item.get_ref(), item.span().start, lines)).collect())
        }
        DeValue::Table(table) => Value::Table(
            table
                .iter()
                .map(|(key, value)| {
                    let position = Some(lines.position(key.span().start));
                    let key = Key { name: key.get_ref().clone().into_owned(), position };
                    (key, node(value.get_ref(), value.span().start, lines))
                })
                .collect(),
        ),
    };
    Node { position: Some(lines.position(offset)), value }
}

fn integer(number: &DeInteger<'_>) -> Value {
    match i64::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) => Value::Integer(number),
        Err(_) => Value::Other("a number out of range"),
    }
}

/// The parser's error in words for people, and what to do.
fn explain(error: &Error, text: &str, lines: &Lines<'_>) -> ConfigError {
    let span = error.span().unwrap_or(0..0);
    let at = Some(lines.position(span.start));
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |index| index + 1);
    let line = text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or("").trim();
    let word = text.get(span).unwrap_or("");
    let tell = |message: String, hint: Option<String>| ConfigError { path: String::new(), at, message, hint };
    if is_duplicate(error) {
        let hint = match word {
            "farm" => "begin each farm with [[farm]], two brackets on each side".to_owned(),
            "backend" => "begin each backend with [[farm.backend]], two brackets on each side".to_owned(),
            "check" => "begin each check with [[farm.check]], two brackets on each side".to_owned(),
            _ => "keep one of them".to_owned(),
        };
        return tell(format!("`{word}` stands here twice"), Some(hint));
    }
    tell(format!("not TOML: {}", plain(error.message())), syntax_hint(error.message(), text, line))
}

/// The parser's message without its list of single characters.
fn plain(message: &str) -> &str {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    if what.starts_with("string values must be quoted") || expected.len() > 30 || expected == "nothing" {
        return what;
    }
    message
}

fn syntax_hint(message: &str, text: &str, line: &str) -> Option<String> {
    if text.trim_start().starts_with('{') {
        return Some("this looks like JSON: give the file a name that ends in .json".to_owned());
    }
    if line.starts_with('[') && (message.starts_with("unclosed") || message.contains("table")) {
        return Some("write headers as [daemon] or [[farm]], with as many brackets at the end".to_owned());
    }
    if message.contains("string") && !message.starts_with("string values") {
        return Some("end the string with the quote it began with, on the same line".to_owned());
    }
    if let Some((key, value)) = line.split_once('=') {
        let (key, value) = (key.trim(), value.split('#').next().unwrap_or("").trim());
        if value.is_empty() {
            return Some(format!("write a value after `{key} =`"));
        }
        match value.to_ascii_lowercase().as_str() {
            "yes" | "on" | "true" => return Some(format!("write {key} = true")),
            "no" | "off" | "false" => return Some(format!("write {key} = false")),
            _ => {}
        }
        let simple = |c: char| c.is_ascii_alphanumeric() || ".:/_-*".contains(c);
        if value.chars().all(simple) {
            return Some(format!("put it in quotes: {key} = \"{value}\""));
        }
        if message.contains("array") {
            return Some(
                "write lists as [\"a\", \"b\"], with a comma between and a bracket at the end".to_owned(),
            );
        }
        return None;
    }
    if message.starts_with("key with no value") || message.starts_with("invalid") {
        return Some(
            "every line is a header as [daemon] or [[farm]], key = value, or a # comment".to_owned(),
        );
    }
    None
}
