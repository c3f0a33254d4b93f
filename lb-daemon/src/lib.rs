//! The edges of Drover: what the `drover` binary is made of. Decisions are in `lb-core`.

pub mod announce;
pub mod checks;
pub mod cli;
pub mod clock;
pub mod config;
pub mod datapath;
pub mod handle;
pub mod netlink;
#[cfg(test)]
mod test_net;
