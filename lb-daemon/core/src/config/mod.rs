//! A configuration's way from a parsed text to a valid model: [`tree`] -> [`file`] -> [`model`].
//!
//! The daemon's edge parses TOML or JSON into a [`tree::Node`]; [`read`] makes a [`model::Config`] of it or says
//! everything that is wrong. [`changes`] tells people what differs between two models.

mod address;
mod changes;
mod check;
mod draft;
mod error;
mod fields;
pub mod file;
mod http;
pub mod keys;
pub mod limits;
mod lists;
pub mod model;
mod overlap;
mod ports;
mod probe;
mod reaction;
pub mod renames;
mod rules;
mod text;
pub mod tree;

pub use changes::{changes, needs_restart};
pub use error::{ConfigError, Position};
pub use file::read;
pub use text::{duration_text, grouped, ports_text};
