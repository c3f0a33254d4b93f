//! `ping` to a VIP: it tells whether somebody serves.

use std::net::IpAddr;

use lb_common::checksum::checksum;
use lb_core::config::model::{Echo, Farm, Mode};

use crate::icmp::{icmp, read_error};
use crate::packet::*;
use crate::rig::*;

/// Client, VIP.
const FAMILIES: [[&str; 2]; 2] = [["198.51.100.7", "192.0.2.10"], ["2001:db8:7::7", "2001:db8::10"]];

fn web(echo: Echo) -> Farm {
    let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), Mode::Nat, &[]);
    web.backends = vec![backend(&["10.0.0.11", "2001:db8:1::11"], None, 1)];
    Farm { echo, ..web }
}

/// An echo request.
fn ping(client: &str, vip: &str, payload: &[u8]) -> Vec<u8> {
    let (client, vip): (IpAddr, IpAddr) = (client.parse().unwrap(), vip.parse().unwrap());
    let kind = if vip.is_ipv4() { 8 } else { 128 };
    icmp(client, vip, &[&[kind, 0, 0, 0, 0x12, 0x34, 0, 1], payload].concat())
}

#[test]
fn a_vip_that_is_served_answers_from_where_it_was_asked() {
    for [client, vip] in FAMILIES {
        let mut rig = Rig::with(vec![web(Echo::Up)]);
        for payload in [&b""[..], b"odd", &[7; 56], &[9; 1400]] {
            let asked = ping(client, vip, payload);
            let got = rig.send(&asked);
            assert_eq!((got.verdict, got.action), ("echo_answered", XDP_TX), "{vip} {}", payload.len());
            let (src, dst, message) = read(&got.frame);
            assert_eq!((src.to_string(), dst.to_string()), (vip.to_owned(), client.to_owned()));
            let kind = if src.is_ipv4() { 0 } else { 129 };
            assert_eq!(
                (message[0], message[1], &message[4..]),
                (kind, 0, &asked[asked.len() - 4 - payload.len()..])
            );
            assert_eq!(got.frame[..12], [CLIENT_MAC, BALANCER_MAC].concat());
            assert_eq!(got.frame[if src.is_ipv4() { 22 } else { 21 }], 64);
        }
        assert_eq!(rig.connections(), 0);
    }
}

/// As [`read_error`], of a message that quotes nothing.
fn read(frame: &[u8]) -> (IpAddr, IpAddr, Vec<u8>) {
    if frame[12..14] != [0x08, 0x00] {
        return read_error(frame);
    }
    assert_eq!((checksum(&[&frame[14..34]]), checksum(&[&frame[34..]])), ([0, 0], [0, 0]));
    let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
    (address(26), address(30), frame[34..].to_vec())
}

#[test]
fn a_wrong_checksum_of_a_request_is_wrong_in_the_answer() {
    for [client, vip] in FAMILIES {
        let mut rig = Rig::with(vec![web(Echo::Up)]);
        let right = ping(client, vip, b"ping");
        let at = right.len() - 10;
        let (answer, mut wrong) = (rig.send(&right).frame, right);
        wrong[at] ^= 0x10;
        let got = rig.send(&wrong);
        assert_eq!(got.verdict, "echo_answered");
        assert_ne!(got.frame[at..at + 2], answer[at..at + 2]);
    }
}

#[test]
fn a_vip_answers_as_its_farms_say() {
    let mail = |echo| {
        let farm = web(echo);
        Farm { name: lb_core::config::model::FarmName::new("mail").unwrap(), ports: port(25), ..farm }
    };
    let other =
        |farm: Farm| Farm { backends: vec![backend(&["10.0.0.12", "2001:db8:1::12"], None, 1)], ..farm };
    // Farms, backends that are up -> whether they answer.
    let table: [(&[Farm], &[&str], bool); 9] = [
        (&[web(Echo::Up)], &["10.0.0.11"], true),
        (&[web(Echo::Up)], &[], false),
        (&[web(Echo::Always)], &[], true),
        (&[web(Echo::Never)], &["10.0.0.11"], false),
        (&[web(Echo::Up), other(mail(Echo::Up))], &["10.0.0.12"], true),
        (&[web(Echo::Up), other(mail(Echo::Never))], &["10.0.0.12"], false),
        (&[web(Echo::Never), mail(Echo::Always)], &[], true),
        (&[Farm { backends: vec![], ..web(Echo::Up) }], &[], false),
        (&[web(Echo::Up)], &["10.0.0.11"], true),
    ];
    let mut rig = Rig::new(4096);
    for (farms, up, answered) in table {
        rig.configure(farms, |name| up.contains(&name));
        for [client, vip] in FAMILIES {
            let asked = ping(client, vip, b"ping");
            let got = rig.send(&asked);
            let expected = if answered { ("echo_answered", XDP_TX) } else { ("echo_unanswered", XDP_DROP) };
            assert_eq!((got.verdict, got.action), expected, "{farms:?} {up:?}");
        }
    }
}

#[test]
fn nobody_who_cannot_be_is_answered() {
    let mut rig = Rig::with(vec![web(Echo::Always)]);
    for (client, vip) in [
        ("224.0.0.1", "192.0.2.10"),
        ("255.255.255.255", "192.0.2.10"),
        ("127.0.0.1", "192.0.2.10"),
        ("192.0.2.10", "192.0.2.10"),
        ("ff02::1", "2001:db8::10"),
        ("::1", "2001:db8::10"),
    ] {
        let got = rig.send(&ping(client, vip, b"ping"));
        assert_eq!((got.verdict, got.action), ("bad_source", XDP_DROP), "{client}");
    }
}

#[test]
fn requests_to_others_reach_the_host() {
    let mut rig = Rig::with(vec![web(Echo::Never)]);
    let vip = ping("198.51.100.7", "192.0.2.10", b"ping");
    let other_host = sent_to([2, 0, 0, 0, 0, 9], vip.clone());
    for (sent, verdict) in [
        (ping("198.51.100.7", "192.0.2.99", b"ping"), "not_for_vip"),
        (ping("2001:db8:7::7", "2001:db8::99", b"ping"), "not_for_vip"),
        (ping("192.0.2.10", "198.51.100.7", b"ping"), "not_for_vip"),
        (other_host, "other_host"),
    ] {
        let got = rig.send(&sent);
        assert_eq!((got.verdict, got.action, &got.frame), (verdict, XDP_PASS, &sent));
    }
}
