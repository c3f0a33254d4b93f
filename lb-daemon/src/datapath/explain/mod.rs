//! Explains packets: a second instance of the program, which is attached to nothing, runs a packet on copies of what the live one would
//! write, and on the very maps that it only reads. So it is the program itself that says what it would do, and the live state
//! cannot be touched.
//!
//! It is loaded when somebody asks for the first time, and stays. One packet is explained at a time; see [`Explainer`].

mod instance;
mod lines;
mod packet;
mod pages;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aya::maps::{Map, MapData};
use lb_core::explain::{Explanation, Question};

use super::Datapath;
use super::connections::Reader;
use instance::Instance;

/// Maps of the live program that are not pinned.
const VOUCHED: &str = "VOUCHED";
const REFUSALS: &str = "REFUSALS";

/// Where the instance's own maps are pinned while it is loaded.
pub(super) const DIR: &str = "explain";

/// From the beginning of one explanation to that of the next: whoever asks without a pause gets a twentieth of a processor's time.
const PACE: Duration = Duration::from_millis(20);

/// Who explains packets.
pub struct Explainer(Mutex<State>);

struct State {
    needs: Needs,
    instance: Option<Instance>,
    began: Option<Instant>,
}

/// What an instance is loaded from.
pub(super) struct Needs {
    pub dir: PathBuf,
    pub lines: u32,
    pub vouched: MapData,
    pub refusals: MapData,
}

impl Datapath {
    /// Who explains this data plane's packets. Nothing is loaded yet.
    ///
    /// # Errors
    ///
    /// If the program's maps cannot be opened once more.
    pub fn explainer(&self) -> anyhow::Result<Explainer> {
        let map = |name: &str| -> anyhow::Result<MapData> {
            let map = self.ebpf.map(name).with_context(|| format!("the object has no map {name}"))?;
            let (Map::Array(map) | Map::PerCpuArray(map)) = map else {
                anyhow::bail!("the map {name} is of another kind")
            };
            let fd = map.fd();
            Ok(MapData::from_fd(std::os::fd::AsFd::as_fd(fd).try_clone_to_owned()?)?)
        };
        let (vouched, refusals) = (map(VOUCHED)?, map(REFUSALS)?);
        let needs = Needs { dir: self.dir.clone(), lines: self.lines, vouched, refusals };
        Ok(Explainer(Mutex::new(State { needs, instance: None, began: None })))
    }
}

impl Explainer {
    /// What the program would do with a packet now. Takes a few milliseconds, the first time as long as loading a program takes; waits
    /// for who asks already, and keeps its pace.
    ///
    /// # Errors
    ///
    /// What is wrong with the question, or that the kernel refuses.
    pub fn explain(&self, reader: &Reader, question: &Question) -> anyhow::Result<Explanation> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rest) = state.began.and_then(|began| PACE.checked_sub(began.elapsed())) {
            std::thread::sleep(rest);
        }
        state.began = Some(Instant::now());
        state.explain(reader, question)
    }

    /// The same for a frame as it is, by the interface of that number, and without a pause.
    pub fn explain_frame(&self, reader: &Reader, frame: &[u8], ingress: u32) -> anyhow::Result<Explanation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).run(reader, frame, ingress)
    }
}

impl State {
    fn explain(&mut self, reader: &Reader, question: &Question) -> anyhow::Result<Explanation> {
        let packet = packet::make(reader, question)?;
        let mut told = self.run(reader, &packet.frame, packet.ingress)?;
        (told.sequence, told.acknowledgment) = (packet.sequence, packet.acknowledgment);
        Ok(told)
    }

    fn run(&mut self, reader: &Reader, frame: &[u8], ingress: u32) -> anyhow::Result<Explanation> {
        let instance = match &mut self.instance {
            Some(instance) => instance,
            empty => empty.insert(Instance::load(&self.needs)?),
        };
        let run = instance.run(frame, ingress);
        let told = run.and_then(|run| lines::tell(reader, instance, run, frame, ingress));
        // Whatever came of it: nothing of it is there for the next.
        instance.clear()?;
        told
    }
}

/// Source and destination of a packet without options, as it stands in a frame.
pub(super) fn ends(frame: &[u8]) -> Option<(SocketAddr, SocketAddr, u8)> {
    packet::ends(frame)
}
