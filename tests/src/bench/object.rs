//! The programs of `lb-ebpf/src/bench.rs`, loaded.

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, PerCpuArray, ProgramArray};
use aya::programs::{ProgramFd, TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, Pod};
use lb_common::bench::{FramePattern, HeadV4, HeadV6, Order};
use lb_daemon::datapath::BENCH_OBJECT;

/// A loaded object with maps of its own. Nothing is pinned: dropping it takes everything out of the kernel.
pub struct Object {
    ebpf: Ebpf,
}

/// The head of a frame as bytes, for the maps.
fn head<const N: usize>(frame: &[u8]) -> Result<[u8; N]> {
    let head = frame.get(..N).context("a frame too short for a pattern")?;
    Ok(head.try_into()?)
}

impl Object {
    pub fn load() -> Result<Self> {
        let mut ebpf = Ebpf::load(BENCH_OBJECT).context("cannot load the benchmarks' programs")?;
        for (name, program) in ebpf.programs_mut() {
            let program: &mut Xdp = program.try_into()?;
            program.load().with_context(|| format!("the kernel refused {name}"))?;
        }
        Ok(Self { ebpf })
    }

    pub fn program(&mut self, name: &str) -> Result<&mut Xdp> {
        Ok(self.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
    }

    /// A descriptor of its own of a program.
    pub fn handle(&mut self, name: &str) -> Result<ProgramFd> {
        Ok(self.program(name)?.fd()?.try_clone()?)
    }

    /// Says which program the wrappers hand packets to.
    pub fn aim(&mut self, program: &ProgramFd) -> Result<()> {
        let map = self.ebpf.map_mut("TARGET").context("no map TARGET")?;
        ProgramArray::try_from(map)?.set(0, program, 0).context("two programs that cannot call each other")
    }

    /// Says what the packets look like: like `frame`, for each of `flows` flows.
    pub fn pattern(&mut self, frame: &[u8], flows: u32, order: Order) -> Result<()> {
        ensure!(flows.is_power_of_two(), "{flows} flows are no power of 2");
        if frame.get(12..14) == Some(&[0x08, 0x00]) {
            self.set_pattern("PATTERN_V4", head::<{ size_of::<HeadV4>() }>(frame)?, flows - 1, order)
        } else {
            self.set_pattern("PATTERN_V6", head::<{ size_of::<HeadV6>() }>(frame)?, flows - 1, order)
        }
    }

    fn set_pattern<const N: usize>(&mut self, map: &str, head: [u8; N], mask: u32, order: Order) -> Result<()>
    where
        FramePattern<N>: Pod,
    {
        let map = self.ebpf.map_mut(map).with_context(|| format!("no map {map}"))?;
        Ok(Array::try_from(map)?.set(0, FramePattern { head, mask, state: 0, order, step: 0 }, 0)?)
    }

    /// Frames that the sink has counted.
    pub fn arrived(&self) -> Result<u64> {
        let map = self.ebpf.map("ARRIVED").context("no map ARRIVED")?;
        Ok(PerCpuArray::<_, u64>::try_from(map)?.get(&0, 0)?.iter().sum())
    }

    /// Sends `count` frames by the interface `ifindex` of this thread's network: `frame` as the program `name` makes it.
    pub fn send(&mut self, name: &str, frame: &[u8], ifindex: u32, count: u32) -> Result<()> {
        // struct xdp_md (linux/bpf.h): data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let length = u32::try_from(frame.len())?;
        let mut context = [0; 24];
        for (word, value) in context.as_chunks_mut().0.iter_mut().zip([0, length, 0, ifindex, 0, 0]) {
            *word = value.to_ne_bytes();
        }
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(64),
            ..TestRunOptions::default()
        };
        self.program(name)?.test_run(options).context("sending frames")?;
        Ok(())
    }
}
