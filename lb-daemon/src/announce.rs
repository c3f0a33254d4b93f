//! Telling a link which MAC address a VIP has now: gratuitous ARP and unsolicited neighbour advertisements.
//!
//! The network's task calls [`announce_all`] when it has put VIPs on an interface, and does so again a second later
//! (RFC 5227 section 2.3 and RFC 4861 section 7.2.6 both ask for more than one): nobody acknowledges an announcement.
//! Nothing is kept between calls.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

use crate::netlink::Link;

/// The shortest Ethernet frame, without its checksum: shorter ones are padded by most drivers, but not by all.
const FRAME_MIN: usize = 60;
const BROADCAST: [u8; 6] = [0xff; 6];
/// RFC 2464 section 7: the group address ff02::1 on Ethernet.
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// RFC 4861 section 4.4, of the 32 bits after the checksum. Neither router nor solicited.
const OVERRIDE: u32 = 1 << 29;

/// A link that does not take a frame within this time gets no announcement.
const SEND_WITHIN: Duration = Duration::from_secs(1);

/// Sends the announcement of each VIP out of its link; those that failed, and how. One socket serves all: closing one makes
/// the kernel wait for a grace period. It blocks for as long as a busy link makes it.
pub fn announce_all(vips: &[(Link, IpAddr)]) -> Vec<(Link, IpAddr, io::Error)> {
    let socket = open();
    let each = vips.iter().filter_map(|(link, vip)| {
        let sent = match &socket {
            Ok(socket) => announce(socket, link.index, link.mac, *vip),
            Err(error) => Err(error.kind().into()),
        };
        sent.err().map(|error| (link.clone(), *vip, error))
    });
    each.collect()
}

fn open() -> io::Result<Socket> {
    // Protocol 0: the socket sends, and receives nothing.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.set_write_timeout(Some(SEND_WITHIN))?;
    Ok(socket)
}

fn announce(socket: &Socket, ifindex: u32, mac: [u8; 6], vip: IpAddr) -> io::Result<()> {
    let link = link_address(ifindex)?;
    for frame in frames(mac, vip) {
        let sent = socket.send_to(&frame, &link)?;
        if sent != frame.len() {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "an announcement was cut short"));
        }
    }
    Ok(())
}

/// The frames of an announcement, in order.
fn frames(mac: [u8; 6], vip: IpAddr) -> Vec<Vec<u8>> {
    match vip {
        // RFC 5227 section 3 argues for the request and RFC 5944 section 4.6 allows both. By RFC 826 every receiver
        // takes the sender's address from either, but there are devices that heed only one of them.
        IpAddr::V4(vip) => vec![arp(Operation::Request, mac, vip), arp(Operation::Reply, mac, vip)],
        IpAddr::V6(vip) => vec![advertisement(mac, vip)],
    }
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Request,
    Reply,
}

/// Gratuitous ARP: sender and target are the VIP.
fn arp(operation: Operation, mac: [u8; 6], vip: Ipv4Addr) -> Vec<u8> {
    // RFC 5227 section 1.1: the target's hardware address of a request is zero. RFC 5944 section 4.6: that of a
    // reply is the one to be learnt.
    let (code, target_mac) = match operation {
        Operation::Request => (1u16, [0; 6]),
        Operation::Reply => (2, mac),
    };
    let mut frame = ethernet(BROADCAST, mac, ETHERTYPE_ARP);
    // Ethernet and IPv4, with addresses of 6 and 4 bytes.
    frame.extend([0, 1, 8, 0, 6, 4]);
    frame.extend(code.to_be_bytes());
    frame.extend(mac);
    frame.extend(vip.octets());
    frame.extend(target_mac);
    frame.extend(vip.octets());
    frame.resize(FRAME_MIN, 0);
    frame
}

/// An unsolicited neighbour advertisement, RFC 4861 sections 4.4 and 7.2.6.
fn advertisement(mac: [u8; 6], vip: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0];
    message.extend(OVERRIDE.to_be_bytes());
    message.extend(vip.octets());
    // Option 2, the target's link-layer address, of 1 x 8 bytes.
    message.extend([2, 1]);
    message.extend(mac);
    // An address and two lengths of a few bytes: a u16 holds it.
    let length = message.len() as u16;
    let checksum = icmpv6_checksum(vip, ALL_NODES, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = ethernet(ALL_NODES_MAC, mac, ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    // RFC 4861 section 7.1.2: any other hop limit than 255 is discarded.
    frame.extend([ICMPV6, 255]);
    frame.extend(vip.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

fn ethernet(destination: [u8; 6], source: [u8; 6], ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(96);
    frame.extend(destination);
    frame.extend(source);
    frame.extend(ethertype.to_be_bytes());
    frame
}

/// RFC 8200 section 8.1, of a message of even length whose checksum field is zero.
fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes.as_chunks::<2>().0.iter().map(|&word| u32::from(u16::from_be_bytes(word))).sum()
    };
    let mut sum = words(&source.octets())
        + words(&destination.octets())
        + message.len() as u32
        + u32::from(ICMPV6)
        + words(message);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn link_address(ifindex: u32) -> io::Result<SockAddr> {
    let index = libc::c_int::try_from(ifindex)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no such interface"))?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` fits into `sockaddr_storage` and is valid with all bytes zero.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    // The frames carry their own addresses and types: a raw socket needs the interface alone.
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_ifindex = index;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the first `length` bytes are a `sockaddr_ll` with its family set.
    Ok(unsafe { SockAddr::new(storage, length) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_net::{Host, wait_for};

    const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];

    fn link(index: u32) -> Link {
        Link { name: "eth0".to_owned(), index, mac: MAC, mtu: 1500, up: true }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn gratuitous_arp_is_a_request_and_a_reply() {
        let frames = frames(MAC, "192.0.2.10".parse().unwrap());
        let padding = "00".repeat(18);
        let request = "ffffffffffff02000000000a0806\
                       0001080006040001\
                       02000000000ac000020a\
                       000000000000c000020a";
        let reply = "ffffffffffff02000000000a0806\
                     0001080006040002\
                     02000000000ac000020a\
                     02000000000ac000020a";
        let sent: Vec<String> = frames.iter().map(|frame| hex(frame)).collect();
        assert_eq!(sent, [format!("{request}{padding}"), format!("{reply}{padding}")]);
    }

    #[test]
    fn a_neighbour_advertisement_overrides_and_is_addressed_to_all_nodes() {
        let frames = frames(MAC, "2001:db8::10".parse().unwrap());
        let expected = "33330000000102000000000a86dd\
                        6000000000203aff\
                        20010db8000000000000000000000010\
                        ff020000000000000000000000000001\
                        8800f90320000000\
                        20010db8000000000000000000000010\
                        020102000000000a";
        assert_eq!(frames.iter().map(|frame| hex(frame)).collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn neighbours_learn_the_new_place_of_a_vip() {
        let (balancer, client) = (Host::new(), Host::new());
        balancer.cable("eth0", &client, "eth0");
        client.ip("addr add 10.0.0.2/24 dev eth0");
        client.address("2001:db8::2/64", "eth0");
        let index = balancer.index("eth0");
        for vip in ["10.0.0.10", "2001:db8::10"] {
            client.ip(&format!("neigh replace {vip} lladdr 02:00:00:00:00:99 dev eth0 nud stale"));
            let address = vip.parse().unwrap();
            let link = link(index);
            assert!(balancer.run(move || announce_all(&[(link, address)])).is_empty());
            let learnt = || client.ip(&format!("neigh show {vip} dev eth0")).contains("02:00:00:00:00:0a");
            wait_for("the announcement of a VIP", learnt);
        }
    }

    #[test]
    fn an_interface_that_is_gone_is_an_error() {
        let host = Host::new();
        let failed = host.run(|| announce_all(&[(link(9999), "10.0.0.10".parse().unwrap())]));
        assert_eq!(failed[0].2.raw_os_error(), Some(libc::ENXIO));
    }
}
