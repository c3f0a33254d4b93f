use super::*;
use std::cell::Cell;
use std::vec::Vec;

#[derive(Clone, Copy)]
struct Words<'a>(&'a [Cell<u64>; 2 * PLACES]);

impl Memory for Words<'_> {
    fn tag(self, at: usize) -> u64 {
        self.0[2 * at].get()
    }
    fn value(self, at: usize) -> u64 {
        self.0[2 * at + 1].get()
    }
    fn set_tag(self, at: usize, to: u64) {
        self.0[2 * at].set(to);
    }
    fn set_value(self, at: usize, to: u64) {
        self.0[2 * at + 1].set(to);
    }
    fn swap_tag(self, at: usize, from: u64, to: u64) -> bool {
        self.tag(at) == from && {
            self.set_tag(at, to);
            true
        }
    }
    fn swap_value(self, at: usize, from: u64, to: u64) -> bool {
        self.value(at) == from && {
            self.set_value(at, to);
            true
        }
    }
}

const TIMEOUT: u32 = 600;

fn enter(bucket: Words<'_>, tag: u64, farm: u16, backend: u16, now: u32) {
    note(bucket, tag, Value { farm, backend, until: now + TIMEOUT }, now, |_| true);
}

fn known(bucket: Words<'_>, tag: u64, farm: u16, now: u32) -> Option<u16> {
    find(bucket, tag, farm, now)
}

#[test]
fn a_source_has_the_backend_it_had_until_the_time_is_over() {
    let words = Default::default();
    let bucket = Words(&words);
    assert_eq!(known(bucket, 10, 1, 100), None);
    enter(bucket, 10, 1, 7, 100);
    for (tag, farm, now, expected) in [
        (10, 1, 100, Some(7)),
        (10, 1, 99, Some(7)),
        (10, 1, 100 + TIMEOUT, Some(7)),
        (10, 1, 101 + TIMEOUT, None),
        (10, 2, 100, None),
        (11, 1, 100, None),
    ] {
        assert_eq!(known(bucket, tag, farm, now), expected, "{tag} {farm} {now}");
    }
    refresh(bucket, 10, Value { farm: 1, backend: 7, until: 500 + TIMEOUT });
    assert_eq!(known(bucket, 10, 1, 500 + TIMEOUT), Some(7));
    refresh(bucket, 10, Value { farm: 1, backend: 8, until: 900 + TIMEOUT });
    assert_eq!(known(bucket, 10, 1, 501 + TIMEOUT), None, "another backend's connection refreshes nothing");
}

#[test]
fn the_first_backend_is_kept_while_it_is_open_and_not_for_too_long() {
    let words = Default::default();
    let bucket = Words(&words);
    enter(bucket, 10, 1, 7, 100);
    enter(bucket, 10, 1, 8, 101);
    assert_eq!(known(bucket, 10, 1, 101), Some(7), "of two that open at once the first counts");
    note(bucket, 10, Value { farm: 1, backend: 8, until: 102 + TIMEOUT }, 102, |backend| backend != 7);
    assert_eq!(known(bucket, 10, 1, 102), Some(8), "7 takes it no more");
    enter(bucket, 10, 1, 9, 103 + TIMEOUT);
    assert_eq!(known(bucket, 10, 1, 103 + TIMEOUT), Some(9), "too long ago");
    assert_eq!((0..PLACES).filter(|at| bucket.tag(*at) != EMPTY).count(), 1);
}

#[test]
fn a_newcomer_takes_what_has_run_out_then_the_oldest_and_a_farm_with_half_of_it_from_itself() {
    let words = Default::default();
    let bucket = Words(&words);
    let farms = || {
        let mut farms: Vec<u16> = (0..PLACES).map(|at| Value::from_raw(bucket.value(at)).farm).collect();
        farms.sort_unstable();
        farms
    };
    for tag in 10..18 {
        enter(bucket, tag, 1, 7, tag as u32);
    }
    assert_eq!(farms(), [1; 8]);
    // One of so many addresses as he likes gets half of it, and then takes from his like.
    for tag in 100..200 {
        enter(bucket, tag, 2, 7, 50);
    }
    assert_eq!(farms(), [1, 1, 1, 1, 2, 2, 2, 2]);
    assert_eq!(
        (10..18).filter(|tag| known(bucket, *tag, 1, 50).is_some()).collect::<Vec<_>>(),
        [14, 15, 16, 17]
    );
    // A third farm takes from whoever has the least time left, until it has half of it, too.
    for tag in 300..400 {
        enter(bucket, tag, 3, 7, 60);
    }
    assert_eq!(farms().iter().filter(|farm| **farm == 3).count(), 4);
    // When their time is over, anybody takes them.
    for tag in 500..508 {
        enter(bucket, tag, 4, 7, 100 + TIMEOUT);
    }
    assert_eq!(farms(), [4; 8]);
}

#[test]
fn sources_whose_backend_is_gone_are_forgotten_and_no_others() {
    let words = Default::default();
    let bucket = Words(&words);
    enter(bucket, 10, 1, 7, 100);
    enter(bucket, 11, 1, 8, 100);
    forget(bucket, |backend| backend == 7);
    assert_eq!((known(bucket, 10, 1, 100), known(bucket, 11, 1, 100)), (None, Some(8)));
    enter(bucket, 12, 1, 9, 100);
    assert_eq!(known(bucket, 12, 1, 100), Some(9));
}

#[test]
fn nobody_writes_where_somebody_is_writing() {
    let words: [Cell<u64>; 2 * PLACES] = Default::default();
    let bucket = Words(&words);
    (0..PLACES).for_each(|at| bucket.set_tag(at, CLAIMED));
    enter(bucket, 10, 1, 7, 100);
    forget(bucket, |_| true);
    assert!((0..PLACES).all(|at| bucket.tag(at) == CLAIMED));
}

#[test]
fn tags_differ_by_farm_address_and_secret_and_are_spread() {
    let secret = [1, 2];
    let here = tag(1, [0, 5], &secret);
    for other in [tag(2, [0, 5], &secret), tag(1, [5, 0], &secret), tag(1, [0, 5], &[1, 3])] {
        assert_ne!(here, other);
    }
    let mut buckets = std::vec![0u32; BUCKETS as usize];
    for source in 0..BUCKETS as u64 * 4 {
        let tag = tag(1, [0, source], &secret);
        assert!(tag > CLAIMED);
        buckets[bucket(tag) as usize] += 1;
    }
    // Of those whose mean is 4 one in 47 has more than 8.
    let crowded = buckets.iter().filter(|sources| **sources as usize > PLACES).count();
    assert!(crowded < BUCKETS as usize / 40, "{crowded}");
}
