use std::vec::Vec;

use super::*;
use crate::wire::IpHeader as _;

struct Bytes<'a>(&'a [u8]);

impl Packet for Bytes<'_> {
    fn view_at<T>(&self, offset: usize) -> Option<&T> {
        assert_eq!(align_of::<T>(), 1);
        let place = self.0.get(offset..offset + size_of::<T>())?;
        // SAFETY: as many bytes as `T` has, which is made of bytes and needs no alignment.
        Some(unsafe { &*place.as_ptr().cast::<T>() })
    }
    fn edit<T>(&mut self, _: usize) -> Option<&mut T> {
        None
    }
    fn edit_at<T>(&mut self, _: usize) -> Option<&mut T> {
        None
    }
}

/// An extension header: its kind, and its bytes but for the first, which says what follows.
type Header = (u8, Vec<u8>);

/// A frame of these extension headers, and of `payload` bytes of `protocol`.
fn frame(headers: &[Header], protocol: u8, payload: usize) -> Vec<u8> {
    let mut frame = std::vec![0; 14];
    let length = headers.iter().map(|(_, rest)| rest.len() + 1).sum::<usize>() + payload;
    let next = |at: usize| headers.get(at).map_or(protocol, |(kind, _)| *kind);
    frame.extend([0x60, 0, 0, 0, (length >> 8) as u8, length as u8, next(0), 64]);
    frame.extend([0; 32]);
    for (at, (_, rest)) in headers.iter().enumerate() {
        frame.push(next(at + 1));
        frame.extend(rest);
    }
    frame.resize(frame.len() + payload, 0);
    frame
}

fn options(units: u8) -> Vec<u8> {
    let mut rest = std::vec![units - 1];
    rest.resize(usize::from(units) * 8 - 1, 0);
    rest
}

fn routing(left: u8) -> Vec<u8> {
    std::vec![0, 2, left, 0, 0, 0, 0]
}

fn part(offset: u16, more: bool) -> Vec<u8> {
    let [high, low] = (offset | u16::from(more)).to_be_bytes();
    std::vec![0, high, low, 1, 2, 3, 4]
}

fn read_whole(frame: &[u8]) -> Result<Chain, Verdict> {
    Ipv6::chain(&Bytes(frame), frame.len() - 14)
}

use extension::{DESTINATION, FRAGMENT, HOP_BY_HOP, ROUTING};

#[test]
fn headers_are_passed_over_to_the_transport_header() {
    let table: [(Vec<Header>, usize); 7] = [
        (std::vec![], 40),
        (std::vec![(HOP_BY_HOP, options(1))], 48),
        (std::vec![(DESTINATION, options(3))], 64),
        (std::vec![(ROUTING, routing(0))], 48),
        (std::vec![(FRAGMENT, part(0, false))], 48),
        (
            std::vec![
                (HOP_BY_HOP, options(1)),
                (DESTINATION, options(1)),
                (ROUTING, routing(0)),
                (FRAGMENT, part(0, false)),
                (DESTINATION, options(1)),
            ],
            80,
        ),
        (std::vec![(DESTINATION, options(24))], 40 + 192),
    ];
    for (headers, offset) in table {
        let frame = frame(&headers, protocol::UDP, 20);
        let chain = read_whole(&frame).unwrap();
        assert_eq!((chain.offset, chain.protocol, chain.length), (offset, protocol::UDP, 20));
        assert!(chain.fragment.is_whole());
    }
}

#[test]
fn what_is_not_passed_over_has_its_reason() {
    use Verdict::*;
    let bomb = |count: usize| std::vec![(DESTINATION, options(1)); count];
    let table: [(Verdict, Vec<Header>, u8); 10] = [
        (HeadersTooMany, bomb(6), protocol::TCP),
        (HeadersTooMany, bomb(150), protocol::TCP),
        (HeadersTooMany, std::vec![(DESTINATION, options(25))], protocol::TCP),
        (HeadersTooMany, std::vec![(HOP_BY_HOP, options(13)), (DESTINATION, options(12))], protocol::TCP),
        (ExtensionHeader, std::vec![(DESTINATION, options(1)), (HOP_BY_HOP, options(1))], protocol::TCP),
        (ExtensionHeader, std::vec![(ROUTING, routing(1))], protocol::TCP),
        (ExtensionHeader, std::vec![(FRAGMENT, part(0, false)), (FRAGMENT, part(0, true))], protocol::UDP),
        (ExtensionHeader, std::vec![(HOP_BY_HOP, options(1))], extension::AUTHENTICATION),
        (ExtensionHeader, std::vec![], extension::MOBILITY),
        (ExtensionHeader, std::vec![(DESTINATION, options(1))], extension::SHIM6),
    ];
    for (verdict, headers, protocol) in table {
        assert_eq!(read_whole(&frame(&headers, protocol, 24)), Err(verdict), "{headers:?}");
    }
    // Lengths that lie.
    let mut long = frame(&[(HOP_BY_HOP, options(1))], protocol::UDP, 8);
    long[14 + 41] = 7;
    assert_eq!(read_whole(&long), Err(BadIpHeader));
    let mut first = frame(&[(FRAGMENT, part(0, true)), (DESTINATION, options(1))], protocol::UDP, 8);
    first[14 + 49] = 7;
    assert_eq!(read_whole(&first), Err(FragmentMalformed), "its headers are in two fragments");
    let cut = frame(&[(HOP_BY_HOP, options(1)), (DESTINATION, options(1))], protocol::UDP, 0);
    assert_eq!(Ipv6::chain(&Bytes(&cut[..60]), 1500), Err(TruncatedTransport));
}

#[test]
fn a_fragment_says_which_part_it_is() {
    let first = read_whole(&frame(&[(FRAGMENT, part(0, true))], protocol::UDP, 1448)).unwrap();
    let id = u32::from_be_bytes([1, 2, 3, 4]);
    assert_eq!(first.fragment, Fragment { id, offset: 0, more: true, length: 1448 });
    let options = std::vec![(FRAGMENT, part(0, true)), (DESTINATION, options(1))];
    let first = read_whole(&frame(&options, protocol::UDP, 1440)).unwrap();
    assert_eq!((first.fragment.length, first.length, first.offset), (1448, 1440, 56));
    // What follows a later one's header is payload, whatever it looks like.
    let later = read_whole(&frame(&[(FRAGMENT, part(1448, false)), (HOP_BY_HOP, std::vec![9; 7])], 60, 9));
    let later = later.unwrap();
    assert_eq!(later.fragment, Fragment { id, offset: 1448, more: false, length: 17 });
    assert_eq!((later.offset, later.protocol), (48, HOP_BY_HOP));
}

#[test]
fn parts_that_cannot_be_are_refused() {
    let part = |offset, more, length| Fragment { id: 1, offset, more, length };
    for (fine, protocol, part) in [
        (true, protocol::UDP, part(0, true, 1480)),
        (true, protocol::UDP, part(8, false, 1)),
        (true, protocol::TCP, part(24, false, 1)),
        (true, protocol::UDP, part(65_528, false, 7)),
        (false, protocol::UDP, part(65_528, false, 8)),
        (false, protocol::UDP, part(0, true, 1479)),
        (false, protocol::UDP, part(1480, true, 0)),
        (false, protocol::UDP, part(1480, false, 0)),
        (false, protocol::TCP, part(8, false, 100)),
        (false, protocol::TCP, part(16, true, 96)),
    ] {
        assert_eq!(part.check(protocol).is_ok(), fine, "{part:?}");
    }
}
