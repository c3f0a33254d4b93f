//! Packets made by hand, and read back with every checksum computed anew.

use std::net::{IpAddr, SocketAddr};

use lb_common::checksum::checksum;

pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const BALANCER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;
pub const RST: u8 = 0x04;
pub const FIN: u8 = 0x01;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L4 {
    Tcp { flags: u8, seq: u32, ack: u32 },
    Udp,
    UdpWithoutChecksum,
}

pub fn tcp(flags: u8) -> L4 {
    // A SYN-ACK acknowledges the SYN, or it is for somebody else.
    L4::Tcp { flags, seq: 1000, ack: if flags == SYN | ACK { 1001 } else { 0 } }
}

pub fn segment(flags: u8, seq: u32, ack: u32) -> L4 {
    L4::Tcp { flags, seq, ack }
}

/// A whole frame with correct lengths and checksums.
pub fn frame(src: &str, dst: &str, l4: L4, payload: &[u8]) -> Vec<u8> {
    frame_between(src.parse().unwrap(), dst.parse().unwrap(), l4, payload)
}

/// The same for those who make many.
pub fn frame_between(src: SocketAddr, dst: SocketAddr, l4: L4, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20 + payload.len());
    segment.extend(src.port().to_be_bytes());
    segment.extend(dst.port().to_be_bytes());
    let (protocol, checksum_at) = match l4 {
        L4::Tcp { flags, seq, ack } => {
            segment.extend(seq.to_be_bytes());
            segment.extend(ack.to_be_bytes());
            segment.extend([0x50, flags, 0x10, 0, 0, 0, 0, 0]);
            (6u8, 16)
        }
        L4::Udp | L4::UdpWithoutChecksum => {
            segment.extend((8 + payload.len() as u16).to_be_bytes());
            segment.extend([0, 0]);
            (17, 6)
        }
    };
    segment.extend(payload);
    if l4 != L4::UdpWithoutChecksum {
        let sum = checksum(&[&pseudo_header(src.ip(), dst.ip(), protocol, segment.len()), &segment]);
        segment[checksum_at..checksum_at + 2].copy_from_slice(&sum);
    }
    ip(src.ip(), dst.ip(), protocol, &segment)
}

/// An Ethernet frame with an IP packet of any protocol.
pub fn ip(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(54 + payload.len());
    frame.extend(BALANCER_MAC);
    frame.extend(CLIENT_MAC);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            frame.extend([0x08, 0x00]);
            let mut header = Vec::with_capacity(20);
            header.extend([0x45, 0]);
            header.extend((20 + payload.len() as u16).to_be_bytes());
            header.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
            header.extend(src.octets());
            header.extend(dst.octets());
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum);
            frame.extend(header);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((payload.len() as u16).to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(src.octets());
            frame.extend(dst.octets());
        }
        _ => panic!("mixed families"),
    }
    frame.extend(payload);
    frame
}

pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [src, dst] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// The same frame from another station.
pub fn sent_by(mac: [u8; 6], mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&mac);
    frame
}

/// The same frame to another station.
pub fn sent_to(mac: [u8; 6], mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&mac);
    frame
}

/// Sequence and acknowledgment number and flags of a TCP frame without IP options.
pub fn numbers(frame: &[u8]) -> (u32, u32, u8) {
    let tcp = if frame[12..14] == [0x08, 0x00] { 34 } else { 54 };
    let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
    (word(tcp + 4), word(tcp + 8), frame[tcp + 13])
}

/// What a frame says, once its checksums have been found right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub macs: ([u8; 6], [u8; 6]),
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub ttl: u8,
    /// Whether the transport checksum is present.
    pub summed: bool,
}

/// Reads a frame made by [`frame`] after it has been rewritten; panics if a checksum is wrong.
pub fn read(frame: &[u8]) -> Read {
    let mac = |at: usize| -> [u8; 6] { frame[at..at + 6].try_into().unwrap() };
    let v4 = frame[12..14] == [0x08, 0x00];
    let (src, dst, ttl, protocol, segment): (IpAddr, IpAddr, u8, u8, &[u8]) = if v4 {
        let header_length = usize::from(frame[14] & 15) * 4;
        let header = &frame[14..14 + header_length];
        assert_eq!(checksum(&[header]), [0, 0], "IPv4 header checksum");
        let address = |at: usize| -> [u8; 4] { header[at..at + 4].try_into().unwrap() };
        (address(12).into(), address(16).into(), header[8], header[9], &frame[14 + header_length..])
    } else {
        let header = &frame[14..54];
        let address = |at: usize| -> [u8; 16] { header[at..at + 16].try_into().unwrap() };
        (address(8).into(), address(24).into(), header[7], header[6], &frame[54..])
    };
    let summed = protocol == 6 || segment[6..8] != [0, 0];
    if summed {
        let pseudo = pseudo_header(src, dst, protocol, segment.len());
        assert_eq!(checksum(&[&pseudo, segment]), [0, 0], "transport checksum");
    }
    let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
    Read {
        macs: (mac(0), mac(6)),
        src: SocketAddr::new(src, port(0)),
        dst: SocketAddr::new(dst, port(2)),
        ttl,
        summed,
    }
}
