//! Whether somebody is at the address that a SYN claims to come from: asked in a flood, before anything is remembered.
//!
//! The SYN is answered by a SYN-ACK that acknowledges a number *before* the SYN's. A host that has sent the SYN answers
//! with a reset that bears this number, goes on waiting, and repeats its SYN (RFC 9293, section 3.10.7.3); Linux does so at once,
//! others after their time-out of a second. An address that nobody has answers nothing. The low 16 bits of the number
//! are a code of the flow and the time under a secret, so that nothing is kept of the question: whoever resets with the right
//! code has seen it. The number is at most 65,535 before the SYN's, since firewalls and translators in between take
//! older ones for invalid (`MAXACKWINDOW` of Linux' connection tracking is 66,000).
//!
//! A right answer vouches for its flow and for its source. For the flow by itself, so that nobody who forges SYNs in the source's name
//! can use up what it may open before its own SYN is back.
//!
//! 16 bits can be guessed, and a host that is there answers a question that it has not caused in the same way. So one right
//! answer vouches for few connections only ([`VOUCHES_FOR`]), and the same one, sent again, for none.

use crate::table::Homes;

/// Ticks in which a code is the same; that of the period before is taken, too.
pub const PERIOD: u32 = 128;
/// Connections that a source or a flow may open after a right answer, before it is asked again.
pub const VOUCHES_FOR: u32 = 8;
/// And how many ticks later at most.
pub const VOUCHES_UNTIL: u32 = 3000;

/// A source, or a flow, that has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Vouched {
    /// Tells apart those who share a place.
    pub tag: u32,
    /// When, in ticks.
    pub since: u32,
    /// Connections that it has opened since.
    pub opened: u32,
    /// 0: there is nobody.
    pub present: u32,
}

/// Places for those who are remembered; a power of two. A newer one takes the place of an older one.
pub const PLACES: u32 = 1 << 16;

/// The place of a source, and its tag, by its address in two words.
#[inline(always)]
pub const fn place(address: [u64; 2], secret: &[u64; 2]) -> (u32, u32) {
    split(siphash(address, secret))
}

/// The same of a flow.
#[inline(always)]
pub const fn place_of_flow(homes: &Homes, secret: &[u64; 2]) -> (u32, u32) {
    split(siphash([words(homes), 1 << 63 | homes.tag as u64], secret))
}

#[inline(always)]
const fn split(hash: u64) -> (u32, u32) {
    (hash as u32 & (PLACES - 1), (hash >> 32) as u32)
}

#[inline(always)]
const fn words(homes: &Homes) -> u64 {
    (homes.first as u64) << 32 | homes.second as u64
}

impl Vouched {
    #[inline(always)]
    pub const fn new(tag: u32, now: u32) -> Self {
        Self { tag, since: now, opened: 0, present: 1 }
    }

    /// Whether a right answer of this flow may be the one before, sent again.
    #[inline(always)]
    pub const fn is_fresh(&self, tag: u32, now: u32) -> bool {
        self.present != 0 && self.tag == tag && now.wrapping_sub(self.since).wrapping_add(1) <= 2 * PERIOD
    }

    /// Whether a source of this tag may open another connection.
    #[inline(always)]
    pub const fn may_open(&self, tag: u32, now: u32) -> bool {
        self.present != 0
            && self.tag == tag
            && self.opened < VOUCHES_FOR
            // Another CPU's "now" may be a tick ahead.
            && now.wrapping_sub(self.since).wrapping_add(1) <= VOUCHES_UNTIL
    }
}

/// The code of a flow at a time. The flow is known by where it belongs in the connection table, which is a hash under secrets
/// of its own.
#[inline(always)]
pub const fn code(homes: &Homes, period: u32, secret: &[u64; 2]) -> u16 {
    siphash([words(homes), (period as u64) << 32 | homes.tag as u64], secret) as u16
}

/// What a SYN of this sequence number is asked with: the nearest number before it, or itself, that has the code.
#[inline(always)]
pub const fn acknowledgment(sequence: u32, code: u16) -> u32 {
    sequence.wrapping_sub((sequence as u16).wrapping_sub(code) as u32)
}

/// Whether a reset of this sequence number answers.
#[inline(always)]
pub const fn is_answer(sequence: u32, homes: &Homes, now: u32, secret: &[u64; 2]) -> bool {
    let (period, number) = (now / PERIOD, sequence as u16);
    number == code(homes, period, secret) || number == code(homes, period.wrapping_sub(1), secret)
}

/// SipHash-2-4 (Aumasson, Bernstein 2012) of two words.
#[inline(always)]
pub(crate) const fn siphash(words: [u64; 2], key: &[u64; 2]) -> u64 {
    let mut state = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    // Its last word says how many bytes there were, in its first byte.
    state = absorb(state, words[0]);
    state = absorb(state, words[1]);
    state = absorb(state, 16 << 56);
    state[2] ^= 0xff;
    let [a, b, c, d] = round(round(round(round(state))));
    a ^ b ^ c ^ d
}

#[inline(always)]
const fn absorb(mut state: [u64; 4], word: u64) -> [u64; 4] {
    state[3] ^= word;
    state = round(round(state));
    state[0] ^= word;
    state
}

#[inline(always)]
const fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    c = c.wrapping_add(d);
    b = b.rotate_left(13) ^ a;
    d = d.rotate_left(16) ^ c;
    a = a.rotate_left(32).wrapping_add(d);
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    d = d.rotate_left(21) ^ a;
    [a, b, c.rotate_left(32), d]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    fn homes(hash: u64) -> Homes {
        Homes::of(hash, (1 << 20) - 1)
    }

    #[test]
    #[allow(deprecated, reason = "the standard library's SipHash-2-4 is the only one without a dependency")]
    fn it_is_siphash() {
        use std::hash::{Hasher as _, SipHasher};
        for (a, b) in [(0, 0), (SECRET[0], SECRET[1]), (u64::MAX, 1), (0x0123_4567_89ab_cdef, 1 << 63)] {
            let mut oracle = SipHasher::new_with_keys(SECRET[0], SECRET[1]);
            oracle.write(&a.to_le_bytes());
            oracle.write(&b.to_le_bytes());
            assert_eq!(siphash([a, b], &SECRET), oracle.finish(), "{a:#x} {b:#x}");
        }
    }

    #[test]
    fn the_number_is_before_the_syn_and_has_the_code() {
        for sequence in [0, 1, 65_535, 65_536, 0x8000_0000, u32::MAX] {
            for code in [0, 1, 0x7fff, 0xffff] {
                let number = acknowledgment(sequence, code);
                assert_eq!(number as u16, code);
                // Not acceptable to the client: at most its first number. Acceptable to what tracks connections in between.
                let before = sequence.wrapping_sub(number);
                assert!(before <= 65_535, "{sequence:#x} {code:#x}: {before}");
            }
        }
    }

    #[test]
    fn an_answer_is_right_for_its_flow_and_its_time() {
        let flow = homes(0x1234_5678_9abc_def0);
        let asked = 1000 * PERIOD;
        let number = acknowledgment(77, code(&flow, asked / PERIOD, &SECRET));
        // Ticks later -> whether it is taken.
        for (later, taken) in [(0, true), (PERIOD - 1, true), (2 * PERIOD - 1, true), (2 * PERIOD, false)] {
            assert_eq!(is_answer(number, &flow, asked + later, &SECRET), taken, "{later}");
        }
        assert!(!is_answer(number, &homes(0x1234_5678_9abc_def1), asked, &SECRET));
        assert!(!is_answer(number, &flow, asked, &[SECRET[0], SECRET[1] ^ 1]));
        assert!(!is_answer(number.wrapping_add(1), &flow, asked, &SECRET));
    }

    #[test]
    fn codes_are_spread() {
        let mut seen = std::collections::HashSet::new();
        for flow in 0..1000u64 {
            seen.insert(code(&homes(flow.wrapping_mul(0x9e37_79b9_7f4a_7c15)), 5, &SECRET));
        }
        // Of 1000 in 65,536 some 8 meet.
        assert!(seen.len() > 970, "{}", seen.len());
    }

    #[test]
    fn a_source_is_vouched_for_by_number_and_time() {
        let vouched = Vouched::new(7, 1000);
        let opened = |opened| Vouched { opened, ..vouched };
        for (source, tag, now, may) in [
            (vouched, 7, 1000, true),
            (vouched, 8, 1000, false),
            (Vouched::default(), 0, 1, false),
            (vouched, 7, 999, true),
            (vouched, 7, 1000 + VOUCHES_UNTIL - 1, true),
            (vouched, 7, 1000 + VOUCHES_UNTIL, false),
            (opened(VOUCHES_FOR - 1), 7, 1000, true),
            (opened(VOUCHES_FOR), 7, 1000, false),
        ] {
            assert_eq!(source.may_open(tag, now), may, "{source:?} {tag} {now}");
        }
        for (tag, now, fresh) in [
            (7, 1000, true),
            (7, 1000 + 2 * PERIOD - 1, true),
            (7, 1000 + 2 * PERIOD, false),
            (8, 1000, false),
        ] {
            assert_eq!(vouched.is_fresh(tag, now), fresh, "{tag} {now}");
        }
        let here = place([0, 1], &SECRET);
        assert!(here.0 < PLACES);
        assert_ne!(here, place([1, 0], &SECRET));
        assert_ne!(here, place([0, 2], &SECRET));
        assert_ne!(place_of_flow(&homes(1 << 40), &SECRET), place_of_flow(&homes(1 << 41), &SECRET));
    }
}
