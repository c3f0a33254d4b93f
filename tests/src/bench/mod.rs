//! The benchmarks: what a packet costs in the program ([`cost`]), and how many a machine forwards ([`forward`]).
//!
//! Everything is measured against something else in the same run, turn by turn, since absolute times belong to a machine and
//! an hour. `src/bin/bench.rs` runs it; [`report`] says what came out, for people and for scripts.

pub mod balancer;
pub mod cost;
pub mod forward;
pub mod object;
pub mod packet;
pub mod report;
pub mod rows;
