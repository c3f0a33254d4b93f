//! A configuration's way from a parsed text to a valid model: [`tree`] -> [`file`] -> [`model`].

mod error;
pub mod model;

pub use error::{ConfigError, Position};
