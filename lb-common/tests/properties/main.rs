//! Properties of the connection table in one pair of hands: against a model that is a map, and of who takes whose place.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

mod classes;
#[path = "../common/invariants.rs"]
mod invariants;
mod loads;
#[path = "../common/mapped.rs"]
mod mapped;
mod model;
mod timeouts;
mod user;
#[path = "../common/world.rs"]
mod world;
