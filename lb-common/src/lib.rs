//! What Drover's kernel and user space share: layouts of maps, wire formats, checksums, the flow hash, verdicts.
//!
//! Nothing here allocates, does I/O or knows of a BPF helper, so all of it is tested on the host.

#![no_std]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod bench;
pub mod checksum;
pub mod hash;
pub mod refusal;
pub mod rewrite;
pub mod tcp;
pub mod verdict;
pub mod wire;
