//! What else there is beside the modes in which backends answer their clients themselves: ICMP errors, schedulers.

use lb_core::config::model::{Farm, Scheduler};

use crate::icmp;
use crate::modes::*;
use crate::packet::*;
use crate::rig::*;

#[test]
fn errors_about_what_a_backend_of_dsr_has_sent_reach_it_as_they_are() {
    let mut rig = rig(&[dsr(5)]);
    for ((client, vip), router) in [(V4, "203.0.113.1"), (V6, "2001:db8:99::1")] {
        start(&mut rig, &[dsr(5)]);
        let number = open(&mut rig, (client, vip));
        let about = frame(vip, client, segment(ACK, 5001, 1000), &[7; 1400]);
        let told = |about: &[u8]| icmp::error(router.parse().unwrap(), vip_of(vip), about, 8);
        let sent = told(&about);
        let got = rig.send(&sent);
        assert_eq!((got.verdict, got.action), ("icmp_translated", XDP_TX));
        assert_eq!(got.frame, handed(&sent, mac(number)));
        let far = frame(vip, client, segment(ACK, 2_000_000_000, 1000), b"");
        assert_eq!(rig.verdict(&told(&far)), "icmp_implausible");
        let stranger = frame(vip, &client.replace("40000", "40001"), segment(ACK, 5001, 1000), b"");
        assert_eq!(rig.verdict(&told(&stranger)), "icmp_unknown");
    }
}

#[test]
fn schedulers_choose_for_dsr_and_whom_no_table_names_cannot_be_found_again() {
    let by = |scheduler| Farm { scheduler, ..dsr(5) };
    let mut rig = rig(&[by(Scheduler::SourceHash)]);
    for (client, vip) in [V4, V6] {
        for scheduler in [Scheduler::SourceHash, Scheduler::WeightedRoundRobin, Scheduler::LeastConnections] {
            start(&mut rig, &[by(scheduler)]);
            let number = open(&mut rig, (client, vip));
            rig.reader.cut(&Default::default());
            let lost = frame(client, vip, segment(ACK, 1000, 5001), b"");
            if scheduler == Scheduler::SourceHash {
                assert_eq!(reaches(&mut rig, &lost, "by_table"), number);
                continue;
            }
            let told = rig.send(&lost);
            assert_eq!((told.verdict, numbers(&told.frame)), ("refused", (5001, 0, RST)));
        }
    }
}
