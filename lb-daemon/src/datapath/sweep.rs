//! The sweep: a tenth of both tables at a time, so that it delays nobody. It frees what has expired and what nobody will ever
//! free, counts who is connected to whom, notes which source ports are taken, keeps the affinity of who is connected, and from
//! each slice, which is a fair sample of its table, follows what newcomers may take.
//!
//! [`Sweeper`] remembers between slices; given up in the middle of a round, only that round's counts are lost.

use std::collections::HashMap;
use std::ops::Range;

use lb_common::abi::{BACKEND_AFFINE, BACKEND_COUNTED, BACKENDS_MAX, VIPS_MAX};
use lb_common::table::{Line as _, Lines as _, Meta, State, rank};
use lb_core::quota::{Census, Policy, Quota, SLICES};

use super::affinities::Affinities;
use super::flows::{Family, View};
use super::loads::{Counted, Loads};
use super::mapping::{MappedLine, Memory};
use super::ports::Ports;

/// A live line's other half is looked for in one of so many rounds: it lies somewhere else in memory, and that costs more than all
/// the rest.
const PAIRS_EVERY: u32 = 32;
/// Lines noted for a second look in a round, at most.
const SUSPECTS_MAX: usize = 1 << 16;
/// Numbers of classes: states by number, and whether UDP.
const CLASSES: usize = 16;

/// What a round found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// Live connections of each backend, by number: those that are not over.
    pub live: HashMap<u16, u64>,
    /// Lines that bear a backend's number, by number; of connections that are over, too.
    pub tracked: HashMap<u16, u64>,
    /// The same of VIPs' numbers, which lines of IPv6 bear.
    pub vips: HashMap<u16, u64>,
    /// Connections forgotten.
    pub expired: u64,
    /// What stands in each family's table.
    pub tables: [Census; 2],
    /// What newcomers to either may take, when the round was over.
    pub policy: Policy,
}

/// The sweep's memory.
pub struct Sweeper {
    slice: usize,
    round: u32,
    counts: Counts,
    expired: u64,
    ports: Ports,
    counted: Counted,
    families: [Remembered; 2],
}

/// What a sweep sees to beside the tables.
pub struct Beside<'a, M> {
    pub ports: &'a M,
    pub affinities: &'a Affinities<M>,
    pub loads: &'a Loads<M>,
}

const _: () = assert!(SLICES == lb_common::load::SLICES);

/// What is remembered of a family's table.
#[derive(Default)]
struct Remembered {
    quota: Quota,
    suspects: Suspects,
}

/// Lines that look as if nobody would ever free them, by number and version, in order: of the round before, and of this one.
#[derive(Default)]
struct Suspects {
    before: Vec<(u32, u32)>,
    now: Vec<(u32, u32)>,
}

/// Counts of a round, by number.
struct Counts {
    live: Vec<u32>,
    tracked: Vec<u32>,
    vips: Vec<u32>,
}

/// What is noted of a slice.
struct Tally {
    classes: [[u64; 2]; CLASSES],
    backends: Vec<u32>,
    /// The same, of half-open connections of TCP.
    half_open: Vec<u32>,
    /// Lines whose other half is to be looked for, by number, and their first words. Looked at together, so that the processor
    /// waits for several at a time.
    pairs: Vec<(u32, Meta)>,
}

impl Default for Sweeper {
    fn default() -> Self {
        Self {
            slice: 0,
            round: 0,
            counts: Counts::new(),
            expired: 0,
            ports: Ports::default(),
            counted: Counted::default(),
            families: Default::default(),
        }
    }
}

impl Counts {
    fn new() -> Self {
        let (backends, vips) = (BACKENDS_MAX as usize, VIPS_MAX as usize);
        Self { live: vec![0; backends], tracked: vec![0; backends], vips: vec![0; vips] }
    }
}

impl Sweeper {
    /// Whether the next slice begins a round.
    pub fn at_start(&self) -> bool {
        self.slice == 0
    }

    /// Sweeps the next slice of both tables; `farms` are enabled. What a round found comes with its last slice.
    pub fn slice<M: Memory>(
        &mut self,
        v4: &View<'_, [u8; 4]>,
        v6: &View<'_, [u8; 16]>,
        beside: &Beside<'_, M>,
        now: u32,
        farms: usize,
    ) -> ([Policy; 2], Option<Sweep>) {
        let slice = self.slice;
        self.counted.begin(slice, beside.loads, &v4.0.numbers);
        let v4 = self.family(0, v4, beside.affinities, now, farms);
        let v6 = self.family(1, v6, beside.affinities, now, farms);
        self.counted.end(slice, beside.loads);
        self.slice += 1;
        let round = (self.slice == SLICES).then(|| {
            self.ports.publish(beside.ports.words());
            self.end_round()
        });
        ([v4, v6], round)
    }

    fn family<A: Family, M: Memory>(
        &mut self,
        family: usize,
        table: &View<'_, A>,
        affinities: &Affinities<M>,
        now: u32,
        farms: usize,
    ) -> Policy {
        let lines = table.0.lines.len() / 8;
        // As `lb_common::load::slice` has it.
        let start = |slice: usize| (lines * slice).div_ceil(SLICES);
        let range = start(self.slice)..start(self.slice + 1);
        let mut tally = Tally::default();
        self.look(family, table, affinities, range.clone(), now, &mut tally);
        let remembered = &mut self.families[family];
        for &(index, meta) in tally.pairs.iter().filter(|(index, _)| is_half(table, *index)) {
            remembered.suspects.note(index, meta);
        }
        remembered.suspects.resolve(table, &range);
        remembered.quota.judge(tally.census(table, range.len() as u64), farms)
    }

    fn look<A: Family, M: Memory>(
        &mut self,
        family: usize,
        table: &View<'_, A>,
        affinities: &Affinities<M>,
        range: Range<usize>,
        now: u32,
        tally: &mut Tally,
    ) {
        let suspects = &mut self.families[family].suspects;
        let lines = table.0.lines.get(range.start * 8..range.end * 8).unwrap_or_default();
        for (index, line) in (range.start as u32..).zip(MappedLine::each(lines)) {
            let meta = line.meta();
            if !meta.is_live() {
                tally.count(meta.state(), meta.is_udp());
                if !meta.is(State::Empty) {
                    suspects.note(index, meta);
                }
                continue;
            }
            if table.expired(index, line, meta, now) && table.free_pair(index, meta) {
                self.expired += 1;
                tally.count(State::Empty, false);
                continue;
            }
            // What was reset in its handshake is a SYN's trace, too.
            let spent = meta.rank() == rank::UNANSWERED;
            tally.count(if spent { State::Unanswered } else { meta.state() }, meta.is_udp());
            self.counts.count::<A>(line, meta, tally);
            if !meta.is_reverse() && table.0.numbers.flags(A::backend(line)) & BACKEND_COUNTED != 0 {
                let farm = table.0.numbers.settings(A::backend(line)).1;
                self.counted.count::<A>(line, meta, farm, now);
            }
            if !meta.is_reverse() && is_established(meta) {
                if !meta.is_dnat() {
                    self.ports.take(A::backend(line), A::target(line).ports().0);
                }
                if table.0.numbers.flags(A::backend(line)) & BACKEND_AFFINE != 0 {
                    affinities.refresh(table, line, meta, now);
                }
            }
            if index.wrapping_add(self.round).is_multiple_of(PAIRS_EVERY) {
                tally.pairs.push((index, meta));
            }
        }
    }

    fn end_round(&mut self) -> Sweep {
        let counts = std::mem::replace(&mut self.counts, Counts::new());
        for remembered in &mut self.families {
            remembered.suspects.turn();
        }
        (self.slice, self.round) = (0, self.round.wrapping_add(1));
        Sweep {
            live: by_number(&counts.live),
            tracked: by_number(&counts.tracked),
            vips: by_number(&counts.vips),
            expired: std::mem::take(&mut self.expired),
            tables: [0, 1].map(|family: usize| self.families[family].quota.whole()),
            policy: self.families[0].quota.policy() | self.families[1].quota.policy(),
        }
    }
}

impl Counts {
    #[inline]
    fn count<A: Family>(&mut self, line: MappedLine<'_>, meta: Meta, tally: &mut Tally) {
        let backend = A::backend(line);
        increment(&mut self.tracked, backend);
        increment(&mut tally.backends, backend);
        if meta.is_half_open() {
            increment(&mut tally.half_open, backend);
        }
        if !meta.is_reverse() && !meta.state().is_over() {
            increment(&mut self.live, backend);
        }
        if let Some(vip) = A::vip(line) {
            increment(&mut self.vips, vip);
        }
    }
}

fn increment(counts: &mut [u32], number: u16) {
    // A number beyond the maps is nobody's.
    if let Some(count) = counts.get_mut(usize::from(number)) {
        *count += 1;
    }
}

fn by_number(counts: &[u32]) -> HashMap<u16, u64> {
    let counted = (0..).zip(counts).filter(|(_, count)| **count != 0);
    counted.map(|(number, count)| (number, u64::from(*count))).collect()
}

/// Whether a live line's other half is not where it should be.
fn is_half<A: Family>(table: &View<'_, A>, index: u32) -> bool {
    table.0.at(index).is_some_and(|line| table.peer_at(line.peer(), index).is_none())
}

/// Such a connection keeps its source port.
fn is_established(meta: Meta) -> bool {
    matches!(meta.state(), State::Established | State::HalfClosed)
}

impl Default for Tally {
    fn default() -> Self {
        let none = || vec![0; BACKENDS_MAX as usize];
        Self { classes: Default::default(), backends: none(), half_open: none(), pairs: Vec::new() }
    }
}

impl Tally {
    #[inline]
    fn count(&mut self, state: State, udp: bool) {
        self.classes[state as usize][usize::from(udp)] += 1;
    }

    fn census<A: Family>(&self, table: &View<'_, A>, lines: u64) -> Census {
        let of = |state: State| self.classes[state as usize];
        let both = |state: State| of(state).iter().sum::<u64>();
        let [unanswered_tcp, unanswered_udp] = of(State::Unanswered);
        let [answered_tcp, answered_udp] = of(State::Answered);
        let [established_tcp, established_udp] = of(State::Established);
        let by_farm = |backends: &[u32]| {
            let mut farms = HashMap::new();
            for (backend, count) in (0..).zip(backends).filter(|(_, count)| **count != 0) {
                *farms.entry(table.0.numbers.settings(backend).1).or_default() += u64::from(*count);
            }
            farms
        };
        Census {
            lines,
            empty: both(State::Empty),
            unanswered_tcp,
            unanswered_udp,
            answered_tcp,
            answered_udp,
            one_sided: both(State::OneSided),
            closed: both(State::Closed) + both(State::Cut),
            established_tcp: established_tcp + both(State::HalfClosed),
            established_udp,
            by_farm: by_farm(&self.backends),
            half_open: by_farm(&self.half_open),
        }
    }
}

impl Suspects {
    fn note(&mut self, index: u32, meta: Meta) {
        if self.now.len() < SUSPECTS_MAX {
            self.now.push((index, meta.version()));
        }
    }

    fn turn(&mut self) {
        self.before = std::mem::take(&mut self.now);
        self.before.sort_unstable();
    }

    /// Frees those of `range` that the round before noted and that are still as they were: lines of an owner who is gone (a
    /// daemon that was killed), and halves of pairs, whose other half nobody has entered in a second.
    fn resolve<A: Family>(&self, table: &View<'_, A>, range: &Range<usize>) {
        let from = self.before.partition_point(|(index, _)| (*index as usize) < range.start);
        let noted = self.before.iter().skip(from);
        for &(index, version) in noted.take_while(|(index, _)| range.contains(&(*index as usize))) {
            let Some(line) = table.0.at(index) else { continue };
            let meta = line.meta();
            if meta.version() != version {
                continue;
            }
            let freed = if !meta.is_live() {
                table.free_stuck(index, meta)
            } else {
                is_half(table, index) && table.free(index, meta)
            };
            if freed {
                tracing::debug!(
                    table = A::NAME,
                    index,
                    state = meta.state().as_str(),
                    "freed a line that was left behind"
                );
            }
        }
    }
}
