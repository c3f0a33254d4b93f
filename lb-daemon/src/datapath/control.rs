//! The map `CONTROL` as the daemon writes it: word by word, while the program reads.

use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use lb_common::abi::{self, INTERFACES_MAX, Interface};
use lb_core::quota::Policy;

use super::mapping::{Memory, halves};

const NOW: usize = offset_of!(abi::Control, now);
const POLICY: usize = offset_of!(abi::Control, policy);
const FACTOR: usize = offset_of!(abi::Control, interface_factor);
const REFUSALS: usize = offset_of!(abi::Control, refusals);
const LARGEST: usize = offset_of!(abi::Control, largest);
const TABLE_SEED: usize = offset_of!(abi::Control, table_seed);
const FLOW_SEED: usize = offset_of!(abi::Control, flow_seed);
const FARMS_FULL: usize = offset_of!(abi::Control, farms_full);
const FARMS_FLOODED: usize = offset_of!(abi::Control, farms_flooded);
const CHALLENGE_SEED: usize = offset_of!(abi::Control, challenge_seed);
const INTERFACES: usize = offset_of!(abi::Control, interfaces);

/// Words of all of it.
pub const WORDS: usize = size_of::<abi::Control>() / 8;

const _: () = assert!(offset_of!(Interface, ifindex) == 0 && offset_of!(Interface, mac) == 4);

/// The value of the map, which has one.
pub struct Control<M>(M);

impl<M: Memory> Control<M> {
    /// # Errors
    ///
    /// If there is too little of it.
    pub fn new(memory: M) -> anyhow::Result<Self> {
        anyhow::ensure!(memory.words().len() >= WORDS, "the map {} is too small", abi::map::CONTROL);
        Ok(Self(memory))
    }

    /// The time in ticks.
    pub fn now(&self) -> u32 {
        self.half(NOW).load(Ordering::Relaxed)
    }
    pub fn set_now(&self, ticks: u32) {
        self.half(NOW).store(ticks, Ordering::Relaxed);
    }

    /// What newcomers to the table of a family may take, which farms have their share of it, and whose newcomers are challenged.
    pub fn set_policy(&self, family: usize, policy: &Policy) {
        for (field, farms) in [(FARMS_FULL, &policy.farms_full), (FARMS_FLOODED, &policy.farms_flooded)] {
            for (at, word) in farms.iter().enumerate() {
                self.word(field, family * farms.len() + at).store(*word, Ordering::Relaxed);
            }
        }
        self.half(POLICY + 4 * family).store(policy.bits, Ordering::Relaxed);
    }
    pub fn policy(&self, family: usize) -> u32 {
        self.half(POLICY + 4 * family).load(Ordering::Relaxed)
    }

    /// Answers to refused packets that a CPU may send in a tick.
    pub fn set_refusals(&self, each_tick: u32) {
        self.half(REFUSALS).store(each_tick, Ordering::Relaxed);
    }

    /// Bytes of the largest frame that every interface carries; 0: nobody knows.
    pub fn set_largest(&self, bytes: u32) {
        self.half(LARGEST).store(bytes, Ordering::Release);
    }

    /// The secrets of the table's hash; zeros in a map that is new.
    pub fn table_seed(&self) -> [u64; 2] {
        [0, 1].map(|at| self.word(TABLE_SEED, at).load(Ordering::Relaxed))
    }
    pub fn set_table_seed(&self, seed: [u64; 2]) {
        for (at, word) in seed.into_iter().enumerate() {
            self.word(TABLE_SEED, at).store(word, Ordering::Relaxed);
        }
    }

    /// The secret of challenges; another one with each daemon.
    pub fn set_challenge_seed(&self, seed: [u64; 2]) {
        for (at, word) in seed.into_iter().enumerate() {
            self.word(CHALLENGE_SEED, at).store(word, Ordering::Relaxed);
        }
    }

    pub fn set_flow_seed(&self, seed: u64) {
        self.word(FLOW_SEED, 0).store(seed, Ordering::Relaxed);
    }

    pub fn interface_factor(&self) -> u32 {
        self.half(FACTOR).load(Ordering::Relaxed)
    }
    pub fn set_interface_factor(&self, factor: u32) {
        self.half(FACTOR).store(factor, Ordering::SeqCst);
    }

    /// Interfaces by number.
    pub fn interfaces(&self) -> [Interface; INTERFACES_MAX as usize] {
        std::array::from_fn(|number| {
            let [a, b] = [0, 1].map(|at| self.word(INTERFACES, 2 * number + at).load(Ordering::Relaxed));
            let ([i0, i1, i2, i3, m0, m1, m2, m3], [m4, m5, u0, u1, ..]) = (a.to_ne_bytes(), b.to_ne_bytes());
            Interface {
                ifindex: u32::from_ne_bytes([i0, i1, i2, i3]),
                mac: [m0, m1, m2, m3, m4, m5],
                mtu: u16::from_ne_bytes([u0, u1]),
                reserved: [0; 2],
            }
        })
    }

    /// Two words: for a moment a program may see a hardware address's two parts of two addresses, which is nobody's, so that it
    /// leaves a frame to the host.
    pub fn set_interface(&self, number: u32, to: Interface) {
        let ([i0, i1, i2, i3], [m0, m1, m2, m3, m4, m5]) = (to.ifindex.to_ne_bytes(), to.mac);
        let [u0, u1] = to.mtu.to_ne_bytes();
        let words = [[i0, i1, i2, i3, m0, m1, m2, m3], [m4, m5, u0, u1, 0, 0, 0, 0]];
        for (at, word) in words.into_iter().enumerate() {
            let place = self.word(INTERFACES, 2 * number as usize + at);
            place.store(u64::from_ne_bytes(word), Ordering::Release);
        }
    }

    /// The word `at` of the field that begins at the byte `offset`.
    fn word(&self, offset: usize, at: usize) -> &AtomicU64 {
        &self.0.words()[offset / 8 + at]
    }

    /// The field of 32 bits at the byte `offset`. The first three words are used by halves alone.
    fn half(&self, offset: usize) -> &AtomicU32 {
        &halves(self.word(offset, 0))[offset / 4 % 2]
    }
}

#[cfg(test)]
mod tests {
    use super::super::mapping::words_of;
    use super::*;

    #[test]
    fn each_field_is_where_the_program_reads_it() {
        let control = Control::new((0..WORDS).map(|_| AtomicU64::new(0)).collect::<Vec<_>>()).unwrap();
        control.set_now(1);
        control.set_interface_factor(2);
        let farms = |from: u64| std::array::from_fn(|at| from + at as u64);
        control.set_policy(0, &Policy { bits: 3, farms_full: farms(10), farms_flooded: farms(30) });
        control.set_policy(1, &Policy { bits: 4, farms_full: farms(20), farms_flooded: farms(40) });
        control.set_challenge_seed([9, 50]);
        control.set_refusals(5);
        control.set_largest(51);
        control.set_table_seed([6, 7]);
        control.set_flow_seed(8);
        let interface = Interface { ifindex: 16, mac: [17, 18, 19, 20, 21, 22], mtu: 23, reserved: [0; 2] };
        control.set_interface(63, interface);
        let value = abi::Control {
            now: 1,
            interface_factor: 2,
            policy: [3, 4],
            refusals: 5,
            largest: 51,
            table_seed: [6, 7],
            flow_seed: 8,
            farms_full: [farms(10), farms(20)],
            farms_flooded: [farms(30), farms(40)],
            challenge_seed: [9, 50],
            interfaces: std::array::from_fn(|i| if i == 63 { interface } else { Interface::default() }),
        };
        let found: Vec<u64> = control.0.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        assert_eq!(found, words_of::<_, WORDS>(&value));
        assert_eq!((control.now(), control.policy(0), control.policy(1)), (1, 3, 4));
        assert_eq!((control.interface_factor(), control.table_seed()), (2, [6, 7]));
        assert_eq!(control.interfaces(), value.interfaces);
    }
}
