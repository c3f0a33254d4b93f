//! Packets that are not for us, that make no sense, or that find something missing.

use lb_core::config::model::{Mode, WhenAllDown};
use lb_core::desired::NextHops;
use lb_core::state::BackendStatus;

use crate::ends::*;
use crate::packet::*;
use crate::rig::*;

fn dual(mode: Mode) -> Rig {
    let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), mode, &[]);
    web.backends = vec![backend(&["10.0.0.11", "2001:db8:1::11"], None, 1)];
    Rig::with(vec![web])
}

#[test]
fn what_is_not_for_a_vip_is_the_hosts_untouched() {
    let mut rig = dual(Mode::Nat);
    let fragment = {
        let mut fragment = frame("198.51.100.7:40000", "192.0.2.99:80", tcp(SYN), b"");
        fragment[20] = 0x20;
        fragment
    };
    let big_ping = {
        let mut first = ip("198.51.100.7".parse().unwrap(), "192.0.2.10".parse().unwrap(), 1, &[8; 64]);
        first[20] = 0x20;
        first
    };
    let arp = [&[0xff; 6][..], &CLIENT_MAC, &[0x08, 0x06], &[0; 28]].concat();
    let tagged = [&BALANCER_MAC[..], &CLIENT_MAC, &[0x81, 0x00, 0, 5, 0x08, 0x00], &[0; 40]].concat();
    let table = [
        ("not_for_vip", frame("198.51.100.7:40000", "192.0.2.99:80", tcp(SYN), b"")),
        ("not_for_vip", frame("[2001:db8:7::7]:40000", "[2001:db8::99]:80", tcp(SYN), b"")),
        ("not_for_vip", frame("198.51.100.7:40000", "192.0.2.99:80", L4::Udp, b"x")),
        ("not_for_vip", fragment),
        ("not_for_vip", frame("10.0.0.11:80", "192.0.2.99:1234", tcp(ACK), b"")),
        ("not_ip", arp),
        ("tagged", tagged),
        ("host_port", frame("198.51.100.7:40000", "192.0.2.10:22", tcp(SYN), b"")),
        ("host_port", frame("198.51.100.7:40000", "192.0.2.10:22", tcp(ACK), b"")),
        ("host_protocol", big_ping),
        (
            "host_protocol",
            ip("198.51.100.7".parse().unwrap(), "192.0.2.10".parse().unwrap(), 1, &[13, 0, 0, 0, 0, 0, 0, 0]),
        ),
        (
            "host_protocol",
            ip(
                "2001:db8:7::7".parse().unwrap(),
                "2001:db8::10".parse().unwrap(),
                58,
                &[135, 0, 0, 0, 0, 0, 0, 0],
            ),
        ),
    ];
    for (verdict, sent) in table {
        let got = rig.send(&sent);
        assert_eq!((got.verdict, got.action), (verdict, XDP_PASS));
        assert_eq!(got.frame, sent, "untouched");
    }
    assert_eq!(rig.connections(), 0);
}

#[test]
fn what_makes_no_sense_is_dropped_by_reason() {
    let mut rig = dual(Mode::Nat);
    let v4 = frame("198.51.100.7:40000", "192.0.2.10:80", tcp(SYN), b"");
    let v6 = frame("[2001:db8:7::7]:40000", "[2001:db8::10]:80", tcp(SYN), b"");
    let udp = frame("198.51.100.7:40000", "192.0.2.10:80", L4::Udp, b"payload");
    let with = |frame: &[u8], changes: &[(usize, u8)]| {
        let mut frame = frame.to_vec();
        changes.iter().for_each(|&(at, value)| frame[at] = value);
        frame
    };
    let table = [
        ("bad_ip_header", with(&v4, &[(14, 0x55)]), "version 5"),
        ("bad_ip_header", with(&v4, &[(14, 0x65)]), "version 6 under IPv4's type"),
        ("bad_ip_header", with(&v4, &[(14, 0x44)]), "a header of 16 bytes"),
        ("bad_ip_header", with(&v4, &[(14, 0x40)]), "a header of no bytes"),
        ("bad_ip_header", with(&v4, &[(14, 0x4f)]), "options beyond the packet"),
        ("bad_ip_header", with(&v4, &[(16, 0), (17, 19)]), "shorter than its header"),
        ("bad_ip_header", with(&v4, &[(16, 0xff), (17, 0xff)]), "longer than the frame"),
        ("bad_ip_header", with(&v6, &[(14, 0x40)]), "version 4 under IPv6's type"),
        ("bad_ip_header", with(&v6, &[(18, 0xff)]), "longer than the frame"),
        ("truncated_transport", with(&v4, &[(16, 0), (17, 39)]), "19 bytes of TCP"),
        ("truncated_transport", with(&udp, &[(16, 0), (17, 27)]), "7 bytes of UDP"),
        ("truncated_transport", with(&v6, &[(18, 0), (19, 19)]), "19 bytes of TCP"),
        ("bad_transport_header", with(&v4, &[(46, 0x40)]), "a TCP header of 16 bytes"),
        ("bad_transport_header", with(&v4, &[(46, 0x60)]), "TCP options beyond the packet"),
        ("bad_transport_header", with(&udp, &[(38, 0), (39, 7)]), "a datagram of 7 bytes"),
        ("bad_transport_header", with(&udp, &[(38, 1), (39, 0)]), "a datagram longer than its packet"),
        ("bad_transport_header", frame("198.51.100.7:0", "192.0.2.10:80", tcp(SYN), b""), "source port 0"),
        ("fragment", with(&udp, &[(21, 0x01)]), "a later fragment"),
        ("extension_header", with(&v6, &[(20, 51)]), "an authentication header"),
        ("extension_header", with(&v6, &[(20, 139)]), "a header of the host identity protocol"),
        ("bad_source", frame("0.0.0.0:4000", "192.0.2.10:80", tcp(SYN), b""), "no source"),
        ("bad_source", frame("127.0.0.1:4000", "192.0.2.10:80", tcp(SYN), b""), "loopback"),
        ("bad_source", frame("224.0.0.5:4000", "192.0.2.10:80", tcp(SYN), b""), "multicast"),
        ("bad_source", frame("255.255.255.255:4000", "192.0.2.10:80", tcp(SYN), b""), "broadcast"),
        ("bad_source", frame("192.0.2.10:80", "192.0.2.10:80", tcp(SYN), b""), "the VIP itself"),
        ("bad_source", frame("[::]:4000", "[2001:db8::10]:80", tcp(SYN), b""), "no source"),
        ("bad_source", frame("[ff02::1]:4000", "[2001:db8::10]:80", tcp(SYN), b""), "multicast"),
        ("no_connection", frame("198.51.100.7:40000", "192.0.2.10:80", tcp(RST), b""), "a stray RST"),
        ("no_connection", frame("198.51.100.7:40000", "192.0.2.10:80", tcp(0xff), b""), "all flags"),
    ];
    for (verdict, sent, what) in table {
        let got = rig.send(&sent);
        assert_eq!((got.verdict, got.action), (verdict, XDP_DROP), "{what}");
        assert_eq!(got.frame, sent, "{what}: dropped as it came");
    }
    assert_eq!(rig.connections(), 0);
}

#[test]
fn a_packet_cut_short_anywhere_is_never_forwarded() {
    for mode in [Mode::Nat, Mode::Dnat] {
        let mut rig = dual(mode);
        let whole = [
            frame("198.51.100.7:40000", "192.0.2.10:80", tcp(SYN), b""),
            frame("[2001:db8:7::7]:40000", "[2001:db8::10]:80", tcp(SYN), b""),
            frame("198.51.100.7:40000", "192.0.2.10:80", L4::Udp, b""),
            frame("[2001:db8:7::7]:40000", "[2001:db8::10]:80", L4::Udp, b""),
        ];
        for frame in whole {
            // The kernel hands out no frame shorter than an Ethernet header.
            for length in 14..frame.len() {
                let got = rig.send(&frame[..length]);
                assert!(got.action == XDP_PASS || got.action == XDP_DROP, "{length} bytes: {got:?}");
                assert_eq!(got.frame, frame[..length]);
            }
            assert_eq!(rig.connections(), 0);
            assert_eq!(rig.verdict(&frame), "opened", "and the whole one is");
            rig.reader.cut(&Default::default());
        }
    }
}

#[test]
fn ip_options_do_not_hide_the_ports() {
    let mut rig = dual(Mode::Nat);
    let plain = frame("198.51.100.7:40000", "192.0.2.10:80", tcp(SYN), b"");
    for words in 1..=10u8 {
        let mut sent = plain[..34].to_vec();
        sent.extend(std::iter::repeat_n(1, usize::from(words) * 4));
        sent.extend(&plain[34..]);
        sent[14] = 0x45 + words;
        sent[17] += words * 4;
        sent[24..26].fill(0);
        let sum = lb_common::checksum::checksum(&[&sent[14..34 + usize::from(words) * 4]]);
        sent[24..26].copy_from_slice(&sum);
        let got = rig.send(&sent);
        assert_eq!(got.action, XDP_TX, "{words} words of options");
        assert_eq!(read(&got.frame).dst.to_string(), "10.0.0.11:80");
    }
}

#[test]
fn a_farm_that_tries_all_drops_new_connections_while_it_knows_no_way() {
    let mut web = farm("web", &["192.0.2.10"], port(80), Mode::Nat, &[("10.0.0.11", 0)]);
    web.when_all_down = WhenAllDown::TryAll;
    let mut rig = Rig::new(4096);
    rig.set_with(std::slice::from_ref(&web), |_| BackendStatus::Down, &NextHops::new());
    let syn = frame("198.51.100.7:40000", "192.0.2.10:80", tcp(SYN), b"");
    assert_eq!(rig.verdict(&syn), "no_backend");
    web.backends[0].weight = 1;
    rig.set_with(std::slice::from_ref(&web), |_| BackendStatus::Up, &NextHops::new());
    assert_eq!(rig.verdict(&syn), "no_next_hop");
    assert_eq!(rig.connections(), 0);
    rig.configure(&[web], |_| true);
    assert_eq!(rig.verdict(&syn), "opened", "and serves as soon as one is back");
}

#[test]
fn a_full_table_refuses_new_connections_and_keeps_the_old() {
    let mut rig = Rig::new(1024);
    rig.configure(&[farm("web", &["192.0.2.10"], port(80), Mode::Nat, &[("10.0.0.11", 1)])], |_| true);
    let mut established = Vec::new();
    for port in 10_000..14_000 {
        if let Ok(tcp) = Tcp::open(&mut rig, &format!("198.51.100.7:{port}"), "192.0.2.10:80") {
            established.push(tcp);
        }
    }
    let refused = 4000 - established.len();
    assert!(refused > 0 && established.len() >= 1000, "{} established, {refused} refused", established.len());
    assert!(rig.count("table_full") > 0, "and counted");
    for tcp in &mut established {
        assert_eq!(tcp.talks(&mut rig), Ok(()), "{}", tcp.way.client);
    }
}
