//! TOML text to a tree.

use lb_core::config::ConfigError;
use lb_core::config::tree::{Key, Node, Value};
use toml::de::{DeInteger, DeTable, DeValue, Error};

use super::lines::Lines;

/// Parses TOML. Of what is no TOML the first error is told, since the rest is often what follows from it; keys
/// that stand twice are told all.
pub fn tree(text: &str) -> Result<Node, Vec<ConfigError>> {
    let lines = Lines::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let mut root = node(&DeValue::Table(table.into_inner()), 0, &lines);
        // The parser's place for the whole file is empty; missing tables are told at its beginning.
        root.position = Some(lines.position(0));
        return Ok(root);
    }
    Err(told(errors, text).iter().map(|error| explain(error, text, &lines)).collect())
}

/// Of the parser's errors those that are not what follows from others.
fn told(mut errors: Vec<Error>, text: &str) -> Vec<Error> {
    errors.sort_by_key(start);
    if errors.iter().all(is_duplicate) {
        // The keys of a table that stands twice are joined, and so stand twice as well.
        let of_table = |error: &Error| line_at(text, start(error)).1.trim_start().starts_with('[');
        if errors.iter().any(of_table) {
            errors.retain(of_table);
        }
        return errors;
    }
    errors.retain(|error| !is_duplicate(error));
    let (begin, line) = line_at(text, errors.first().map_or(0, start));
    errors.retain(|error| start(error) <= begin + line.len());
    // A string that does not end swallows the brackets after it.
    let string = errors.iter().position(is_string).unwrap_or(0);
    errors.into_iter().skip(string).take(1).collect()
}

fn start(error: &Error) -> usize {
    error.span().map_or(0, |span| span.start)
}

/// The line around an offset: where it begins, and its text.
fn line_at(text: &str, offset: usize) -> (usize, &str) {
    let before = text.get(..offset).unwrap_or(text);
    let begin = before.rfind('\n').map_or(0, |index| index + 1);
    (begin, text.get(begin..).and_then(|rest| rest.lines().next()).unwrap_or(""))
}

fn is_duplicate(error: &Error) -> bool {
    error.message().starts_with("duplicate key")
}

fn is_string(error: &Error) -> bool {
    ["invalid basic string", "invalid literal string", "invalid multi-line"]
        .iter()
        .any(|start| error.message().starts_with(start))
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
    let offset = start(error);
    let tell = |offset, message: String, hint: Option<String>| {
        let at = Some(lines.position(offset));
        ConfigError { path: String::new(), at, message, hint }
    };
    if is_duplicate(error) {
        let word = error.span().and_then(|span| text.get(span)).unwrap_or("");
        let hint = match word {
            "farm" => "begin each farm with [[farm]], two brackets on each side".to_owned(),
            "backend" => "begin each backend with [[farm.backend]], two brackets on each side".to_owned(),
            "check" => "begin each check with [[farm.check]], two brackets on each side".to_owned(),
            _ => "keep one of them".to_owned(),
        };
        return tell(offset, format!("`{word}` stands here twice"), Some(hint));
    }
    let (begin, line) = line_at(text, offset);
    let message = format!("not TOML: {}", plain(error.message()));
    match unquoted(line) {
        Some((value_at, hint)) if offset >= begin + value_at && !error.message().contains("array") => {
            tell(begin + value_at, message, Some(hint))
        }
        Some(_) | None => tell(offset, message, syntax_hint(error, line.trim())),
    }
}

/// The parser's message without its lists of single characters.
fn plain(message: &str) -> &str {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    if what.starts_with("string values must be quoted") || expected.len() > 30 || expected == "nothing" {
        return what;
    }
    message
}

/// Where in a line `key = value` a value begins that should have been quoted, and what to write instead.
fn unquoted(line: &str) -> Option<(usize, String)> {
    let (left, right) = line.split_once('=')?;
    let (key, value) = (left.trim(), right.split('#').next().unwrap_or("").trim());
    let at = left.len() + 1 + (right.len() - right.trim_start().len());
    let hint = match value.to_ascii_lowercase().as_str() {
        "" => format!("write a value after `{key} =`"),
        "yes" | "on" | "true" => format!("write {key} = true"),
        "no" | "off" | "false" => format!("write {key} = false"),
        _ if value.chars().all(|c| c.is_ascii_alphanumeric() || ".:/_-*".contains(c)) => {
            format!("put it in quotes: {key} = \"{value}\"")
        }
        _ => return None,
    };
    Some((at, hint))
}

fn syntax_hint(error: &Error, line: &str) -> Option<String> {
    let message = error.message();
    let hint = if line.starts_with('{') {
        "this looks like JSON: give the file a name that ends in .json"
    } else if is_string(error) {
        "end the string with the quote it began with, on the same line"
    } else if message.contains("array element")
        || message.contains("unclosed array, ")
        || message.contains("in array")
    {
        "write lists as [\"a\", \"b\"], with a comma between and a bracket at the end"
    } else if line.starts_with('[') {
        "write headers as [daemon] or [[farm]], with as many brackets at the end"
    } else if !line.contains('=') {
        "every line is a header as [daemon] or [[farm]], key = value, or a # comment"
    } else if message.starts_with("string values must be quoted") {
        "put texts in double quotes"
    } else {
        return None;
    };
    Some(hint.to_owned())
}
