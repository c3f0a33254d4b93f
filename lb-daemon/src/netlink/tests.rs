//! Against the kernel, in network namespaces.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::test_net::{Host, ip};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A balancer with a router or backend at the other end of `eth0`.
fn pair() -> (Host, Host) {
    let (balancer, backend) = (Host::new(), Host::new());
    balancer.cable("eth0", &backend, "eth0");
    for (host, mac, n) in [(&balancer, "02:00:00:00:00:01", 1), (&backend, "02:00:00:00:00:02", 2)] {
        host.ip(&format!("link set eth0 address {mac}"));
        host.ip(&format!("addr add 10.0.0.{n}/24 dev eth0"));
        host.address(&format!("2001:db8::{n}/64"), "eth0");
    }
    (balancer, backend)
}

/// How `address` is reached; the kernel is made to find out, as the daemon does.
async fn resolve(netlink: &Netlink, address: IpAddr) -> Resolution {
    let route = match netlink.next_hop(address).await {
        Ok(route) => route,
        Err(error) => return Resolution::Unresolved { reason: error.to_string(), asked: false },
    };
    let (links, neighbours) = (netlink.links().await.unwrap(), netlink.neighbours().await.unwrap());
    let link = links.iter().find(|link| link.index == route.ifindex);
    let (found, probe) = resolution(&route, link, neighbours.get(&(route.ifindex, route.via)));
    if probe {
        // A link that is down takes no probe.
        netlink.probes(&[(route.ifindex, route.via)]).await;
    }
    found
}

/// The resolution of `address` as soon as it fits, asking again at each change as the daemon does.
async fn resolved(netlink: &Netlink, changes: &mut Changes, address: IpAddr, fits: fn(&Resolution) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let resolution = resolve(netlink, address).await;
        if fits(&resolution) {
            return;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let change = tokio::time::timeout(left, changes.next()).await;
        assert!(matches!(change, Ok(Some(_))), "{address}: {resolution:?}");
    }
}

#[test]
fn links_are_listed_with_mac_mtu_and_carrier() {
    let (balancer, _backend) = pair();
    balancer.ip("link set eth0 mtu 1400");
    balancer.ip("link add idle0 type veth peer name idle1");
    let eth0 = balancer.index("eth0");
    balancer.run_async(move || async move {
        let (netlink, _changes) = Netlink::connect().unwrap();
        let links = netlink.links().await.unwrap();
        let link = |name: &str| links.iter().find(|link| link.name == name).unwrap();
        let expected = Link { name: "eth0".into(), index: eth0, mac: OURS, mtu: 1400, up: true };
        assert_eq!(*link("eth0"), expected);
        assert!(!link("idle0").up);
        assert!(link("lo").up);
        assert_eq!(link("lo").mac, [0; 6]);
    });
}

#[test]
fn routes_name_the_link_and_the_gateway() {
    let (balancer, _backend) = pair();
    balancer.ip("route add 198.51.100.0/24 via 10.0.0.2");
    balancer.ip("route add 198.51.101.0/24 via inet6 2001:db8::2 dev eth0");
    balancer.ip("-6 route add 2001:db8:1::/48 via 2001:db8::2");
    balancer.ip("route add unreachable 198.51.102.0/24");
    balancer.ip("route add blackhole 198.51.103.0/24");
    balancer.ip("route add prohibit 198.51.104.0/24");
    balancer.ip("-6 route add unreachable 2001:db8:2::/48");
    let eth0 = balancer.index("eth0");
    balancer.run_async(move || async move {
        let (netlink, _changes) = Netlink::connect().unwrap();
        let table = [
            ("10.0.0.2", Ok((eth0, "10.0.0.2", false))),
            ("198.51.100.7", Ok((eth0, "10.0.0.2", false))),
            ("198.51.101.7", Ok((eth0, "2001:db8::2", false))),
            ("2001:db8::2", Ok((eth0, "2001:db8::2", false))),
            ("2001:db8:1::7", Ok((eth0, "2001:db8::2", false))),
            ("10.0.0.1", Ok((1, "10.0.0.1", true))),
            ("2001:db8::1", Ok((1, "2001:db8::1", true))),
            ("203.0.113.1", Err("no route to it")),
            ("2001:db9::1", Err("no route to it")),
            ("198.51.102.7", Err("its route says unreachable")),
            ("198.51.103.7", Err("its route says blackhole")),
            ("198.51.104.7", Err("its route says prohibited")),
            ("2001:db8:2::7", Err("its route says unreachable")),
            ("224.0.0.1", Err("no route to it")),
        ];
        for (address, expected) in table {
            let found = netlink.next_hop(addr(address)).await;
            match expected {
                Ok((ifindex, via, local)) => {
                    let found = found.unwrap_or_else(|error| panic!("{address}: {error}"));
                    // Whether a local route names lo or the link that has the address is the kernel's business.
                    let ifindex = if local { found.ifindex } else { ifindex };
                    assert_eq!(found, Route { ifindex, via: addr(via), local, ..found }, "{address}");
                    let own = if address.contains(':') { "2001:db8::1" } else { "10.0.0.1" };
                    assert_eq!(found.source, Some(addr(own)), "{address}");
                }
                Err(words) => assert_eq!(found.unwrap_err().to_string(), words, "{address}"),
            }
        }
    });
}

#[test]
fn backends_are_resolved_without_traffic_and_stay_so() {
    let (balancer, _backend) = pair();
    balancer.ip("route add 198.51.100.0/24 via 10.0.0.2");
    let eth0 = balancer.index("eth0");
    balancer.run_async(move || async move {
        let (netlink, mut changes) = Netlink::connect().unwrap();
        for address in ["198.51.100.7", "2001:db8::2"] {
            let first = resolve(&netlink, addr(address)).await;
            assert!(matches!(first, Resolution::Unresolved { .. }), "{first:?}");
            resolved(&netlink, &mut changes, addr(address), |r| matches!(r, Resolution::Resolved { .. }))
                .await;
        }
        let found = resolve(&netlink, addr("10.0.0.2")).await;
        let expected = Resolution::Resolved {
            ifindex: eth0,
            source_mac: OURS,
            destination_mac: THEIRS,
            mtu: 1500,
            source: Some(addr("10.0.0.1")),
            via: addr("10.0.0.2"),
        };
        assert_eq!(found, expected);

        // A stale entry is used, and the same question makes the kernel confirm it.
        ip("neigh change 10.0.0.2 dev eth0 nud stale");
        let key = (eth0, addr("10.0.0.2"));
        assert!(netlink.neighbours().await.unwrap()[&key].idle);
        assert_eq!(resolve(&netlink, addr("10.0.0.2")).await, expected);
        let neighbour = netlink.neighbours().await.unwrap()[&key];
        assert_eq!(neighbour, Neighbour { mac: Some(THEIRS), usable: true, idle: false });
    });
}

#[test]
fn what_does_not_answer_is_unresolved_until_it_does() {
    let (balancer, backend) = pair();
    let backend = std::sync::Arc::new(backend);
    let silent = std::sync::Arc::clone(&backend);
    balancer.run_async(move || async move {
        let (netlink, mut changes) = Netlink::connect().unwrap();
        let address = addr("10.0.0.3");
        let failed = |resolution: &Resolution| match resolution {
            Resolution::Unresolved { reason, .. } => reason == "10.0.0.3 does not answer on eth0",
            Resolution::Resolved { .. } => false,
        };
        resolved(&netlink, &mut changes, address, failed).await;
        silent.ip("addr add 10.0.0.3/24 dev eth0");
        resolved(&netlink, &mut changes, address, |r| matches!(r, Resolution::Resolved { .. })).await;
        ip("link set eth0 down");
        let gone = |resolution: &Resolution| matches!(resolution, Resolution::Unresolved { .. });
        resolved(&netlink, &mut changes, address, gone).await;
    });
}

#[test]
fn every_kind_of_change_is_told() {
    let (balancer, _backend) = pair();
    balancer.run_async(|| async {
        let (_netlink, mut changes) = Netlink::connect().unwrap();
        let table = [
            ("link set eth0 mtu 1300", Change::Links),
            ("addr add 10.9.9.9/32 dev eth0", Change::Addresses),
            ("addr add 2001:db8:9::9/128 dev eth0 nodad", Change::Addresses),
            ("route add 198.51.100.0/24 via 10.0.0.2", Change::Routes),
            ("-6 route add 2001:db8:7::/48 via 2001:db8::2", Change::Routes),
            ("neigh add 10.0.0.77 lladdr 02:00:00:00:00:77 dev eth0", Change::Neighbours),
        ];
        for (command, expected) in table {
            while tokio::time::timeout(Duration::from_millis(50), changes.next()).await.is_ok() {}
            ip(command);
            loop {
                let change = tokio::time::timeout(Duration::from_secs(10), changes.next()).await;
                match change.unwrap_or_else(|_| panic!("waited in vain for {expected:?} after {command}")) {
                    Some(change) if change == expected => break,
                    Some(_) => {}
                    None => panic!("the socket is gone"),
                }
            }
        }
    });
}

#[test]
fn a_burst_of_changes_is_told_once() {
    let (balancer, _backend) = pair();
    balancer.run_async(|| async {
        let (_netlink, mut changes) = Netlink::connect().unwrap();
        for n in 1..100 {
            ip(&format!("route add 198.51.100.{n}/32 via 10.0.0.2"));
        }
        let mut told = 0;
        // The kernel may tell of links and neighbours meanwhile.
        while let Ok(Some(change)) = tokio::time::timeout(Duration::from_millis(200), changes.next()).await {
            told += u32::from(change == Change::Routes);
        }
        // What the socket still held when the first was told makes one more at most.
        assert!((1..=2).contains(&told), "{told}");
    });
}

#[test]
fn lost_notifications_are_told_as_such() {
    let (balancer, _backend) = pair();
    balancer.run_async(|| async {
        let (netlink, mut changes) = Netlink::connect().unwrap();
        // Nobody reads the socket while this thread waits for `ip`.
        let mut batch = String::new();
        for n in 0..60_000 {
            batch += &format!(
                "neigh replace 10.0.0.9 lladdr 02:00:00:00:{:02x}:{:02x} dev eth0\n",
                n >> 8,
                n & 255
            );
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch).unwrap();
        ip(&format!("-batch {}", file.path().display()));
        let mut told = Vec::new();
        while let Ok(Some(change)) = tokio::time::timeout(Duration::from_millis(500), changes.next()).await {
            told.push(change);
        }
        assert!(told.contains(&Change::Lost), "{told:?}");
        // Questions go on being answered.
        assert!(netlink.links().await.unwrap().len() >= 2);
    });
}

#[test]
fn vips_are_put_on_and_taken_off_any_number_of_times() {
    let (balancer, _backend) = pair();
    let eth0 = balancer.index("eth0");
    balancer.run_async(move || async move {
        let (netlink, _changes) = Netlink::connect().unwrap();
        for vip in ["192.0.2.10", "2001:db8::10"].map(addr) {
            assert!(netlink.add_vip(eth0, vip).await.unwrap());
            assert!(!netlink.add_vip(eth0, vip).await.unwrap());
            assert!(ip("-o addr show dev eth0").contains(&vip.to_string()));
            assert!(netlink.remove_vip(eth0, vip).await.unwrap());
            assert!(!netlink.remove_vip(eth0, vip).await.unwrap());
            assert!(!ip("-o addr show dev eth0").contains(&vip.to_string()));
            assert!(!netlink.remove_vip(9999, vip).await.unwrap());
            assert!(netlink.add_vip(9999, vip).await.is_err());
        }
        // An address with a subnet is not ours to remove.
        assert!(!netlink.remove_vip(eth0, addr("10.0.0.1")).await.unwrap());
        assert!(!netlink.remove_vip(eth0, addr("2001:db8::1")).await.unwrap());
    });
}

#[test]
fn a_vip_is_never_a_source_and_ready_at_once() {
    let (balancer, backend) = pair();
    balancer.ip("addr flush dev eth0");
    balancer.ip("addr add 2001:db8::1/64 dev eth0 nodad");
    let eth0 = balancer.index("eth0");
    let vips = ["10.0.0.10", "2001:db8::10"].map(addr);
    balancer.run_async(move || async move {
        let (netlink, _changes) = Netlink::connect().unwrap();
        for vip in vips {
            netlink.add_vip(eth0, vip).await.unwrap();
        }
    });
    // Here the VIP is even the older address.
    balancer.ip("addr add 10.0.0.1/24 dev eth0");
    balancer.ip("route add default via 10.0.0.2");
    balancer.ip("-6 route add default via 2001:db8::2");
    for (peer, source) in [
        ("10.0.0.2", "src 10.0.0.1 "),
        ("198.51.100.1", "src 10.0.0.1 "),
        ("2001:db8::2", "src 2001:db8::1 "),
        ("2001:db9::1", "src 2001:db8::1 "),
    ] {
        let route = balancer.ip(&format!("route get {peer}"));
        assert!(route.contains(source), "{route}");
    }
    assert!(!balancer.ip("-6 addr show dev eth0").contains("tentative"));
    // The kernel answers for it.
    backend.run_async(move || async move {
        let (netlink, mut changes) = Netlink::connect().unwrap();
        for vip in vips {
            resolved(&netlink, &mut changes, vip, |r| matches!(r, Resolution::Resolved { .. })).await;
        }
    });
}

#[test]
fn a_vip_finds_the_interface_of_its_subnet() {
    let (balancer, backend) = pair();
    balancer.cable("eth1", &backend, "eth1");
    balancer.ip("addr add 192.0.2.1/24 dev eth1");
    let (eth0, eth1) = (balancer.index("eth0"), balancer.index("eth1"));
    balancer.run_async(move || async move {
        let (netlink, _changes) = Netlink::connect().unwrap();
        let mut links = netlink.links().await.unwrap();
        links.retain(|link| link.name.starts_with("eth"));
        links.sort_by_key(|link| link.name.clone());
        for (vip, expected) in
            [("192.0.2.10", eth1), ("10.0.0.10", eth0), ("2001:db8::10", eth0), ("203.0.113.1", eth0)]
        {
            let subnets = netlink.addresses().await.unwrap();
            assert_eq!(choose(addr(vip), &links, &subnets, []), Some(expected), "{vip}");
        }
    });
}

#[test]
fn questions_at_the_same_time_and_abandoned_ones_do_not_disturb() {
    let (balancer, _backend) = pair();
    balancer.run_async(|| async {
        let (netlink, _changes) = Netlink::connect().unwrap();
        for _ in 0..50 {
            let abandoned = tokio::time::timeout(Duration::ZERO, netlink.neighbours()).await;
            drop(abandoned);
            let (links, neighbours, route) =
                tokio::join!(netlink.links(), netlink.neighbours(), netlink.next_hop(addr("10.0.0.2")));
            assert!(links.unwrap().len() >= 2);
            neighbours.unwrap();
            route.unwrap();
        }
    });
}
