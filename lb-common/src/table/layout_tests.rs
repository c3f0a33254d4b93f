use std::cell::Cell;

use super::super::entry::*;
use super::super::{Homes, Line as _};
use super::*;

/// A line in ordinary memory.
#[derive(Clone, Copy)]
struct Memory<'a>(&'a [Cell<u64>; 8]);

impl Raw for Memory<'_> {
    fn word(self, at: usize) -> u64 {
        self.0[at].get()
    }
    fn set_word(self, at: usize, to: u64) {
        self.0[at].set(to);
    }
    fn half(self, at: usize) -> u32 {
        let [a, b, c, d, e, f, g, h] = self.0[at / 2].get().to_ne_bytes();
        u32::from_ne_bytes(if at.is_multiple_of(2) { [a, b, c, d] } else { [e, f, g, h] })
    }
    fn set_half(self, at: usize, to: u32) {
        let mut bytes = self.0[at / 2].get().to_ne_bytes();
        bytes[at % 2 * 4..][..4].copy_from_slice(&to.to_ne_bytes());
        self.0[at / 2].set(u64::from_ne_bytes(bytes));
    }
    fn load(self) -> u64 {
        self.word(0)
    }
    fn store(self, to: u64) {
        self.set_word(0, to);
    }
    fn swap(self, from: u64, to: u64) -> bool {
        let same = self.load() == from;
        if same {
            self.store(to);
        }
        same
    }
    fn or(self, bits: u32) -> u32 {
        let before = self.half(2);
        self.set_half(2, before | bits);
        before
    }
    fn and(self, bits: u32) {
        self.set_half(2, self.half(2) & bits);
    }
    fn add(self, number: u32) {
        self.set_half(2, self.half(2).wrapping_add(number));
    }
}

struct Numbers;
const VIP: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
const BACKEND: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11];
const CLIENT: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0x77];

impl Book for Numbers {
    fn vip(&self, number: u16) -> Option<&[u8; 16]> {
        (number == 3).then_some(&VIP)
    }
    fn backend(&self, number: u16) -> Option<&[u8; 16]> {
        (number == 5).then_some(&BACKEND)
    }
}

fn check<A: Layout + core::fmt::Debug>(client: A, vip: A, backend: A, dnat: bool) {
    let port = |port: u16| port.to_be_bytes();
    let key = FlowKey::new(client, vip, port(40000), port(443), 6);
    let source = if dnat { client } else { vip };
    let to = FlowKey::new(source, backend, port(if dnat { 40000 } else { 51000 }), port(8443), 6);
    check_pair(&key, &to, |meta| if dnat { Meta(meta.0 | 1 << 13) } else { meta });
}

fn check_pair<A: Layout + core::fmt::Debug>(
    key: &FlowKey<A>,
    to: &FlowKey<A>,
    nature: impl Fn(Meta) -> Meta,
) {
    let port = |port: u16| port.to_be_bytes();
    let (reverse, back) = (to.reversed(), key.reversed());
    for (from, into, is_reverse) in [(key, to, false), (&reverse, &back, true)] {
        let memory: [Cell<u64>; 8] = Default::default();
        let line = Memory(&memory);
        let direction =
            if is_reverse { crate::tcp::Direction::Reverse } else { crate::tcp::Direction::Forward };
        let meta = nature(Meta::EMPTY.of(direction, false, false));
        let tail = if is_reverse { Hop::new(9, &[1, 2, 3, 4, 5, 6]).0 } else { opening(77, 88) };
        line.set_half(2, 0xabcd_0004);
        A::write(
            line,
            &New {
                key: from,
                to: into,
                reverse: is_reverse,
                backend: 5,
                vip: 3,
                peer: 12345,
                now: 99,
                acknowledgment: 66,
                tail,
            },
        );
        assert_eq!((line.load(), line.hops()), (0, 0xabcd_0004), "what is not the entry's stays");
        assert_eq!(A::key(line, meta, &Numbers).unwrap(), *from);
        assert_eq!(A::translated(line, meta, &Numbers).unwrap(), *into);
        assert!(A::holds(line, meta, from, &Numbers));
        assert_eq!(A::line_hash(line, meta, &Numbers, &[5, 6]), Some(A::hash(from, &[5, 6])));
        assert_eq!(A::backend(line), 5);
        assert_eq!((line.last_seen(), line.peer(), line.acknowledgment()), (99, 12345, 66));
        if is_reverse {
            assert_eq!((line.hop().interface(), line.hop().mac()), (9, [1, 2, 3, 4, 5, 6]));
        } else {
            assert_eq!((line.created(), line.opening()), (77, 88));
        }
        let other = |change: &dyn Fn(&mut FlowKey<A>)| {
            let mut other = *from;
            change(&mut other);
            other
        };
        let others = [
            other(&|other| other.src = into.src),
            other(&|other| other.dst = into.src),
            other(&|other| other.src_port = port(1)),
            other(&|other| other.dst_port = port(1)),
            other(&|other| other.protocol = 17),
        ];
        for other in others.iter().filter(|other| *other != from) {
            assert!(!A::holds(line, meta, other, &Numbers), "{other:?}");
        }
    }
}

#[test]
fn a_line_of_ipv4_says_what_was_written() {
    for dnat in [false, true] {
        check([198, 51, 100, 7], [192, 0, 2, 10], [10, 0, 0, 11], dnat);
    }
}

#[test]
fn a_line_of_ipv6_says_what_was_written() {
    for dnat in [false, true] {
        check(CLIENT, VIP, BACKEND, dnat);
    }
}

#[test]
fn a_line_whose_packets_stay_as_they_are_says_so() {
    let (port, http) = (40000u16.to_be_bytes(), 80u16.to_be_bytes());
    let v4 = FlowKey::new([198, 51, 100, 7], [192, 0, 2, 10], port, http, 6);
    check_pair(&v4, &v4, Meta::direct);
    let v6 = FlowKey::new(CLIENT, VIP, port, http, 6);
    check_pair(&v6, &v6, Meta::direct);
}

#[test]
fn translations_keep_checksums_right() {
    let key = FlowKey::new([198, 51, 100, 7], [192, 0, 2, 10], [0x9c, 0x40], [1, 187], 6);
    let to = FlowKey::new([192, 0, 2, 10], [10, 0, 0, 11], [0x12, 0x34], [0, 80], 6);
    let memory: [Cell<u64>; 8] = Default::default();
    let new = New {
        key: &key,
        to: &to,
        reverse: false,
        backend: 0,
        vip: 0,
        peer: 0,
        now: 0,
        acknowledgment: 0,
        tail: 0,
    };
    <[u8; 4]>::write(Memory(&memory), &new);
    let (addresses, transport) = <[u8; 4]>::target(Memory(&memory)).deltas_v4();
    let sum = |key: &FlowKey<[u8; 4]>| Delta::of(&key.src).and(Delta::of(&key.dst));
    let ports = |key: &FlowKey<[u8; 4]>| Delta::of(&key.src_port).and(Delta::of(&key.dst_port));
    assert_eq!(addresses.apply(sum(&key).checksum()), sum(&to).checksum());
    assert_eq!(transport.apply(sum(&key).and(ports(&key)).checksum()), sum(&to).and(ports(&to)).checksum());
}

/// Flows that differ as little as real ones do, over a table's homes.
#[test]
fn homes_and_tags_spread_evenly() {
    const LINES: u32 = 1 << 10;
    let seed = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
    let flows =
        |at: fn(u32) -> FlowKey<[u8; 4]>| (0..1 << 14).map(at).map(move |key| <[u8; 4]>::hash(&key, &seed));
    type Flows = fn(u32) -> FlowKey<[u8; 4]>;
    let families: [Flows; 3] = [
        |i| FlowKey::new([10, 0, 0, 1], [192, 0, 2, 10], ((1024 + i) as u16).to_be_bytes(), [1, 187], 6),
        |i| FlowKey::new((0x0a00_0000 + i).to_be_bytes(), [192, 0, 2, 10], [0x9c, 0x40], [1, 187], 6),
        |i| {
            FlowKey::new((0x0a00_0000 + (i << 10)).to_be_bytes(), [192, 0, 2, 10], [0x9c, 0x40], [1, 187], 17)
        },
    ];
    for family in families {
        for pick in [|h: &Homes| h.first, |h: &Homes| h.second, |h: &Homes| h.tag & (LINES - 1)] {
            let mut counts = std::vec![0f64; LINES as usize];
            flows(family).for_each(|hash| counts[pick(&Homes::of(hash, LINES - 1)) as usize] += 1.0);
            let expected = f64::from(1 << 14) / f64::from(LINES);
            let chi: f64 = counts.iter().map(|seen| (seen - expected).powi(2) / expected).sum();
            // 1023 degrees of freedom: 99.99% of random draws stay below 1200.
            assert!(chi < 1200.0, "{chi}");
        }
    }
}

#[test]
fn differences_that_cancel_for_one_secret_do_not_for_another() {
    // The top bits of two words: what multiplication by a known odd factor lets through.
    let mut low = CLIENT;
    low[7] ^= 0x80;
    low[15] ^= 0x80;
    let key = |src| FlowKey::new(src, VIP, [1, 2], [1, 187], 6);
    let collisions = (1..1000u64)
        .map(|i| [i.wrapping_mul(0x9e37_79b9_7f4a_7c15), i.wrapping_mul(0xd6e8_feb8_6659_fd93)])
        .filter(|seed| <[u8; 16]>::hash(&key(CLIENT), seed) == <[u8; 16]>::hash(&key(low), seed))
        .count();
    assert_eq!(collisions, 0);
}
