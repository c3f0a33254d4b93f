//! Who serves a new connection: the farm, and the backend by its Maglev table, unless the farm has [another
//! scheduler](crate::schedule).

use aya_ebpf::bindings::xdp_md;
use lb_common::abi::{
    Address as _, BackendEntry, FARM_ADMITS, FARM_AFFINE, FARM_LATE, FARM_REFUSES, FarmEntry, FlowKey,
    MODE_NAT, NO_TABLE, POLICY_CHALLENGE, TABLE_SIZE, forgets, is_direct,
};
use lb_common::hash;
use lb_common::tcp;
use lb_common::trace::{Chosen, Decision, NONE};
use lb_common::verdict::Verdict;
use lb_common::wire::protocol;

use crate::admission;
use crate::calls::Calls;
use crate::explain;
use crate::maps::{self, Scratch, Service};
use crate::sockets;
use crate::work::Work;

/// A choice, as a number: a function of its own cannot return a structure.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Choice(u64);

/// In a choice: nobody; the verdict stands in the low half.
const NOBODY: u64 = 1 << 63;
const SOURCE_IS_VIP: u64 = 1 << 48;
const DIRECT: u64 = 1 << 49;
const UNKNOWN: u64 = 1 << 50;
/// The backend is not chosen yet: see [`crate::schedule`].
const LATE: u64 = 1 << 62;

impl Choice {
    /// # Errors
    ///
    /// Why nobody was chosen.
    #[inline(always)]
    pub fn check(self) -> Result<Self, Verdict> {
        if self.0 & NOBODY != 0 { Err(Verdict::from_raw(self.0 as u32)) } else { Ok(self) }
    }
    #[inline(always)]
    pub fn farm(self) -> u16 {
        self.0 as u16
    }
    #[inline(always)]
    pub fn vip(self) -> u16 {
        (self.0 >> 16) as u16
    }
    #[inline(always)]
    pub fn backend(self) -> u16 {
        (self.0 >> 32) as u16
    }
    /// Whether the backend is still to be chosen.
    #[inline(always)]
    pub fn is_late(self) -> bool {
        self.0 & LATE != 0
    }
    /// The same with its backend chosen.
    #[inline(always)]
    pub fn with(self, backend: u16, entry: &BackendEntry) -> Self {
        // The farm's entry may be of another plan than the table.
        let direct = if is_direct(entry.mode) { DIRECT } else { 0 };
        Self(self.0 & !LATE | u64::from(backend) << 32 | direct)
    }
    /// The backend sees the VIP as its client (mode `nat`).
    #[inline(always)]
    pub fn source_is_vip(self) -> bool {
        self.0 & (SOURCE_IS_VIP | DIRECT) == SOURCE_IS_VIP
    }

    /// The backend gets packets as they are, and answers the client itself.
    #[inline(always)]
    pub fn is_direct(self) -> bool {
        self.0 & DIRECT != 0
    }
    /// The packet opens nothing, and is for a connection that nobody knows: such a backend may.
    #[inline(always)]
    pub fn is_unknown(self) -> bool {
        self.0 & UNKNOWN != 0
    }

    /// The flow `key` as the chosen backend is to see it, its source port aside.
    #[inline(always)]
    pub fn translate<F: Calls>(
        self,
        entry: &BackendEntry,
        key: &FlowKey<F::Addr>,
        to: &mut FlowKey<F::Addr>,
    ) {
        *to = *key;
        if self.is_direct() {
            return;
        }
        to.dst = F::address(entry);
        if self.source_is_vip() {
            to.src = key.dst;
        }
        if entry.port != [0, 0] {
            to.dst_port = entry.port;
        }
    }
}

/// Picks a backend for a packet that may open a connection. A function of its own, for the sake of the stack.
#[inline(never)]
fn pick<F: Calls>(context: *mut xdp_md) -> u64 {
    let Some(mut work) = Work::<F>::of(context) else { return NOBODY | Verdict::Inconsistent as u64 };
    match try_pick(&mut work) {
        Ok(number) => number,
        Err(verdict) => NOBODY | verdict as u64,
    }
}

/// Picks a backend for a packet that may open a connection.
#[inline(always)]
pub fn choose<F: Calls>(work: &Work<F>) -> Choice {
    Choice(pick::<F>(work.frame.context()))
}

#[inline(always)]
fn try_pick<F: Calls>(work: &mut Work<F>) -> Result<u64, Verdict> {
    let number = maps::service(&work.read.key);
    let opens = work.read.key.protocol == protocol::UDP || tcp::opens(work.flags());
    if number == Service::NONE {
        explain::decided(Decision::Service, NONE);
        return Err(stranger::<F>(work));
    }
    explain::decided(Decision::Service, number);
    let service = Service::from_raw(number);
    let farm = maps::farm(service.farm).ok_or(Verdict::Inconsistent)?;
    let (flags, policy) = (work.flags(), work.control.policy[F::TABLE]);
    let Scratch { key, listed, .. } = &mut *work.read;
    let key = &*key;
    if !opens && sockets::want(&work.frame, key, false) {
        return Err(Verdict::HostPort);
    }
    if service.wildcard && key.protocol == protocol::UDP {
        if sockets::want(&work.frame, key, false) {
            return Err(Verdict::HostPort);
        }
        // A late answer: served, it would go from backend to backend for ever.
        if maps::is_backend(&key.src) {
            return Err(Verdict::NoConnection);
        }
    }
    if farm.flags & FARM_ADMITS != 0 {
        admission::admit(&key.src, listed, service.farm)?;
    }
    if !opens {
        // Nobody knows the connection: it was forgotten. Where the backend sees the client's packets as they are, it knows what to
        // say of this one.
        let answers = policy & POLICY_CHALLENGE != 0 && flags & tcp::flag::RST != 0;
        let forgets = farm.flags & FARM_LATE != 0 && forgets(farm.scheduler);
        if !is_direct(farm.mode) || farm.table == NO_TABLE || answers || forgets {
            return Err(Verdict::Refused);
        }
    }
    if key.src.is_impossible_source() || key.src == key.dst {
        return Err(Verdict::BadSource);
    }
    if key.src_port == [0, 0] || key.dst_port == [0, 0] {
        return Err(Verdict::BadTransportHeader);
    }
    if farm.table == NO_TABLE && farm.flags & FARM_AFFINE == 0 {
        return Err(nobody(farm));
    }
    let nat = if farm.mode == MODE_NAT { SOURCE_IS_VIP } else { 0 };
    let unknown = if opens { 0 } else { UNKNOWN };
    let choice = Choice(u64::from(service.farm) | u64::from(service.vip) << 16 | nat | unknown | LATE);
    if farm.flags & FARM_LATE != 0 {
        return Ok(choice.0);
    }
    let slot = hash::slot(hash::flow(key, work.control.flow_seed), TABLE_SIZE);
    let backend = maps::backend_at(farm.table, slot).ok_or(Verdict::Inconsistent)?;
    explain::decided(Decision::Slot, u64::from(slot));
    explain::decided(Decision::Backend, u64::from(backend) | (Chosen::Flow as u64) << 32);
    Ok(choice.with(backend, check_hop::<F>(backend)?).0)
}

/// The verdict on a packet that would open a connection while nobody serves the farm.
#[inline(always)]
pub fn nobody(farm: &FarmEntry) -> Verdict {
    if farm.flags & FARM_REFUSES != 0 { Verdict::Refused } else { Verdict::NoBackend }
}

/// Whether it is known how to reach a backend.
#[inline(always)]
pub fn check_hop<F: Calls>(backend: u16) -> Result<&'static BackendEntry, Verdict> {
    let entry = maps::backend(backend).ok_or(Verdict::Inconsistent)?;
    if F::hop(entry).ifindex == 0 { Err(Verdict::NoNextHop) } else { Ok(entry) }
}

/// The verdict on a packet that no farm serves.
///
/// A backend's late packet must not reach the host's own TCP, which would answer with a reset (RFC 9293, section 3.10.7.1) though
/// a connection may be known elsewhere; nor the host's UDP, which would say that the port is closed.
#[inline(always)]
fn stranger<F: Calls>(work: &Work<F>) -> Verdict {
    let key = &work.read.key;
    if !maps::is_vip(&key.dst) {
        return Verdict::NotForVip;
    }
    if !maps::is_backend(&key.src) || tcp::opens(work.flags()) || sockets::want(&work.frame, key, true) {
        return Verdict::HostPort;
    }
    if key.protocol == protocol::TCP { Verdict::Refused } else { Verdict::NoConnection }
}
