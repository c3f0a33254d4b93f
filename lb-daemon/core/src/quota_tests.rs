//! Shares, and what follows from them.

use super::*;

type Fill = fn(&mut Census);

/// A slice of 800 lines: the eighth is 100, the half 400, and three quarters of those are 75 and 300.
fn slice(fill: impl Fn(&mut Census)) -> Census {
    let mut slice = Census { lines: 800, ..Census::default() };
    fill(&mut slice);
    slice
}

fn judge(quota: &mut Quota, times: usize, fill: impl Fn(&mut Census)) -> Policy {
    (0..times).fold(Policy::default(), |_, _| quota.judge(slice(&fill), 2))
}

#[test]
fn each_class_has_its_share() {
    let one_sided_and_udp = POLICY_TAKE_ONE_SIDED | POLICY_UDP_FULL;
    let table: &[(Fill, u32)] = &[
        (|_| {}, 0),
        (|c| c.empty = 800, 0),
        (|c| c.established_tcp = 800, 0),
        (|c| c.closed = 800, 0),
        (|c| c.unanswered_tcp = 100, 0),
        (|c| c.unanswered_tcp = 101, POLICY_UNANSWERED_FIRST),
        (|c| c.unanswered_udp = 101, POLICY_UNANSWERED_FIRST),
        (|c| (c.unanswered_tcp, c.unanswered_udp) = (50, 51), POLICY_UNANSWERED_FIRST),
        (|c| c.answered_tcp = 100, 0),
        (|c| c.answered_tcp = 101, POLICY_TAKE_ANSWERED_TCP),
        (|c| c.answered_udp = 100, 0),
        (|c| c.answered_udp = 101, POLICY_TAKE_ANSWERED_UDP),
        (|c| (c.answered_tcp, c.answered_udp) = (100, 100), 0),
        (|c| c.one_sided = 100, 0),
        (|c| c.one_sided = 101, POLICY_TAKE_ONE_SIDED),
        (|c| c.established_udp = 400, 0),
        (|c| c.established_udp = 401, one_sided_and_udp),
        (|c| (c.established_udp, c.one_sided) = (301, 100), one_sided_and_udp),
        (
            |c| {
                (c.unanswered_udp, c.answered_udp, c.one_sided) = (101, 101, 101);
                c.established_udp = 98;
            },
            one_sided_and_udp | POLICY_UNANSWERED_FIRST | POLICY_TAKE_ANSWERED_UDP,
        ),
        (
            |c| (c.unanswered_tcp, c.answered_tcp, c.established_tcp) = (300, 200, 300),
            POLICY_UNANSWERED_FIRST | POLICY_TAKE_ANSWERED_TCP,
        ),
    ];
    for (index, (fill, bits)) in table.iter().enumerate() {
        // In the newest slice alone, and in all.
        for times in [1, SLICES, 3 * SLICES] {
            let policy = judge(&mut Quota::default(), times, fill);
            assert_eq!(policy, Policy { bits: *bits, ..Policy::default() }, "row {index}, {times} times");
        }
    }
}

#[test]
fn a_flood_is_met_at_the_first_slice_that_shows_it() {
    let mut quota = Quota::default();
    assert_eq!(judge(&mut quota, SLICES, |_| {}).bits, 0);
    assert_eq!(judge(&mut quota, 1, |c| c.unanswered_tcp = 101).bits, POLICY_UNANSWERED_FIRST);
}

#[test]
fn a_measure_ends_below_three_quarters_of_what_began_it() {
    // (lines of the class before, after, slices after) -> whether the measure still holds.
    for (before, after, slices, holds) in [
        (101, 76, 1, true),
        (101, 76, 5 * SLICES, true),
        (101, 75, SLICES - 1, true),
        (101, 75, SLICES, false),
        (800, 0, SLICES - 1, true),
        (800, 0, SLICES, false),
    ] {
        let mut quota = Quota::default();
        judge(&mut quota, SLICES, |c| c.one_sided = before);
        let bits = judge(&mut quota, slices, |c| c.one_sided = after).bits;
        assert_eq!(bits & POLICY_TAKE_ONE_SIDED != 0, holds, "{before} {after} {slices}");
        // And does not come back by what would have kept it.
        if !holds {
            assert_eq!(judge(&mut quota, SLICES, |c| c.one_sided = 100).bits, 0);
        }
    }
}

#[test]
fn a_farm_has_half_of_the_lines_unless_it_is_alone() {
    // (lines of farms 3 and 511, farms) -> those that are full.
    for (lines, farms, full) in [
        ([400, 400], 2, [false, false]),
        ([401, 399], 2, [true, false]),
        ([0, 401], 2, [false, true]),
        ([0, 800], 512, [false, true]),
        ([800, 0], 1, [false, false]),
        ([800, 0], 0, [false, false]),
    ] {
        let mut quota = Quota::default();
        let by_farm = HashMap::from([(3, lines[0]), (511, lines[1])]);
        let slice = slice(|slice| slice.by_farm = by_farm.clone());
        let policy = quota.judge(slice.clone(), farms);
        assert_eq!([3, 511].map(|farm| policy.is_full(farm)), full, "{lines:?} {farms}");
        let expected: u32 = full.iter().map(|full| u32::from(*full)).sum();
        assert_eq!(policy.farms_full.iter().map(|word| word.count_ones()).sum::<u32>(), expected);
        // The others go, and come when the newest slice happens to hold little.
        assert_eq!(quota.judge(slice, 1).farms_full, [0; 8]);
        let policy = judge(&mut quota, 1, |_| {});
        assert_eq!([3, 511].map(|farm| policy.is_full(farm)), lines.map(|lines| 2 * lines > 3 * 400));
    }
}

#[test]
fn a_farm_that_was_full_is_so_until_it_has_three_quarters_of_its_share() {
    let mut quota = Quota::default();
    let mut full = |lines: u64, times: usize| {
        judge(&mut quota, times, |c| c.by_farm = HashMap::from([(64, lines)])).is_full(64)
    };
    assert!(full(401, 1));
    assert!(full(301, 3 * SLICES));
    assert!(!full(300, SLICES));
    assert!(!full(400, SLICES));
    assert!(full(401, 1));
    let gone = judge(&mut quota, SLICES, |_| {});
    assert_eq!(gone, Policy::default(), "nothing of it is left");
}

#[test]
fn a_farm_with_many_half_open_connections_has_its_newcomers_asked() {
    // Lines of a slice, half-open ones of farm 70 in it -> whether they are asked. A sixteenth, but no less than
    // 2,048 and no more than 32,768 of all.
    for (lines, half_open, asked) in [
        (800, 204, false),
        (800, 205, true),
        (6_553, 409, false),
        (6_553, 410, true),
        (52_428, 3276, false),
        (52_428, 3277, true),
        (209_715, 3276, false),
        (209_715, 3277, true),
    ] {
        let mut quota = Quota::default();
        let slice = |half_open| Census {
            lines,
            half_open: HashMap::from([(70, half_open), (71, 1)]),
            ..Census::default()
        };
        let policy = quota.judge(slice(half_open), 1);
        assert_eq!((policy.is_flooded(70), policy.is_flooded(71)), (asked, false), "{lines} {half_open}");
        assert_eq!(policy.bits, if asked { POLICY_CHALLENGE } else { 0 });
        for _ in 0..SLICES {
            assert_eq!(quota.judge(slice(half_open * 4 / 5), 1).is_flooded(70), asked, "{lines} {half_open}");
        }
        for _ in 0..SLICES {
            quota.judge(slice(half_open / 2), 1);
        }
        assert_eq!(quota.judge(slice(half_open / 2), 1), Policy::default(), "{lines} {half_open}");
    }
}

#[test]
fn the_last_slices_are_the_whole() {
    let mut quota = Quota::default();
    judge(&mut quota, SLICES, |c| c.closed = 700);
    judge(&mut quota, SLICES, |c| {
        (c.empty, c.closed, c.established_tcp) = (1, 2, 3);
        c.by_farm = HashMap::from([(7, 5)]);
    });
    let expected = Census {
        lines: 8000,
        empty: 10,
        closed: 20,
        established_tcp: 30,
        by_farm: HashMap::from([(7, 50)]),
        ..Census::default()
    };
    assert_eq!(quota.whole(), expected);
}

#[test]
fn a_slice_of_nothing_changes_nothing() {
    let mut quota = Quota::default();
    assert_eq!(quota.judge(Census::default(), 2), Policy::default());
    let before = judge(&mut quota, 2, |c| c.one_sided = 300);
    assert_eq!(quota.judge(Census::default(), 2), before);
}

#[test]
fn two_tables_in_one_word() {
    let mut v4 = Policy { bits: POLICY_UDP_FULL, ..Policy::default() };
    let mut v6 = Policy { bits: POLICY_TAKE_ONE_SIDED, ..Policy::default() };
    insert(&mut v4.farms_full, 0);
    insert(&mut v6.farms_full, 511);
    insert(&mut v6.farms_flooded, 64);
    let both = v4 | v6;
    assert_eq!(both.bits, POLICY_UDP_FULL | POLICY_TAKE_ONE_SIDED);
    assert_eq!((0..512).filter(|farm| both.is_full(*farm)).collect::<Vec<_>>(), [0, 511]);
    assert!(both.is_flooded(64) && !both.is_flooded(0));
}
