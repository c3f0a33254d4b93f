//! End to end: what the tests in `tests/tests`, the demo and the benchmarks share.
//!
//! Networks of namespaces ([`netns`], [`topology`]), real servers and clients in them ([`server`], [`traffic`]), and the
//! daemon under test ([`daemon`]), driven from outside as an operator drives it. Everything made is undone on drop, a
//! panic included. All of it needs root; nothing of it touches the machine's own interfaces.

pub mod bench;
pub mod crowd;
pub mod daemon;
pub mod distance;
pub mod flood;
pub mod frame;
pub mod http;
pub mod netns;
pub mod nginx;
pub mod pass;
pub mod scene;
pub mod server;
pub mod steady;
pub mod talker;
pub mod topology;
pub mod traffic;
pub mod tunnel;
pub mod wait;
pub mod wire;

/// Whether tests are to run at their full length, in minutes instead of seconds: the environment says `DROVER_TEST_LONG`.
pub fn is_long() -> bool {
    std::env::var_os("DROVER_TEST_LONG").is_some()
}
