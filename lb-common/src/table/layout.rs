//! Where the fields of an entry are, in the lines of the one family and of the other; see [`super::entry`].

use super::Meta;
use super::entry::{ACKNOWLEDGMENT, Book, LAST_SEEN, NEW_PORTS, New, PEER, Raw, TAIL, Target};
use super::hash::{hash_v4, hash_v6};
use crate::abi::{Address, FlowKey, Port};
use crate::checksum::Delta;

/// What differs between the lines of the two families.
pub trait Layout: Address {
    /// Where ports, protocol and backend are.
    const PORTS: usize;

    /// A flow's hash, under secrets that nobody outside knows.
    fn hash(key: &FlowKey<Self>, seed: &[u64; 2]) -> u64;
    /// The hash of the flow whose line this is; `None` if a number has no address.
    fn line_hash<R: Raw>(line: R, meta: Meta, book: &impl Book, seed: &[u64; 2]) -> Option<u64>;
    /// Whether the line's flow is `key`.
    fn holds<R: Raw>(line: R, meta: Meta, key: &FlowKey<Self>, book: &impl Book) -> bool;
    fn target<R: Raw>(line: R) -> Target;
    fn write<R: Raw>(line: R, new: &New<'_, Self>);
    /// The flow whose line this is; `None` if a number has no address.
    fn key<R: Raw>(line: R, meta: Meta, book: &impl Book) -> Option<FlowKey<Self>>;
    /// The flow that its packets get.
    fn translated<R: Raw>(line: R, meta: Meta, book: &impl Book) -> Option<FlowKey<Self>>;

    #[inline(always)]
    fn backend<R: Raw>(line: R) -> u16 {
        let bytes = line.word(Self::PORTS).to_ne_bytes();
        u16::from_ne_bytes([bytes[6], bytes[7]])
    }
}

/// Ports and protocol of a flow, and a number, as they stand in one word.
#[inline(always)]
const fn ports_word(source: Port, destination: Port, protocol: u8, backend: u16) -> u64 {
    let [n0, n1] = backend.to_ne_bytes();
    u64::from_ne_bytes([source[0], source[1], destination[0], destination[1], protocol, 0, n0, n1])
}

/// All of a [`ports_word`] but the backend.
const FLOW_PART: u64 = ports_word([255; 2], [255; 2], 255, 0);

#[inline(always)]
const fn last_word(source: Port, destination: Port, a: u16, b: u16) -> u64 {
    let ([a0, a1], [b0, b1]) = (a.to_ne_bytes(), b.to_ne_bytes());
    u64::from_ne_bytes([source[0], source[1], destination[0], destination[1], a0, a1, b0, b1])
}

#[inline(always)]
const fn split(address: &[u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

#[inline(always)]
fn common<R: Raw, A>(line: R, new: &New<'_, A>, last: u64) {
    line.set_half(LAST_SEEN, new.now);
    line.set_word(NEW_PORTS, last);
    line.set_half(ACKNOWLEDGMENT, new.acknowledgment);
    line.set_half(PEER, new.peer);
    line.set_word(TAIL, new.tail);
}

#[inline(always)]
fn transport_delta<A: Address>(addresses: Delta, from: &FlowKey<A>, to: &FlowKey<A>) -> Delta {
    let ports =
        Delta::replace(&from.src_port, &to.src_port).and(Delta::replace(&from.dst_port, &to.dst_port));
    addresses.and(ports)
}

impl Layout for [u8; 4] {
    const PORTS: usize = 3;

    #[inline(always)]
    fn hash(key: &FlowKey<Self>, seed: &[u64; 2]) -> u64 {
        let [addresses, ports] = key.words();
        hash_v4(addresses, ports, seed)
    }

    #[inline(always)]
    fn line_hash<R: Raw>(line: R, _: Meta, _: &impl Book, seed: &[u64; 2]) -> Option<u64> {
        Some(hash_v4(line.word(2), line.word(Self::PORTS) & FLOW_PART, seed))
    }

    #[inline(always)]
    fn holds<R: Raw>(line: R, _: Meta, key: &FlowKey<Self>, _: &impl Book) -> bool {
        let [addresses, ports] = key.words();
        line.word(2) == addresses && (line.word(Self::PORTS) ^ ports) & FLOW_PART == 0
    }

    #[inline(always)]
    fn target<R: Raw>(line: R) -> Target {
        Target { addresses: [line.word(4), 0], last: line.word(NEW_PORTS) }
    }

    #[inline(always)]
    fn write<R: Raw>(line: R, new: &New<'_, Self>) {
        let (key, to) = (new.key, new.to);
        let addresses = Self::delta(&key.src, &to.src).and(Self::delta(&key.dst, &to.dst));
        let transport = transport_delta(addresses, key, to);
        let [words, ports] = key.words();
        line.set_word(2, words);
        line.set_word(Self::PORTS, ports | ports_word([0; 2], [0; 2], 0, new.backend));
        line.set_word(4, to.words()[0]);
        common(line, new, last_word(to.src_port, to.dst_port, addresses.raw(), transport.raw()));
    }

    #[inline(always)]
    fn key<R: Raw>(line: R, _: Meta, _: &impl Book) -> Option<FlowKey<Self>> {
        let [a, b, c, d, e, f, g, h] = line.word(2).to_ne_bytes();
        let [s0, s1, d0, d1, protocol, ..] = line.word(Self::PORTS).to_ne_bytes();
        Some(FlowKey::new([a, b, c, d], [e, f, g, h], [s0, s1], [d0, d1], protocol))
    }

    #[inline(always)]
    fn translated<R: Raw>(line: R, _: Meta, _: &impl Book) -> Option<FlowKey<Self>> {
        let target = Self::target(line);
        let (source, destination) = target.ports();
        let protocol = line.word(Self::PORTS).to_ne_bytes()[4];
        Some(FlowKey::new(target.new_source_v4(), target.new_destination_v4(), source, destination, protocol))
    }
}

impl Layout for [u8; 16] {
    const PORTS: usize = 4;

    #[inline(always)]
    fn hash(key: &FlowKey<Self>, seed: &[u64; 2]) -> u64 {
        let [a, b, c, d, ports] = key.words();
        hash_v6([a, b], [c, d], ports, seed)
    }

    #[inline(always)]
    fn line_hash<R: Raw>(line: R, meta: Meta, book: &impl Book, seed: &[u64; 2]) -> Option<u64> {
        let client = [line.word(2), line.word(3)];
        let vip = split(book.vip(Self::target(line).delta_and_vip_v6().1)?);
        let ports = line.word(Self::PORTS) & FLOW_PART;
        if !meta.is_reverse() {
            return Some(hash_v6(client, vip, ports, seed));
        }
        let from = if meta.is_direct() { vip } else { split(book.backend(Self::backend(line))?) };
        Some(hash_v6(from, if meta.is_dnat() { client } else { vip }, ports, seed))
    }

    #[inline(always)]
    fn holds<R: Raw>(line: R, meta: Meta, key: &FlowKey<Self>, book: &impl Book) -> bool {
        let [a, b, c, d, ports] = key.words();
        if (line.word(Self::PORTS) ^ ports) & FLOW_PART != 0 {
            return false;
        }
        let client = [line.word(2), line.word(3)];
        let vip = Self::target(line).delta_and_vip_v6().1;
        let Some(vip) = book.vip(vip) else { return false };
        if !meta.is_reverse() {
            return client == [a, b] && split(vip) == [c, d];
        }
        let to = if meta.is_dnat() { client } else { split(vip) };
        if to != [c, d] {
            return false;
        }
        if meta.is_direct() {
            return split(vip) == [a, b];
        }
        let Some(backend) = book.backend(Self::backend(line)) else { return false };
        split(backend) == [a, b]
    }

    #[inline(always)]
    fn target<R: Raw>(line: R) -> Target {
        Target { addresses: [line.word(2), line.word(3)], last: line.word(NEW_PORTS) }
    }

    #[inline(always)]
    fn write<R: Raw>(line: R, new: &New<'_, Self>) {
        let (key, to) = (new.key, new.to);
        let addresses = Self::delta(&key.src, &to.src).and(Self::delta(&key.dst, &to.dst));
        let transport = transport_delta(addresses, key, to);
        let ([a, b, _, _, ports], [_, _, c, d, _]) = (key.words(), to.words());
        line.set_word(2, if new.reverse { c } else { a });
        line.set_word(3, if new.reverse { d } else { b });
        line.set_word(Self::PORTS, ports | ports_word([0; 2], [0; 2], 0, new.backend));
        common(line, new, last_word(to.src_port, to.dst_port, transport.raw(), new.vip));
    }

    #[inline(always)]
    fn key<R: Raw>(line: R, meta: Meta, book: &impl Book) -> Option<FlowKey<Self>> {
        let [s0, s1, d0, d1, protocol, ..] = line.word(Self::PORTS).to_ne_bytes();
        let target = Self::target(line);
        let (client, vip) = (target.client_v6(), *book.vip(target.delta_and_vip_v6().1)?);
        let (src, dst) = if meta.is_reverse() && meta.is_direct() {
            (vip, client)
        } else if meta.is_reverse() {
            (*book.backend(Self::backend(line))?, if meta.is_dnat() { client } else { vip })
        } else {
            (client, vip)
        };
        Some(FlowKey::new(src, dst, [s0, s1], [d0, d1], protocol))
    }

    #[inline(always)]
    fn translated<R: Raw>(line: R, meta: Meta, book: &impl Book) -> Option<FlowKey<Self>> {
        let protocol = line.word(Self::PORTS).to_ne_bytes()[4];
        let target = Self::target(line);
        let (source, destination) = target.ports();
        let (client, vip) = (target.client_v6(), *book.vip(target.delta_and_vip_v6().1)?);
        let (src, dst) = if meta.is_reverse() {
            (vip, client)
        } else if meta.is_direct() {
            (client, vip)
        } else {
            (if meta.is_dnat() { client } else { vip }, *book.backend(Self::backend(line))?)
        };
        Some(FlowKey::new(src, dst, source, destination, protocol))
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
