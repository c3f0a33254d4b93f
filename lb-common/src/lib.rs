//! What Drover's kernel and user space share: layouts of maps, the connection table, wire formats, checksums, the flow hash,
//! the rules of TCP connections, verdicts.
//!
//! Nothing here allocates, does I/O or knows of a BPF helper, so all of it is tested on the host.

#![no_std]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod affinity;
pub mod bench;
pub mod bucket;
pub mod challenge;
pub mod checksum;
pub mod direct;
pub mod fragment;
pub mod hash;
pub mod icmp;
pub mod load;
pub mod refusal;
pub mod table;
pub mod tcp;
pub mod trace;
pub mod tunnel;
pub mod udp;
pub mod verdict;
pub mod wire;
