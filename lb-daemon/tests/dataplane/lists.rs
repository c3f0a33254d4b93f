//! Whom farms take connections from.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_common::abi::FARM_ADMITS;
use lb_core::config::model::{Farm, Lists, Mode};

use crate::ends::*;
use crate::packet::*;
use crate::rig::*;

fn lists(allow: &[&str], deny: &[&str]) -> Arc<Lists> {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Arc::new(Lists::new(nets(allow), nets(deny)))
}

fn web(allow: &[&str], deny: &[&str]) -> Farm {
    let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), Mode::Nat, &[]);
    web.backends = vec![backend(&["10.0.0.11", "2001:db8:1::11"], None, 1)];
    Farm { lists: lists(allow, deny), ..web }
}

fn vip(client: &str) -> &'static str {
    if client.starts_with('[') { "[2001:db8::10]:80" } else { "192.0.2.10:80" }
}

impl Rig {
    fn denied(&self, farm: &str) -> u64 {
        self.turned_away(farm, "denied")
    }
}

#[test]
fn the_longest_prefix_decides_who_may_connect() {
    /// What it is, who is allowed, who is denied; who comes, and who does not.
    type Case<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a [&'a str], &'a [&'a str]);
    let table: &[Case<'_>] = &[
        ("no lists", &[], &[], &["198.51.100.7", "2001:db8:7::7"], &[]),
        (
            "some are denied",
            &[],
            &["198.51.100.0/24", "2001:db8:7::/48"],
            &["198.51.101.0", "198.51.99.255", "2001:db8:8::7", "2001:db8:6:ffff::1"],
            &["198.51.100.0", "198.51.100.255", "2001:db8:7::7", "2001:db8:7:ffff::1"],
        ),
        (
            "some are allowed",
            &["198.51.100.0/24"],
            &[],
            &["198.51.100.7"],
            &["198.51.101.7", "2001:db8:7::7", "10.9.9.9"],
        ),
        (
            "prefixes in prefixes",
            &["198.51.0.0/16", "198.51.100.7/32", "2001:db8::/32"],
            &["198.51.100.0/24", "2001:db8:7::/64", "198.51.100.6/32"],
            &["198.51.99.1", "198.51.100.7", "2001:db8:7:1::7"],
            &["198.51.100.8", "198.51.100.6", "2001:db8:7::7", "198.52.0.1"],
        ),
        ("all of a family", &[], &["0.0.0.0/0"], &["2001:db8:7::7"], &["198.51.100.7", "9.9.9.9"]),
        ("all of the other", &[], &["::/0"], &["198.51.100.7"], &["2001:db8:7::7"]),
        ("single bits", &["128.0.0.0/1"], &[], &["198.51.100.7"], &["100.64.0.1"]),
        ("one address", &[], &["198.51.100.7/32"], &["198.51.100.6", "198.51.100.8"], &["198.51.100.7"]),
    ];
    let mut rig = Rig::new(4096);
    for (what, allow, deny, come, stay) in table {
        rig.configure(&[web(allow, deny)], |_| true);
        let mut port = 40_000;
        let before = rig.denied("web");
        for (addresses, verdict, action) in [(come, "opened", XDP_TX), (stay, "denied", XDP_DROP)] {
            for address in *addresses {
                for l4 in [tcp(SYN), L4::Udp] {
                    port += 1;
                    let client = match address.contains(':') {
                        true => format!("[{address}]:{port}"),
                        false => format!("{address}:{port}"),
                    };
                    let sent = frame(&client, vip(&client), l4, b"");
                    let got = rig.send(&sent);
                    assert_eq!((got.verdict, got.action), (verdict, action), "{what}: {address} {l4:?}");
                    assert_eq!(got.frame == sent, verdict == "denied", "it is not touched");
                }
            }
        }
        assert_eq!(rig.denied("web") - before, 2 * stay.len() as u64, "{what}");
        let connections = rig.reader.cut(&Default::default());
        assert_eq!(connections, 2 * come.len() as u64, "nothing is kept of whoever is denied");
    }
}

#[test]
fn whoever_is_denied_is_not_answered_whatever_it_sends() {
    let mut rig = Rig::with(vec![web(&[], &["198.51.100.0/24"])]);
    for (client, verdict) in [("198.51.101.7:40000", "refused"), ("198.51.100.7:40000", "denied")] {
        for flags in [ACK, FIN | ACK, SYN | ACK] {
            let got = rig.send(&frame(client, "192.0.2.10:80", segment(flags, 1000, 2000), b""));
            assert_eq!(got.verdict, verdict, "{client} {flags:#x}");
            assert_eq!(got.action == XDP_DROP, verdict == "denied");
        }
    }
    rig.configure(&[web(&[], &["198.51.100.0/24"])], |_| false);
    for (client, verdict) in [("198.51.101.7:40000", "refused"), ("198.51.100.7:40000", "denied")] {
        assert_eq!(rig.verdict(&frame(client, "192.0.2.10:80", tcp(SYN), b"")), verdict, "the farm is down");
    }
}

#[test]
fn connections_go_on_though_a_change_denies_their_clients_and_new_ones_are_denied() {
    let mut rig = Rig::with(vec![web(&[], &[])]);
    for client in ["198.51.100.7", "[2001:db8:7::7]"] {
        let at = |port: u16| format!("{client}:{port}");
        rig.configure(&[web(&[], &[])], |_| true);
        let mut tcp_open = Tcp::open(&mut rig, &at(40_000), vip(client)).unwrap();
        let udp_open = Udp::open(&mut rig, &at(40_001), vip(client)).unwrap();
        udp_open.answers(&mut rig).unwrap();
        rig.configure(&[web(&[], &["198.51.100.0/24", "2001:db8:7::/48"])], |_| true);
        tcp_open.talks(&mut rig).unwrap();
        udp_open.asks(&mut rig).unwrap();
        udp_open.answers(&mut rig).unwrap();
        let syn = frame(&at(40_002), vip(client), tcp(SYN), b"");
        assert_eq!(rig.verdict(&syn), "denied");
        assert_eq!(rig.verdict(&frame(&at(40_003), vip(client), L4::Udp, b"")), "denied");
        rig.configure(&[web(&["198.51.100.0/24", "2001:db8:7::/48"], &[])], |_| true);
        assert_eq!(rig.verdict(&syn), "opened");
        rig.configure(&[web(&[], &[])], |_| true);
        assert!(rig.observed.admissions.is_empty());
    }
}

#[test]
fn farms_are_told_apart_and_those_without_lists_have_nothing_to_look_up() {
    let other = |name: &str, vip: &str| farm(name, &[vip], port(80), Mode::Dnat, &[("10.0.0.12", 1)]);
    let open = other("open", "192.0.2.11");
    let closed = Farm { lists: lists(&["10.0.0.0/8"], &[]), ..other("closed", "192.0.2.12") };
    let same = Farm { lists: lists(&["10.0.0.0/8"], &[]), ..other("same", "192.0.2.13") };
    let mut rig = Rig::with(vec![web(&[], &["198.51.100.0/24"]), open, closed, same]);
    for (to, verdict) in [
        ("192.0.2.10:80", "denied"),
        ("192.0.2.11:80", "opened"),
        ("192.0.2.12:80", "denied"),
        ("192.0.2.13:80", "denied"),
    ] {
        assert_eq!(rig.verdict(&frame("198.51.100.7:40000", to, tcp(SYN), b"")), verdict, "{to}");
    }
    let counted = ["web", "open", "closed", "same"].map(|farm| rig.denied(farm));
    assert_eq!(counted, [1, 0, 1, 1]);
    let admits = |(label, entry): &(lb_common::abi::Label, lb_common::abi::FarmEntry)| {
        (label.as_str().unwrap() != "open") == (entry.flags & FARM_ADMITS != 0)
    };
    assert!(rig.observed.farms.values().all(admits));
    // One prefix each, and both families as a whole; lists that say the same are there once.
    assert_eq!(rig.datapath.maps.lists.count().unwrap(), 2 * 3);
}

/// Prefixes of both families, each of another length or another place.
fn many(count: u32, salt: u32) -> Lists {
    let net = |i: u32| -> ipnet::IpNet {
        let mixed = (i ^ salt).wrapping_mul(0x9e37_79b1);
        let net: ipnet::IpNet = match i % 4 {
            0 => {
                let high = u128::from(mixed) << 88 | 0x2001_u128 << 112;
                ipnet::Ipv6Net::new(high.into(), 33 + (mixed >> 27) as u8).unwrap().into()
            }
            _ => ipnet::Ipv4Net::new(mixed.into(), 18 + (i % 15) as u8).unwrap().into(),
        };
        net.trunc()
    };
    let mut nets = std::collections::BTreeSet::new();
    for i in 0.. {
        if nets.len() == count as usize {
            break;
        }
        nets.insert(net(i));
    }
    let (allow, deny) = nets.into_iter().partition(|net| net.prefix_len() % 3 == 0);
    Lists::new(allow, deny)
}

#[test]
fn the_program_judges_random_addresses_as_a_plain_look_at_all_prefixes_does() {
    let lists = many(3000, 0);
    let mut rig = Rig::with(vec![Farm { lists: Arc::new(lists.clone()), ..web(&[], &[]) }]);
    let both =
        || lists.allow().iter().map(|net| (net, true)).chain(lists.deny().iter().map(|net| (net, false)));
    let (mut came, mut stayed) = (0, 0);
    for (i, (net, _)) in both().enumerate() {
        // An address near each prefix: its first, or one right before it.
        let address: IpAddr = match net.network() {
            IpAddr::V4(v4) => IpAddr::V4((u32::from(v4).wrapping_sub(u32::from(i % 3 == 0))).into()),
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6).wrapping_sub(u128::from(i % 3 == 0))).into()),
        };
        let longest =
            both().filter(|(net, _)| net.contains(&address)).max_by_key(|(net, _)| net.prefix_len());
        let client = std::net::SocketAddr::new(address, 40_000);
        let (vip, packet) = (vip(&client.to_string()), tcp(SYN));
        let verdict = rig.verdict(&frame_between(client, vip.parse().unwrap(), packet, b""));
        if verdict == "bad_source" {
            continue;
        }
        // Some prefixes lie in one another: they are tried twice.
        let comes = longest.is_some_and(|(_, allowed)| allowed);
        assert_eq!(verdict == "denied", !comes, "{address}: {verdict}, {longest:?}");
        (came, stayed) = (came + u32::from(comes), stayed + u32::from(!comes));
    }
    assert!(came > 500 && stayed > 500, "{came} {stayed}");
}

#[test]
fn a_hundred_thousand_prefixes_are_there_in_less_than_two_seconds_and_are_taken_out_again() {
    let mut rig = Rig::new(4096);
    let (first, second) = (Arc::new(many(100_000, 0)), Arc::new(many(100_000, 77)));
    assert_eq!((first.len(), second.len()), (100_000, 100_000));
    let held = rig.datapath.maps.lists.clone();
    for list in [&first, &second] {
        let start = Instant::now();
        rig.configure(&[Farm { lists: list.clone(), ..web(&[], &[]) }], |_| true);
        let loaded = start.elapsed();
        let start = Instant::now();
        held.want([list.id()].into());
        let (gone, tidied) = (held.tidy().unwrap(), start.elapsed());
        println!("100000 prefixes loaded in {loaded:?}; {gone} taken out in {tidied:?}");
        assert!(loaded < Duration::from_secs(2), "{loaded:?}");
        let client = list.deny().iter().find(|net| net.addr().is_ipv4() && net.prefix_len() == 32).unwrap();
        let syn = frame(&format!("{}:40000", client.addr()), "192.0.2.10:80", tcp(SYN), b"");
        assert_eq!(rig.verdict(&syn), "denied");
    }
    assert_eq!(held.count().unwrap(), 100_002, "the second one, and both families as a whole");
    // Nothing of it is written again.
    let start = Instant::now();
    rig.configure(&[Farm { lists: second, ..web(&[], &[]) }], |_| false);
    assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
}

#[test]
fn a_list_that_a_killed_daemon_has_left_is_taken_out_and_one_in_use_goes_on() {
    let dir = PathBuf::from(format!("/sys/fs/bpf/drover-test-lists-{}", std::process::id()));
    let (farms, left) =
        ([web(&[], &["198.51.100.0/24"])], lists(&[], &["203.0.113.0/24", "2001:db8:9::/48"]));
    {
        let mut before = Rig::taking_over(dir.clone());
        before.configure(&farms, |_| true);
        before.datapath.maps.lists.write([&*left]).unwrap();
        before.leave();
    }
    let mut rig = Rig::taking_over(dir);
    rig.observed = rig.datapath.observe().unwrap();
    let (held, named) = (rig.datapath.maps.lists.clone(), rig.observed.lists());
    assert_eq!(named, [farms[0].lists.id()].into());
    held.adopt(named.clone());
    held.want(named);
    assert_eq!(held.count().unwrap(), 3 + 4);
    assert_eq!(held.tidy().unwrap(), 4);
    let syn = frame("198.51.100.7:40000", "192.0.2.10:80", tcp(SYN), b"");
    assert_eq!(rig.verdict(&syn), "denied");
    rig.configure(&farms, |_| true);
    assert_eq!((held.count().unwrap(), rig.verdict(&syn)), (3, "denied"));
}
