//! `drover apply` and `drover reload`, and how a change of the configuration is told.

use std::path::Path;

use hyper::Method;

use super::client::Body;
use super::{Context, Failure, INVALID, text};
use crate::api::types::{AffectedBackend, Changes};

pub async fn apply(context: &Context, file: &Path, dry_run: bool) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let message = format!("cannot read {}: {error}", file.display());
        Failure { exit: INVALID, message, answer: None }
    })?;
    let is_json = file.extension().is_some_and(|ending| ending == "json");
    let body = Body { media_type: if is_json { "application/json" } else { "application/toml" }, text };
    let answer = match dry_run {
        true => context.client.send(Method::POST, "/v1/config/check", Some(body)).await?,
        false => context.client.change(Method::PUT, "/v1/config", Some(body), "/v1/config").await?,
    };
    context.show(&answer, |answer| if dry_run { would(&answer) } else { done(&answer) })
}

pub async fn reload(context: &Context) -> Result<String, Failure> {
    let answer = context.client.send(Method::POST, "/v1/config/reload", None).await?;
    context.show(&answer, |answer| done(&answer))
}

/// What was changed.
pub fn done(changes: &Changes) -> String {
    let generation = changes.config_generation;
    if changes.changes.is_empty() {
        return format!("nothing to change: configuration {generation} is in force\n");
    }
    format!("{}configuration {generation} is in force\n{}", listed(changes), orphans(changes))
}

/// What would be changed.
pub fn would(changes: &Changes) -> String {
    if changes.changes.is_empty() {
        return "valid; nothing would change\n".to_owned();
    }
    let affected: String = changes.affected.iter().map(|it| text::hang(&affected(it), 2)).collect();
    format!("{}valid; nothing was changed (dry run)\n{affected}", listed(changes))
}

/// What would become of a backend's connections.
fn affected(AffectedBackend { farm, backend, orphaned, cut }: &AffectedBackend) -> String {
    let live = |connections: u64| text::count(connections, "live connection");
    let mut parts = Vec::new();
    if *cut > 0 {
        parts.push(format!("{} would be cut", live(*cut)));
    }
    if *orphaned > 0 {
        parts.push(format!("{} would go on until they end", live(*orphaned)));
    }
    format!("farm '{farm}': backend '{backend}': {}", parts.join(", "))
}

fn listed(changes: &Changes) -> String {
    changes.changes.iter().map(|line| text::hang(line, 2)).collect()
}

fn orphans(changes: &Changes) -> String {
    match changes.orphaned_connections {
        0 => String::new(),
        n => format!("{} to backends taken out go on until they end\n", text::count(n, "live connection")),
    }
}
