use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::checksum::checksum;
use crate::wire::{Ipv4, Ipv6};

/// A frame as memory.
struct Bytes(Vec<u8>);

impl Packet for Bytes {
    fn view_at<T>(&self, offset: usize) -> Option<&T> {
        assert_eq!(align_of::<T>(), 1);
        let place = self.0.get(offset..offset + size_of::<T>())?;
        // SAFETY: as below.
        Some(unsafe { &*place.as_ptr().cast::<T>() })
    }
    fn edit<T>(&mut self, offset: usize) -> Option<&mut T> {
        assert_eq!(align_of::<T>(), 1);
        let place = self.0.get_mut(offset..offset + size_of::<T>())?;
        // SAFETY: as many bytes as `T` has, which is made of bytes and needs no alignment.
        Some(unsafe { &mut *place.as_mut_ptr().cast::<T>() })
    }
    fn edit_at<T>(&mut self, offset: usize) -> Option<&mut T> {
        self.edit(offset)
    }
}

/// What of a family the slow and obvious way needs to know.
trait Slow: IpHeader {
    const ICMP: u8;
    fn address(seed: u64) -> Self::Addr;
    fn bytes(address: &Self::Addr) -> Vec<u8>;
    /// A packet with `options` words of IP options, its header's checksum right.
    fn packet(flow: &FlowKey<Self::Addr>, ttl: u8, protocol: u8, options: usize, payload: &[u8]) -> Vec<u8>;
    /// The TTL, and whether the header is in order.
    fn hops(packet: &[u8]) -> (u8, bool);
}

impl Slow for Ipv4 {
    const ICMP: u8 = protocol::ICMP;
    fn address(seed: u64) -> [u8; 4] {
        (seed as u32).to_be_bytes()
    }
    fn bytes(address: &[u8; 4]) -> Vec<u8> {
        address.to_vec()
    }
    fn packet(flow: &FlowKey<[u8; 4]>, ttl: u8, protocol: u8, options: usize, payload: &[u8]) -> Vec<u8> {
        let length = 20 + 4 * options;
        let mut packet = std::vec![0x45 + options as u8, 0];
        packet.extend(((length + payload.len()) as u16).to_be_bytes());
        packet.extend([0x12, 0x34, 0x40, 0, ttl, protocol, 0, 0]);
        packet.extend(flow.src);
        packet.extend(flow.dst);
        packet.resize(length, 1);
        let sum = checksum(&[&packet]);
        packet[10..12].copy_from_slice(&sum);
        packet.extend(payload);
        packet
    }
    fn hops(packet: &[u8]) -> (u8, bool) {
        (packet[8], checksum(&[&packet[..20]]) == [0, 0])
    }
}

impl Slow for Ipv6 {
    const ICMP: u8 = protocol::ICMPV6;
    fn address(seed: u64) -> [u8; 16] {
        (u128::from(seed) << 64 | u128::from(!seed)).to_be_bytes()
    }
    fn bytes(address: &[u8; 16]) -> Vec<u8> {
        address.to_vec()
    }
    fn packet(flow: &FlowKey<[u8; 16]>, ttl: u8, protocol: u8, _: usize, payload: &[u8]) -> Vec<u8> {
        let mut packet = std::vec![0x60, 0, 0, 0];
        packet.extend((payload.len() as u16).to_be_bytes());
        packet.extend([protocol, ttl]);
        packet.extend(flow.src);
        packet.extend(flow.dst);
        packet.extend(payload);
        packet
    }
    fn hops(packet: &[u8]) -> (u8, bool) {
        (packet[7], true)
    }
}

fn pseudo_header<H: Slow>(flow: &FlowKey<H::Addr>, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = H::bytes(&flow.src);
    bytes.extend(H::bytes(&flow.dst));
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// What one test is made of.
#[derive(Debug, Clone)]
struct Case {
    addresses: [u64; 5],
    ports: [[u8; 2]; 4],
    tcp: bool,
    /// Words of IP options in the quoted packet.
    options: usize,
    payload: Vec<u8>,
    /// UDP without a checksum.
    unsummed: bool,
    /// Bytes of the transport header that are quoted. Half a checksum would be left as it is.
    quoted: usize,
    changes_source: bool,
    /// The error's type, code and rest.
    head: [u8; 6],
    ttl: u8,
    /// What is added to the ICMP checksum.
    error: u16,
}

impl Case {
    /// The packet of `flow`, with every checksum computed anew.
    fn packet<H: Slow>(&self, flow: &FlowKey<H::Addr>) -> Vec<u8> {
        let (protocol, at) = if self.tcp { (protocol::TCP, 16) } else { (protocol::UDP, 6) };
        let mut segment = [flow.src_port, flow.dst_port].concat();
        if self.tcp {
            segment.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
        } else {
            segment.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            segment.extend([0, 0]);
        }
        segment.extend(&self.payload);
        if self.tcp || !self.unsummed {
            let sum = checksum(&[&pseudo_header::<H>(flow, protocol, segment.len()), &segment]);
            let sum = if !self.tcp && sum == [0, 0] { [0xff, 0xff] } else { sum };
            segment[at..at + 2].copy_from_slice(&sum);
        }
        H::packet(flow, 60, protocol, self.options, &segment)
    }

    /// The error about `packet` between these, and whether its checksum is right.
    fn error<H: Slow>(&self, src: H::Addr, dst: H::Addr, packet: &[u8], transport: usize) -> Vec<u8> {
        let [kind, code, rest @ ..] = self.head;
        let mut icmp = std::vec![kind, code, 0, 0];
        icmp.extend(rest);
        icmp.extend(&packet[..(transport + self.quoted).min(packet.len())]);
        let flow = FlowKey::new(src, dst, [0; 2], [0; 2], 0);
        let pseudo = if H::ICMP == protocol::ICMPV6 {
            pseudo_header::<H>(&flow, H::ICMP, icmp.len())
        } else {
            Vec::new()
        };
        let sum = u32::from(u16::from_be_bytes(checksum(&[&pseudo, &icmp]))) + u32::from(self.error);
        let sum = (sum & 0xffff) + (sum >> 16);
        icmp[2..4].copy_from_slice(&(sum as u16).to_be_bytes());
        let mut frame = std::vec![0xee; 12];
        frame.extend([0, 0]);
        frame.extend(H::packet(&flow, self.ttl, H::ICMP, 0, &icmp));
        frame
    }

    fn check<H: Slow>(&self) -> Result<(), TestCaseError> {
        let [client, vip, inner, backend, router] = self.addresses.map(H::address);
        let [p0, p1, p2, p3] = self.ports;
        let transport = quote::<H>() + H::BARE + 4 * self.options;
        // What was sent, and what became of it on its way.
        let sent = FlowKey::new(backend, inner, p3, p2, 0);
        let seen = FlowKey::new(vip, client, p1, p0, 0);
        let to = sent.reversed();
        let (before, after) = (self.packet::<H>(&sent), self.packet::<H>(&seen));
        let header = H::BARE + 4 * self.options;
        let mut frame = Bytes(self.error::<H>(router, seen.src, &after, header));
        let source = if self.changes_source { to.src } else { router };
        let expected = self.error::<H>(source, to.dst, &before, header);
        let length = frame.0.len() - transport;
        let protocol = if self.tcp { protocol::TCP } else { protocol::UDP };
        let quoted = Transport { offset: transport, protocol, length };
        prop_assert!(translate::<H, _>(&mut frame, quoted, &to, self.changes_source).is_some());
        prop_assert_eq!(H::hops(&frame.0[14..]), (self.ttl - 1, true));
        // Checksums may be either zero; all else is as if it had been made anew.
        let mut sums = std::vec![14 + H::BARE + 2];
        if H::ICMP == protocol::ICMP {
            sums.extend([24, quote::<H>() + 10]);
        }
        if self.tcp {
            sums.push(transport + 16);
        }
        let ttl = if H::ICMP == protocol::ICMP { 22 } else { 21 };
        for (at, (got, wanted)) in frame.0.iter().zip(&expected).enumerate() {
            if at != ttl && !sums.iter().any(|sum| (*sum..sum + 2).contains(&at)) {
                prop_assert_eq!(got, wanted, "byte {}", at);
            }
        }
        for at in sums.into_iter().filter(|at| *at != 24 && at + 2 <= expected.len()) {
            let same = |bytes: &[u8]| match u16::from_be_bytes([bytes[at], bytes[at + 1]]) {
                0xffff => 0,
                sum => sum,
            };
            prop_assert_eq!(same(&frame.0), same(&expected), "the sum at {}", at);
        }
        Ok(())
    }
}

fn case() -> impl Strategy<Value = Case> {
    let place = (any::<[u64; 5]>(), any::<[[u8; 2]; 4]>());
    let quoted = (
        any::<bool>(),
        0..=10usize,
        prop::collection::vec(any::<u8>(), 12..80),
        any::<bool>(),
        (8..100usize).prop_filter("half a checksum", |quoted| *quoted != 17),
    );
    let error = (any::<bool>(), any::<[u8; 6]>(), 2u8.., prop_oneof![Just(0u16), 1..0xffffu16]);
    (place, quoted, error).prop_map(
        |(
            (addresses, ports),
            (tcp, options, payload, unsummed, quoted),
            (changes_source, head, ttl, error),
        )| Case {
            addresses,
            ports,
            tcp,
            options,
            payload,
            unsummed,
            quoted,
            changes_source,
            head,
            ttl,
            error,
        },
    )
}

proptest! {
    /// Held against a packet made anew on either side of the translation: with a wrong checksum the translated error has the same
    /// difference from the right one.
    #[test]
    fn a_translated_error_is_the_one_about_what_was_sent(case in case()) {
        case.check::<Ipv4>()?;
        Case { options: 0, ..case }.check::<Ipv6>()?;
    }

    #[test]
    fn whatever_a_quote_says_it_is_found_within_what_is_there(bytes in any::<[u8; 60]>(), available in 0..200usize) {
        // SAFETY: bytes, and enough of them.
        let (v4, v6) = unsafe { (&*bytes.as_ptr().cast::<Ipv4>(), &*bytes.as_ptr().cast::<Ipv6>()) };
        let quote = Bytes(bytes.to_vec());
        for found in [Ipv4::quoted(&quote, 0, available), Ipv6::quoted(&quote, 0, available)].into_iter().flatten() {
            prop_assert!(found.length >= Head::SIZE && found.offset + found.length == available);
        }
        for length in [v4.message(available), v6.message(available)].into_iter().flatten() {
            prop_assert!(length >= Icmp::SIZE && length < available);
        }
    }
}

#[test]
fn messages_are_what_their_types_say() {
    for (number, kinds) in [
        (
            protocol::ICMP,
            [
                (0, Kind::Other),
                (3, Kind::Error),
                (4, Kind::Other),
                (5, Kind::Other),
                (8, Kind::EchoRequest),
                (11, Kind::Error),
                (12, Kind::Error),
                (128, Kind::Other),
            ],
        ),
        (
            protocol::ICMPV6,
            [
                (0, Kind::Other),
                (1, Kind::Error),
                (2, Kind::Error),
                (4, Kind::Error),
                (5, Kind::Other),
                (128, Kind::EchoRequest),
                (129, Kind::Other),
                (135, Kind::Other),
            ],
        ),
    ] {
        for (found, expected) in kinds {
            assert_eq!(kind(number, found), expected, "{number} {found}");
        }
    }
}

#[test]
fn an_error_is_plausible_about_what_may_be_on_its_way() {
    for (sequence, acknowledged, plausible) in [
        (1000, 1000, true),
        (999, 1000, true),
        (1000 + (1 << 23), 1000, true),
        (1001 + (1 << 23), 1000, false),
        (1000u32.wrapping_sub(1 << 16), 1000, true),
        (999u32.wrapping_sub(1 << 16), 1000, false),
        (5, u32::MAX, true),
        (0x8000_0000, 1000, false),
        (0x8000_0000, 0, true),
    ] {
        assert_eq!(is_plausible(sequence, acknowledged), plausible, "{sequence} {acknowledged}");
    }
}
