//! Sentences for events and answers.

use lb_core::config::model::{Backend, Farm, Ports};
use lb_core::config::ports_text;

/// A backend as FarmGuardian names it: its first address, and its port or the farm's.
pub(super) fn backend(farm: &Farm, backend: &Backend) -> String {
    let port = match (backend.port, &farm.ports) {
        (Some(port), _) => port.to_string(),
        (None, Ports::All) => "*".to_owned(),
        (None, Ports::Ranges(_)) => ports_text(&farm.ports).replace(' ', ""),
    };
    match (backend.address.v4, backend.address.v6) {
        (Some(v4), _) => format!("{v4}:{port}"),
        (None, Some(v6)) => format!("[{v6}]:{port}"),
        (None, None) => format!("{}:{port}", backend.name),
    }
}

/// `1 connection`, `5 connections`.
pub(super) fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// `a`, `a and b`, `a, b and 3 more`.
pub(super) fn list(names: &[&str]) -> String {
    match names {
        [] => "nobody".to_owned(),
        [one] => (*one).to_owned(),
        [one, two] => format!("{one} and {two}"),
        [one, two, rest @ ..] => format!("{one}, {two} and {} more", rest.len()),
    }
}
