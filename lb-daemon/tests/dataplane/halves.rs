//! A table so small that a flood takes away one half of a connection and leaves the other: nobody is left with half of one.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_core::config::model::Mode;

use crate::ends::*;
use crate::packet::*;
use crate::rig::*;

const VIPS: [&str; 2] = ["192.0.2.10:80", "[2001:db8::10]:80"];

fn rig() -> Rig {
    let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), Mode::Nat, &[]);
    web.backends = vec![backend(&["10.0.0.11", "2001:db8:1::11"], None, 1)];
    // Of no even share for each CPU, so that what is evicted in one go need not be whole pairs.
    let mut rig = Rig::new(98);
    rig.configure(&[web], |_| true);
    rig
}

fn client(vip: &str, number: u32) -> String {
    if vip.starts_with('[') {
        format!("[2001:db8:7::{number:x}]:40000")
    } else {
        format!("198.51.100.{number}:40000")
    }
}

/// Opens `packets` other connections, of which nobody hears again.
fn flood(rig: &mut Rig, vip: &str, l4: L4, from: &mut u32, packets: u32) {
    let vip: SocketAddr = vip.parse().unwrap();
    for _ in 0..packets {
        *from += 1;
        let port = 1024 + (*from % 30_000) as u16;
        let number = from.to_be_bytes();
        let source = match vip {
            SocketAddr::V4(_) => IpAddr::from([100, number[1], number[2], number[3]]),
            SocketAddr::V6(_) => {
                IpAddr::from([0x2001, 0x0db8, 0xf, 0, 0, 0, (*from >> 16) as u16, *from as u16])
            }
        };
        let source = SocketAddr::new(source, port);
        rig.run(&frame_between(source, vip, l4, b""));
    }
}

/// Has `clients` clients send `first`, a flood come over them, and `again` see what the repetition of it comes to. The table is
/// full all the time, but for what the daemon forgets now and then.
fn flooded_out(vip: &str, first: L4, clients: u32, again: impl Fn(&mut Rig, &str) -> Reached) {
    let mut rig = rig();
    let (mut flooded, mut failed) = (0, Vec::new());
    for number in 1..=clients {
        if number % 20 == 1 {
            rig.later(Duration::from_secs(300));
            flood(&mut rig, vip, first, &mut flooded, 500);
        }
        let client = client(vip, number);
        rig.run(&frame(&client, vip, first, b""));
        flood(&mut rig, vip, first, &mut flooded, number * 7 % 100);
        if let Err(reason) = again(&mut rig, &client) {
            failed.push(format!("{client}: {reason}"));
        }
    }
    assert!(failed.is_empty(), "{} of {clients}, {}", failed.len(), failed[0]);
}

/// Where a packet of the client's goes, whether it opens anew or not.
fn way(rig: &mut Rig, client: &str, vip: &str, l4: L4) -> Result<Way, String> {
    let got = rig.send(&frame(client, vip, l4, b""));
    if got.action != XDP_TX {
        return Err(got.verdict.to_owned());
    }
    let seen = read(&got.frame);
    let (client, vip) = (client.to_owned(), vip.to_owned());
    Ok(Way { client, vip, source: seen.src.to_string(), backend: seen.dst.to_string() })
}

#[test]
fn a_client_connects_with_its_second_syn_whatever_has_become_of_its_first() {
    for vip in VIPS {
        let syn = segment(SYN, CLIENT_ISN, 0);
        flooded_out(vip, syn, 250, |rig, client| {
            let way = way(rig, client, vip, syn)?;
            let mut tcp = Tcp { way, client_next: CLIENT_ISN + 1, backend_next: BACKEND_ISN };
            tcp.syn_ack(rig)?;
            tcp.talks(rig)?;
            tcp.way.down(rig, segment(RST, tcp.backend_next, 0), b"")
        });
    }
}

#[test]
fn a_datagram_is_answered_whatever_has_become_of_the_one_before() {
    for vip in VIPS {
        flooded_out(vip, L4::Udp, 250, |rig, client| {
            way(rig, client, vip, L4::Udp)?.down(rig, L4::Udp, b"answer")
        });
    }
}

/// The same for a backend that speaks first after the flood: its packet goes to its client or to nobody.
#[test]
fn a_late_answer_goes_to_its_client_or_to_nobody() {
    for vip in VIPS {
        let mut rig = rig();
        let (mut flooded, mut late) = (0, 0);
        for number in 1..=250 {
            for (l4, answer) in
                [(segment(SYN, CLIENT_ISN, 0), segment(SYN | ACK, 7, CLIENT_ISN + 1)), (L4::Udp, L4::Udp)]
            {
                let Ok(way) = Way::open(&mut rig, &client(vip, number), vip, l4, b"") else { continue };
                flood(&mut rig, vip, l4, &mut flooded, number);
                let got = rig.send(&way.by_backend(answer, b""));
                assert_ne!(got.action, XDP_PASS, "{}: not to the host", way.client);
                if got.verdict == "forwarded" {
                    // The port may have become another's in the meantime: a flooder's, never a third one's.
                    let dst = read(&got.frame).dst;
                    let flooder = dst.port() < 31_024;
                    assert!(flooder || dst.to_string() == way.client, "{} got {}'s", dst, way.client);
                    late += 1;
                }
            }
        }
        assert!(late > 0, "some are still known");
    }
}
