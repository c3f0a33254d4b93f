//! Drover's decisions, without I/O, clock or runtime.
//!
//! The daemon's edges (`lb-daemon`) feed events and the time in, and carry the answers out. Everything here
//! is a function of its arguments, so that tables and properties can test it.

#![forbid(unsafe_code)]

pub mod change;
pub mod config;
pub mod departed;
pub mod desired;
pub mod diff;
pub mod explain;
pub mod health;
pub mod ills;
pub mod maglev;
pub mod quota;
pub mod rotation;
pub mod seats;
pub mod sizing;
pub mod standing;
pub mod state;
#[cfg(test)]
mod test_config;
