//! Frames as anybody may send them, well-behaved or not: made from what they are to say, and read.
//!
//! [`crate::bench::packet`] has those of well-behaved ends, in the lengths that the benchmarks need.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, bail};
use lb_common::checksum::checksum;
use lb_common::wire::eth::Mac;
use lb_common::wire::protocol;

use crate::bench::packet::{Ends, ipv4, ipv6};

/// What a TCP segment says besides its ports (RFC 9293, section 3.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Segment {
    /// As in [`lb_common::tcp::flag`].
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgment: u32,
}

/// A TCP segment without a payload, in a frame from `macs.1` to `macs.0`.
pub fn tcp(macs: (Mac, Mac), ends: Ends, segment: Segment) -> Result<Vec<u8>> {
    let mut transport = ports(ends);
    transport.extend(segment.sequence.to_be_bytes());
    transport.extend(segment.acknowledgment.to_be_bytes());
    // Five words of header; a window of 65,535; no checksum yet; nothing urgent.
    transport.extend([5 << 4, segment.flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame(macs, ends, protocol::TCP, transport, 16)
}

/// A datagram, in a frame from `macs.1` to `macs.0`.
pub fn udp(macs: (Mac, Mac), ends: Ends, payload: &[u8]) -> Result<Vec<u8>> {
    let mut transport = ports(ends);
    transport.extend(u16::try_from(8 + payload.len())?.to_be_bytes());
    transport.extend([0, 0]);
    transport.extend(payload);
    frame(macs, ends, protocol::UDP, transport, 6)
}

fn ports(ends: Ends) -> Vec<u8> {
    [ends.src.port().to_be_bytes(), ends.dst.port().to_be_bytes()].concat()
}

/// Puts the heads before a segment or datagram, and its checksum at `place`.
fn frame(
    macs: (Mac, Mac),
    ends: Ends,
    protocol: u8,
    mut transport: Vec<u8>,
    place: usize,
) -> Result<Vec<u8>> {
    let mut frame = [macs.0, macs.1].concat();
    let pseudo = match (ends.src.ip(), ends.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4(&mut frame, src, dst, protocol, transport.len()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6(&mut frame, src, dst, protocol, transport.len()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => bail!("{ends:?}: two families"),
    };
    let sum = checksum(&[&pseudo, &transport]);
    transport[place..place + 2].copy_from_slice(&sum);
    frame.extend(transport);
    Ok(frame)
}

/// A TCP segment over IPv4, as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// To whom, from whom.
    pub macs: (Mac, Mac),
    pub ends: Ends,
    pub segment: Segment,
}

/// Reads a TCP segment over IPv4 without options; other frames are nothing.
pub fn seen(frame: &[u8]) -> Option<Seen> {
    if frame.get(12..15)? != [0x08, 0x00, 0x45] || *frame.get(23)? != protocol::TCP {
        return None;
    }
    let word = |at: usize| Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
    let port = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let end = |address, at| Some(SocketAddr::from((Ipv4Addr::from(word(address)?), port(at)?)));
    Some(Seen {
        macs: (frame.get(..6)?.try_into().ok()?, frame.get(6..12)?.try_into().ok()?),
        ends: Ends { src: end(26, 34)?, dst: end(30, 36)? },
        segment: Segment { flags: *frame.get(47)?, sequence: word(38)?, acknowledgment: word(42)? },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::packet::{BALANCER_MAC, CLIENT_MAC};
    use lb_common::tcp::flag;

    #[test]
    fn what_is_written_is_read() {
        let ends = Ends { src: "198.18.0.1:5".parse().unwrap(), dst: "192.0.2.10:80".parse().unwrap() };
        let segment = Segment { flags: flag::SYN | flag::ACK, sequence: 0xfeed_beef, acknowledgment: 77 };
        let macs = (BALANCER_MAC, CLIENT_MAC);
        let frame = tcp(macs, ends, segment).unwrap();
        assert_eq!(seen(&frame), Some(Seen { macs, ends, segment }));
        assert_eq!(seen(&udp(macs, ends, b"text").unwrap()), None);
        assert_eq!(seen(frame.get(..50).unwrap()), Some(Seen { macs, ends, segment }));
        assert_eq!(seen(frame.get(..40).unwrap()), None);
    }

    #[test]
    fn checksums_are_whole() {
        for (src, dst, head) in [("198.18.0.1:5", "192.0.2.10:80", 20), ("[fd00::1]:5", "[fd00::2]:80", 40)] {
            let ends = Ends { src: src.parse().unwrap(), dst: dst.parse().unwrap() };
            for (frame, protocol) in [
                (tcp((BALANCER_MAC, CLIENT_MAC), ends, Segment::default()).unwrap(), protocol::TCP),
                (udp((BALANCER_MAC, CLIENT_MAC), ends, b"odd").unwrap(), protocol::UDP),
            ] {
                let transport = frame.get(14 + head..).unwrap();
                let addresses = if head == 20 { 26..34 } else { 22..54 };
                let length = u32::try_from(transport.len()).unwrap().to_be_bytes();
                let pseudo = [frame.get(addresses).unwrap(), &length, &[0, 0, 0, protocol]].concat();
                assert_eq!(checksum(&[&pseudo, transport]), [0, 0]);
            }
        }
    }
}
