//! Against the kernel, in network namespaces.

use std::net::IpAddr;
use std::pin::pin;
use std::task::Poll;

use futures_util::poll;

use super::round::{Dirty, Known};
use super::*;
use crate::clock;
use crate::test_net::Host;

/// A round that is broken off after so many polls; whether it came to its end before.
async fn round(known: &mut Known, netlink: &Netlink, wanted: &Wanted, polls: usize) -> bool {
    let mut round = pin!(known.round(netlink, wanted, Dirty::ALL));
    for _ in 0..polls {
        if let Poll::Ready(done) = poll!(round.as_mut()) {
            done.unwrap();
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

#[test]
fn wherever_a_round_is_broken_off_a_vip_is_announced_once() {
    let (balancer, router) = (Host::new(), Host::new());
    balancer.cable("eth0", &router, "eth0");
    balancer.ip("addr add 10.0.0.1/24 dev eth0");
    let eth0 = balancer.index("eth0");
    balancer.run_async(move || async move {
        let vip: IpAddr = "10.0.0.9".parse().unwrap();
        let wanted = Wanted {
            number: 1,
            interfaces: vec!["eth0".to_owned()],
            backends: ["10.0.0.2".parse().unwrap()].into(),
            vips: [vip].into(),
        };
        for polls in 0.. {
            let (netlink, _changes) = Netlink::connect().unwrap();
            netlink.remove_vip(eth0, vip).await.unwrap();
            let mut known = Known::default();
            let whole = round(&mut known, &netlink, &wanted, polls).await;
            let mut announced = known.take_announcements();
            assert!(round(&mut known, &netlink, &wanted, usize::MAX).await);
            announced.extend(known.take_announcements());
            let announced: Vec<IpAddr> = announced.into_iter().map(|(_, vip)| vip).collect();
            assert_eq!(announced, [vip], "broken off after {polls} polls");
            if whole {
                break;
            }
        }
    });
}

#[test]
fn an_end_waits_for_nothing_where_no_vip_is_to_be_taken_away() {
    Host::new().run_async(|| async {
        let (netlink, changes) = Netlink::connect().unwrap();
        let wanted = Wanted { number: 1, ..Wanted::default() };
        let mut network = Network::spawn(netlink, changes, BTreeSet::new(), wanted);
        assert_eq!(network.next().await.unwrap().of, 1);
        let begin = clock::now();
        network.end().await;
        let took = clock::now().saturating_duration_since(begin);
        assert!(took < END_WITHIN / 2, "{took:?}");
    });
}
