//! The hashes that kernel and user space share: of a flow (which slot of a Maglev table) and of bytes.

use crate::abi::{Address, FlowKey};

/// 2^64 divided by the golden ratio, made odd: multiplying by it spreads low bits over high ones.
pub const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes one word into a hash.
#[inline(always)]
pub const fn mix(hash: u64, word: u32) -> u64 {
    let hash = (hash ^ word as u64).wrapping_mul(SPREAD);
    hash ^ (hash >> 29)
}

/// A flow's hash: the same on every node and after every restart, so that the same flow finds the same backend. Nobody who
/// does not know the installation's `seed` can aim his flows at one backend.
#[inline(always)]
pub fn flow<A: Address>(key: &FlowKey<A>, seed: u64) -> u32 {
    let mut hash = key.src.mix(seed);
    hash = key.dst.mix(hash);
    let [s0, s1] = key.src_port;
    let [d0, d1] = key.dst_port;
    hash = mix(hash, u32::from_be_bytes([s0, s1, d0, d1]));
    hash = mix(hash, u32::from(key.protocol));
    (mix(hash, (seed >> 32) as u32) >> 32) as u32
}

/// The hash of what counts of a source's address, in words: whichever flow it comes with.
#[inline(always)]
pub const fn source([first, second]: [u64; 2], seed: u64) -> u32 {
    let mut hash = mix(mix(seed, first as u32), (first >> 32) as u32);
    hash = mix(mix(hash, second as u32), (second >> 32) as u32);
    (mix(hash, (seed >> 32) as u32) >> 32) as u32
}

/// A slot of a table of `size` slots, evenly for any size (Lemire's multiply-shift in place of a division).
#[inline(always)]
pub const fn slot(hash: u32, size: u32) -> u32 {
    ((hash as u64 * size as u64) >> 32) as u32
}

/// A hash of bytes, for tables that are built rarely; `seed` makes independent ones.
pub fn bytes(seed: u32, bytes: &[u8]) -> u64 {
    let mut hash = mix(mix(0, seed), bytes.len() as u32);
    for chunk in bytes.chunks(4) {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = mix(hash, u32::from_be_bytes(word));
    }
    mix(mix(hash, 0), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    /// Chi-squared over 64 slots for flows that differ as little as real ones do.
    fn spread(flows: impl Iterator<Item = FlowKey<[u8; 4]>>) -> f64 {
        let mut slots = vec![0u32; 64];
        let mut n = 0.0;
        for key in flows {
            slots[slot(flow(&key, 0x5eed_5eed_5eed_5eed), 64) as usize] += 1;
            n += 1.0;
        }
        let expected = n / 64.0;
        slots.iter().map(|&seen| (f64::from(seen) - expected).powi(2) / expected).sum()
    }

    fn key(client: u32, port: u16) -> FlowKey<[u8; 4]> {
        FlowKey::new(client.to_be_bytes(), [192, 0, 2, 10], port.to_be_bytes(), 443u16.to_be_bytes(), 6)
    }

    #[test]
    fn sources_spread_evenly_over_slots() {
        for step in [1u32, 256, 1 << 16] {
            let mut slots = vec![0u32; 64];
            for client in 0..10_000u32 {
                let words = key(0x0a00_0001u32.wrapping_add(client.wrapping_mul(step)), 0).src.words();
                slots[slot(source(words, 0x5eed_5eed_5eed_5eed), 64) as usize] += 1;
            }
            let expected = 10_000.0 / 64.0;
            let spread: f64 = slots.iter().map(|&seen| (f64::from(seen) - expected).powi(2) / expected).sum();
            assert!(spread < 103.4, "clients {step} apart: {spread}");
        }
    }

    #[test]
    fn flows_spread_evenly_over_slots() {
        // 63 degrees of freedom: 99.9% of random draws stay below 103.4.
        assert!(spread((0..10_000).map(|i| key(0x0a00_0001, 32768 + i))) < 103.4, "ports of one client");
        assert!(spread((0..10_000).map(|i| key(0x0a00_0001 + i, 40000))) < 103.4, "clients in a row");
        assert!(spread((0..10_000).map(|i| key(0x0a00_0001 + (i << 8), 40000))) < 103.4, "clients 256 apart");
        assert!(spread((0..10_000).map(|i| key(0x0a00_0001, 1024 + 2 * i))) < 103.4, "even ports only");
    }
}
