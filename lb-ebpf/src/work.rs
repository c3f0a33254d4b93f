//! A packet on the slow way: one that opens a connection, changes its state, or belongs to none.

use aya_ebpf::bindings::xdp_md;
use lb_common::abi::Control;
use lb_common::verdict::Verdict;
use lb_common::wire::protocol;

use crate::context::Frame;
use crate::family::Family;
use crate::lookup::Found;
use crate::maps::{self, Scratch};
use crate::step::SENDS;

/// A packet that is to be sent on, or the verdict that ended its way.
pub type Outcome = Result<(), Verdict>;

pub struct Work<F: Family> {
    pub frame: Frame,
    pub control: &'static Control,
    /// What was read of it.
    pub read: &'static mut Scratch<F::Addr>,
}

impl<F: Family> Work<F> {
    /// The packet again, in a function of its own. `None` cannot be.
    #[inline(always)]
    pub fn of(context: *mut xdp_md) -> Option<Self> {
        Some(Self { frame: Frame::of(context), control: maps::control()?, read: maps::scratch::<F>()? })
    }

    /// Notes that the packet is to be sent on by this line.
    #[inline(always)]
    pub fn send_by(&mut self, found: &Found) -> Outcome {
        (self.read.meta, self.read.index) = (found.meta, found.index);
        Ok(())
    }

    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.read.leg.protocol == u16::from(protocol::TCP)
    }
    #[inline(always)]
    pub fn flags(&self) -> u8 {
        self.read.flags as u8
    }
    #[inline(always)]
    pub fn transport(&self) -> usize {
        self.read.leg.transport as usize & 0xff
    }
}

/// An outcome as a number, for functions of their own: kernels take no results that are structures.
#[inline(always)]
pub fn pack(outcome: Outcome) -> u64 {
    match outcome {
        Ok(()) => SENDS,
        Err(verdict) => verdict as u64,
    }
}
