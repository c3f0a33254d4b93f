//! Makes up the frame that is to be explained, as its connection would expect it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, ensure};
use lb_common::abi::{BACKENDS_MAX, BackendEntry, FlowKey, map_ipv4};
use lb_common::checksum::checksum;
use lb_common::table::{Fields, Line as _, Lines as _, State};
use lb_common::tcp::flag;
use lb_common::wire::protocol;
use lb_core::explain::Question;
use lb_core::state::Protocol;

use crate::datapath::connections::Reader;
use crate::datapath::flows::{Family, View};

/// The sender of what comes from no neighbour that is known: nobody's, administered locally.
const NOBODY: [u8; 6] = [2, 0, 0, 0, 0, 0];
const TTL: u8 = 64;
/// A number to begin with.
const FIRST: u32 = 1000;

pub struct Packet {
    pub frame: Vec<u8>,
    pub ingress: u32,
    pub sequence: u32,
    pub acknowledgment: u32,
}

/// The packet that a question is about.
pub fn make(reader: &Reader, question: &Question) -> anyhow::Result<Packet> {
    let (source, destination) = (question.source, question.destination);
    ensure!(
        source.is_ipv4() == destination.is_ipv4(),
        "source and destination are of different address families"
    );
    let backend = reader.backend_at(source.ip());
    let hop = backend.map(|entry| if source.is_ipv4() { entry.hop_v4 } else { entry.hop_v6 });
    let hop = hop.filter(|hop| hop.ifindex != 0);
    let ingress = question.interface.or(hop.map(|hop| hop.ifindex)).unwrap_or(question.usual_interface);
    let interfaces = reader.control().interfaces();
    let interface = interfaces
        .iter()
        .find(|interface| ingress != 0 && interface.ifindex == ingress)
        .context("the program is not attached to that interface; `drover status` lists those that it is attached to")?;
    let (sequence, acknowledgment) = numbers(reader, question);
    let (sequence, acknowledgment) =
        (question.sequence.unwrap_or(sequence), question.acknowledgment.unwrap_or(acknowledgment));
    let segment = segment(question, sequence, acknowledgment);
    let from = hop.filter(|hop| hop.ifindex == ingress).map_or(NOBODY, |hop| hop.destination);
    let mut frame = [&interface.mac[..], &from].concat();
    frame.extend(ip(source.ip(), destination.ip(), number(question.protocol), &segment));
    Ok(Packet { frame, ingress, sequence, acknowledgment })
}

const fn number(of: Protocol) -> u8 {
    match of {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
    }
}

fn segment(question: &Question, sequence: u32, acknowledgment: u32) -> Vec<u8> {
    let (source, destination) = (question.source, question.destination);
    let mut segment = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    let checksum_at = match question.protocol {
        Protocol::Tcp => {
            segment.extend(sequence.to_be_bytes());
            segment.extend(acknowledgment.to_be_bytes());
            segment.extend([0x50, question.flags, 0xff, 0xff, 0, 0, 0, 0]);
            16
        }
        Protocol::Udp => {
            segment.extend([0, 8, 0, 0]);
            6
        }
    };
    let length = (segment.len() as u32).to_be_bytes();
    let protocol = [0, 0, 0, number(question.protocol)];
    let sum = checksum(&[&octets(source.ip()), &octets(destination.ip()), &length, &protocol, &segment]);
    let sum = if sum == [0, 0] { [0xff, 0xff] } else { sum };
    segment[checksum_at..checksum_at + 2].copy_from_slice(&sum);
    segment
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Ethertype, IP header without options, and what it carries.
fn ip(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> Vec<u8> {
    let (source, destination) = (octets(source), octets(destination));
    let mut packet = Vec::new();
    if source.len() == 4 {
        let [high, low] = (20 + segment.len() as u16).to_be_bytes();
        let mut header = vec![0x45, 0, high, low, 0, 0, 0x40, 0, TTL, protocol, 0, 0];
        header.extend(source.iter().chain(&destination));
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum);
        packet.extend([0x08, 0x00]);
        packet.extend(header);
    } else {
        let [high, low] = (segment.len() as u16).to_be_bytes();
        packet.extend([0x86, 0xdd, 0x60, 0, 0, 0, high, low, protocol, TTL]);
        packet.extend(source.iter().chain(&destination));
    }
    packet.extend(segment);
    packet
}

/// Sequence and acknowledgment number that the packet's connection expects next.
fn numbers(reader: &Reader, question: &Question) -> (u32, u32) {
    let (source, destination) = (question.source, question.destination);
    let ports = (source.port().to_be_bytes(), destination.port().to_be_bytes());
    let found = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let key = FlowKey::new(from.octets(), to.octets(), ports.0, ports.1, number(question.protocol));
            expected(&reader.v4(), &key, question.flags)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let key = FlowKey::new(from.octets(), to.octets(), ports.0, ports.1, number(question.protocol));
            expected(&reader.v6(), &key, question.flags)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    };
    let acknowledges = question.flags & flag::ACK != 0;
    found.unwrap_or((FIRST, if acknowledges { FIRST } else { 0 }))
}

fn expected<A: Family>(table: &View<'_, A>, key: &FlowKey<A>, flags: u8) -> Option<(u32, u32)> {
    let (index, meta) = table.find(&table.0.homes(key), key)?;
    let line = table.0.at(index)?;
    let peer = table.0.at(line.peer())?;
    let (forward, reverse) = if meta.is_reverse() { (peer, line) } else { (line, peer) };
    let (client, server) = (forward.acknowledgment(), reverse.acknowledgment());
    // Before the handshake is complete the client's line holds the number of a SYN-ACK, or nothing; see the lines' description.
    let after_syn = Fields::opening(forward).wrapping_add(1);
    Some(match (meta.state(), meta.is_reverse()) {
        (State::Unanswered, false) if flags & flag::SYN != 0 => (Fields::opening(forward), 0),
        (State::Unanswered, false) => (after_syn, FIRST),
        (State::Unanswered, true) => (FIRST, after_syn),
        (State::Answered, false) => (server, client.wrapping_add(1)),
        (State::Answered, true) => (client, server),
        (_, false) => (server, client),
        (_, true) => (client, server),
    })
}

/// Source, destination and protocol of a packet without options; of one that has no ports, with the port 0.
pub fn ends(frame: &[u8]) -> Option<(SocketAddr, SocketAddr, u8)> {
    let at = |from: usize, length: usize| frame.get(from..from + length);
    let (source, destination, protocol, behind): (IpAddr, IpAddr, u8, usize) = match at(12, 2)? {
        [0x08, 0x00] => {
            let (from, to): ([u8; 4], [u8; 4]) = (at(26, 4)?.try_into().ok()?, at(30, 4)?.try_into().ok()?);
            (from.into(), to.into(), *frame.get(23)?, 34)
        }
        [0x86, 0xdd] => {
            let (from, to): ([u8; 16], [u8; 16]) =
                (at(22, 16)?.try_into().ok()?, at(38, 16)?.try_into().ok()?);
            (from.into(), to.into(), *frame.get(20)?, 54)
        }
        _ => return None,
    };
    let port = |from: usize| match protocol {
        protocol::TCP | protocol::UDP => at(from, 2).map_or(0, |port| u16::from_be_bytes([port[0], port[1]])),
        _ => 0,
    };
    Some((SocketAddr::new(source, port(behind)), SocketAddr::new(destination, port(behind + 2)), protocol))
}

impl Reader {
    /// The entry of the backend that has this address and takes part.
    fn backend_at(&self, address: IpAddr) -> Option<BackendEntry> {
        let mapped = match address {
            IpAddr::V4(address) => map_ipv4(address.octets()),
            IpAddr::V6(address) => address.octets(),
        };
        (0..BACKENDS_MAX as u16).find_map(|number| {
            let entry = self.backend(number)?;
            let is_it = match address {
                IpAddr::V4(address) => entry.address_v4 == address.octets(),
                IpAddr::V6(_) => entry.address_v6 == mapped,
            };
            (is_it && entry.flags != 0).then_some(entry)
        })
    }
}
