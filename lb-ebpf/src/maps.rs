//! Every map, and what is asked of each in one line. Layouts are in `lb_common::abi`, sizes too, but for the
//! connection tables, which the daemon sizes when it creates them. Services and addresses have twice their room, since the
//! daemon adds all that is new before it removes what is old.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use lb_common::abi::{
    self, ADDRESS_BACKEND, ADDRESS_VIP, Address, AddressFilter, BackendCounters, BackendEntry, BackendLabel,
    Connection, FarmEntry, FlowKey, Label, MaglevTable, MappedAddress, NextHop, ServiceKey, WILDCARD_PORT,
};
use lb_common::verdict::Verdict;
use lb_common::wire::{IpHeader, Ipv4, Ipv6};

#[map]
static ADDRESS_FILTER: Array<AddressFilter> = Array::pinned(1, 0);
#[map]
static ADDRESSES: HashMap<MappedAddress, u32> = HashMap::pinned(2 * abi::ADDRESSES_MAX, BPF_F_NO_PREALLOC);
#[map]
static SERVICES: HashMap<ServiceKey, u32> = HashMap::pinned(2 * abi::SERVICES_MAX, BPF_F_NO_PREALLOC);
#[map]
static FARMS: Array<FarmEntry> = Array::pinned(abi::FARMS_MAX, 0);
#[map]
static FARM_LABELS: Array<Label> = Array::pinned(abi::FARMS_MAX, 0);
#[map]
static MAGLEV: Array<MaglevTable> = Array::pinned(abi::TABLES_MAX, 0);
#[map]
static BACKENDS: Array<BackendEntry> = Array::pinned(abi::BACKENDS_MAX, 0);
#[map]
static BACKEND_LABELS: Array<BackendLabel> = Array::pinned(abi::BACKENDS_MAX, 0);
#[map]
static COUNTERS: PerCpuArray<BackendCounters> = PerCpuArray::pinned(abi::BACKENDS_MAX, 0);
#[map]
static VERDICTS: PerCpuArray<u64> = PerCpuArray::pinned(Verdict::COUNT, 0);
#[map]
static CLOCK: Array<u32> = Array::pinned(1, 0);
#[map]
static CONNECTIONS_V4: HashMap<FlowKey<[u8; 4]>, Connection<[u8; 4]>> =
    HashMap::pinned(1 << 21, BPF_F_NO_PREALLOC);
#[map]
static CONNECTIONS_V6: HashMap<FlowKey<[u8; 16]>, Connection<[u8; 16]>> =
    HashMap::pinned(1 << 21, BPF_F_NO_PREALLOC);
#[map]
static OPENING_V4: LruHashMap<FlowKey<[u8; 4]>, Connection<[u8; 4]>> =
    LruHashMap::pinned(2 * abi::OPENING_MAX, 0);
#[map]
static OPENING_V6: LruHashMap<FlowKey<[u8; 16]>, Connection<[u8; 16]>> =
    LruHashMap::pinned(2 * abi::OPENING_MAX, 0);

#[map]
static SCRATCH_V4: PerCpuArray<Scratch<[u8; 4]>> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH_V6: PerCpuArray<Scratch<[u8; 16]>> = PerCpuArray::with_max_entries(1, 0);

/// What opening a connection builds up: too much for the stack's 512 bytes.
#[repr(C)]
pub struct Scratch<A> {
    /// The flow as the backend sees it.
    pub to: FlowKey<A>,
    /// The same, reversed: the key of the reverse entry.
    pub reverse: FlowKey<A>,
    /// The flow as the client sees its answers.
    pub back: FlowKey<A>,
    pub connection: Connection<A>,
}

/// What differs between IPv4 and IPv6: the program is one text for both.
pub trait Family {
    type Addr: Address;
    type Header: IpHeader<Addr = Self::Addr>;

    fn connections() -> &'static HashMap<FlowKey<Self::Addr>, Connection<Self::Addr>>;
    fn opening() -> &'static LruHashMap<FlowKey<Self::Addr>, Connection<Self::Addr>>;
    fn scratch() -> &'static PerCpuArray<Scratch<Self::Addr>>;
    fn address(backend: &BackendEntry) -> Self::Addr;
    fn hop(backend: &BackendEntry) -> &NextHop;
}

pub struct V4;
pub struct V6;

impl Family for V4 {
    type Addr = [u8; 4];
    type Header = Ipv4;

    #[inline(always)]
    fn connections() -> &'static HashMap<FlowKey<[u8; 4]>, Connection<[u8; 4]>> {
        &CONNECTIONS_V4
    }
    #[inline(always)]
    fn opening() -> &'static LruHashMap<FlowKey<[u8; 4]>, Connection<[u8; 4]>> {
        &OPENING_V4
    }
    #[inline(always)]
    fn scratch() -> &'static PerCpuArray<Scratch<[u8; 4]>> {
        &SCRATCH_V4
    }
    #[inline(always)]
    fn address(backend: &BackendEntry) -> [u8; 4] {
        backend.address_v4
    }
    #[inline(always)]
    fn hop(backend: &BackendEntry) -> &NextHop {
        &backend.hop_v4
    }
}

impl Family for V6 {
    type Addr = [u8; 16];
    type Header = Ipv6;

    #[inline(always)]
    fn connections() -> &'static HashMap<FlowKey<[u8; 16]>, Connection<[u8; 16]>> {
        &CONNECTIONS_V6
    }
    #[inline(always)]
    fn opening() -> &'static LruHashMap<FlowKey<[u8; 16]>, Connection<[u8; 16]>> {
        &OPENING_V6
    }
    #[inline(always)]
    fn scratch() -> &'static PerCpuArray<Scratch<[u8; 16]>> {
        &SCRATCH_V6
    }
    #[inline(always)]
    fn address(backend: &BackendEntry) -> [u8; 16] {
        backend.address_v6
    }
    #[inline(always)]
    fn hop(backend: &BackendEntry) -> &NextHop {
        &backend.hop_v6
    }
}

/// This CPU's scratch space, for one run of the program.
#[inline(always)]
pub fn scratch<F: Family>() -> Option<&'static mut Scratch<F::Addr>> {
    // SAFETY: this CPU's own entry; XDP programs of one CPU do not interrupt each other, and only `select` asks, once.
    F::scratch().get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}

/// `false`: neither address is a VIP or a `dnat` backend's.
#[inline(always)]
pub fn may_concern<A: Address>(src: &A, dst: &A) -> bool {
    match ADDRESS_FILTER.get(0) {
        Some(filter) => filter.may_contain(dst) || filter.may_contain(src),
        None => false,
    }
}

#[inline(always)]
fn address_flags<A: Address>(address: &A) -> u32 {
    // SAFETY: a u32, read once; the daemon replaces entries whole.
    unsafe { ADDRESSES.get(address.mapped()) }.copied().unwrap_or(0)
}

#[inline(always)]
pub fn is_vip<A: Address>(address: &A) -> bool {
    address_flags(address) & ADDRESS_VIP != 0
}

#[inline(always)]
pub fn is_backend<A: Address>(address: &A) -> bool {
    address_flags(address) & ADDRESS_BACKEND != 0
}

/// The number of the farm that serves a flow's destination, or [`NO_FARM`]. A function of its own, for the sake of the
/// stack, and with a plain number for an answer: the kernel refuses the BTF of niche-packed enums.
#[inline(never)]
pub fn farm_id<A: Address>(key: &FlowKey<A>) -> u32 {
    let mut service = ServiceKey::new(key.dst.mapped(), key.dst_port, key.protocol);
    // SAFETY: a u32, read once; the daemon replaces entries whole.
    if let Some(id) = unsafe { SERVICES.get(&service) } {
        return *id;
    }
    service.port = WILDCARD_PORT;
    // SAFETY: as above.
    unsafe { SERVICES.get(&service) }.copied().unwrap_or(NO_FARM)
}

/// Out of the range of farms.
const NO_FARM: u32 = u32::MAX;

/// `None` for [`NO_FARM`].
#[inline(always)]
pub fn farm(id: u32) -> Option<&'static FarmEntry> {
    FARMS.get(id)
}

/// The backend in one slot of a table.
#[inline(always)]
pub fn backend_at(table: u32, slot: u32) -> Option<u16> {
    MAGLEV.get(table)?.slots.get(slot as usize).copied()
}

#[inline(always)]
pub fn backend(id: u16) -> Option<&'static BackendEntry> {
    BACKENDS.get(u32::from(id))
}

/// The time in ticks, as the daemon last wrote it.
#[inline(always)]
pub fn now() -> u32 {
    CLOCK.get(0).copied().unwrap_or(0)
}

#[inline(always)]
pub fn count(backend: u16, direction: usize, bytes: u64, opened: bool) {
    if let Some(counters) = COUNTERS.get_ptr_mut(u32::from(backend)) {
        // SAFETY: this CPU's own entry; XDP programs of one CPU do not interrupt each other.
        let counters = unsafe { &mut *counters };
        if let (Some(packets), Some(sum)) =
            (counters.packets.get_mut(direction), counters.bytes.get_mut(direction))
        {
            *packets += 1;
            *sum += bytes;
        }
        counters.opened += u64::from(opened);
    }
}

#[inline(always)]
pub fn count_verdict(verdict: Verdict) {
    if let Some(packets) = VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: this CPU's own entry, as above.
        unsafe { *packets += 1 };
    }
}
