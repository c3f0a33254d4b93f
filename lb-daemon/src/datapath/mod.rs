//! The data plane as the daemon holds it: the program, its links and its maps, all pinned under one directory of bpffs.
//!
//! The daemon's loop owns a [`Datapath`] and is the only one that writes maps; whoever reads counters or connections holds
//! [`Reader`], on file descriptors of its own. Dropping either detaches nothing: pins keep program, links and maps in the
//! kernel until [`Datapath::remove`].

mod affinities;
mod apply;
mod attach;
mod connections;
mod control;
mod counters;
mod explain;
mod flows;
mod interfaces;
mod lists;
mod loads;
mod mapping;
mod maps;
mod needs;
mod numbers;
mod observe;
mod ports;
mod sweep;
#[cfg(test)]
mod table_tests;
mod tables;
#[cfg(test)]
mod test_world;
mod upgrade;
mod witnesses;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aya::maps::MapData;
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use lb_common::abi::{self, map};
use lb_common::table::Occurrence;
use lb_common::verdict::Verdict;
use lb_core::sizing;

pub use attach::{AttachError, Attached};
pub use connections::Reader;
pub use explain::Explainer;
pub use interfaces::Registered;
pub use lists::Lists;
pub use maps::Maps;
pub use sweep::{Sweep, Sweeper};
pub use upgrade::Upgrade;

use crate::secrets;

/// The object with the XDP program, built from `lb-ebpf`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("DROVER_OBJECT"));
/// The object with the programs that benchmarks compare with.
pub static BENCH_OBJECT: &[u8] = aya::include_bytes_aligned!(env!("DROVER_BENCH_OBJECT"));

/// The static of the program that says how many lines a table has, less one.
const LINES_MASK: &str = "LINES_MASK";
/// Answers to refused packets that a CPU may send in a tick: a thousand a second. Everybody who connects in error is told at
/// once, and a flood of such packets, whose senders are forged as a rule, makes of Drover no source of a flood to speak of.
const REFUSALS_A_TICK: u32 = 100;

/// The loaded data plane.
pub struct Datapath {
    ebpf: Ebpf,
    dir: PathBuf,
    pub maps: Maps,
    /// Whether maps of an earlier daemon were found and taken over.
    pub adopted: bool,
    /// Whether those are of the version before.
    pub upgraded: bool,
    /// Lines of each family's connection table.
    pub lines: u32,
}

impl Datapath {
    /// How many lines each connection table pinned under `dir` has; `None` if none is.
    ///
    /// # Errors
    ///
    /// If what is pinned there cannot be read.
    pub fn pinned_lines(dir: &Path) -> anyhow::Result<Option<u32>> {
        let pins = maps_dir(dir);
        for name in [map::CONNECTIONS_V4, map::CONNECTIONS_V6] {
            let pin = pins.join(name);
            if pin.exists() {
                let map =
                    MapData::from_pin(&pin).with_context(|| format!("cannot open {}", pin.display()))?;
                return Ok(Some(map.info()?.max_entries()));
            }
        }
        Ok(None)
    }

    /// Loads the program; adopts the maps pinned under `dir`, or creates and pins them, with room for `connections` in
    /// each address family.
    ///
    /// Maps that exist keep their size, and their secrets.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the program or a map (the verifier's words are in the error), or `dir` is not on a bpffs.
    pub fn load(dir: &Path, connections: u32) -> anyhow::Result<Self> {
        needs::check()?;
        // What somebody was loading who was killed.
        std::fs::remove_dir_all(dir.join(explain::DIR)).ok();
        let pins = maps_dir(dir);
        let upgrade_is_due = Upgrade::is_due(dir);
        if upgrade_is_due && pins.exists() {
            // A daemon was killed while it brought the maps of the version before over; those are in use.
            std::fs::remove_dir_all(&pins).with_context(|| format!("cannot remove {}", pins.display()))?;
        }
        let adopted = upgrade_is_due || pins.join(map::FARMS).exists();
        std::fs::create_dir_all(&pins).with_context(|| format!("cannot create {}", pins.display()))?;
        let lines = Self::pinned_lines(dir)?.unwrap_or_else(|| sizing::lines(connections));
        for (name, room) in [(map::VERDICTS, Verdict::ROOM), (map::OCCURRENCES, Occurrence::ROOM)] {
            make_room(&pins.join(name), room)?;
        }
        let mask = lines.wrapping_sub(1);
        let mut loader = EbpfLoader::new();
        // What nobody will read is not compiled into the program: the verifier removes it. Levels have the same numbers there.
        let level = log::max_level() as u8;
        loader.override_global(aya_log::LEVEL, &level, false);
        loader.override_global(LINES_MASK, &mask, true);
        for name in [map::CONNECTIONS_V4, map::CONNECTIONS_V6] {
            loader.map_max_entries(name, lines);
        }
        loader.default_map_pin_directory(&pins);
        for name in map::ALL {
            loader.map_pin_path(name, pins.join(name));
        }
        let mut ebpf = loader.load(OBJECT).with_context(|| {
            format!("cannot load the XDP program (maps are pinned under {})", pins.display())
        })?;
        program(&mut ebpf)?.load().context("the kernel refused the XDP program")?;
        let maps = Maps::open(&pins)?;
        // The program is attached after this. A daemon that was killed before it did has attached none.
        if maps.control.table_seed() == [0; 2] {
            maps.control.set_table_seed(secrets::draw().context("the system gives no random numbers")?);
        }
        maps.control.set_refusals(REFUSALS_A_TICK);
        maps.control.set_challenge_seed(secrets::draw().context("the system gives no random numbers")?);
        Ok(Self { ebpf, dir: dir.to_owned(), maps, adopted, upgraded: upgrade_is_due, lines })
    }

    /// What the version before has left under this directory to be brought over to the new maps, if anything.
    ///
    /// # Errors
    ///
    /// If it cannot be opened.
    pub fn upgrade(&self) -> anyhow::Result<Option<Upgrade>> {
        Upgrade::open(&self.dir, REFUSALS_A_TICK)
    }

    /// Tells the program which interfaces it is, or is about to be, attached to: frames to other hardware addresses than
    /// theirs are not ours, and connections name them by number. All of them, each time one comes, goes or changes.
    ///
    /// # Errors
    ///
    /// If there are too many.
    pub fn register<R: Copy + Into<Registered>>(&mut self, interfaces: &[R]) -> anyhow::Result<()> {
        let dir = &self.dir;
        let wanted: Vec<Registered> = interfaces.iter().map(|&interface| interface.into()).collect();
        interfaces::register(&self.maps.control, &wanted, |moves| {
            Reader::open(dir)?.rewrite_interfaces(moves);
            Ok(())
        })
    }

    /// The program, for `BPF_PROG_TEST_RUN`.
    ///
    /// # Errors
    ///
    /// Never for a loaded data plane.
    pub fn program(&mut self) -> anyhow::Result<&mut Xdp> {
        program(&mut self.ebpf)
    }

    /// The memory that both families' connection tables take.
    pub fn table_bytes(&self) -> u64 {
        2 * u64::from(self.lines) * sizing::LINE_BYTES
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

fn program(ebpf: &mut Ebpf) -> anyhow::Result<&mut Xdp> {
    let program = ebpf.program_mut(abi::PROGRAM).context("the object has no XDP program")?;
    Ok(program.try_into()?)
}

/// Lets go of a pinned map of counters that has less room than this version needs: it is made anew, and counts from 0.
fn make_room(pin: &Path, room: u32) -> anyhow::Result<()> {
    if !pin.exists() {
        return Ok(());
    }
    let map = MapData::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?;
    if map.info()?.max_entries() < room {
        std::fs::remove_file(pin).with_context(|| format!("cannot remove {}", pin.display()))?;
    }
    Ok(())
}

/// Where the maps of this layout are pinned.
fn maps_dir(dir: &Path) -> PathBuf {
    dir.join(format!("maps-v{}", abi::LAYOUT_VERSION))
}
