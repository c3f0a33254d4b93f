//! Which line a newcomer gets, and whether his flow is there already. Each is a function without a structure for an answer, so that
//! a program can make it one of its own.

use super::{FAR, Homes, Line as _, Lines, Meta, State, rank};
use crate::abi::{
    POLICY_NO_EMPTY, POLICY_TAKE_ANSWERED_TCP, POLICY_TAKE_ANSWERED_UDP, POLICY_TAKE_ONE_SIDED,
    POLICY_UDP_ONLY, POLICY_UNANSWERED_FIRST,
};

/// Half-open connections younger than this, in ticks, keep their home line in a flood.
pub(super) const YOUNG: u32 = 2;
/// Lines of each window that are looked at for one to take from somebody.
const VICTIMS: u32 = 8;
/// Bits of a worth below its rank.
const IDLE: u32 = 28;
const IDLE_MASK: u32 = (1 << IDLE) - 1;
/// The worth of an empty line: more than any other.
const FREE: u32 = u32::MAX;
/// What an expired line is worth at least.
const EXPIRED: u32 = (rank::KEPT - rank::EXPIRED) << IDLE;

/// The same of an unanswered one.
const UNANSWERED: u32 = (rank::KEPT - rank::UNANSWERED) << IDLE;

/// In what [`search`] finds: no other line needs to be looked at.
pub(super) const AT_ONCE: u64 = 1 << 31;

/// The best line for a newcomer in the window of `home`: an empty one, the nearer the better, or else one that he may take from
/// somebody. Its worth in the high half, its distance in the low; 0: there is none. A number, so that a program can make this a
/// function of its own.
#[inline(always)]
pub fn search<L: Lines + ?Sized>(lines: &L, home: u32, now: u32, policy: u32) -> u64 {
    let may_grow = policy & POLICY_NO_EMPTY == 0;
    let mut best = 0;
    for distance in 0..L::WINDOW {
        let index = home.wrapping_add(distance) & lines.mask();
        let Some(line) = lines.at(index) else { return best };
        let empty = line.meta().is(State::Empty);
        if empty && may_grow {
            return u64::from(FREE) << 32 | AT_ONCE | u64::from(distance);
        }
        if empty {
            continue;
        }
        let worth = lines.appraise(index, now, policy);
        let found = u64::from(worth) << 32 | u64::from(distance);
        if worth >= EXPIRED && may_grow {
            return found | AT_ONCE;
        }
        // In a flood the home line of an old half-open connection goes before an empty one.
        if distance == 0
            && worth >= UNANSWERED
            && policy & (POLICY_UNANSWERED_FIRST | POLICY_NO_EMPTY) != 0
            && worth & IDLE_MASK > YOUNG + 1
        {
            return found | AT_ONCE;
        }
        if distance < VICTIMS && found >> 32 > best >> 32 {
            best = found;
        }
    }
    best
}

/// How willingly a newcomer takes a live line: 0 if he may not; else the more, the lower its rank, and then the longer it has
/// been idle.
#[inline(always)]
pub fn appraise<L: Lines + ?Sized>(lines: &L, index: u32, now: u32, policy: u32) -> u32 {
    let Some(line) = lines.at(index) else { return 0 };
    let meta = line.meta();
    let rank = if expired(lines, index, line, meta, now) { rank::EXPIRED } else { meta.rank() };
    if !meta.is_live() || !may_take(meta, rank, policy) {
        return 0;
    }
    // Another CPU's "now" may be a tick ahead.
    let idle = (now.wrapping_sub(line.last_seen()) as i32).clamp(0, (1 << IDLE) - 2) as u32;
    ((rank::KEPT - rank) << IDLE) + idle + 1
}

/// Whether a live line has been idle for longer than its state allows. One direction may be silent while the other talks:
/// only together they are idle.
#[inline(always)]
pub(super) fn expired<L: Lines + ?Sized>(lines: &L, index: u32, line: L::Line, meta: Meta, now: u32) -> bool {
    let allowed = lines.timeout(line, meta) as i32;
    // Another CPU's "now" may be a tick ahead.
    let idle = |line: L::Line| now.wrapping_sub(line.last_seen()) as i32;
    if idle(line) <= allowed {
        return false;
    }
    let peer = line.peer();
    match (peer_at(lines, peer, index), lines.at(peer)) {
        (Some(_), Some(peer)) => idle(peer) > allowed,
        _ => true,
    }
}

/// The first word of the line `peer`, if it is live and says that its other direction is at `index`.
#[inline(always)]
pub(super) fn peer_at<L: Lines + ?Sized>(lines: &L, peer: u32, index: u32) -> Option<Meta> {
    let line = lines.at(peer)?;
    let meta = line.meta();
    if meta.is_live() && line.peer() == index && line.meta().version() == meta.version() {
        Some(meta)
    } else {
        None
    }
}

/// Whether a line other than `own` holds the flow or is being claimed for it (or for one of the same tag).
#[inline(always)]
pub fn is_taken<L: Lines + ?Sized>(lines: &L, homes: &Homes, key: &L::Key, own: u32) -> bool {
    let mut home = homes.first;
    for _ in 0..2 {
        let Some(line) = lines.at(home) else { return true };
        if home != own && competes(lines, line, homes.tag, key) {
            return true;
        }
        let hops = line.hops();
        for i in 1..L::WINDOW {
            let index = home.wrapping_add(i) & lines.mask();
            if hops >> i & 1 == 0 || index == own {
                continue;
            }
            let Some(line) = lines.at(index) else { return true };
            if competes(lines, line, homes.tag, key) {
                return true;
            }
        }
        if hops < FAR {
            return false;
        }
        home = homes.second;
    }
    false
}

#[inline(always)]
fn competes<L: Lines + ?Sized>(lines: &L, line: L::Line, tag: u32, key: &L::Key) -> bool {
    let meta = line.meta();
    (meta.is(State::Claimed) && u32::from(meta.tag()) == tag)
        || (meta.is_live() && lines.holds(line, meta, key))
}

/// Whether a newcomer may take the line of somebody of that rank.
#[inline(always)]
fn may_take(meta: Meta, rank: u32, policy: u32) -> bool {
    if policy & POLICY_UDP_ONLY != 0 && !meta.is_udp() {
        return false;
    }
    match rank {
        rank::EXPIRED | rank::UNANSWERED => true,
        rank::ANSWERED if meta.is_udp() => policy & POLICY_TAKE_ANSWERED_UDP != 0,
        rank::ANSWERED => policy & POLICY_TAKE_ANSWERED_TCP != 0,
        rank::ONE_SIDED => policy & POLICY_TAKE_ONE_SIDED != 0,
        _ => false,
    }
}
