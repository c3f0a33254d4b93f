//! What a configuration needs of the host it is for: programs, users; and patterns that compile, since the crate that
//! compiles them is not one of lb-core's.
//!
//! It judges the tree, not the model: a file with a mistake elsewhere is told these mistakes as well.

use lb_core::config::model;
use lb_core::config::tree::{Node, Value};
use lb_core::config::{ConfigError, Position};

use crate::checks::program::{self, Unfit};

/// The most memory that a compiled pattern may take.
const PATTERN_SIZE_MAX: usize = 1 << 20;

/// Compiles the pattern of a check's `body_regex`. Its matching takes time linear in the body, whatever the pattern.
pub fn compile_pattern(pattern: &str) -> Result<regex::bytes::Regex, String> {
    let compiled = regex::bytes::RegexBuilder::new(pattern).size_limit(PATTERN_SIZE_MAX).build();
    compiled.map_err(|error| {
        if matches!(error, regex::Error::CompiledTooBig(_)) {
            return "it would take too much memory".to_owned();
        }
        // The parser draws the pattern over several lines; the last of them says what is wrong.
        let text = error.to_string();
        let last = text.lines().last().unwrap_or("").trim();
        last.strip_prefix("error: ").unwrap_or(last).to_owned()
    })
}

/// Every error of `root` that only the host can tell.
pub fn judge(root: &Node) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for (farm, path) in tables(root, "farm", "") {
        for (check, path) in tables(farm, "check", &path) {
            match check.get("type").and_then(string) {
                Some("command") => judge_command(check, &path, &mut errors),
                Some("http" | "https") => judge_pattern(check, &path, &mut errors),
                Some(_) | None => {}
            }
        }
        let Some(hooks) = farm.get("on_change") else { continue };
        let tables = tables(farm, "on_change", &path);
        if tables.is_empty() {
            judge_program(hooks, &format!("{path}.on_change"), None, &mut errors);
        }
        for (hook, path) in tables {
            judge_command(hook, &path, &mut errors);
        }
    }
    errors
}

/// A table that has a `command` and perhaps a `user`.
fn judge_command(table: &Node, path: &str, errors: &mut Vec<ConfigError>) {
    if let Some(command) = table.get("command") {
        judge_program(command, &format!("{path}.command"), Some((table, path)), errors);
    }
}

/// A program and who runs it; `table` is where a `user` may stand.
fn judge_program(command: &Node, path: &str, table: Option<(&Node, &str)>, errors: &mut Vec<ConfigError>) {
    let first = match &command.value {
        Value::Array(items) => items.first().map(|first| (first, format!("{path}[0]"))),
        Value::String(_) => Some((command, path.to_owned())),
        Value::Table(_) | Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::Other(_) => None,
    };
    // What is no command at all, lb-core has said.
    let Some((first, path)) = first else { return };
    let Some(name) = string(first).filter(|name| !name.is_empty()) else { return };
    let place = first.position.or(command.position);
    let user = match table.and_then(|(table, path)| Some((table.get("user")?, format!("{path}.user")))) {
        Some((node, path)) => match string(node).map(program::find_user) {
            Some(Err(unfit)) => {
                errors.push(error(path, node.position.or(place), unfit));
                None
            }
            Some(Ok(user)) => Some(user),
            None => None,
        },
        None => match program::find_user(model::USER) {
            Err(unfit) => {
                errors.push(error(path.clone(), place, unfit));
                return;
            }
            Ok(user) => Some(user),
        },
    };
    let found = program::find(name).and_then(|file| match &user {
        Some(user) => program::judge_user(&file, user),
        None => Ok(()),
    });
    if let Err(unfit) = found {
        errors.push(error(path, place, unfit));
    }
}

fn judge_pattern(check: &Node, path: &str, errors: &mut Vec<ConfigError>) {
    let Some(node) = check.get("body_regex") else { return };
    let Some(Err(why)) = string(node).map(compile_pattern) else { return };
    let message = format!("is not a pattern: {why}");
    let hint = "mend it, or write `body` for a text that is looked for as it is".to_owned();
    errors.push(error(format!("{path}.body_regex"), node.position, Unfit { message, hint }));
}

fn error(path: String, at: Option<Position>, unfit: Unfit) -> ConfigError {
    ConfigError { path, at, message: unfit.message, hint: Some(unfit.hint) }
}

/// The tables in the list that is the entry `key` of `node`, each with its path; a single one is a list of one.
fn tables<'a>(node: &'a Node, key: &str, path: &str) -> Vec<(&'a Node, String)> {
    let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let is_table = |node: &Node| matches!(node.value, Value::Table(_));
    let Some(entry) = node.get(key) else { return Vec::new() };
    match &entry.value {
        Value::Array(items) => {
            let items = items.iter().enumerate().filter(|(_, item)| is_table(item));
            items.map(|(index, item)| (item, format!("{path}[{index}]"))).collect()
        }
        Value::Table(_) => vec![(entry, path)],
        Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::Other(_) => {
            Vec::new()
        }
    }
}

fn string(node: &Node) -> Option<&str> {
    match &node.value {
        Value::String(text) => Some(text),
        Value::Table(_)
        | Value::Array(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Bool(_)
        | Value::Other(_) => None,
    }
}
