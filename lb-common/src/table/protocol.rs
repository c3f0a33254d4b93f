//! Entering, finding and freeing lines; see the description of [`super`].

use super::choice::{AT_ONCE, YOUNG, expired, peer_at};
use super::{FAR, Homes, Line as _, Lines, Meta, State, WINDOW};
use crate::abi::{POLICY_NO_EMPTY, POLICY_UDP_ONLY, POLICY_UNANSWERED_FIRST};

/// What became of an attempt to enter a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The line is the caller's: he writes the entry and publishes it, or frees it.
    At { index: u32, meta: Meta, evicted: bool },
    /// The flow is there, or somebody is entering it, or others were quicker each time: the caller's packet is repeated.
    Taken,
    /// There is no line that a newcomer may take.
    Full,
}

/// A place in a flow's two windows.
#[derive(Clone, Copy)]
struct Place {
    index: u32,
    distance: u32,
    second: bool,
}

/// Where the first window has no line nearer than this, the second one is looked at, too, and the nearer line of both taken: so
/// windows fill evenly. Of 2 million flows in 4 million lines two or three find both windows full without it, and with it
/// one table in 25 has such a flow at all; 3 in 100 entries lie at their second home then.
const CROWDED: u32 = 4;

/// How far from its home a line is that was [searched](super::search).
#[inline(always)]
const fn distance(found: u64) -> u32 {
    found as u32 & (WINDOW - 1)
}

/// The protocol; see the module's description.
#[derive(Clone, Copy)]
pub struct Table<L>(pub L);

impl<L: Lines> Table<L> {
    /// The line that holds `key`, and its first word as it was when it did.
    #[inline(always)]
    pub fn find(&self, homes: &Homes, key: &L::Key) -> Option<(u32, Meta)> {
        let mut home = homes.first;
        for _ in 0..2 {
            let line = self.0.at(home)?;
            if let Some(meta) = self.hit(line, key) {
                return Some((home, meta));
            }
            let hops = line.hops();
            for i in 1..L::WINDOW {
                if hops >> i & 1 == 0 {
                    continue;
                }
                let index = home.wrapping_add(i) & self.0.mask();
                if let Some(meta) = self.hit(self.0.at(index)?, key) {
                    return Some((index, meta));
                }
            }
            if hops < FAR {
                return None;
            }
            home = homes.second;
        }
        None
    }

    #[inline(always)]
    fn hit(&self, line: L::Line, key: &L::Key) -> Option<Meta> {
        let meta = line.meta();
        if meta.is_live() && self.0.holds(line, meta, key) { Some(meta) } else { None }
    }

    /// Takes a line for the flow `key`, which is not there as far as the caller knows. `policy` is `POLICY_*`.
    #[inline(always)]
    pub fn claim(&self, homes: &Homes, key: &L::Key, now: u32, policy: u32) -> Claim {
        // Somebody else may be quicker with the line that was found, once.
        for _ in 0..2 {
            let (place, meta) = match self.at_home(homes, now, policy) {
                Some(found) => found,
                None => match self.elsewhere(homes, now, policy) {
                    Ok(found) => found,
                    Err(true) => continue,
                    Err(false) => return Claim::Full,
                },
            };
            let Some(line) = self.0.at(place.index) else { return Claim::Full };
            let claimed = meta.claimed(homes.tag as u16, place.distance, place.second);
            if !line.swap_meta(meta, claimed) {
                continue;
            }
            let evicted = !meta.is(State::Empty);
            if evicted {
                let peer = line.peer();
                self.unlink(place.index, meta);
                self.free_peer(peer, place.index);
            }
            if self.announce(homes, key, &place, claimed) {
                return Claim::At { index: place.index, meta: claimed, evicted };
            }
            return Claim::Taken;
        }
        Claim::Taken
    }

    /// The home line, if a newcomer takes it without looking any further, and its first word.
    #[inline(always)]
    fn at_home(&self, homes: &Homes, now: u32, policy: u32) -> Option<(Place, Meta)> {
        let line = self.0.at(homes.first)?;
        let meta = line.meta();
        let idle = now.wrapping_sub(line.last_seen()) as i32;
        let free = meta.is(State::Empty) && policy & POLICY_NO_EMPTY == 0;
        let old = meta.is(State::Unanswered)
            && (meta.is_udp() || policy & POLICY_UDP_ONLY == 0)
            && idle > YOUNG as i32
            && policy & (POLICY_UNANSWERED_FIRST | POLICY_NO_EMPTY) != 0;
        if free || old {
            Some((Place { index: homes.first, distance: 0, second: false }, meta))
        } else {
            None
        }
    }

    /// The best line of both windows, and its first word. `Err(true)`: somebody was quicker; `Err(false)`: there is none.
    #[inline(always)]
    fn elsewhere(&self, homes: &Homes, now: u32, policy: u32) -> Result<(Place, Meta), bool> {
        let mut found = self.0.search(homes.first, now, policy);
        let mut second = false;
        if found & AT_ONCE == 0 || distance(found) >= CROWDED {
            let other = self.0.search(homes.second, now, policy);
            let (worth, other_worth) = (found >> 32, other >> 32);
            second = other_worth > worth || other_worth == worth && distance(other) < distance(found);
            if second {
                found = other;
            }
        }
        if found >> 32 == 0 {
            return Err(false);
        }
        let distance = distance(found);
        let home = if second { homes.second } else { homes.first };
        let place = Place { index: home.wrapping_add(distance) & self.0.mask(), distance, second };
        let meta = self.0.at(place.index).ok_or(false)?.meta();
        // It may be another line by now than the one that was found; the swap fails if it is another than what is looked at here.
        if !meta.is(State::Empty) && self.0.appraise(place.index, now, policy) == 0 {
            return Err(true);
        }
        Ok((place, meta))
    }

    /// Takes what a line stood for out of its homes' words; most lines lie at home and are in none.
    #[inline(always)]
    fn unlink(&self, index: u32, meta: Meta) {
        if meta.distance() != 0 || meta.is_second() {
            self.0.unlink(index, meta);
        }
    }

    /// Makes a claimed line known at its home, and looks for another of the same flow. `false`: there is one; the line was
    /// given back.
    #[inline(always)]
    fn announce(&self, homes: &Homes, key: &L::Key, claim: &Place, claimed: Meta) -> bool {
        let base = if claim.second { homes.second } else { homes.first };
        if claim.distance != 0
            && let Some(home) = self.0.at(base)
        {
            home.or_hops(1 << claim.distance);
        }
        if claim.second
            && let Some(home) = self.0.at(homes.first)
        {
            home.add_hops(FAR);
        }
        // Whoever is alone at home need not look further.
        let alone = claim.index == homes.first && self.0.at(homes.first).is_some_and(|home| home.hops() == 0);
        if alone || !self.0.is_taken(homes, key, claim.index) {
            return true;
        }
        self.give_back(claim.index, claimed, homes);
        false
    }

    /// Whether a live line has been idle for longer than its state allows, and its peer as well.
    #[inline(always)]
    pub fn expired(&self, index: u32, line: L::Line, meta: Meta, now: u32) -> bool {
        expired(&self.0, index, line, meta, now)
    }

    /// The first word of the line `peer`, if it is live and says that its other direction is at `index`.
    #[inline(always)]
    pub fn peer_at(&self, peer: u32, index: u32) -> Option<Meta> {
        peer_at(&self.0, peer, index)
    }

    /// Takes a live line as it is for another connection of the same flow key (a source port is given on). The caller writes the
    /// entry and publishes it; the connection's other half is freed.
    #[inline(always)]
    pub fn take_over(&self, index: u32, meta: Meta) -> Option<Meta> {
        let line = self.0.at(index)?;
        let claimed = meta.claimed(meta.tag(), meta.distance(), meta.is_second());
        if !meta.is_live() || !line.swap_meta(meta, claimed) {
            return None;
        }
        self.free_peer(line.peer(), index);
        Some(claimed)
    }

    /// Puts a claimed line, its entry written, among the others.
    #[inline(always)]
    pub fn publish(&self, index: u32, meta: Meta) {
        if let Some(line) = self.0.at(index) {
            line.set_meta(meta);
        }
    }

    /// Puts both lines of a connection among the others, `peer` first. `false`: somebody took that one before the other was
    /// there for him to take, too; then both are gone.
    #[inline(always)]
    pub fn publish_pair(&self, index: u32, meta: Meta, peer: u32, peer_meta: Meta) -> bool {
        let Some(line) = self.0.at(index) else { return false };
        self.publish(peer, peer_meta);
        // A full barrier between our line and the look at the other. Whoever takes that one does the same the other way round.
        line.swap_meta(line.meta(), meta);
        if self.peer_at(peer, index).is_some() {
            return true;
        }
        self.free(index, meta);
        false
    }

    /// Gives a line back that the caller has claimed, for the flow of these homes, and not published. What stands in it may be
    /// another's entry still.
    #[inline(always)]
    pub fn give_back(&self, index: u32, meta: Meta, homes: &Homes) {
        let Some(line) = self.0.at(index) else { return };
        clear(&self.0, index, meta);
        if meta.is_second()
            && let Some(home) = self.0.at(homes.first)
        {
            home.add_hops(FAR.wrapping_neg());
        }
        line.set_meta(meta.emptied());
    }

    /// Frees a live line that is as it was when `meta` was read; whether it was. Its peer stays.
    #[inline(always)]
    pub fn free(&self, index: u32, meta: Meta) -> bool {
        let Some(line) = self.leave(index, meta) else { return false };
        self.vacate(index, line, meta);
        true
    }

    /// Frees both lines of a connection, if the one is as it was when `meta` was read; whether it was.
    #[inline(always)]
    pub fn free_pair(&self, index: u32, meta: Meta) -> bool {
        let Some(line) = self.leave(index, meta) else { return false };
        // While the one is ours: the same flow, come again, might take both lines anew, and lose one to us.
        self.free_peer(line.peer(), index);
        self.vacate(index, line, meta);
        true
    }

    #[inline(always)]
    fn leave(&self, index: u32, meta: Meta) -> Option<L::Line> {
        let line = self.0.at(index)?;
        if meta.is_live() && line.swap_meta(meta, meta.leaving()) { Some(line) } else { None }
    }

    /// Empties a line that was `meta` and is left.
    #[inline(always)]
    fn vacate(&self, index: u32, line: L::Line, meta: Meta) {
        self.unlink(index, meta);
        // Its bit is gone while the line is still ours: another entry's bit for the same line is never cleared.
        line.set_meta(meta.leaving().emptied());
    }

    /// Frees the line `peer` if it is the other direction of the one at `index`.
    #[inline(always)]
    fn free_peer(&self, peer: u32, index: u32) {
        // Its state may change while we look.
        for _ in 0..2 {
            match self.peer_at(peer, index) {
                Some(meta) if self.free(peer, meta) => return,
                Some(_) => {}
                None => return,
            }
        }
    }

    /// Frees a line whose owner is gone: `meta` was `Leaving` or `Claimed` at two sweeps, in the same version. That an entry lies at
    /// its second home may be said once too often from then on; it costs a look.
    pub fn free_stuck(&self, index: u32, meta: Meta) -> bool {
        let Some(line) = self.0.at(index) else { return false };
        if !(meta.is(State::Claimed) || meta.is(State::Leaving)) || !line.swap_meta(meta, meta.leaving()) {
            return false;
        }
        clear(&self.0, index, meta);
        line.set_meta(meta.leaving().emptied());
        true
    }
}

/// See [`Lines::unlink`].
#[inline(always)]
pub fn unlink<L: Lines + ?Sized>(lines: &L, index: u32, meta: Meta) {
    clear(lines, index, meta);
    if meta.is_second()
        && let Some(line) = lines.at(index)
        && let Some(first) = lines.first_home(line, meta)
        && let Some(home) = lines.at(first)
    {
        home.add_hops(FAR.wrapping_neg());
    }
}

/// Takes a line out of the map of the window that it lies in.
#[inline(always)]
fn clear<L: Lines + ?Sized>(lines: &L, index: u32, meta: Meta) {
    let distance = meta.distance();
    if distance != 0
        && let Some(home) = lines.at(index.wrapping_sub(distance) & lines.mask())
    {
        home.and_hops(!(1 << distance));
    }
}
