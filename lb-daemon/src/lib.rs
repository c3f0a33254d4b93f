//! The edges of Drover: what the `drover` binary is made of. Decisions are in `lb-core`.

pub mod announce;
pub mod api;
pub mod checks;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod datapath;
pub mod events;
pub mod handle;
pub mod hooks;
pub mod ills;
pub mod logging;
pub mod memory;
pub mod netlink;
pub mod network;
pub mod overrides;
pub mod pattern;
pub mod precondition;
pub mod program;
pub mod refusal;
pub mod report;
pub mod run;
pub mod secrets;
pub mod signals;
pub mod supervise;
#[cfg(test)]
mod test_net;
pub mod vitals;
