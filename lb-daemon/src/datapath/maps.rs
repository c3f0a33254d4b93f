//! The pinned maps, typed.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use lb_common::abi::{
    AddressFilter, Admission, BackendCounters, BackendEntry, BackendLabel, FarmCounters, FarmEntry, Label,
    MaglevTable, MappedAddress, ServiceEntry, ServiceKey, map,
};

use super::affinities::Affinities;
use super::control::Control;
use super::lists::Lists;
use super::loads::Loads;
use super::mapping::{Mapping, Memory, value_of, words_of};

/// Every map that the daemon's loop writes. Connection tables, and what else is read beside the loop, are
/// [`super::tables::Tables`].
pub struct Maps {
    pub filter: Array<MapData, AddressFilter>,
    pub addresses: HashMap<MapData, MappedAddress, u32>,
    pub services: HashMap<MapData, ServiceKey, ServiceEntry>,
    pub farms: Array<MapData, FarmEntry>,
    pub affinities: Affinities<Mapping>,
    pub farm_labels: Array<MapData, Label>,
    pub admissions: Array<MapData, Admission>,
    pub farm_counters: PerCpuArray<MapData, FarmCounters>,
    pub lists: Lists,
    pub loads: Loads<Mapping>,
    pub tables: Array<MapData, MaglevTable>,
    pub backends: Backends<Mapping>,
    pub backend_labels: Array<MapData, BackendLabel>,
    pub counters: PerCpuArray<MapData, BackendCounters>,
    pub vips: Vips<Mapping>,
    pub control: Control<Mapping>,
}

impl Maps {
    pub(super) fn open(pins: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            filter: array(pins, map::ADDRESS_FILTER)?,
            addresses: hash(pins, map::ADDRESSES)?,
            services: hash(pins, map::SERVICES)?,
            farms: array(pins, map::FARMS)?,
            affinities: Affinities::open(pins)?,
            farm_labels: array(pins, map::FARM_LABELS)?,
            admissions: array(pins, map::ADMISSIONS)?,
            farm_counters: per_cpu(pins, map::FARM_COUNTERS)?,
            lists: Lists::open(pins)?,
            loads: Loads(mapped(pins, map::LOADS)?),
            tables: array(pins, map::MAGLEV)?,
            backends: Backends(mapped(pins, map::BACKENDS)?),
            backend_labels: array(pins, map::BACKEND_LABELS)?,
            counters: per_cpu(pins, map::COUNTERS)?,
            vips: Vips(mapped(pins, map::VIPS)?),
            control: Control::new(mapped(pins, map::CONTROL)?)?,
        })
    }
}

/// Words of a backend's entry, and of one of its next hops. The entry begins with the two hops.
const ENTRY: usize = size_of::<BackendEntry>() / 8;
const HOPS: [usize; 2] = [0, 2];

/// The map `BACKENDS`.
pub struct Backends<M>(M);

impl<M: Memory> Backends<M> {
    /// `None` for a number beyond the map.
    pub fn get(&self, number: u16) -> Option<BackendEntry> {
        Some(value_of(self.words(number)?))
    }

    /// Writes a backend's entry while packets are on their way to it. A next hop is two words: while they change, the first one
    /// says that there is none. Who reads the first, the second and again the first never has two hops' halves.
    pub fn set(&self, number: u16, entry: &BackendEntry) {
        let Some(places) = self.words(number) else { return };
        let words: [u64; ENTRY] = words_of(entry);
        let differs = |at: usize| places[at].load(Ordering::Relaxed) != words[at];
        for hop in HOPS.into_iter().filter(|&hop| differs(hop) || differs(hop + 1)) {
            places[hop].store(0, Ordering::SeqCst);
        }
        for at in (0..ENTRY).filter(|at| !HOPS.contains(at)).filter(|&at| differs(at)) {
            places[at].store(words[at], Ordering::Release);
        }
        for hop in HOPS {
            places[hop].store(words[hop], Ordering::Release);
        }
    }

    fn words(&self, number: u16) -> Option<&[AtomicU64; ENTRY]> {
        let start = usize::from(number) * ENTRY;
        self.0.words().get(start..start + ENTRY)?.try_into().ok()
    }
}

/// The map `VIPS`.
pub struct Vips<M>(M);

impl<M: Memory> Vips<M> {
    /// The addresses by number, of numbers that have one.
    pub fn iter(&self) -> impl Iterator<Item = (u16, MappedAddress)> {
        let addresses = self.0.words().as_chunks::<2>().0.iter().map(value_of::<MappedAddress, 2>);
        (0..).zip(addresses).filter(|(_, address)| *address != [0; 16])
    }

    /// A number's address changes only while no connection bears the number.
    pub fn set(&self, number: u16, address: &MappedAddress) {
        let start = usize::from(number) * 2;
        let places = self.0.words().get(start..start + 2).unwrap_or_default();
        for (to, word) in places.iter().zip(words_of::<_, 2>(address)) {
            to.store(word, Ordering::Release);
        }
    }
}

/// The map pinned under its name.
pub(super) fn pinned(pins: &Path, name: &str) -> anyhow::Result<MapData> {
    let path = pins.join(name);
    MapData::from_pin(&path).with_context(|| format!("cannot open the pinned map {}", path.display()))
}

/// The same, in memory.
pub(super) fn mapped(pins: &Path, name: &str) -> anyhow::Result<Mapping> {
    Mapping::of(&pinned(pins, name)?).with_context(|| mismatch(name))
}

fn array<V: Pod>(pins: &Path, name: &str) -> anyhow::Result<Array<MapData, V>> {
    Array::try_from(Map::Array(pinned(pins, name)?)).with_context(|| mismatch(name))
}

fn hash<K: Pod, V: Pod>(pins: &Path, name: &str) -> anyhow::Result<HashMap<MapData, K, V>> {
    HashMap::try_from(Map::HashMap(pinned(pins, name)?)).with_context(|| mismatch(name))
}

pub(super) fn per_cpu<V: Pod>(pins: &Path, name: &str) -> anyhow::Result<PerCpuArray<MapData, V>> {
    PerCpuArray::try_from(Map::PerCpuArray(pinned(pins, name)?)).with_context(|| mismatch(name))
}

pub(super) fn mismatch(name: &str) -> String {
    format!("the pinned map {name} has another layout than this version's; stop the other version first")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::abi::NextHop;

    fn memory(words: usize) -> Vec<AtomicU64> {
        (0..words).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_backends_entry_is_what_was_written_and_its_neighbours_are_not() {
        let backends = Backends(memory(3 * ENTRY));
        let hop = |i: u8| NextHop { ifindex: u32::from(i), destination: [i; 6], source: [i + 1; 6] };
        let entry = BackendEntry {
            hop_v4: hop(1),
            hop_v6: hop(3),
            farm: 7,
            address_v6: [9; 16],
            ..BackendEntry::default()
        };
        backends.set(1, &entry);
        assert_eq!(backends.get(1), Some(entry));
        assert_eq!([backends.get(0), backends.get(2)], [Some(BackendEntry::default()); 2]);
        let changed = BackendEntry { hop_v4: hop(5), ..entry };
        backends.set(1, &changed);
        assert_eq!(backends.get(1), Some(changed));
        assert_eq!(backends.get(3), None);
        backends.set(3, &entry);
    }

    /// A reader that looks at the first word twice, as the program does.
    #[test]
    fn nobody_ever_reads_two_next_hops_halves() {
        let backends = Backends(memory(ENTRY));
        let hop = |i: u8| NextHop { ifindex: u32::from(i), destination: [i; 6], source: [i; 6] };
        let entry = |i: u8| BackendEntry { hop_v4: hop(i), ..BackendEntry::default() };
        backends.set(0, &entry(1));
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..20_000u32 {
                    backends.set(0, &entry((i % 200) as u8 + 1));
                }
                done.store(true, Ordering::SeqCst);
            });
            let places = backends.words(0).unwrap();
            while !done.load(Ordering::SeqCst) {
                let [first, second, again] = [0, 1, 0].map(|at: usize| places[at].load(Ordering::SeqCst));
                if first == 0 || first != again {
                    continue;
                }
                let hop: NextHop = {
                    let mut entry: [u64; ENTRY] = [0; ENTRY];
                    (entry[0], entry[1]) = (first, second);
                    value_of::<BackendEntry, ENTRY>(&entry.map(AtomicU64::new)).hop_v4
                };
                assert!(hop.destination == hop.source && hop.destination[0] == hop.ifindex as u8, "{hop:?}");
            }
        });
    }

    #[test]
    fn vips_without_an_address_are_not_there() {
        let vips = Vips(memory(8));
        vips.set(2, &[7; 16]);
        assert_eq!(vips.iter().collect::<Vec<_>>(), [(2, [7; 16])]);
        vips.set(2, &[0; 16]);
        assert_eq!(vips.iter().count(), 0);
        vips.set(9, &[7; 16]);
    }
}
