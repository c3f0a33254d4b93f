//! Copies of the entries of live maps that a packet comes to, for the instance of the program that explains it: it may write them,
//! and nobody's traffic is touched. They are brought one by one, when the program has missed one: a snapshot of everything would be as
//! large as the connection table.
//!
//! The copies are in hash maps, which the program cannot tell from its arrays but by what they do not hold.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use aya::maps::{HashMap, MapData};
use lb_common::abi::map;
use lb_common::load::Load;
use lb_common::table::{Line as _, Meta, RawLine, WINDOW};
use lb_common::trace::Paged;

use crate::datapath::mapping::{MappedLine, Mapping, Memory as _};
use crate::datapath::maps;

/// So many entries of a map are copied for one packet at most. It comes to some two hundred lines when all ports are tried.
const ROOM: u32 = 4096;
/// Tries to copy a line that packets are changing.
const TRIES: usize = 8;

/// The name of a map of which there are copies.
pub fn name(of: Paged) -> &'static str {
    match of {
        Paged::ConnectionsV4 => map::CONNECTIONS_V4,
        Paged::ConnectionsV6 => map::CONNECTIONS_V6,
        Paged::Affinities => map::AFFINITIES,
        Paged::Schedules => map::SCHEDULES,
        Paged::Ports => map::PORTS,
        Paged::Vouched => super::VOUCHED,
        Paged::Loads => map::LOADS,
    }
}

/// The copies of one map, whatever its entries are.
pub trait Pages: Send {
    /// Copies an entry, and what is likely to be asked for next. `false`: there is nothing
    /// that was not copied before.
    fn bring(&mut self, key: u32) -> anyhow::Result<bool>;
    /// Makes every copy again what it was when it was brought.
    fn restore(&mut self) -> anyhow::Result<()>;
    /// Forgets all copies.
    fn clear(&mut self) -> anyhow::Result<()>;
    /// Whether something has become of an entry since, so that copies of different times may contradict each other.
    fn is_stale(&self) -> bool;
    /// An entry as it was copied.
    fn before(&self, key: u32) -> Option<&[u64]>;
    /// An entry as the program has left its copy.
    fn after(&self, key: u32) -> Option<Vec<u64>>;
}

/// Pages of entries of `N` words.
struct Of<const N: usize> {
    live: Mapping,
    own: HashMap<MapData, u32, [u64; N]>,
    copies: BTreeMap<u32, [u64; N]>,
    /// Entries are lines of a connection table.
    lines: bool,
}

/// The copies of a map, none at first, for a program that is to find them pinned at `pin`.
pub fn make(of: Paged, live: Mapping, pin: &Path) -> anyhow::Result<Box<dyn Pages>> {
    match of {
        Paged::ConnectionsV4 | Paged::ConnectionsV6 => Of::<8>::boxed(live, pin, true),
        Paged::Affinities => Of::<16>::boxed(live, pin, false),
        Paged::Schedules => Of::<8>::boxed(live, pin, false),
        Paged::Ports => Of::<1>::boxed(live, pin, false),
        Paged::Vouched => Of::<2>::boxed(live, pin, false),
        Paged::Loads => Of::<{ size_of::<Load>() / 8 }>::boxed(live, pin, false),
    }
}

const _: () = assert!(size_of::<RawLine>() == 8 * 8);
const _: () = assert!(size_of::<lb_common::affinity::Bucket>() == 16 * 8);
const _: () = assert!(size_of::<lb_common::abi::Schedule>() == 8 * 8);
const _: () = assert!(size_of::<lb_common::challenge::Vouched>() == 2 * 8);

impl<const N: usize> Of<N> {
    fn boxed(live: Mapping, pin: &Path, lines: bool) -> anyhow::Result<Box<dyn Pages>> {
        HashMap::<MapData, u32, [u64; N]>::create(ROOM, 0)
            .context("cannot make a map for copies")?
            .pin(pin)
            .with_context(|| format!("cannot pin {}", pin.display()))?;
        let own = HashMap::try_from(aya::maps::Map::HashMap(MapData::from_pin(pin)?))
            .with_context(|| maps::mismatch("of copies"))?;
        Ok(Box::new(Self { live, own, copies: BTreeMap::new(), lines }))
    }

    /// The live entry as it is now, all of one time if it is a line.
    fn read(&self, key: u32) -> Option<[u64; N]> {
        let start = key as usize * N;
        let words: &[AtomicU64; N] = self.live.words().get(start..start + N)?.try_into().ok()?;
        let mut copy = words.each_ref().map(|word| word.load(Ordering::Acquire));
        for _ in 0..TRIES {
            let again = words.each_ref().map(|word| word.load(Ordering::Acquire));
            if again == copy || !self.lines {
                break;
            }
            copy = again;
        }
        Some(copy)
    }

    fn copy(&mut self, key: u32) -> anyhow::Result<bool> {
        if self.copies.contains_key(&key) {
            return Ok(false);
        }
        let Some(value) = self.read(key) else { return Ok(false) };
        anyhow::ensure!(self.copies.len() < ROOM as usize, "the packet comes to too many entries");
        self.own.insert(key, value, 0).context("cannot copy an entry")?;
        self.copies.insert(key, value);
        Ok(true)
    }

    /// The number of a live line's other direction.
    fn peer(&self, key: u32) -> Option<u32> {
        let line = MappedLine::at(self.live.words(), key)?;
        line.meta().is_live().then(|| line.peer())
    }
}

impl<const N: usize> Pages for Of<N> {
    fn bring(&mut self, key: u32) -> anyhow::Result<bool> {
        let mut new = self.copy(key)?;
        if self.lines {
            let mask = (self.live.words().len() / N) as u32 - 1;
            for behind in 0..WINDOW {
                // A line may have been copied as one of another window.
                let key = key.wrapping_add(behind) & mask;
                new |= self.copy(key)?;
                if let Some(peer) = self.peer(key) {
                    self.copy(peer)?;
                }
            }
        }
        Ok(new)
    }

    fn restore(&mut self) -> anyhow::Result<()> {
        self.copies
            .iter()
            .try_for_each(|(key, value)| self.own.insert(key, value, 0))
            .context("cannot write a copy")
    }

    fn clear(&mut self) -> anyhow::Result<()> {
        let copies = std::mem::take(&mut self.copies);
        copies.keys().try_for_each(|key| self.own.remove(key)).context("cannot forget a copy")
    }

    fn is_stale(&self) -> bool {
        let changed = |(key, copy): (&u32, &[u64; N])| self.read(*key).is_none_or(|now| now[0] != copy[0]);
        self.lines && self.copies.iter().any(changed)
    }

    fn before(&self, key: u32) -> Option<&[u64]> {
        self.copies.get(&key).map(|copy| &copy[..])
    }

    fn after(&self, key: u32) -> Option<Vec<u64>> {
        self.own.get(&key, 0).ok().map(|value| value.to_vec())
    }
}

/// The first word of a line.
pub fn meta(line: &[u64]) -> Meta {
    Meta(line.first().copied().unwrap_or_default())
}
