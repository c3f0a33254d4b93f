//! The hash of a flow: where its line belongs. Under secrets of the table, so that nobody can choose flows that meet in one window.

use crate::hash::SPREAD;

#[inline(always)]
const fn finish(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 32)).wrapping_mul(SPREAD);
    hash ^ (hash >> 32)
}

/// A word under a secret number and a secret odd factor. Words are combined after this alone: a difference in one that
/// would cancel a difference in another cannot be told without the secrets.
#[inline(always)]
const fn keyed(word: u64, secret: u64, factor: u64) -> u64 {
    (word ^ secret).wrapping_mul(factor | 1)
}

#[inline(always)]
pub const fn hash_v4(addresses: u64, ports: u64, seed: &[u64; 2]) -> u64 {
    let addresses = keyed(addresses, seed[0], seed[1]);
    finish(addresses.rotate_left(32) ^ keyed(ports, seed[1], seed[0]))
}

#[inline(always)]
pub const fn hash_v6([a, b]: [u64; 2], [c, d]: [u64; 2], ports: u64, seed: &[u64; 2]) -> u64 {
    let [s, t] = *seed;
    let source = keyed(a, s, t).rotate_left(32) ^ keyed(b, t, s);
    let destination = keyed(c, !s, t.rotate_left(32)).rotate_left(16) ^ keyed(d, !t, s.rotate_left(32));
    let ports = keyed(ports, s ^ t, s.rotate_left(16));
    finish(source ^ destination.rotate_left(21) ^ ports.rotate_left(43))
}
