//! What a newcomer to a connection table may take, by what the table is full of: neither half-open connections, nor
//! datagrams, nor one farm may shut out the others.
//!
//! Each table has a [`Quota`] of its own. The sweep looks at a tenth of the lines at a time and tells it what it saw. Homes
//! are spread by a hash, so a slice is a fair sample of the whole, and the last ten slices are the whole. Whichever shows the
//! larger share counts: a flood fills much of a table within a second, and a single slice tells of it at once; when it
//! ends, the whole keeps what it has led to for a second.

use std::collections::{HashMap, VecDeque};
use std::ops::{AddAssign, BitOr};

use lb_common::abi::{
    FARMS_MAX, POLICY_TAKE_ANSWERED_TCP, POLICY_TAKE_ANSWERED_UDP, POLICY_TAKE_ONE_SIDED, POLICY_UDP_FULL,
    POLICY_UNANSWERED_FIRST,
};

/// Slices that make a whole table.
pub const SLICES: usize = 10;

/// What a part of a table is full of, in lines. A connection has two.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Census {
    /// All that were looked at.
    pub lines: u64,
    pub empty: u64,
    pub unanswered_tcp: u64,
    pub unanswered_udp: u64,
    /// TCP: the handshake is not complete. UDP: the client has not spoken again.
    pub answered_tcp: u64,
    pub answered_udp: u64,
    /// UDP whose client goes on without an answer.
    pub one_sided: u64,
    /// Cut ones too.
    pub closed: u64,
    /// Half-closed ones too.
    pub established_tcp: u64,
    pub established_udp: u64,
    /// By the farm's number, of whatever class.
    pub by_farm: HashMap<u16, u64>,
}

impl Census {
    fn unanswered(&self) -> u64 {
        self.unanswered_tcp + self.unanswered_udp
    }

    fn udp(&self) -> u64 {
        self.unanswered_udp + self.answered_udp + self.one_sided + self.established_udp
    }

    fn of_farm(&self, farm: u16) -> u64 {
        self.by_farm.get(&farm).copied().unwrap_or(0)
    }
}

impl AddAssign<&Self> for Census {
    fn add_assign(&mut self, other: &Self) {
        // Taken apart, so that a new class is not forgotten.
        let Self {
            lines,
            empty,
            unanswered_tcp,
            unanswered_udp,
            answered_tcp,
            answered_udp,
            one_sided,
            closed,
            established_tcp,
            established_udp,
            by_farm,
        } = other;
        self.lines += lines;
        self.empty += empty;
        self.unanswered_tcp += unanswered_tcp;
        self.unanswered_udp += unanswered_udp;
        self.answered_tcp += answered_tcp;
        self.answered_udp += answered_udp;
        self.one_sided += one_sided;
        self.closed += closed;
        self.established_tcp += established_tcp;
        self.established_udp += established_udp;
        for (farm, lines) in by_farm {
            *self.by_farm.entry(*farm).or_default() += lines;
        }
    }
}

/// What newcomers may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// `POLICY_*` of [`lb_common::abi`].
    pub bits: u32,
    /// Farms that have their share, a bit each.
    pub farms_full: [u64; FARMS_MAX as usize / 64],
}

impl Policy {
    pub fn is_full(&self, farm: u16) -> bool {
        self.farms_full.get(usize::from(farm / 64)).is_some_and(|word| word >> (farm % 64) & 1 != 0)
    }

    fn set_full(&mut self, farm: u16) {
        if let Some(word) = self.farms_full.get_mut(usize::from(farm / 64)) {
            *word |= 1 << (farm % 64);
        }
    }
}

/// What either asks for.
impl BitOr for Policy {
    type Output = Self;

    fn bitor(mut self, other: Self) -> Self {
        self.bits |= other.bits;
        self.farms_full.iter_mut().zip(other.farms_full).for_each(|(word, other)| *word |= other);
        self
    }
}

/// A part of all lines.
#[derive(Debug, Clone, Copy)]
struct Share {
    part: u64,
    of: u64,
}

/// A class of connections that nobody misses, or not yet, may have a quarter of what a table holds when it has all the
/// connections it is meant for, which is half of its lines. Fewer are everyday traffic, which is not to be touched: a busy
/// farm's handshakes and its clients' questions. More are a flood, or senders without anybody to hear them.
const CLASS_SHARE: Share = Share { part: 1, of: 8 };
/// UDP, or one farm among several, may have all that a table is meant for. What remains of the lines is room for
/// the others, if with fewer of them to choose from.
const LARGE_SHARE: Share = Share { part: 1, of: 2 };
/// A measure ends when the share is below this part of the one that began it, so that it does not come and go with
/// each slice.
const ENDS_AT: Share = Share { part: 3, of: 4 };

/// So many of so many lines.
type Counted = (u64, u64);

impl Share {
    fn is_exceeded(self, (count, lines): Counted) -> bool {
        count * self.of > lines * self.part
    }

    /// Whether a measure that `holds` so far holds after what was counted in the newest slice and in all of the last ones.
    fn judge(self, holds: bool, newest: Counted, whole: Counted) -> bool {
        let end = Self { part: self.part * ENDS_AT.part, of: self.of * ENDS_AT.of };
        let limit = if holds { end } else { self };
        limit.is_exceeded(newest) || limit.is_exceeded(whole)
    }
}

/// The quotas of one table: what was seen of it lately, and what follows.
#[derive(Debug, Default)]
pub struct Quota {
    slices: VecDeque<Census>,
    policy: Policy,
}

impl Quota {
    /// What newcomers may take, after another slice. `farms`: how many there are. One alone may have the whole table.
    pub fn judge(&mut self, slice: Census, farms: usize) -> Policy {
        if self.slices.len() == SLICES {
            self.slices.pop_front();
        }
        let (before, seen) = (self.policy, Seen { newest: &slice, whole: self.whole_with(&slice) });
        let mut policy = Policy { bits: seen.bits(before.bits), ..Policy::default() };
        if farms > 1 {
            for &farm in seen.whole.by_farm.keys() {
                if seen.judge(LARGE_SHARE, before.is_full(farm), |census| census.of_farm(farm)) {
                    policy.set_full(farm);
                }
            }
        }
        self.slices.push_back(slice);
        self.policy = policy;
        policy
    }

    /// The last slices together: the whole table, once so many have been seen.
    pub fn whole(&self) -> Census {
        self.whole_with(&Census::default())
    }

    fn whole_with(&self, newest: &Census) -> Census {
        let mut whole = newest.clone();
        self.slices.iter().for_each(|slice| whole += slice);
        whole
    }
}

/// What has been seen of a table.
struct Seen<'a> {
    newest: &'a Census,
    whole: Census,
}

impl Seen<'_> {
    fn judge(&self, share: Share, holds: bool, count: impl Fn(&Census) -> u64) -> bool {
        let counted = |census: &Census| (count(census), census.lines);
        share.judge(holds, counted(self.newest), counted(&self.whole))
    }

    fn bits(&self, before: u32) -> u32 {
        let judge = |share, bit, count: fn(&Census) -> u64| self.judge(share, before & bit != 0, count);
        let of_class = |bit, count| judge(CLASS_SHARE, bit, count);
        let udp_full = judge(LARGE_SHARE, POLICY_UDP_FULL, Census::udp);
        let measures = [
            (POLICY_UNANSWERED_FIRST, of_class(POLICY_UNANSWERED_FIRST, Census::unanswered)),
            (POLICY_TAKE_ANSWERED_TCP, of_class(POLICY_TAKE_ANSWERED_TCP, |census| census.answered_tcp)),
            (POLICY_TAKE_ANSWERED_UDP, of_class(POLICY_TAKE_ANSWERED_UDP, |census| census.answered_udp)),
            // Where UDP gets no empty line, its newcomers need one of somebody whom nobody answers.
            (POLICY_TAKE_ONE_SIDED, of_class(POLICY_TAKE_ONE_SIDED, |census| census.one_sided) || udp_full),
            (POLICY_UDP_FULL, udp_full),
        ];
        measures.into_iter().filter(|(_, holds)| *holds).fold(0, |bits, (bit, _)| bits | bit)
    }
}

#[cfg(test)]
mod tests {
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
        v4.set_full(0);
        v6.set_full(511);
        let both = v4 | v6;
        assert_eq!(both.bits, POLICY_UDP_FULL | POLICY_TAKE_ONE_SIDED);
        assert_eq!((0..512).filter(|farm| both.is_full(*farm)).collect::<Vec<_>>(), [0, 511]);
        assert!(!both.is_full(u16::MAX));
    }
}
