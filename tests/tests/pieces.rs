//! Datagrams that are larger than the links carry, and packets with IP options or IPv6 extension headers, as sockets send them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "it is a test")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use lb_tests::scene::{Farm, Scene};
use lb_tests::topology::{Arms, Family};
use socket2::{Domain, Socket, Type};

const LIMIT: Duration = Duration::from_secs(5);
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn scene(mode: &str) -> Scene {
    let keys = format!("ports = [80]\nprotocol = [\"tcp\", \"udp\"]\nmode = \"{mode}\"");
    let farm = Farm { check_port: Some(80), ..Farm::new("web", &keys) };
    Scene::new(Arms::Two, 2, "native", (&[80], &[80]), |topology| farm.text(topology)).unwrap()
}

/// Has a socket send options with each packet: words that say nothing, of IPv4; a header of destination options, of IPv6.
fn add_options(socket: &impl AsRawFd, family: Family) {
    let (level, name, value): (_, _, &[u8]) = match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_OPTIONS, &[1, 1, 1, 1, 1, 1, 1, 1]),
        Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, &[0, 0, 1, 4, 0, 0, 0, 0]),
    };
    // SAFETY: the value's bytes, and how many there are.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Sends a datagram of so many bytes, and what is echoed; once more if nothing comes, as every client of UDP does.
fn echoed(socket: &UdpSocket, bytes: usize) -> String {
    let sent: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
    let mut buffer = vec![0; 65_536];
    for _ in 0..3 {
        socket.send(&sent).unwrap();
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let space = buffer.iter().position(|&byte| byte == b' ').unwrap();
        assert!(
            buffer[space + 1..length] == sent,
            "{bytes} bytes came back as {} others",
            length - space - 1
        );
        return String::from_utf8_lossy(&buffer[..space]).into_owned();
    }
    panic!("no answer to {bytes} bytes");
}

fn client(source: IpAddr, target: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::new(source, 0)).unwrap();
    socket.connect(target).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket
}

#[test]
fn datagrams_larger_than_the_links_carry_are_echoed_whole() {
    for mode in ["nat", "dnat"] {
        let scene = scene(mode);
        let topology = &scene.topology;
        for family in FAMILIES {
            let (target, source) = (topology.target(family, 80), topology.sources(family)[0]);
            topology
                .client
                .enter(|| {
                    for _ in 0..4 {
                        let socket = client(source, target);
                        let first = echoed(&socket, 4_000);
                        for bytes in [100, 1_473, 9_000, 40_000, 60_000] {
                            assert_eq!(echoed(&socket, bytes), first, "{family:?}, {bytes} bytes");
                        }
                    }
                })
                .unwrap();
        }
    }
}

#[test]
fn packets_with_options_reach_their_server() {
    let scene = scene("nat");
    let topology = &scene.topology;
    for family in FAMILIES {
        let (target, source) = (topology.target(family, 80), topology.sources(family)[0]);
        topology
            .client
            .enter(|| {
                let socket = client(source, target);
                add_options(&socket, family);
                for bytes in [100, 4_000] {
                    echoed(&socket, bytes);
                }
                let domain = if target.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
                let socket = Socket::new(domain, Type::STREAM, None).unwrap();
                add_options(&socket, family);
                socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
                socket.connect_timeout(&target.into(), LIMIT).unwrap();
                let mut stream = TcpStream::from(socket);
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                stream.write_all(b"GET / HTTP/1.0\r\nConnection: close\r\n\r\n").unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                assert!(answer.starts_with("HTTP/1"), "{family:?}: {answer}");
            })
            .unwrap();
    }
}
