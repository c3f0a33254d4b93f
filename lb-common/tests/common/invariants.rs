//! What holds of a table in which nobody is at work, whoever has worked in it.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

use lb_common::table::{Homes, Line, Lines, Meta, State, Table};

/// Lines whose flows can be read back.
pub trait Inspect: Lines<Key: Copy + Eq + Hash + Debug> {
    fn flow(&self, line: Self::Line, meta: Meta) -> Option<Self::Key>;
    fn homes(&self, flow: &Self::Key) -> Homes;
}

/// What may be one way or the other.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub live: u32,
    /// Live lines whose peer is not the other direction of their connection.
    pub halves: u32,
    /// Entries at their second home that are said to be there and are not.
    pub surplus: u32,
}

/// Panics, and says which, if one of the invariants does not hold.
pub fn inspect<L: Inspect>(table: &Table<L>) -> Found {
    let lines = table.0.mask() + 1;
    let mut found = Found::default();
    let mut flows = HashSet::new();
    let mut far = vec![0u32; lines as usize];
    for index in 0..lines {
        let line = table.0.at(index).unwrap();
        let meta = line.meta();
        assert!(!meta.is(State::Claimed) && !meta.is(State::Leaving), "line {index} is left owned");
        if !meta.is_live() {
            continue;
        }
        found.live += 1;
        let flow = table.0.flow(line, meta).expect("a live line without a flow");
        assert!(flows.insert(flow), "duplicate of {flow:?} at {index}");
        let homes = table.0.homes(&flow);
        assert_eq!(u32::from(meta.tag()), homes.tag, "tag of {index}");
        let home = if meta.is_second() { homes.second } else { homes.first };
        assert_eq!((home + meta.distance()) & table.0.mask(), index, "{flow:?} at {index} is far from home");
        far[homes.first as usize] += u32::from(meta.is_second());
        found.halves += u32::from(table.peer_at(line.peer(), index).is_none());
    }
    for index in 0..lines {
        found.surplus += check_home(table, index, far[index as usize]);
    }
    for flow in flows {
        let there = table.find(&table.0.homes(&flow), &flow);
        assert!(there.is_some(), "{flow:?} is unreachable");
    }
    found
}

/// A home's word names its entries and no others. By how many it says too many of those at their second home.
fn check_home<L: Inspect>(table: &Table<L>, home: u32, far: u32) -> u32 {
    let hops = table.0.at(home).unwrap().hops();
    assert_eq!(hops & 1, 0, "bit 0 of {home} has no meaning");
    for distance in 1..16 {
        if hops >> distance & 1 == 1 {
            let meta = table.0.at((home + distance) & table.0.mask()).unwrap().meta();
            assert!(meta.is_live() && meta.distance() == distance, "stale bit {distance} of {home}");
        }
    }
    let said = hops >> 16;
    assert!(said >= far, "home {home} says {said} entries far away, there are {far}: count too low");
    said - far
}
