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
    FarmSet, POLICY_CHALLENGE, POLICY_TAKE_ANSWERED_TCP, POLICY_TAKE_ANSWERED_UDP, POLICY_TAKE_ONE_SIDED,
    POLICY_UDP_FULL, POLICY_UNANSWERED_FIRST, has_farm,
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
    /// Half-open ones of TCP, by the farm's number: unanswered, and answered.
    pub half_open: HashMap<u16, u64>,
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

    fn half_open_of(&self, farm: u16) -> u64 {
        self.half_open.get(&farm).copied().unwrap_or(0)
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
            half_open,
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
        for (sum, farms) in [(&mut self.by_farm, by_farm), (&mut self.half_open, half_open)] {
            for (farm, lines) in farms {
                *sum.entry(*farm).or_default() += lines;
            }
        }
    }
}

/// What newcomers may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// `POLICY_*` of [`lb_common::abi`].
    pub bits: u32,
    /// Farms that have their share.
    pub farms_full: FarmSet,
    /// Farms whose newcomers by TCP are asked whether they are there.
    pub farms_flooded: FarmSet,
}

fn insert(set: &mut FarmSet, farm: u16) {
    if let Some(word) = set.get_mut(usize::from(farm / 64)) {
        *word |= 1 << (farm % 64);
    }
}

impl Policy {
    pub fn is_full(&self, farm: u16) -> bool {
        has_farm(&self.farms_full, farm)
    }

    pub fn is_flooded(&self, farm: u16) -> bool {
        has_farm(&self.farms_flooded, farm)
    }
}

/// What either asks for.
impl BitOr for Policy {
    type Output = Self;

    fn bitor(mut self, other: Self) -> Self {
        self.bits |= other.bits;
        self.farms_full.iter_mut().zip(other.farms_full).for_each(|(word, other)| *word |= other);
        self.farms_flooded.iter_mut().zip(other.farms_flooded).for_each(|(word, other)| *word |= other);
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
/// Half-open connections of TCP of one farm, in lines. A backend has 64,512 source ports for one VIP: a quarter of them half-open is
/// a flood, or 160,000 new connections a second from 100 ms away.
const HALF_OPEN_MAX: u64 = 2 * 16_384;
/// Of a table that is small, this share of the lines, but not so few that what clients do all the time is taken for a flood.
const HALF_OPEN_PART: u64 = 16;
const HALF_OPEN_MIN: u64 = 2 * 1024;
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
                    insert(&mut policy.farms_full, farm);
                }
            }
        }
        let share = half_open_share(slice.lines * SLICES as u64);
        for &farm in seen.whole.half_open.keys() {
            if seen.judge(share, before.is_flooded(farm), |census| census.half_open_of(farm)) {
                insert(&mut policy.farms_flooded, farm);
                policy.bits |= POLICY_CHALLENGE;
            }
        }
        self.slices.push_back(slice);
        self.policy = policy;
        policy
    }

    /// What newcomers may take, as it was judged last.
    pub fn policy(&self) -> Policy {
        self.policy
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

/// The share of a table of so many lines that one farm's half-open connections may have.
fn half_open_share(lines: u64) -> Share {
    Share { part: (lines / HALF_OPEN_PART).clamp(HALF_OPEN_MIN, HALF_OPEN_MAX), of: lines }
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
#[path = "quota_tests.rs"]
mod tests;
