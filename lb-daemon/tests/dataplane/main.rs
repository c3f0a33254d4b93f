//! The XDP program under `BPF_PROG_TEST_RUN`, its maps filled by the real planner and applier: packet in, verdict, packet
//! out. Needs root and a bpffs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

mod affinities;
mod challenges;
mod closing;
mod cpus;
mod echo;
mod ends;
mod explain;
mod extensions;
mod floods;
mod flows;
mod forgery;
mod fragments;
mod fragments_hostile;
mod halves;
mod handshakes;
mod histories;
mod host;
mod hostile;
mod icmp;
mod icmp_hostile;
mod interfaces;
mod leaving;
mod limits;
mod lists;
mod loads;
mod modes;
mod modes_beside;
mod network;
mod packet;
mod ports;
mod refusals;
mod rig;
mod schedulers;
mod sizes;
mod strangers;
mod supervision;
mod tunnels;
mod upgrade;
