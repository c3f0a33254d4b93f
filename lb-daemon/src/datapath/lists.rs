//! The prefixes of all lists, in one trie: who says what of whom.
//!
//! A list is written whole under the number of its content before any farm names it, and taken out when none does any more. Both
//! take tenths of a second for long ones, and are done beside the daemon's loop; one at a time. Whoever is killed in between leaves
//! prefixes that nobody asks for: the next daemon writes the list again or takes it out.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Map, MapData, MapError};
use lb_common::abi::{LIST_ALLOWS, LIST_BITS, LIST_DENIES, Listed, map};
use lb_core::config::model::{Config, Lists as Content};

use super::maps;

/// The kernel's reserve of nodes is filled while we write, and may be empty for a moment.
const TRIES: u32 = 1000;

/// A packet that met the number of a list when it was still a farm's has long asked it by then.
const GRACE: Duration = Duration::from_millis(50);

/// A hold on the trie.
#[derive(Clone)]
pub struct Lists(Arc<Shared>);

struct Shared {
    trie: Mutex<Trie>,
    /// What is not to be taken out. Said before it is written, and read only by whoever has the trie.
    wanted: Mutex<BTreeSet<u64>>,
}

struct Trie {
    map: LpmTrie<MapData, Listed, u32>,
    /// Lists that are there to their last prefix.
    whole: BTreeSet<u64>,
    /// Nothing else is there.
    clean: bool,
}

impl Lists {
    pub(super) fn open(pins: &Path) -> anyhow::Result<Self> {
        let map = LpmTrie::try_from(Map::LpmTrie(maps::pinned(pins, map::LISTS)?));
        let map = map.with_context(|| maps::mismatch(map::LISTS))?;
        let trie = Mutex::new(Trie { map, whole: BTreeSet::new(), clean: false });
        Ok(Self(Arc::new(Shared { trie, wanted: Mutex::default() })))
    }

    /// Lists that farms go by, as the maps tell: nobody names one that is not whole.
    pub fn adopt(&self, named: BTreeSet<u64>) {
        self.trie().whole = named;
    }

    /// Says which lists are in use. Does not wait.
    pub fn want(&self, lists: BTreeSet<u64>) {
        *lock(&self.0.wanted) = lists;
    }

    /// Writes the lists of `config` that are not there. They stay at least until somebody [says](Self::want) what is wanted.
    ///
    /// # Errors
    ///
    /// As [`Lists::write`].
    pub fn bring(&self, config: &Config) -> anyhow::Result<()> {
        let lists = config.farms.iter().filter(|farm| farm.enabled).map(|farm| &*farm.lists);
        lock(&self.0.wanted).extend(lists.clone().map(Content::id));
        self.write(lists)
    }

    /// Writes what is not there, and is [wanted](Self::want).
    ///
    /// # Errors
    ///
    /// If the kernel refuses a prefix. What was written is taken out by the next [`Lists::tidy`].
    pub fn write<'a>(&self, lists: impl IntoIterator<Item = &'a Content>) -> anyhow::Result<()> {
        let mut trie = self.trie();
        let clean = std::mem::replace(&mut trie.clean, false);
        for list in lists.into_iter().filter(|list| list.id() != 0) {
            if trie.whole.contains(&list.id()) {
                continue;
            }
            for rule in list.rules() {
                let key = Key::new(LIST_BITS + u32::from(rule.bits), Listed::new(list.id(), rule.address));
                let says = if rule.allowed { LIST_ALLOWS } else { LIST_DENIES };
                insert(&mut trie.map, &key, says).context("the kernel refused a prefix of a list")?;
            }
            trie.whole.insert(list.id());
        }
        trie.clean = clean;
        Ok(())
    }

    /// Takes out what nobody wants. Returns how many prefixes that were.
    ///
    /// # Errors
    ///
    /// If the trie cannot be read or changed.
    pub fn tidy(&self) -> anyhow::Result<usize> {
        let mut trie = self.trie();
        let wanted = lock(&self.0.wanted).clone();
        if trie.clean && trie.whole.is_subset(&wanted) {
            return Ok(0);
        }
        // Whoever goes on after a prefix that is gone may miss others: all are found first.
        let mut found = Vec::new();
        for key in trie.map.keys() {
            let key = key.context("reading the lists")?;
            if !wanted.contains(&key.data().list()) {
                found.push(key);
            }
        }
        trie.whole.retain(|list| wanted.contains(list));
        if !found.is_empty() {
            std::thread::sleep(GRACE);
        }
        for key in &found {
            trie.map.remove(key).context("taking a list out")?;
        }
        trie.clean = true;
        Ok(found.len())
    }

    /// How many prefixes there are, of all lists.
    ///
    /// # Errors
    ///
    /// If the trie cannot be read.
    pub fn count(&self) -> anyhow::Result<usize> {
        Ok(self.trie().map.keys().collect::<Result<Vec<_>, _>>()?.len())
    }

    fn trie(&self) -> MutexGuard<'_, Trie> {
        lock(&self.0.trie)
    }
}

/// Whoever panicked has at worst left a list that is not whole, and not said to be.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn insert(map: &mut LpmTrie<MapData, Listed, u32>, key: &Key<Listed>, says: u32) -> Result<(), MapError> {
    for _ in 1..TRIES {
        match map.insert(key, says, 0) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOMEM) => {
                std::thread::yield_now();
            }
            other => return other,
        }
    }
    map.insert(key, says, 0)
}
