//! Two processors that do what the program does, on the same few flows, and a daemon that frees what they use: in ordinary
//! memory, with the real lines. Every now and then all stop, and the table is looked at.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

#[path = "../common/invariants.rs"]
mod invariants;
#[path = "../common/mapped.rs"]
mod mapped;
#[path = "../common/random.rs"]
mod random;
mod sweep;
mod traffic;
#[path = "../common/world.rs"]
mod world;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lb_common::abi::TimeoutTicks;
use lb_common::table::Table;

use invariants::inspect;
use mapped::Mapping;
use sweep::Daemon;
use traffic::{Processor, Shared};
use world::Family;

const TIMEOUTS: TimeoutTicks = TimeoutTicks { syn: 20, established: 200, half_closed: 60, fin: 5, udp: 40 };
const ROUNDS: u32 = 40;

/// Plays rounds of `packets` for each of two processors in a table of `lines`.
fn play<A: Family>(lines: usize, packets: u32) {
    let mapping = Mapping::<A>::new(lines, [0x1234_5678_9abc_def0, lines as u64], TIMEOUTS, world::numbers());
    let table = Table(&mapping);
    let shared = Shared::new(lines as u32);
    for round in 0..ROUNDS {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let processors = [1, 2].map(|number| {
                let mut processor = Processor::new(table, &shared, u64::from(round * 8 + number));
                scope.spawn(move || processor.run(packets))
            });
            let mut daemon = Daemon::new(table, &shared, u64::from(round * 8 + 3));
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    daemon.sweep();
                }
            });
            for processor in processors {
                let ended = processor.join();
                done.store(true, Ordering::Release);
                ended.unwrap();
            }
        });
        look(&mapping, &shared, round);
    }
    eprintln!("{lines} lines: {:?}", shared.counts);
    assert!(shared.counts.least() > 0, "something never happened: {:?}", shared.counts);
}

fn look<A: Family>(mapping: &Mapping<A>, shared: &Shared, round: u32) {
    let table = Table(mapping);
    let daemon = Daemon::new(table, shared, u64::from(round));
    daemon.free_stuck();
    let (lost, far) = shared.take_lost();
    let found = inspect(&table);
    assert!(found.live > 0);
    assert!(found.halves <= lost, "round {round}: {} half pairs, and {lost} owners were gone", found.halves);
    assert!(found.surplus <= far, "round {round}: counts too high by {}", found.surplus);
    daemon.free_halves();
    assert_eq!(inspect(&table).halves, 0);
}

#[test]
fn two_processors_and_a_daemon_leave_a_table_of_ipv4_whole() {
    for (lines, packets) in [(1 << 8, 8_000), (1 << 11, 8_000), (1 << 14, 8_000)] {
        play::<[u8; 4]>(lines, packets);
    }
}

#[test]
fn two_processors_and_a_daemon_leave_a_table_of_ipv6_whole() {
    for (lines, packets) in [(1 << 8, 8_000), (1 << 12, 8_000)] {
        play::<[u8; 16]>(lines, packets);
    }
}
