//! A client that asks at a steady pace and notes when each request failed: it measures outages.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::http::get;
use crate::netns::Netns;

/// How many requests may be under way at once: one that hangs must not hold up the pace.
const LANES: u32 = 16;

/// One request on a connection of its own.
#[derive(Debug, Clone)]
pub struct Sample {
    pub began: Instant,
    pub ended: Instant,
    /// Who answered, or why nobody did.
    pub result: Result<String, String>,
}

/// A steady client at work.
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    samples: Arc<Mutex<Vec<Sample>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Steady {
    /// One request `every` so often, each given up after `limit`.
    pub fn start(
        netns: &Netns,
        target: SocketAddr,
        sources: &[IpAddr],
        every: Duration,
        limit: Duration,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let samples = Arc::new(Mutex::new(Vec::new()));
        let begin = Instant::now();
        let threads = netns.enter(|| {
            let lane = |number: u32| {
                let source = (!sources.is_empty()).then(|| sources[number as usize % sources.len()]);
                let (stop, samples) = (Arc::clone(&stop), Arc::clone(&samples));
                std::thread::spawn(move || {
                    let mut due = begin + every * number;
                    while !stop.load(Ordering::Relaxed) {
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        let began = Instant::now();
                        let result = get(target, source, "/", limit);
                        let result = result.map(|answer| answer.name).map_err(|failure| failure.to_string());
                        let sample = Sample { began, ended: Instant::now(), result };
                        samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
                        due += every * LANES;
                    }
                })
            };
            (0..LANES).map(lane).collect()
        })?;
        Ok(Self { stop, samples, threads })
    }

    /// What has been noted so far, in the order of the ends.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops and returns everything noted.
    pub fn finish(mut self) -> Vec<Sample> {
        self.halt();
        self.samples()
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("a steady client panicked");
            }
        }
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.halt();
    }
}
