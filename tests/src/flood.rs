//! A flood of SYNs from addresses that nobody has, as fast as one CPU sends them or at a given rate.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use lb_common::tcp::flag;
use lb_common::wire::eth::Mac;

use crate::bench::packet::Ends;
use crate::frame::{Segment, tcp};
use crate::topology::Topology;
use crate::wire::Wire;

/// Where the senders claim to be: 10.1.128.0/17, a part of the client's network that nobody uses.
pub const SOURCES: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 1, 128, 0), 17);

/// Frames sent before the clock is looked at.
const BURST: u64 = 64;

/// Source ports: those that are not privileged.
const FIRST_PORT: u64 = 1024;
const PORTS: u64 = 65536 - FIRST_PORT;

/// A flood under way.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Flood {
    /// Starts to send SYNs for `target` (IPv4) from the client's network: `rate` a second, or as many as go.
    pub fn start(topology: &Topology, target: SocketAddr, rate: Option<u32>) -> Result<Self> {
        let wire = topology.front_link()?;
        // As from a router: what is answered to the senders ends there, and not on the link of honest clients.
        let template = template((topology.front_mac()?, wire.mac()), target)?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = Some(std::thread::spawn(move || send(&wire, &template, rate, &told, &count)));
        Ok(Self { stop, sent, thread })
    }

    /// How many SYNs have been sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it; how many SYNs there were.
    pub fn finish(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the flood panicked"))??;
        }
        Ok(self.sent())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            eprintln!("the flood panicked");
        }
    }
}

/// The SYN that all others are made from; [`number`] fills in what is 0 here.
fn template(macs: (Mac, Mac), target: SocketAddr) -> Result<Vec<u8>> {
    let src = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 0)), 0);
    let segment = Segment { flags: flag::SYN, sequence: 0, acknowledgment: 0 };
    tcp(macs, Ends { src, dst: target }, segment)
}

/// Makes a frame the SYN of the `number`th flow.
///
/// Whatever stands in the address and the port, its complement stands beside it in what the same checksum covers: their
/// sum is that of zeroes, and the checksums stay right without being computed (RFC 1624).
fn write(frame: &mut [u8], number: u64) {
    let address = (number.wrapping_mul(40_503) as u16) | 0x8000;
    let port = (FIRST_PORT + number % PORTS) as u16;
    let (sequence, identification) = (34 + 4, 14 + 4);
    let words = [
        (14 + 14, address),
        (identification, !address),
        (sequence, !address),
        (34, port),
        (sequence + 2, !port),
    ];
    for (place, word) in words {
        if let Some(bytes) = frame.get_mut(place..place + 2) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
    }
}

fn send(wire: &Wire, template: &[u8], rate: Option<u32>, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let mut frames = vec![template.to_vec(); BURST as usize];
    let begin = Instant::now();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(number as f64 / f64::from(rate));
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
        }
        for frame in &mut frames {
            write(frame, number);
            number += 1;
        }
        sent.fetch_add(wire.send_all(&frames)? as u64, Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::packet::{BALANCER_MAC, CLIENT_MAC};
    use crate::frame::seen;
    use lb_common::checksum::checksum;
    use std::collections::HashSet;

    #[test]
    fn every_flow_is_another_with_checksums_that_are_right() {
        let ends = Ends { src: "10.1.0.0:0".parse().unwrap(), dst: "10.1.0.100:80".parse().unwrap() };
        let segment = Segment { flags: flag::SYN, sequence: 0, acknowledgment: 0 };
        let template = tcp((BALANCER_MAC, CLIENT_MAC), ends, segment).unwrap();
        let mut sources = HashSet::new();
        for number in 0..200_000 {
            let mut frame = template.clone();
            write(&mut frame, number);
            let found = seen(&frame).unwrap();
            assert_eq!((found.ends.dst, found.segment.flags), (ends.dst, flag::SYN));
            assert!(sources.insert(found.ends.src), "{number}: {:?}", found.ends.src);
            if number % 1000 == 0 {
                assert_eq!(checksum(&[&frame[14..34]]), [0, 0]);
                let pseudo = [&frame[26..34], &[0, 6, 0, 20]].concat();
                assert_eq!(checksum(&[&pseudo, &frame[34..54]]), [0, 0]);
                let IpAddr::V4(address) = found.ends.src.ip() else { panic!("{found:?}") };
                assert_eq!(address.to_bits() >> 15, SOURCES.0.to_bits() >> 15);
            }
        }
    }
}
