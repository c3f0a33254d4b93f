//! The map `PORTS`: which source ports towards a backend established connections have. The program notes a port when its
//! connection is established; the sweep takes those out again whose connection is gone, and notes what the program has lost.
//! It is a hint; what it lacks or has too much costs the program a try.

use std::sync::atomic::{AtomicU64, Ordering};

use lb_common::abi::{PORT_SETS, Port, PortSet};

const SETS: usize = PORT_SETS as usize;
const SET_WORDS: usize = size_of::<PortSet>() / 8;

/// The ports seen in this round, and those that the map had when it began.
pub struct Ports {
    seen: Vec<u64>,
    before: Vec<u64>,
    /// Sets with a port in this round, and with one before it.
    in_seen: [bool; SETS],
    in_before: [bool; SETS],
}

impl Default for Ports {
    fn default() -> Self {
        let words = || vec![0; SETS * SET_WORDS];
        Self { seen: words(), before: words(), in_seen: [false; SETS], in_before: [false; SETS] }
    }
}

impl Ports {
    #[inline]
    pub fn take(&mut self, backend: u16, port: Port) {
        let (set, port) = (usize::from(backend) % SETS, u16::from_be_bytes(port));
        self.in_seen[set] = true;
        self.seen[set * SET_WORDS + usize::from(port / 64)] |= 1 << (port % 64);
    }

    /// Brings the map to what was seen in a whole round. A port that the map has only since the round began is of a
    /// connection that may have come after the sweep had passed its line: it stays until the next round. Words that are right
    /// are not written: the program's copy stays in its caches.
    pub fn publish(&mut self, map: &[AtomicU64]) {
        let memory = self.seen.chunks_exact_mut(SET_WORDS).zip(self.before.chunks_exact_mut(SET_WORDS));
        let flags = self.in_seen.iter_mut().zip(&mut self.in_before);
        for ((map, (seen, before)), (in_seen, in_before)) in
            map.chunks_exact(SET_WORDS).zip(memory).zip(flags)
        {
            if !*in_seen && !*in_before && map.iter().all(|word| word.load(Ordering::Relaxed) == 0) {
                continue;
            }
            let mut any = 0;
            for (to, (seen, before)) in map.iter().zip(seen.iter_mut().zip(before)) {
                *before = bring(to, std::mem::take(seen), *before);
                any |= *before;
            }
            (*in_seen, *in_before) = (false, any != 0);
        }
    }
}

/// Brings a word of the map to what was `seen`, given what it was `before`; what it is then.
fn bring(word: &AtomicU64, seen: u64, before: u64) -> u64 {
    let now = word.load(Ordering::Relaxed);
    let (gone, lost) = (now & before & !seen, seen & !now);
    if gone != 0 {
        word.fetch_and(!gone, Ordering::Relaxed);
    }
    if lost != 0 {
        word.fetch_or(lost, Ordering::Relaxed);
    }
    now & !gone | lost
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> Vec<AtomicU64> {
        (0..SETS * SET_WORDS).map(|_| AtomicU64::new(0)).collect()
    }

    fn taken(map: &[AtomicU64]) -> Vec<(usize, usize)> {
        let bit = |at: usize| map[at / 64].load(Ordering::Relaxed) >> (at % 64) & 1 == 1;
        (0..SETS * 65536).filter(|&at| bit(at)).map(|at| (at / 65536, at % 65536)).collect()
    }

    #[test]
    fn the_map_has_the_ports_of_the_last_round() {
        let (map, mut ports) = (map(), Ports::default());
        let port = |port: u16| port.to_be_bytes();
        ports.take(513, port(64));
        ports.take(1, port(66));
        ports.take(511, port(65535));
        ports.publish(&map);
        assert_eq!(taken(&map), [(1, 64), (1, 66), (511, 65535)], "backends 1 and 513 share a set");
        ports.take(1, port(66));
        ports.take(511, port(65534));
        ports.publish(&map);
        assert_eq!(taken(&map), [(1, 66), (511, 65534)]);
        ports.publish(&map);
        assert_eq!(taken(&map), []);
    }

    #[test]
    fn what_the_program_notes_stays_until_a_whole_round_has_not_seen_it() {
        let (map, mut ports) = (map(), Ports::default());
        let note = |set: usize, port: usize| {
            map[(set * 65536 + port) / 64].fetch_or(1 << (port % 64), Ordering::Relaxed);
        };
        note(7, 1024);
        ports.take(3, 80u16.to_be_bytes());
        ports.publish(&map);
        assert_eq!(taken(&map), [(3, 80), (7, 1024)], "it may have come behind the sweep");
        note(3, 81);
        ports.take(3, 80u16.to_be_bytes());
        ports.publish(&map);
        assert_eq!(taken(&map), [(3, 80), (3, 81)], "a whole round has passed without the one");
        ports.take(3, 81u16.to_be_bytes());
        ports.publish(&map);
        assert_eq!(taken(&map), [(3, 81)]);
    }
}
