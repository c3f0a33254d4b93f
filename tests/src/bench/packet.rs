//! Frames of well-behaved clients and backends, with correct lengths and checksums.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, bail};
use lb_common::bench::Segment;
use lb_common::checksum::checksum;
use lb_common::wire::eth::Mac;
use lb_common::wire::protocol;

pub const CLIENT_MAC: Mac = [2, 0, 0, 0, 0, 1];
pub const BALANCER_MAC: Mac = [2, 0, 0, 0, 0, 2];
pub const BACKEND_MAC: Mac = [2, 0, 0, 0, 0, 3];

/// The shortest frames there are with room for a TCP header: 64 bytes (60 and the checksum of the wire, which is not
/// seen) would not hold one over IPv6.
const V4_LENGTH: usize = 64;
const V6_LENGTH: usize = 84;

/// Who sends a packet to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub src: SocketAddr,
    pub dst: SocketAddr,
}

impl Ends {
    pub fn new(src: (IpAddr, u16), dst: (IpAddr, u16)) -> Self {
        Self { src: src.into(), dst: dst.into() }
    }
    pub fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src }
    }
}

/// What a packet is in the life of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Syn,
    /// A SYN without the bytes that make it as long as the others.
    BareSyn,
    Ack,
    Rst,
    SynAck,
    Datagram,
}

/// A frame from `macs.1` to `macs.0`, of the shortest length that all kinds but the bare SYN have.
pub fn frame(macs: (Mac, Mac), ends: Ends, kind: Kind) -> Result<Vec<u8>> {
    let (header, length) = match ends.src {
        SocketAddr::V4(_) => (14 + 20, V4_LENGTH),
        SocketAddr::V6(_) => (14 + 40, V6_LENGTH),
    };
    let length = if kind == Kind::BareSyn { header + 20 } else { length };
    let mut segment = vec![0; length - header];
    segment[..2].copy_from_slice(&ends.src.port().to_be_bytes());
    segment[2..4].copy_from_slice(&ends.dst.port().to_be_bytes());
    let (protocol, checksum_at) = match kind {
        Kind::Syn | Kind::BareSyn => (protocol::TCP, tcp(&mut segment, Segment::SYN)),
        Kind::SynAck => (protocol::TCP, tcp(&mut segment, Segment::SYN_ACK)),
        Kind::Ack => (protocol::TCP, tcp(&mut segment, Segment::ACK)),
        Kind::Rst => (protocol::TCP, tcp(&mut segment, Segment::RST)),
        Kind::Datagram => {
            let length = u16::try_from(segment.len())?;
            segment[4..6].copy_from_slice(&length.to_be_bytes());
            (protocol::UDP, 6)
        }
    };
    let mut frame = Vec::with_capacity(length);
    frame.extend(macs.0);
    frame.extend(macs.1);
    let pseudo = match (ends.src.ip(), ends.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4(&mut frame, src, dst, protocol, segment.len()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6(&mut frame, src, dst, protocol, segment.len()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => bail!("{ends:?}: two families"),
    };
    let sum = checksum(&[&pseudo, &segment]);
    segment[checksum_at..checksum_at + 2].copy_from_slice(&sum);
    frame.extend(segment);
    Ok(frame)
}

/// Fills a TCP header in (RFC 9293, section 3.1); where its checksum is.
fn tcp(segment: &mut [u8], kind: Segment) -> usize {
    segment[4..8].copy_from_slice(&kind.sequence.to_be_bytes());
    segment[8..16].copy_from_slice(&kind.to_window());
    16
}

/// Adds type and IP header to a frame; the pseudo-header (RFC 9293, section 3.1).
pub fn ipv4(frame: &mut Vec<u8>, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, length: usize) -> Vec<u8> {
    let total = (20 + length) as u16;
    let mut header = vec![0x45, 0];
    header.extend(total.to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(src.octets());
    header.extend(dst.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum);
    frame.extend([0x08, 0x00]);
    frame.extend(&header);
    let mut pseudo = header[12..].to_vec();
    pseudo.extend([0, protocol]);
    pseudo.extend((length as u16).to_be_bytes());
    pseudo
}

/// The same (RFC 8200, section 8.1).
pub fn ipv6(frame: &mut Vec<u8>, src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, length: usize) -> Vec<u8> {
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((length as u16).to_be_bytes());
    frame.extend([protocol, 64]);
    frame.extend(src.octets());
    frame.extend(dst.octets());
    let mut pseudo = frame[frame.len() - 32..].to_vec();
    pseudo.extend((length as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, protocol]);
    pseudo
}

/// Who sends a frame made by [`frame`] to whom, after it has been rewritten.
pub fn ends(frame: &[u8]) -> Result<Ends> {
    let bytes = |at: usize, length: usize| frame.get(at..at + length).context("a frame cut short");
    let port = |at: usize| -> Result<u16> { Ok(u16::from_be_bytes(bytes(at, 2)?.try_into()?)) };
    if bytes(12, 2)? == [0x08, 0x00] {
        let address = |at: usize| -> Result<IpAddr> { Ok(<[u8; 4]>::try_from(bytes(at, 4)?)?.into()) };
        Ok(Ends::new((address(26)?, port(34)?), (address(30)?, port(36)?)))
    } else {
        let address = |at: usize| -> Result<IpAddr> { Ok(<[u8; 16]>::try_from(bytes(at, 16)?)?.into()) };
        Ok(Ends::new((address(22)?, port(54)?), (address(38)?, port(56)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_says_what_it_was_told() {
        for (src, dst, length) in [("198.18.0.1:5", "192.0.2.10:80", 64), ("[fd00::1]:5", "[fd00::2]:80", 84)]
        {
            let ends_of = Ends { src: src.parse().unwrap(), dst: dst.parse().unwrap() };
            for kind in [Kind::Syn, Kind::SynAck, Kind::Ack, Kind::Rst, Kind::Datagram] {
                let frame = frame((BALANCER_MAC, CLIENT_MAC), ends_of, kind).unwrap();
                assert_eq!((ends(&frame).unwrap(), frame.len()), (ends_of, length));
            }
        }
        assert!(ends(&[0; 20]).is_err());
    }
}
