//! The XDP program under `BPF_PROG_TEST_RUN`, its maps filled by the real planner and applier: packet in, verdict, packet
//! out. Needs root and a bpffs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

mod flows;
mod hostile;
mod packet;
mod refusals;
mod rig;
