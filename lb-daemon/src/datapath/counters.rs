//! What backends carried, read for many of them by one system call: passive health looks several times a second, and a call for
//! each of thousands was most of what the daemon did at rest.
//!
//! The only use of `bpf(2)` that aya has no name for.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use anyhow::Context as _;
use aya::maps::{MapData, PerCpuArray};
use lb_common::abi::{BackendCounters, map};
use lb_core::health::passive::{Pulse, Volume};
use lb_core::state::Traffic;

use super::maps;

/// `BPF_MAP_LOOKUP_BATCH`, linux/bpf.h; for arrays of CPUs since Linux 5.13.
const LOOKUP_BATCH: libc::c_long = 24;
/// So many numbers that nobody wants are read along sooner than another call is made.
const GAP: u16 = 64;
/// So many are read by one call at most.
const RUN: usize = 1024;

/// Of `union bpf_attr`, what that command takes; linux/bpf.h.
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The map `COUNTERS`.
pub(super) struct Counters {
    map: MapData,
    /// The same, for a kernel that has no batches.
    one_by_one: PerCpuArray<MapData, BackendCounters>,
    cpus: usize,
}

impl Counters {
    pub fn open(pins: &Path) -> anyhow::Result<Self> {
        let cpus = aya::util::nr_cpus().map_err(|(file, error)| error_in(file, error))?;
        let map = maps::pinned(pins, map::COUNTERS)?;
        let size = map.info()?.value_size() as usize;
        anyhow::ensure!(size == size_of::<BackendCounters>(), "{} has values of {size} bytes", map::COUNTERS);
        Ok(Self { map, one_by_one: maps::per_cpu(pins, map::COUNTERS)?, cpus })
    }

    /// Of one backend, by number.
    pub fn get(&self, id: u16) -> anyhow::Result<BackendCounters> {
        Ok(sum(self.one_by_one.get(&u32::from(id), 0)?.iter()))
    }

    /// Of many.
    pub fn of(&self, mut ids: Vec<u16>) -> anyhow::Result<HashMap<u16, BackendCounters>> {
        ids.sort_unstable();
        ids.dedup();
        let mut found = HashMap::with_capacity(ids.len());
        for run in runs(&ids) {
            let (Some(&first), Some(&last)) = (run.first(), run.last()) else { continue };
            match self.run(first, usize::from(last - first) + 1) {
                Ok(all) => {
                    found.extend(run.iter().filter_map(|id| Some((*id, *all.get(usize::from(id - first))?))));
                }
                Err(_older_kernel) => {
                    for id in run {
                        found.insert(*id, self.get(*id)?);
                    }
                }
            }
        }
        Ok(found)
    }

    /// `count` of them, from `first`.
    fn run(&self, first: u16, count: usize) -> anyhow::Result<Vec<BackendCounters>> {
        let mut keys = vec![0u32; count];
        let mut values = vec![BackendCounters::default(); count * self.cpus];
        // The kernel goes on after the key that it is given.
        let (before, mut after) = (u32::from(first).wrapping_sub(1), 0u32);
        let mut attr = BatchAttr {
            in_batch: if first == 0 { 0 } else { address(&raw const before) },
            out_batch: address(&raw mut after),
            keys: address(keys.as_mut_ptr()),
            values: address(values.as_mut_ptr()),
            count: u32::try_from(count)?,
            map_fd: u32::try_from(self.map.fd().as_fd().as_raw_fd())?,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel reads `attr` and `before`, and writes `after`, `count` keys of 4 bytes, and for each of them a value
        // of `size_of::<BackendCounters>()` bytes, a multiple of 8, for each possible CPU; all of them live until it returns.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut attr, size_of::<BatchAttr>()) };
        let error = io::Error::last_os_error();
        // At the end of the map it says that there is no more.
        if result != 0 && error.raw_os_error() != Some(libc::ENOENT) {
            return Err(error).context("reading the counters of many backends");
        }
        anyhow::ensure!(
            attr.count as usize == count && keys.first() == Some(&u32::from(first)),
            "not all are there"
        );
        Ok(values.chunks(self.cpus).map(|of_cpus| sum(of_cpus.iter())).collect())
    }
}

fn error_in(file: &str, error: io::Error) -> anyhow::Error {
    anyhow::Error::from(error).context(format!("cannot read {file}"))
}

fn address<T>(of: *const T) -> u64 {
    of.expose_provenance() as u64
}

/// Parts of `ids`, which are in order, that are worth a call each.
fn runs(ids: &[u16]) -> Vec<&[u16]> {
    let mut runs = Vec::new();
    let mut rest = ids;
    while let Some(&first) = rest.first() {
        let fits = |pair: &[u16]| pair[1] - pair[0] <= GAP && usize::from(pair[1] - first) < RUN;
        let end = 1 + rest.windows(2).take_while(|pair| fits(pair)).count();
        let (run, others) = rest.split_at(end);
        runs.push(run);
        rest = others;
    }
    runs
}

fn sum<'a>(of_cpus: impl Iterator<Item = &'a BackendCounters>) -> BackendCounters {
    let mut sum = BackendCounters::default();
    for cpu in of_cpus {
        for direction in [0, 1] {
            sum.packets[direction] += cpu.packets[direction];
            sum.bytes[direction] += cpu.bytes[direction];
        }
        sum.opened += cpu.opened;
        sum.handshakes += cpu.handshakes;
        sum.answered += cpu.answered;
        sum.reset += cpu.reset;
    }
    sum
}

/// How a backend has taken its handshakes.
pub(super) fn pulse(of: &BackendCounters) -> Pulse {
    let volume = |direction: usize| Volume { frames: of.packets[direction], bytes: of.bytes[direction] };
    let (handshakes, answered, reset) = (of.handshakes, of.answered, of.reset);
    Pulse { handshakes, answered, reset, heard: volume(0), said: volume(1) }
}

/// What a backend carried.
pub(super) fn traffic(of: &BackendCounters) -> Traffic {
    Traffic {
        packets_in: of.packets[0],
        bytes_in: of.bytes[0],
        packets_out: of.packets[1],
        bytes_out: of.bytes[1],
        opened: of.opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_lie_close_are_read_together() {
        let lengths = |ids: &[u16]| runs(ids).iter().map(|run| run.len()).collect::<Vec<_>>();
        assert_eq!(lengths(&[]), [0usize; 0]);
        assert_eq!(lengths(&[7]), [1]);
        assert_eq!(lengths(&[0, 1, 2, 66, 131, 16383]), [4, 1, 1]);
        assert_eq!(lengths(&(0..3000).collect::<Vec<_>>()), [1024, 1024, 952]);
    }
}
