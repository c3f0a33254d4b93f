//! The benchmarks: what a packet costs in the program ([`cost`]), how many packets a machine forwards ([`forward`]), and how
//! many requests are answered through it ([`http`]).
//!
//! Everything is measured against something else in the same run, turn by turn, since absolute times belong to a machine and
//! an hour. `src/bin/bench.rs` runs it; [`report`] says what came out, for people and for scripts.

pub mod balancer;
pub mod bar;
pub mod case;
pub mod cost;
pub mod forward;
pub mod http;
pub mod object;
pub mod packet;
pub mod report;
pub mod rows;
