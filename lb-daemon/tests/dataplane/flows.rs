//! Packets of well-behaved clients and backends.

use std::time::Duration;

use lb_core::config::model::{Mode, Ports};
use lb_daemon::handle::DataplaneReader as _;

use crate::ends::*;
use crate::packet::*;
use crate::rig::*;

const V4: (&str, &str, &str) = ("198.51.100.7", "192.0.2.10", "10.0.0.11");
const V6: (&str, &str, &str) = ("[2001:db8:7::7]", "[2001:db8::10]", "[2001:db8:1::11]");

fn bare(address: &str) -> &str {
    address.trim_start_matches('[').trim_end_matches(']')
}

#[test]
fn a_handshake_and_its_answers_are_translated_both_ways() {
    for (client, vip, server) in [V4, V6] {
        for mode in [Mode::Nat, Mode::Dnat] {
            let mut rig = Rig::with(vec![farm("web", &[bare(vip)], port(80), mode, &[(bare(server), 1)])]);
            let seen_source = if mode == Mode::Nat { vip } else { client };
            let (outside, inside) = (
                (format!("{client}:40000"), format!("{vip}:80")),
                (format!("{seen_source}:40000"), format!("{server}:80")),
            );
            let steps = [
                ("opened", true, segment(SYN, 999, 0)),
                ("forwarded", false, segment(SYN | ACK, 5000, 1000)),
                ("forwarded", true, segment(ACK, 1000, 5001)),
                ("forwarded", true, segment(ACK, 1000, 5001)),
                ("forwarded", false, segment(ACK, 5001, 1010)),
                ("forwarded", true, segment(FIN | ACK, 1010, 5001)),
                ("forwarded", false, segment(FIN | ACK, 5001, 1011)),
                ("forwarded", true, segment(ACK, 1011, 5002)),
            ];
            for (index, (verdict, forward, l4)) in steps.into_iter().enumerate() {
                let payload: &[u8] = if index == 3 { b"GET / HTTP/1.0\r\n" } else { b"" };
                let (from, to) = if forward { (&outside, &inside) } else { (&inside, &outside) };
                // What the other side sees of a reverse packet is the outside pair, turned round.
                let sent = if forward {
                    frame(&from.0, &from.1, l4, payload)
                } else {
                    frame(&from.1, &from.0, l4, payload)
                };
                let got = rig.send(&sent);
                assert_eq!(got.verdict, verdict, "{client} {mode:?} step {index}");
                let read = read(&got.frame);
                let ends = if forward { (&to.0, &to.1) } else { (&to.1, &to.0) };
                assert_eq!((read.src.to_string(), read.dst.to_string()), (ends.0.clone(), ends.1.clone()));
                assert_eq!(read.ttl, 63);
                let hop = if forward { BACKEND_MAC } else { CLIENT_MAC };
                assert_eq!((got.action, read.macs), (XDP_TX, (hop, BALANCER_MAC)));
                assert_eq!(got.frame.len(), sent.len());
                assert!(got.frame.ends_with(payload));
            }
            assert_eq!(rig.connections(), 1);
        }
    }
}

#[test]
fn datagrams_are_translated_with_and_without_checksum() {
    for (client, vip, server) in [V4, V6] {
        for l4 in [L4::Udp, L4::UdpWithoutChecksum] {
            let mut rig =
                Rig::with(vec![farm("dns", &[bare(vip)], port(53), Mode::Nat, &[(bare(server), 1)])]);
            let (outside, service, inside) =
                (format!("{client}:5353"), format!("{vip}:53"), format!("{server}:53"));
            for verdict in ["opened", "forwarded"] {
                let got = rig.send(&frame(&outside, &service, l4, b"odd"));
                assert_eq!(got.verdict, verdict);
                let read = read(&got.frame);
                assert_eq!((read.dst.to_string(), read.summed), (inside.clone(), l4 == L4::Udp));
            }
            for _ in 0..2 {
                let got = rig.send(&frame(&inside, &format!("{vip}:5353"), l4, b"answer"));
                assert_eq!(got.verdict, "forwarded");
                let read = read(&got.frame);
                assert_eq!((read.src.to_string(), read.dst.to_string()), (service.clone(), outside.clone()));
            }
            assert_eq!(rig.verdict(&frame(&outside, &service, l4, b"more")), "forwarded");
        }
    }
}

#[test]
fn a_backend_may_listen_on_another_port() {
    let mut web = farm("web", &["192.0.2.10"], Ports::Ranges(vec![(80, 80), (8000, 8010)]), Mode::Nat, &[]);
    web.backends = vec![backend(&["10.0.0.11"], Some(3000), 1)];
    let mut rig = Rig::with(vec![web]);
    for service in ["192.0.2.10:80", "192.0.2.10:8005"] {
        let got = rig.send(&frame("198.51.100.7:40000", service, tcp(SYN), b""));
        let inside = read(&got.frame);
        assert_eq!(inside.dst.to_string(), "10.0.0.11:3000");
        let got = rig.send(&frame("10.0.0.11:3000", &inside.src.to_string(), tcp(SYN | ACK), b""));
        assert_eq!(
            read(&got.frame).src.to_string(),
            service,
            "the answer comes from where the client called"
        );
    }
    assert_eq!(rig.verdict(&frame("198.51.100.7:40000", "192.0.2.10:81", tcp(SYN), b"")), "host_port");
}

#[test]
fn a_farm_of_all_ports_keeps_the_port_that_the_client_used() {
    let mut rig = Rig::with(vec![farm("all", &["192.0.2.10"], Ports::All, Mode::Dnat, &[("10.0.0.11", 1)])]);
    for port in [1, 80, 65535] {
        let got = rig.send(&frame("198.51.100.7:40000", &format!("192.0.2.10:{port}"), tcp(SYN), b""));
        assert_eq!(read(&got.frame).dst.to_string(), format!("10.0.0.11:{port}"));
    }
}

#[test]
fn clients_with_the_same_port_get_different_ones_at_the_backend() {
    for mode in [Mode::Nat, Mode::Dnat] {
        let vips = ["192.0.2.10", "192.0.2.11"];
        let mut web = farm("web", &vips, Ports::Ranges(vec![(80, 81)]), mode, &[]);
        web.backends = vec![backend(&["10.0.0.11"], Some(3000), 1)];
        let mut rig = Rig::with(vec![web]);
        let mut seen = std::collections::HashSet::new();
        for vip in vips {
            for service in [80, 81] {
                for client in ["198.51.100.7", "198.51.100.8"] {
                    let outside = (format!("{client}:40000"), format!("{vip}:{service}"));
                    let got = rig.send(&frame(&outside.0, &outside.1, tcp(SYN), b""));
                    assert_eq!(got.verdict, "opened");
                    let inside = read(&got.frame);
                    assert!(seen.insert(inside.src), "{} twice", inside.src);
                    let got = rig.send(&frame(
                        &inside.dst.to_string(),
                        &inside.src.to_string(),
                        tcp(SYN | ACK),
                        b"",
                    ));
                    let back = read(&got.frame);
                    assert_eq!((back.src.to_string(), back.dst.to_string()), (outside.1, outside.0));
                }
            }
        }
    }
}

#[test]
fn a_flood_of_half_open_connections_costs_no_established_one() {
    let mut rig = Rig::new(2048);
    rig.configure(&[farm("web", &["192.0.2.10"], port(80), Mode::Nat, &[("10.0.0.11", 1)])], |_| true);
    for i in 0..1000 {
        let client = format!("198.51.100.7:{}", 10_000 + i);
        assert_eq!(rig.verdict(&frame(&client, "192.0.2.10:80", segment(SYN, 1, 0), b"")), "opened");
        rig.send(&frame(
            "10.0.0.11:80",
            &format!("192.0.2.10:{}", 10_000 + i),
            segment(SYN | ACK, 7, 2),
            b"",
        ));
        assert_eq!(rig.verdict(&frame(&client, "192.0.2.10:80", segment(ACK, 2, 8), b"")), "forwarded");
    }
    for i in 0..50_000u32 {
        let flooder = format!("10.{}.{}.{}:1234", 1 + (i >> 16), (i >> 8) & 255, i & 255);
        rig.send(&frame(&flooder, "192.0.2.10:80", segment(SYN, 1, 0), b""));
        // Guessing does not help: whoever has not seen the backend's number stays half open.
        rig.send(&frame(&flooder, "192.0.2.10:80", segment(ACK, 2, 12345), b""));
    }
    for i in 0..1000 {
        let client = format!("198.51.100.7:{}", 10_000 + i);
        assert_eq!(
            rig.verdict(&frame(&client, "192.0.2.10:80", segment(ACK, 2, 8), b"x")),
            "forwarded",
            "{client}"
        );
    }
}

#[test]
fn a_client_may_open_again_from_the_port_of_a_closed_connection() {
    let two = [("10.0.0.11", 1), ("10.0.0.12", 1)];
    let web = farm("web", &["192.0.2.10"], port(80), Mode::Nat, &two);
    let mut rig = Rig::with(vec![web.clone()]);
    let client = "198.51.100.7:40000";
    let first =
        read(&rig.send(&frame(client, "192.0.2.10:80", segment(SYN, 1, 0), b"")).frame).dst.to_string();
    rig.send(&frame(&first, "192.0.2.10:40000", segment(SYN | ACK, 7, 2), b""));
    rig.send(&frame(client, "192.0.2.10:80", segment(ACK, 2, 8), b""));
    // A SYN in the middle is the ends' business.
    assert_eq!(rig.verdict(&frame(client, "192.0.2.10:80", segment(SYN, 1, 0), b"")), "forwarded");
    rig.send(&frame(&first, "192.0.2.10:40000", segment(RST, 8, 2), b""));
    let dead = first.trim_end_matches(":80").to_owned();
    rig.configure(&[web], |name| name != dead);
    let again = rig.send(&frame(client, "192.0.2.10:80", segment(SYN, 100, 0), b""));
    assert_eq!(again.verdict, "opened");
    assert_ne!(read(&again.frame).dst.to_string(), first, "not to the one that is down by now");
    assert_eq!(rig.connections(), 1);
}

#[test]
fn a_backend_that_leaves_keeps_its_connections_and_gets_no_new_ones() {
    let two = [("10.0.0.11", 1), ("10.0.0.12", 1)];
    let web = farm("web", &["192.0.2.10"], port(80), Mode::Nat, &two);
    let mut rig = Rig::with(vec![web.clone()]);
    let open =
        |rig: &mut Rig, port| Tcp::open(rig, &format!("198.51.100.7:{port}"), "192.0.2.10:80").unwrap();
    let mut known: Vec<_> = (20_000..20_200).map(|port| open(&mut rig, port)).collect();
    let first = known.iter().filter(|tcp| tcp.way.backend == "10.0.0.11:80").count();
    assert!((60..=140).contains(&first), "{first} of 200");
    let mut shrunk = web.clone();
    shrunk.backends.remove(0);
    rig.configure(&[shrunk], |_| true);
    for tcp in &mut known {
        assert_eq!(tcp.talks(&mut rig), Ok(()), "known connections stay");
    }
    rig.configure(&[web], |name| name == "10.0.0.12");
    for port in 30_000..30_100 {
        assert_eq!(open(&mut rig, port).way.backend, "10.0.0.12:80");
    }
}

#[test]
fn connections_age_by_their_state_and_only_together() {
    let mut web = farm("web", &["192.0.2.10"], port(80), Mode::Nat, &[("10.0.0.11", 1)]);
    web.timeouts.udp = Duration::from_secs(60);
    let mut rig = Rig::with(vec![web]);
    let udp = Udp::open(&mut rig, "198.51.100.7:5000", "192.0.2.10:80").unwrap();
    udp.answers(&mut rig).unwrap();
    udp.asks(&mut rig).unwrap();
    for _ in 0..5 {
        rig.pass(Duration::from_secs(55));
        assert_eq!(udp.answers(&mut rig), Ok(()), "a stream in one direction keeps both alive");
        assert_eq!((rig.sweep().expired, rig.connections()), (0, 1));
    }
    assert_eq!(udp.asks(&mut rig), Ok(()), "the other one, too");
    rig.pass(Duration::from_secs(61));
    assert_eq!((rig.sweep().expired, rig.connections()), (1, 0));
    assert!(Udp::open(&mut rig, "198.51.100.7:5000", "192.0.2.10:80").is_ok());
}

#[test]
fn connections_are_listed_and_cut() {
    use lb_core::state::ConnectionFilter;
    let mut rig = Rig::with(vec![farm("web", &["192.0.2.10"], port(80), Mode::Nat, &[("10.0.0.11", 1)])]);
    for client in ["198.51.100.7:40000", "198.51.100.7:40001", "198.51.100.8:40000"] {
        rig.send(&frame(client, "192.0.2.10:80", tcp(SYN), b""));
    }
    let filter = ConnectionFilter { client: Some("198.51.100.8".parse().unwrap()), ..Default::default() };
    let (listed, total) = rig.reader.connections(&filter, 10).unwrap();
    assert_eq!((listed.len(), total), (1, 1));
    let one = &listed[0];
    assert_eq!(
        (one.client.to_string(), one.vip.to_string()),
        ("198.51.100.8:40000".into(), "192.0.2.10:80".into())
    );
    assert_eq!((one.backend.to_string(), one.state), ("10.0.0.11:80".to_string(), "unanswered"));
    assert_eq!(rig.reader.cut(&filter), 1);
    assert_eq!(rig.connections(), 2);
    assert_eq!(rig.verdict(&frame("198.51.100.8:40000", "192.0.2.10:80", tcp(ACK), b"")), "refused");
    assert_eq!(rig.reader.cut(&ConnectionFilter::default()), 2);
    assert_eq!(rig.connections(), 0);
}

#[test]
fn counters_tell_packets_bytes_and_connections_of_a_backend() {
    let mut rig = Rig::with(vec![farm("web", &["192.0.2.10"], port(80), Mode::Nat, &[("10.0.0.11", 1)])]);
    let request = frame("198.51.100.7:40000", "192.0.2.10:80", tcp(SYN), b"");
    let answer = frame("10.0.0.11:80", "192.0.2.10:40000", tcp(SYN | ACK), b"0123456789");
    rig.send(&request);
    rig.send(&request);
    rig.send(&answer);
    let id = *rig.observed.backends.keys().next().unwrap();
    let traffic = rig.reader.traffic(id).unwrap();
    assert_eq!((traffic.packets_in, traffic.bytes_in), (2, 2 * request.len() as u64));
    assert_eq!((traffic.packets_out, traffic.bytes_out), (1, answer.len() as u64));
    assert_eq!(traffic.opened, 1);
}

#[test]
fn counters_of_many_backends_are_those_of_each() {
    let addresses: Vec<String> = (1..=20).map(|n| format!("10.0.0.{n}")).collect();
    let backends: Vec<(&str, u16)> = addresses.iter().map(|address| (address.as_str(), 1)).collect();
    let mut rig = Rig::with(vec![farm("web", &["192.0.2.10"], port(80), Mode::Nat, &backends)]);
    for port in 40000..40200 {
        rig.send(&frame(&format!("198.51.100.7:{port}"), "192.0.2.10:80", tcp(SYN), b""));
    }
    let ids: Vec<u16> = rig.observed.backends.keys().copied().collect();
    let all = rig.reader.traffic_of(ids.clone()).unwrap();
    assert_eq!(all.len(), 20);
    assert_eq!(ids.iter().map(|id| all[id].opened).sum::<u64>(), 200);
    for id in ids {
        assert_eq!(all[&id], rig.reader.traffic(id).unwrap(), "{id}");
    }
    // The last of the map, and beside it one that is far away.
    let last = lb_common::abi::BACKENDS_MAX as u16 - 1;
    assert_eq!(rig.reader.traffic_of(vec![last, 0, last]).unwrap().len(), 2);
}
