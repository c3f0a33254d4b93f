//! Whose line a newcomer takes: of those that he may take, nobody's who ranks above another.

use lb_common::abi::{POLICY_NO_EMPTY, POLICY_UNANSWERED_FIRST};
use lb_common::abi::{POLICY_TAKE_ANSWERED_TCP, POLICY_TAKE_ANSWERED_UDP, POLICY_TAKE_ONE_SIDED};
use lb_common::table::{Claim, Fields, Homes, Line, Lines, Meta, State, Table, rank};
use lb_common::tcp::Direction;
use proptest::prelude::*;

use crate::mapped::Mapping;
use crate::user::{Opened, find, line, mapping, open, step};
use crate::world::Connection;

type V4 = [u8; 4];

const LINES: u32 = 64;
const NOW: u32 = 10_000;
/// So many lines of each window are looked at for one to take.
const VICTIMS: u32 = 8;

/// A line that a newcomer comes across, as it was before.
#[derive(Debug, Clone, Copy)]
struct Seen {
    index: u32,
    distance: u32,
    meta: Meta,
    rank: u32,
    idle: u32,
}

fn window(table: &Table<&Mapping<V4>>, home: u32) -> Vec<Seen> {
    let seen = |distance| {
        let index = (home + distance) & table.0.mask();
        let line = line(table, index);
        let meta = line.meta();
        let expired = meta.is_live() && table.expired(index, line, meta, NOW);
        let rank = if expired { rank::EXPIRED } else { meta.rank() };
        Seen { index, distance, meta, rank, idle: NOW.wrapping_sub(line.last_seen()) }
    };
    (0..16).map(seen).collect()
}

/// Whether `policy` lets a newcomer take the line, empty ones aside.
fn may_take(seen: &Seen, policy: u32) -> bool {
    match seen.rank {
        rank::EXPIRED | rank::UNANSWERED => true,
        rank::ANSWERED if seen.meta.is_udp() => policy & POLICY_TAKE_ANSWERED_UDP != 0,
        rank::ANSWERED => policy & POLICY_TAKE_ANSWERED_TCP != 0,
        rank::ONE_SIDED => policy & POLICY_TAKE_ONE_SIDED != 0,
        _ => false,
    }
}

/// Connections of all states and ages, in a table that is nearly full.
fn fill(table: &Table<&Mapping<V4>>, states: &[(State, u32)]) {
    for (client, &(state, idle)) in (0u32..).zip(states) {
        let connection = Connection::of(client, 40000, 0, 1024 + client as u16, client % 3 == 1, false);
        if open(table, &connection, NOW, 0) != Opened::Yes {
            continue;
        }
        for direction in [Direction::Forward, Direction::Reverse] {
            let (index, _) = find(table, &connection, direction).unwrap();
            line(table, index).see(NOW.wrapping_sub(idle));
        }
        step(table, &connection, state);
    }
}

/// In ticks. Whoever was seen a tick ahead is as old as who is seen now.
fn age(seen: &Seen) -> i32 {
    (seen.idle as i32).max(0)
}

fn check(windows: &[Vec<Seen>; 2], claim: Claim, policy: u32) {
    let all = || windows.iter().flatten();
    let takes_empty = policy & POLICY_NO_EMPTY == 0;
    let victims = || all().filter(|seen| seen.distance < VICTIMS && may_take(seen, policy));
    let Claim::At { index, meta, evicted } = claim else {
        assert_eq!(claim, Claim::Full);
        assert_eq!(victims().count(), 0, "somebody could have gone");
        assert!(!takes_empty || all().all(|seen| seen.rank > rank::EXPIRED), "there was room");
        return;
    };
    let taken = windows[usize::from(meta.is_second())].iter().find(|seen| seen.index == index).unwrap();
    assert_eq!(evicted, taken.rank != rank::EMPTY);
    if !evicted {
        assert!(takes_empty);
        return;
    }
    assert!(may_take(taken, policy), "{taken:?}");
    let flood = policy & (POLICY_UNANSWERED_FIRST | POLICY_NO_EMPTY) != 0;
    let is_old = |seen: &Seen| seen.rank <= rank::UNANSWERED && age(seen) > 2;
    let old_at_home = flood && taken.distance == 0 && is_old(taken);
    // He looks no further than at such a line at the second home, either; he may have met an older one before.
    let second = &windows[1][0];
    let older =
        flood && is_old(second) && second.rank != rank::EMPTY && is_old(taken) && age(taken) >= age(second);
    if old_at_home || older || taken.rank == rank::EXPIRED {
        return;
    }
    assert!(!takes_empty || all().all(|seen| seen.rank > rank::EXPIRED), "there was room");
    assert!(victims().all(|seen| seen.rank >= taken.rank), "a lower class was there: {taken:?}");
    let rivals = victims().filter(|seen| seen.rank == taken.rank);
    assert!(rivals.map(age).max() <= Some(age(taken)), "not the oldest: {taken:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_class_never_evicts_a_higher_one(
        seed: u64,
        states in prop::collection::vec((3..10usize, prop_oneof![0..6u32, 0..500u32, Just(u32::MAX)]), 20..80),
        policy in 0..64u32,
        newcomer in 1000..2000u32,
    ) {
        let mapping = mapping::<V4>(LINES as usize, seed);
        let table = Table(&mapping);
        let states: Vec<_> = states.iter().map(|&(state, idle)| (State::ALL[state], idle)).collect();
        fill(&table, &states);
        let key = Connection::<V4>::of(newcomer, 40000, 0, 9, false, false).forward;
        let homes: Homes = mapping.homes_of(&key);
        let windows = [homes.first, homes.second].map(|home| window(&table, home));
        check(&windows, table.claim(&homes, &key, NOW, policy), policy);
    }
}
