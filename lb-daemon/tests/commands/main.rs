//! Commands as checks and hooks, with plugins that misbehave in every way known. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

mod checks;
mod hooks;
mod misbehaviour;
mod nagios;
mod scene;
