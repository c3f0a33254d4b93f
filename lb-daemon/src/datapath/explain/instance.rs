//! The instance of the program that explains, and its maps.

use std::path::Path;

use anyhow::Context as _;
use aya::maps::{Array, Map, MapData, PerCpuArray};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_common::abi::{self, map};
use lb_common::trace::{Paged, Trace};

use super::pages::{self, Pages};
use super::{DIR, Needs, REFUSALS, VOUCHED};
use crate::datapath::mapping::Mapping;
use crate::datapath::{LINES_MASK, OBJECT, maps, maps_dir};
use crate::secrets;

/// Runs of one packet, each of which misses one entry more. A packet that tries every port comes to some hundred.
const RUNS: usize = 512;
/// Times that it is begun anew since what it comes to is changing.
const ANEW: usize = 4;

/// The static that makes an instance explain.
const EXPLAINS: &str = "EXPLAINS";
/// The map of statics that are 0 at first: [`Trace`] is the only one.
const STATICS: &str = ".bss";

/// Shared with the live program, which only reads them.
const READ: [&str; 10] = [
    map::ADDRESS_FILTER,
    map::ADDRESSES,
    map::SERVICES,
    map::FARMS,
    map::ADMISSIONS,
    map::LISTS,
    map::MAGLEV,
    map::BACKENDS,
    map::CONTROL,
    map::VIPS,
];
/// Not needed, but for labels, which no program reads: a place to count in that nobody looks at.
const COUNTED: [&str; 6] = [
    map::FARM_LABELS,
    map::BACKEND_LABELS,
    map::FARM_COUNTERS,
    map::COUNTERS,
    map::VERDICTS,
    map::OCCURRENCES,
];

// Every map is shared, copied, or a place to count in.
const _: () = assert!(READ.len() + COUNTED.len() + 6 == map::ALL.len());

pub struct Instance {
    ebpf: Ebpf,
    trace: Array<MapData, Trace>,
    refusals: PerCpuArray<MapData, u64>,
    live_refusals: PerCpuArray<MapData, u64>,
    pages: Vec<(Paged, Box<dyn Pages>)>,
}

/// What became of a packet.
pub struct Run {
    pub trace: Trace,
    pub action: u32,
    pub frame: Vec<u8>,
}

impl Instance {
    /// Loads it. Its own maps are pinned meanwhile, for the loader to find them.
    pub fn load(needs: &Needs) -> anyhow::Result<Self> {
        let own = needs.dir.join(DIR);
        // Somebody was killed while he loaded one.
        std::fs::remove_dir_all(&own).ok();
        std::fs::create_dir(&own).with_context(|| format!("cannot create {}", own.display()))?;
        let loaded = Self::load_at(needs, &own);
        std::fs::remove_dir_all(&own).with_context(|| format!("cannot remove {}", own.display()))?;
        loaded.context("cannot load the program that explains")
    }

    fn load_at(needs: &Needs, own: &Path) -> anyhow::Result<Self> {
        let shared = maps_dir(&needs.dir);
        let (mask, quiet, explains) = (needs.lines.wrapping_sub(1), 0u8, 1u32);
        let mut loader = EbpfLoader::new();
        loader.override_global(aya_log::LEVEL, &quiet, false);
        loader.override_global(LINES_MASK, &mask, true);
        loader.override_global(EXPLAINS, &explains, true);
        for name in READ {
            loader.map_pin_path(name, shared.join(name));
        }
        for name in COUNTED {
            loader.map_pin_path(name, own.join(name));
        }
        for name in [map::FARM_LABELS, map::BACKEND_LABELS, map::FARM_COUNTERS, map::COUNTERS] {
            // The program takes a counter that is not there for one that it need not count.
            loader.map_max_entries(name, 1);
        }
        let mut copies = Vec::new();
        for of in Paged::ALL {
            let name = pages::name(of);
            let unpinned = of == Paged::Vouched;
            let live = if unpinned { Mapping::of(&needs.vouched)? } else { maps::mapped(&shared, name)? };
            copies.push((of, pages::make(of, live, &own.join(name))?));
            loader.map_pin_path(name, own.join(name));
        }
        let mut ebpf = loader.load(OBJECT)?;
        program(&mut ebpf)?.load().context("the kernel refused it")?;
        let trace = ebpf.take_map(STATICS).context("the object has no statics")?;
        let refusals = ebpf.take_map(REFUSALS).context("the object has no count of refusals")?;
        let again = |map: &MapData| -> anyhow::Result<MapData> {
            Ok(MapData::from_fd(std::os::fd::AsFd::as_fd(map.fd()).try_clone_to_owned()?)?)
        };
        Ok(Self {
            trace: Array::try_from(trace).context("its statics are others than are known")?,
            refusals: PerCpuArray::try_from(refusals)?,
            live_refusals: PerCpuArray::try_from(Map::PerCpuArray(again(&needs.refusals)?))?,
            pages: copies,
            ebpf,
        })
    }

    /// Runs a packet that comes in by an interface, until it misses nothing.
    pub fn run(&mut self, frame: &[u8], ingress: u32) -> anyhow::Result<Run> {
        let [random, _] = secrets::draw().context("the system gives no random numbers")?;
        for _ in 0..ANEW {
            let run = self.run_once(frame, ingress, random)?;
            if !self.pages.iter().any(|(_, pages)| pages.is_stale()) {
                return Ok(run);
            }
            self.clear()?;
        }
        // The lines beside its own are never at rest.
        self.run_once(frame, ingress, random)
    }

    fn run_once(&mut self, frame: &[u8], ingress: u32, random: u64) -> anyhow::Result<Run> {
        for _ in 0..RUNS {
            self.trace.set(0, Trace { random, ..Trace::EMPTY }, 0)?;
            for kind in 0..self.refusals.len() {
                self.refusals.set(kind, self.live_refusals.get(&kind, 0)?, 0)?;
            }
            let (action, frame) = self.send(frame, ingress)?;
            let trace = self.trace.get(&0, 0)?;
            let Some((of, key)) = trace.missing() else { return Ok(Run { trace, action, frame }) };
            self.restore()?;
            let pages = self.pages.iter_mut().find(|(map, _)| *map == of).map(|(_, pages)| pages);
            let brought = pages.context("a map that is not copied")?.bring(key)?;
            anyhow::ensure!(
                brought,
                "the program looks for entry {key} of {}, which is not there",
                pages::name(of)
            );
        }
        anyhow::bail!("the packet comes to too many entries");
    }

    fn send(&mut self, frame: &[u8], ingress: u32) -> anyhow::Result<(u32, Vec<u8>)> {
        // An answer may be longer by the head that it quotes the packet behind.
        let mut out = vec![0; frame.len() + 128];
        // `struct xdp_md`: where the data begins and ends, where metadata begins, the interface, its queue, the way out.
        let context = [0, u32::try_from(frame.len())?, 0, ingress, 0, 0].map(u32::to_ne_bytes).concat();
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result = program(&mut self.ebpf)?
            .test_run(options)
            .context("the kernel runs no packet (Linux 5.14 does)")?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    fn restore(&mut self) -> anyhow::Result<()> {
        self.pages.iter_mut().try_for_each(|(_, pages)| pages.restore())
    }

    /// Forgets the packet.
    pub fn clear(&mut self) -> anyhow::Result<()> {
        self.pages.iter_mut().try_for_each(|(_, pages)| pages.clear())
    }

    /// The copies of a map.
    pub fn pages(&self, of: Paged) -> Option<&dyn Pages> {
        self.pages.iter().find(|(map, _)| *map == of).map(|(_, pages)| &**pages)
    }
}

fn program(ebpf: &mut Ebpf) -> anyhow::Result<&mut Xdp> {
    let program =
        ebpf.program_mut(abi::EXPLAINING_PROGRAM).context("the object has no program that explains")?;
    Ok(program.try_into()?)
}

const _: () = assert!(VOUCHED.len() <= 15 && REFUSALS.len() <= 15);
