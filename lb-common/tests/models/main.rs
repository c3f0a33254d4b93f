//! Models of the connection table: what several do at the same time is played in every order (loom), and the table is looked
//! at in the end. Memory is as x86 has it; how far other processors may go, `faults.rs` says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

mod cast;
mod cpu;
mod crowds;
mod deeds;
mod faults;
#[path = "../common/invariants.rs"]
mod invariants;
mod memory;
mod pairs;
mod scene;
