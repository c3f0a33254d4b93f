//! Source ports towards a backend: a hint which are free, and a way to pick one that nobody outside can tell in advance
//! (RFC 6056, section 3.3.1, with a map of those that are taken).

use crate::maps;

/// Words of a set that hold the ports that are not privileged: from 1024 on.
const FIRST_WORD: u32 = 1024 / 64;
const WORDS: u32 = 65536 / 64 - FIRST_WORD;
/// Words that are looked at for a free port, and how far apart: clients choose theirs in turn, so whole stretches are full. The
/// distance has no divisor in common with the number of words.
const LOOKS: u32 = 32;
const STRIDE: u32 = 397;

/// A connection has this port.
#[inline(always)]
pub fn taken(backend: u16, port: u16) {
    if let Some(word) = maps::ports(backend, u32::from(port) / 64) {
        // SAFETY: a map's value. Another CPU's bit of the same word may be lost: it is a hint.
        unsafe { word.write_volatile(word.read_volatile() | 1 << (port % 64)) };
    }
}

/// A port that seems to be free, other for each `random`; some port if none seems so.
#[inline(always)]
pub fn free(backend: u16, random: u32) -> u16 {
    free_port(u32::from(backend), random) as u16
}

/// For the verifier, as the functions in `calls` are.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn free_port(backend: u32, random: u32) -> u64 {
    u64::from(search(backend as u16, random))
}

#[inline(always)]
fn search(backend: u16, random: u32) -> u16 {
    let start = random % WORDS;
    for look in 0..LOOKS {
        let at = FIRST_WORD + (start + look * STRIDE) % WORDS;
        let Some(word) = maps::ports(backend, at) else { break };
        // SAFETY: as in `taken`.
        let free = unsafe { !word.read_volatile() };
        if free != 0 {
            // Some bit from a place of its own on.
            let turn = random >> 20 & 63;
            let bit = (free.rotate_right(turn).trailing_zeros() + turn) & 63;
            return (at * 64 + bit) as u16;
        }
    }
    (FIRST_WORD * 64 + random % (WORDS * 64)) as u16
}
