//! The data plane as the daemon holds it: the program, its links and its maps, all pinned under one directory of bpffs.
//!
//! The daemon's loop owns a [`Datapath`] and is the only one that writes maps; whoever reads counters or connections holds
//! [`Reader`], on file descriptors of its own. Dropping either detaches nothing: pins keep program, links and maps in the
//! kernel until [`Datapath::remove`].

mod apply;
mod attach;
mod connections;
mod maps;
mod observe;
mod table;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use lb_common::abi::{self, map};

pub use attach::{AttachError, Attached};
pub use connections::{Reader, Sweep};
pub use maps::Maps;

/// The object with the XDP program, built from `lb-ebpf`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("DROVER_OBJECT"));
/// The object with the programs that benchmarks compare with.
pub static BENCH_OBJECT: &[u8] = aya::include_bytes_aligned!(env!("DROVER_BENCH_OBJECT"));

/// The loaded data plane.
pub struct Datapath {
    ebpf: Ebpf,
    dir: PathBuf,
    pub maps: Maps,
    /// Whether maps of an earlier daemon were found and taken over.
    pub adopted: bool,
}

impl Datapath {
    /// Loads the program; adopts the maps pinned under `dir`, or creates and pins them, with room for `connections` in
    /// each address family.
    ///
    /// Maps that exist keep their size.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the program or a map (the verifier's words are in the error), or `dir` is not on a bpffs.
    pub fn load(dir: &Path, connections: u32) -> anyhow::Result<Self> {
        let pins = maps_dir(dir);
        let adopted = pins.join(map::FARMS).exists();
        std::fs::create_dir_all(&pins).with_context(|| format!("cannot create {}", pins.display()))?;
        let mut loader = loader(connections);
        // What nobody will read is not compiled into the program: the verifier removes it. Levels have the same numbers there.
        let level = log::max_level() as u8;
        loader.override_global(aya_log::LEVEL, &level, false);
        loader.default_map_pin_directory(&pins);
        for name in map::ALL {
            loader.map_pin_path(name, pins.join(name));
        }
        let mut ebpf = loader.load(OBJECT).with_context(|| {
            format!("cannot load the XDP program (maps are pinned under {})", pins.display())
        })?;
        program(&mut ebpf)?.load().context("the kernel refused the XDP program")?;
        let maps = Maps::open(&pins)?;
        Ok(Self { ebpf, dir: dir.to_owned(), maps, adopted })
    }

    /// The program, for `BPF_PROG_TEST_RUN`.
    ///
    /// # Errors
    ///
    /// Never for a loaded data plane.
    pub fn program(&mut self) -> anyhow::Result<&mut Xdp> {
        program(&mut self.ebpf)
    }

    /// What the program writes by aya-log, for the one who forwards it to the daemon's log.
    ///
    /// # Errors
    ///
    /// When called a second time.
    pub fn logger(&mut self) -> Result<EbpfLogger<&'static dyn log::Log>, aya_log::Error> {
        EbpfLogger::init(&mut self.ebpf)
    }

    /// Takes program, links and maps out of the kernel: packets are the host's again, connections forgotten.
    ///
    /// # Errors
    ///
    /// If a pin cannot be removed; the others are removed all the same.
    pub fn remove(self) -> anyhow::Result<()> {
        let Self { ebpf, dir, maps, .. } = self;
        drop((ebpf, maps));
        attach::unpin_all(&dir)?;
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))
    }
}

/// A loader of the object with the connection tables sized.
fn loader(connections: u32) -> EbpfLoader<'static> {
    let mut loader = EbpfLoader::new();
    // The program checks the level before it says anything, and the verifier removes what is below it.
    let level: &'static u8 = if tracing::enabled!(tracing::Level::DEBUG) { &4 } else { &0 };
    loader.override_global(aya_log::LEVEL, level, false);
    let opening = connections.min(abi::OPENING_MAX);
    for (name, entries) in [
        (map::CONNECTIONS_V4, 2 * connections),
        (map::CONNECTIONS_V6, 2 * connections),
        (map::OPENING_V4, 2 * opening),
        (map::OPENING_V6, 2 * opening),
    ] {
        loader.map_max_entries(name, entries);
    }
    loader
}

fn program(ebpf: &mut Ebpf) -> anyhow::Result<&mut Xdp> {
    let program = ebpf.program_mut(abi::PROGRAM).context("the object has no XDP program")?;
    Ok(program.try_into()?)
}

/// Where the maps of this layout are pinned.
fn maps_dir(dir: &Path) -> PathBuf {
    dir.join(format!("maps-v{}", abi::LAYOUT_VERSION))
}
