use std::cell::Cell;
use std::vec::Vec;

use super::*;

struct Words(Vec<Cell<u64>>);

impl Words {
    fn new() -> Self {
        Self((0..2 * PLACES).map(|_| Cell::new(0)).collect())
    }
}

impl Memory for &Words {
    fn load(self, at: usize) -> u64 {
        self.0[at].get()
    }
    fn store(self, at: usize, to: u64) {
        self.0[at].set(to);
    }
}

fn datagram(port: u16, proven: bool) -> Datagram {
    Datagram { src_port: port.to_be_bytes(), dst_port: [0, 53], tcp: false, host: false, proven, end: 1480 }
}

fn remember(bucket: &Words, key: Key, datagram: Datagram, now: u32) -> Result<(), Verdict> {
    super::remember(bucket, key, datagram.word(key), now)
}

/// Hosts number `hosts`, which share a bucket with all others.
fn key(hosts: u64, id: u32) -> Key {
    Key { hash: hosts << 48 | hosts.wrapping_mul(0x9e37_79b9) & 0xffff_ffff, id }
}

#[test]
fn what_is_remembered_is_found_until_its_time_is_over() {
    let bucket = Words::new();
    let all = [
        datagram(1, true),
        Datagram { tcp: true, end: 24, ..datagram(2, false) },
        Datagram { host: true, end: 65_528, ..datagram(65_535, false) },
    ];
    for (id, datagram) in (0..).zip(all) {
        remember(&bucket, key(7, id), datagram, 1000).unwrap();
    }
    for now in [999, 1000, 1000 + TIMEOUT - 1] {
        for (id, datagram) in (0..).zip(all) {
            assert_eq!(find(&bucket, key(7, id), now), Some(datagram));
        }
    }
    assert_eq!(find(&bucket, key(7, 0), 1000 + TIMEOUT), None);
    assert_eq!(find(&bucket, key(7, 9), 1000), None, "another number");
    assert_eq!(find(&bucket, key(8, 0), 1000), None, "other hosts");
}

#[test]
fn two_hosts_have_half_of_a_bucket_and_take_from_themselves() {
    let bucket = Words::new();
    for hosts in 1..=4 {
        remember(&bucket, key(hosts, 0), datagram(1, false), 100).unwrap();
    }
    for id in 0..1000 {
        remember(&bucket, key(9, id), datagram(2, true), 101 + id / 100).unwrap();
    }
    for hosts in 1..=4 {
        assert!(find(&bucket, key(hosts, 0), 111).is_some(), "{hosts}");
    }
    let left: Vec<u32> = (0..1000).filter(|&id| find(&bucket, key(9, id), 111).is_some()).collect();
    assert_eq!(left.len(), 4);
    assert!(left.contains(&999), "the latest among them: {left:?}");
    // Whoever forges one host's address takes nothing of what it has proven.
    assert_eq!(remember(&bucket, key(9, 5000), datagram(3, false), 111), Err(Verdict::FragmentsFull));
    assert!(left.iter().all(|&id| find(&bucket, key(9, id), 111).is_some()));
}

#[test]
fn a_flood_of_what_is_not_proven_leaves_established_connections_their_places() {
    let bucket = Words::new();
    for hosts in 1..=4 {
        remember(&bucket, key(hosts, 0), datagram(1, true), 100).unwrap();
    }
    for hosts in 100..10_000 {
        remember(&bucket, key(hosts, 0), datagram(1, false), 101).unwrap();
    }
    for hosts in 1..=4 {
        assert!(find(&bucket, key(hosts, 0), 101).is_some(), "{hosts}");
    }
    // And those who are new among the established get in.
    for hosts in 11..=18 {
        remember(&bucket, key(hosts, 0), datagram(1, true), 102).unwrap();
        assert!(find(&bucket, key(hosts, 0), 102).is_some(), "{hosts}");
    }
}

#[test]
fn what_is_not_proven_finds_room_among_what_is_only_when_that_has_grown_old() {
    let bucket = Words::new();
    for hosts in 1..=8 {
        remember(&bucket, key(hosts, 0), datagram(1, true), 100).unwrap();
    }
    let newcomer = key(20, 0);
    assert_eq!(remember(&bucket, newcomer, datagram(1, false), 100 + KEPT - 1), Err(Verdict::FragmentsFull));
    assert_eq!(find(&bucket, newcomer, 100 + KEPT - 1), None);
    remember(&bucket, newcomer, datagram(1, false), 100 + KEPT).unwrap();
    assert!(find(&bucket, newcomer, 100 + KEPT).is_some());
}

#[test]
fn a_number_is_another_flows_only_after_a_while() {
    let bucket = Words::new();
    let key = key(5, 77);
    remember(&bucket, key, datagram(1, true), 100).unwrap();
    assert_eq!(remember(&bucket, key, datagram(1, true), 101), Ok(()), "the same one again");
    for other in [datagram(2, true), Datagram { tcp: true, ..datagram(1, true) }] {
        assert_eq!(remember(&bucket, key, other, 101 + REUSE - 1), Err(Verdict::FragmentOverlaps));
        assert_eq!(find(&bucket, key, 101), Some(datagram(1, true)));
    }
    remember(&bucket, key, datagram(2, true), 101 + REUSE).unwrap();
    assert_eq!(find(&bucket, key, 111), Some(datagram(2, true)));
}

#[test]
fn numbers_that_follow_each_other_are_spread_over_buckets() {
    let buckets: std::collections::HashSet<u32> = (0..64).map(|id| key(3, id).bucket()).collect();
    assert_eq!(buckets.len(), 16);
    assert!(buckets.iter().all(|&bucket| bucket < BUCKETS));
}
