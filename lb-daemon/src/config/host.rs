//! What a configuration needs of the host that it is for: programs, and users that run them.
//!
//! A text is judged by its tree, and not by its model: a file with a mistake elsewhere is told these mistakes as well. What
//! runs is judged by its model, again and again, since the host changes.

use std::cell::LazyCell;
use std::collections::HashMap;

use lb_core::config::model::{CheckKind, Config, FarmName, USER};
use lb_core::config::tree::{Node, Value};
use lb_core::config::{ConfigError, Position};

use super::own;
use crate::pattern;
use crate::program::{self, Unfit};

/// Something that a farm needs of this host and that is not there or cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defect {
    pub farm: FarmName,
    /// The key, within the farm, as in `check[0].command`.
    pub path: String,
    pub unfit: Unfit,
}

/// Every defect of the farms that are enabled. Those that are not run no commands.
pub fn defects_of(config: &Config) -> Vec<Defect> {
    // Farms often share a program.
    let mut known: HashMap<(&str, &str), Vec<(About, Unfit)>> = HashMap::new();
    let mut defects = Vec::new();
    for farm in config.farms.iter().filter(|farm| farm.enabled) {
        let checks = farm.checks.iter().enumerate().filter_map(|(index, check)| match &check.kind {
            CheckKind::Command(command) => Some((format!("check[{index}]"), &command.command, &command.user)),
            CheckKind::Tcp
            | CheckKind::Http(_)
            | CheckKind::Tls { .. }
            | CheckKind::Udp { .. }
            | CheckKind::Dns { .. }
            | CheckKind::Icmp
            | CheckKind::Smtp { .. }
            | CheckKind::Imap { .. }
            | CheckKind::Pop3 { .. } => None,
        });
        let hooks = farm.on_change.iter().enumerate();
        let hooks = hooks.map(|(index, hook)| (format!("on_change[{index}]"), &hook.command, &hook.user));
        for (path, command, user) in checks.chain(hooks) {
            let Some(program) = command.first() else { continue };
            let found = known.entry((program, user)).or_insert_with(|| unfits(program, user));
            defects.extend(found.iter().map(|(about, unfit)| {
                let key = match about {
                    About::User => "user",
                    About::Program => "command",
                };
                Defect { farm: farm.name.clone(), path: format!("{path}.{key}"), unfit: unfit.clone() }
            }));
        }
    }
    defects
}

/// An error in the text, and the number of the farm in which it stands.
type Placed = (usize, ConfigError);

/// Every defect of `root`'s farms.
pub fn defects(root: &Node) -> Vec<Placed> {
    let mut errors = Vec::new();
    let addresses = LazyCell::new(own::addresses);
    for (index, farm, path) in farms(root) {
        let mut own = Vec::new();
        for (backend, path) in tables(farm, "backend", &path).into_iter().filter(|_| own::is_tunnel(farm)) {
            let found = own::judge(backend, &path, &addresses);
            own.extend(
                found
                    .into_iter()
                    .map(|(node, path, unfit)| error(path, node.position.or(backend.position), unfit)),
            );
        }
        for (check, path) in tables(farm, "check", &path) {
            if check.get("type").and_then(string) == Some("command") {
                judge_command(check, &path, &mut own);
            }
        }
        if let Some(hooks) = farm.get("on_change") {
            let tables = tables(farm, "on_change", &path);
            if tables.is_empty() {
                judge_program(hooks, &format!("{path}.on_change"), None, &mut own);
            }
            for (hook, path) in tables {
                judge_command(hook, &path, &mut own);
            }
        }
        errors.extend(own.into_iter().map(|error| (index, error)));
    }
    errors
}

/// Every pattern of `root` that does not compile: a mistake of the text, whatever the host.
pub fn patterns(root: &Node) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for (_, farm, path) in farms(root) {
        for (check, path) in tables(farm, "check", &path) {
            if let Some("http" | "https") = check.get("type").and_then(string) {
                judge_pattern(check, &path, &mut errors);
            }
        }
    }
    errors
}

fn farms(root: &Node) -> impl Iterator<Item = (usize, &Node, String)> {
    tables(root, "farm", "").into_iter().enumerate().map(|(index, (farm, path))| (index, farm, path))
}

/// Whose fault it is that a command cannot be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    User,
    Program,
}

/// All that stands in the way of running `program` as `user`.
fn unfits(program: &str, user: &str) -> Vec<(About, Unfit)> {
    let mut unfits = Vec::new();
    let user = match program::find_user(user) {
        Ok(user) => Some(user),
        Err(unfit) => {
            unfits.push((About::User, unfit));
            None
        }
    };
    let found = program::find(program).and_then(|file| match &user {
        Some(user) => program::judge_user(&file, user),
        None => Ok(()),
    });
    unfits.extend(found.err().map(|unfit| (About::Program, unfit)));
    unfits
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
    let own = table.and_then(|(table, path)| Some((table.get("user")?, format!("{path}.user"))));
    let user = match &own {
        Some((node, _)) => string(node),
        None => Some(USER),
    };
    // What is no user's name at all, lb-core has said, too.
    let Some(user) = user else { return };
    for (about, unfit) in unfits(name, user) {
        errors.push(match (about, &own) {
            (About::User, Some((node, path))) => error(path.clone(), node.position.or(place), unfit),
            (About::User, None) | (About::Program, _) => error(path.clone(), place, unfit),
        });
    }
}

fn judge_pattern(check: &Node, path: &str, errors: &mut Vec<ConfigError>) {
    let Some(node) = check.get("body_regex") else { return };
    let Some(Err(why)) = string(node).map(pattern::compile) else { return };
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
