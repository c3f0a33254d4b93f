//! A scene: what stands in the table, and who does what at the same time. It is played in every order that matters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lb_common::table::{Meta, State, Table};
use loom::model::Builder;

use crate::cpu::{Cpu, Fault};
use crate::deeds::Deed;
use crate::invariants::{Found, inspect};
use crate::memory::{LINES, Memory, Words};

/// The interruptions that are played: the fewer for everyday, the more if `DROVER_TEST_LONG` is set, which takes minutes.
pub fn interruptions(everyday: usize, long: usize) -> usize {
    if std::env::var_os("DROVER_TEST_LONG").is_some() { long } else { everyday }
}

/// See the module's description.
#[derive(Clone)]
pub struct Scene {
    /// Done before, by one after the other.
    pub before: Vec<Deed>,
    /// A line whose owner is gone: he had it in this state.
    pub stuck: Option<(u32, State)>,
    pub at_once: Vec<Deed>,
    /// So often at most is somebody interrupted by another.
    pub interruptions: usize,
    /// What may be left of what somebody who is gone has left.
    pub halves: u32,
    pub surplus: u32,
}

impl Scene {
    pub fn new(before: &[Deed], at_once: &[Deed]) -> Self {
        Self {
            before: before.to_vec(),
            stuck: None,
            at_once: at_once.to_vec(),
            interruptions: 2,
            halves: 0,
            surplus: 0,
        }
    }

    /// Plays it with a fault in everybody's memory; panics if an invariant breaks in any of the plays. How many it took.
    pub fn play(self, fault: Fault) -> u64 {
        let words = self.words();
        let plays = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&plays);
        let mut builder = Builder::new();
        builder.preemption_bound = Some(self.interruptions);
        builder.max_branches = 10_000;
        builder.check(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            let found = self.play_once(&words, fault);
            assert!(found.halves <= self.halves, "half a pair after {:?}", self.at_once);
            assert!(found.surplus <= self.surplus, "count too high after {:?}", self.at_once);
        });
        plays.load(Ordering::Relaxed)
    }

    fn play_once(&self, words: &[Words], fault: Fault) -> Found {
        let memory = Memory::new(words);
        let deeds = self.at_once.iter().copied().enumerate();
        let others: Vec<_> = deeds
            .skip(1)
            .map(|(number, deed)| {
                let memory = memory.clone();
                loom::thread::spawn(move || deed.run(&Cpu::new(&memory, number, fault)))
            })
            .collect();
        self.at_once[0].run(&Cpu::new(&memory, 0, fault));
        others.into_iter().for_each(|other| other.join().unwrap());
        inspect(&Table(&Cpu::alone(&memory)))
    }

    /// The table as it is before anybody does anything at the same time.
    fn words(&self) -> Vec<Words> {
        let (before, stuck) = (self.before.clone(), self.stuck);
        let words = Arc::new(Mutex::new(Vec::new()));
        let result = Arc::clone(&words);
        loom::model(move || {
            let memory = Memory::new(&[Words::default(); LINES as usize]);
            let cpu = Cpu::new(&memory, 0, Fault::None);
            before.iter().for_each(|deed| deed.run(&cpu));
            inspect(&Table(&Cpu::alone(&memory)));
            let mut words = memory.words();
            if let Some((index, state)) = stuck {
                let meta = Meta(words[index as usize].meta);
                words[index as usize].meta = meta.with_state(state).0;
            }
            *result.lock().unwrap() = words;
        });
        Arc::into_inner(words).unwrap().into_inner().unwrap()
    }
}
