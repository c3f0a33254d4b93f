//! Commands as checks and hooks, with plugins that misbehave in every way known. Needs root.

mod checks;
mod hooks;
mod misbehaviour;
mod nagios;
mod scene;
