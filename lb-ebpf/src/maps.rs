//! Every map, and what is asked of each in one line. Layouts are in `lb_common::abi`, sizes too, but for the
//! connection tables, which the daemon sizes when it creates them. Services and addresses have twice their room, since the
//! daemon adds all that is new before it removes what is old. What the daemon reads or writes often is mapped into it.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use lb_common::abi::{
    self, ADDRESS_BACKEND, ADDRESS_ECHO, ADDRESS_VIP, Address, AddressFilter, Admission, BackendCounters,
    BackendEntry, BackendLabel, Control, FarmCounters, FarmEntry, FlowKey, Interface, Label, ListKey, Listed,
    MaglevTable, MappedAddress, NextHop, PortSet, Rules, Schedule, ServiceEntry, ServiceKey, Turned,
    WILDCARD_PORT,
};
use lb_common::affinity::{self, Bucket};
use lb_common::bucket;
use lb_common::challenge::{self, Vouched};
use lb_common::fragment;
use lb_common::load::Load;
use lb_common::table::{Occurrence, RawLine};
use lb_common::trace::Paged;
use lb_common::verdict::Verdict;

use crate::context::opaque;
use crate::explain;
use crate::family::Family;
pub use crate::scratch::{LastResort, Leg, Scratch};

#[map]
static ADDRESS_FILTER: Array<AddressFilter> = Array::pinned(1, 0);
#[map]
static ADDRESSES: HashMap<MappedAddress, u32> = HashMap::pinned(2 * abi::ADDRESSES_MAX, BPF_F_NO_PREALLOC);
#[map]
static SERVICES: HashMap<ServiceKey, ServiceEntry> =
    HashMap::pinned(2 * abi::SERVICES_MAX, BPF_F_NO_PREALLOC);
#[map]
static FARMS: Array<FarmEntry> = Array::pinned(abi::FARMS_MAX, 0);
#[map]
static AFFINITIES: Array<Bucket> = Array::pinned(affinity::BUCKETS, BPF_F_MMAPABLE);
#[map]
static LOADS: Array<Load> = Array::pinned(abi::LOADS_MAX, BPF_F_MMAPABLE);
#[map]
static SCHEDULES: Array<Schedule> = Array::pinned(abi::FARMS_MAX, BPF_F_MMAPABLE);
#[map]
static FARM_LABELS: Array<Label> = Array::pinned(abi::FARMS_MAX, 0);
#[map]
static ADMISSIONS: Array<Admission> = Array::pinned(abi::FARMS_MAX, 0);
#[map]
static LISTS: LpmTrie<Listed, u32> = LpmTrie::pinned(abi::PREFIXES_MAX, 0);
#[map]
static FARM_COUNTERS: PerCpuArray<FarmCounters> = PerCpuArray::pinned(abi::FARMS_MAX, 0);
#[map]
static MAGLEV: Array<MaglevTable> = Array::pinned(abi::TABLES_MAX, 0);
#[map]
static BACKENDS: Array<BackendEntry> = Array::pinned(abi::BACKENDS_MAX, BPF_F_MMAPABLE);
#[map]
static BACKEND_LABELS: Array<BackendLabel> = Array::pinned(abi::BACKENDS_MAX, 0);
#[map]
static COUNTERS: PerCpuArray<BackendCounters> = PerCpuArray::pinned(abi::BACKENDS_MAX, 0);
#[map]
static VERDICTS: PerCpuArray<u64> = PerCpuArray::pinned(Verdict::ROOM, 0);
#[map]
static CONTROL: Array<Control> = Array::pinned(1, BPF_F_MMAPABLE);
#[map]
static VIPS: Array<MappedAddress> = Array::pinned(abi::VIPS_MAX, BPF_F_MMAPABLE);
#[map]
pub static CONNECTIONS_V4: Array<RawLine> = Array::pinned(1 << 20, BPF_F_MMAPABLE);
#[map]
pub static CONNECTIONS_V6: Array<RawLine> = Array::pinned(1 << 20, BPF_F_MMAPABLE);
#[map]
static PORTS: Array<u64> = Array::pinned(abi::PORT_SETS * PORT_WORDS, BPF_F_MMAPABLE);
/// Words of a [`PortSet`].
const PORT_WORDS: u32 = (size_of::<PortSet>() / 8) as u32;
#[map]
static OCCURRENCES: PerCpuArray<u64> = PerCpuArray::pinned(Occurrence::ROOM, 0);
#[map]
static VOUCHED: Array<Vouched> = Array::with_max_entries(challenge::PLACES, BPF_F_MMAPABLE);
#[map]
static FRAGMENTS: Array<fragment::Bucket> = Array::with_max_entries(fragment::BUCKETS, 0);
#[map]
static REFUSALS: PerCpuArray<Refusals> = PerCpuArray::with_max_entries(2, 0);
#[map]
static BUCKETS: Array<u64> = Array::with_max_entries(abi::FARMS_MAX + bucket::SOURCES, 0);

/// The lines of a connection table less one. The daemon sets it before it loads the program.
#[unsafe(no_mangle)]
static LINES_MASK: u32 = (1 << 20) - 1;

/// Answers to refused packets that this CPU has sent in a tick; and to packets that are too large: who floods a farm that is down keeps
/// nobody from learning how much his way carries.
#[repr(C)]
pub struct Refusals {
    tick: u32,
    sent: u32,
}

#[map]
pub static SCRATCH_V4: PerCpuArray<Scratch<[u8; 4]>> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static SCRATCH_V6: PerCpuArray<Scratch<[u8; 16]>> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's scratch space, for one run of the program.
#[inline(always)]
pub fn scratch<F: Family>() -> Option<&'static mut Scratch<F::Addr>> {
    // SAFETY: this CPU's own entry; XDP programs of one CPU do not interrupt each other, and each stage asks for a part of
    // it and lets it go.
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

/// Whether a VIP answers those who ask it for an echo.
#[inline(always)]
pub fn echoes<A: Address>(address: &A) -> bool {
    address_flags(address) & ADDRESS_ECHO != 0
}

#[inline(always)]
pub fn is_backend<A: Address>(address: &A) -> bool {
    address_flags(address) & ADDRESS_BACKEND != 0
}

/// What serves a flow's destination, as [`Service::raw`], or [`Service::NONE`]. In its caller, which is a function of its own:
/// Linux 6.1 counts each function's stack in steps of 32 bytes, and one more would be too much.
#[inline(always)]
pub fn service<A: Address>(key: &FlowKey<A>) -> u64 {
    let mut service = ServiceKey::new(key.dst.mapped(), key.dst_port, key.protocol);
    // SAFETY: two u16, read once; the daemon replaces entries whole.
    if let Some(entry) = unsafe { SERVICES.get(&service) } {
        return Service { farm: entry.farm, vip: entry.vip, wildcard: false }.raw();
    }
    service.port = WILDCARD_PORT;
    // SAFETY: as above.
    match unsafe { SERVICES.get(&service) } {
        Some(entry) => Service { farm: entry.farm, vip: entry.vip, wildcard: true }.raw(),
        None => Service::NONE,
    }
}

/// Which farm and which of its VIPs a flow is for.
#[derive(Clone, Copy)]
pub struct Service {
    pub farm: u16,
    pub vip: u16,
    /// The farm has all ports, and this is one of them.
    pub wildcard: bool,
}

impl Service {
    pub const NONE: u64 = u64::MAX;

    #[inline(always)]
    pub fn raw(self) -> u64 {
        u64::from(self.farm) | u64::from(self.vip) << 16 | u64::from(self.wildcard) << 32
    }
    /// Of a number that is not [`Service::NONE`].
    #[inline(always)]
    pub fn from_raw(raw: u64) -> Self {
        Self { farm: raw as u16, vip: (raw >> 16) as u16, wildcard: raw >> 32 & 1 != 0 }
    }
}

#[inline(always)]
pub fn farm(id: u16) -> Option<&'static FarmEntry> {
    FARMS.get(u32::from(id))
}

/// What a farm's scheduler goes by.
#[inline(always)]
pub fn schedule(farm: u16) -> Option<*mut Schedule> {
    let farm = u32::from(farm);
    explain::found(SCHEDULES.get_ptr_mut(farm), Paged::Schedules, farm)
}

/// The daemon's part of it.
#[inline(always)]
pub fn rules(farm: u16) -> Option<Rules> {
    // SAFETY: a map's value. The daemon writes it word by word, and any words are rules.
    schedule(farm).map(|schedule| unsafe { (*schedule).rules })
}

/// What counts of a source's address for a farm, in words.
#[inline(always)]
pub fn source<A: Address>(address: &A, farm: u16, v4: bool) -> Option<[u64; 2]> {
    let ([first, second], mask) = (address.words(), rules(farm)?.mask(v4));
    Some([first & mask[0], second & mask[1]])
}

/// The words of a load: backends' by their numbers, then farms'.
#[inline(always)]
pub fn load(number: u32) -> Option<*mut u32> {
    explain::found(LOADS.get_ptr_mut(number), Paged::Loads, number).map(|load| load.cast())
}

/// A bucket of the table of affinities.
#[inline(always)]
pub fn affinities(bucket: u32) -> Option<*mut Bucket> {
    explain::found(AFFINITIES.get_ptr_mut(bucket), Paged::Affinities, bucket)
}

/// What newcomers of a farm have to meet.
#[inline(always)]
pub fn admission(farm: u16) -> Option<&'static Admission> {
    ADMISSIONS.get(u32::from(farm))
}

/// A [`Bucket`](lb_common::bucket::Bucket): farms' by their numbers, then sources'.
#[inline(always)]
pub fn bucket(number: u32) -> Option<*mut u64> {
    BUCKETS.get_ptr_mut(number)
}

/// What a list says of an address: of the longest of its prefixes that holds it.
#[inline(always)]
pub fn listed(key: &ListKey) -> Option<u32> {
    // SAFETY: `Key<Listed>` is those bytes, packed: how many bits count, and the rest.
    let key = unsafe { &*(&raw const *key).cast::<Key<Listed>>() };
    LISTS.get(key).copied()
}

/// The backend in one slot of a table.
#[inline(always)]
pub fn backend_at(table: u32, slot: u32) -> Option<u16> {
    // The verifier does not know what the compiler may: that a slot is below their number.
    MAGLEV.get(table)?.slots.get(opaque(slot as usize)).copied()
}

#[inline(always)]
pub fn backend(id: u16) -> Option<&'static BackendEntry> {
    BACKENDS.get(u32::from(id))
}

/// A hop that the daemon may be replacing at this moment; `None` if it is.
#[inline(always)]
pub fn read_hop(hop: &NextHop) -> Option<NextHop> {
    let words = (&raw const *hop).cast::<u64>();
    // SAFETY: two words, aligned in the map's value; volatile, since the first is to be read twice.
    let (first, second, again) =
        unsafe { (words.read_volatile(), words.add(1).read_volatile(), words.read_volatile()) };
    if first == again { Some(NextHop::from_words([first, second])) } else { None }
}

/// The address of a VIP by its number.
#[inline(always)]
pub fn vip(number: u16) -> Option<&'static [u8; 16]> {
    VIPS.get(u32::from(number))
}

/// Time, seeds, interfaces. It is always there.
#[inline(always)]
pub fn control() -> Option<&'static Control> {
    CONTROL.get(0)
}

/// The interface of that number.
#[inline(always)]
pub fn interface(control: &'static Control, number: u32) -> Option<&'static Interface> {
    control.interfaces.get(number as usize)
}

#[inline(always)]
pub fn lines_mask() -> u32 {
    // SAFETY: a static; volatile, since the daemon sets another number before it loads the program.
    unsafe { core::ptr::read_volatile(&raw const LINES_MASK) }
}

/// One word of the set of source ports that established connections to a backend have, as far as is known; the word says it of 64
/// ports. The daemon writes it, too, and a lost bit costs a try.
#[inline(always)]
pub fn ports(backend: u16, word: u32) -> Option<*mut u64> {
    let at = (u32::from(backend) & (abi::PORT_SETS - 1)) * PORT_WORDS + word;
    explain::found(PORTS.get_ptr_mut(at), Paged::Ports, at)
}

/// Whether this CPU may answer another refused packet in this tick.
#[inline(always)]
pub fn may_refuse(control: &Control) -> bool {
    may_answer(control, 0)
}

/// The same for a packet that is too large.
#[inline(always)]
pub fn may_tell_size(control: &Control) -> bool {
    may_answer(control, 1)
}

#[inline(always)]
fn may_answer(control: &Control, kind: u32) -> bool {
    let Some(refusals) = REFUSALS.get_ptr_mut(kind) else { return false };
    // SAFETY: this CPU's own entry; XDP programs of one CPU do not interrupt each other.
    let refusals = unsafe { &mut *refusals };
    if refusals.tick != control.now {
        (refusals.tick, refusals.sent) = (control.now, 0);
    }
    refusals.sent += 1;
    refusals.sent <= control.refusals
}

/// Whoever has answered a challenge and has this place.
#[inline(always)]
pub fn vouched(place: u32) -> Option<*mut Vouched> {
    explain::found(VOUCHED.get_ptr_mut(place), Paged::Vouched, place)
}

/// A bucket of the memory of fragmented datagrams.
#[inline(always)]
pub fn fragments(bucket: u32) -> Option<*mut fragment::Bucket> {
    FRAGMENTS.get_ptr_mut(bucket)
}

#[inline(always)]
pub fn occurred(what: Occurrence) {
    if let Some(count) = OCCURRENCES.get_ptr_mut(what as u32) {
        // SAFETY: this CPU's own entry, as above.
        unsafe { *count += 1 };
    }
}

/// This CPU's counters of a backend.
#[inline(always)]
fn counters(backend: u16) -> Option<&'static mut BackendCounters> {
    // SAFETY: this CPU's own entry; XDP programs of one CPU do not interrupt each other, and callers hold it for one line.
    COUNTERS.get_ptr_mut(u32::from(backend)).map(|counters| unsafe { &mut *counters })
}

#[inline(always)]
pub fn count(backend: u16, direction: usize, bytes: u64) {
    if let Some(counters) = counters(backend)
        && let (Some(packets), Some(sum)) =
            (counters.packets.get_mut(direction), counters.bytes.get_mut(direction))
    {
        *packets += 1;
        *sum += bytes;
    }
}

#[inline(always)]
pub fn count_opened(backend: u16, by_tcp: bool) {
    if let Some(counters) = counters(backend) {
        counters.opened += 1;
        counters.handshakes += u64::from(by_tcp);
    }
}

/// The backend has answered a handshake, by a SYN-ACK or by a reset.
#[inline(always)]
pub fn count_answer(backend: u16, by_reset: bool) {
    if let Some(counters) = counters(backend) {
        counters.answered += u64::from(!by_reset);
        counters.reset += u64::from(by_reset);
    }
}

/// A farm has turned a newcomer away.
#[inline(always)]
pub fn count_turned(farm: u16, why: Turned) {
    if let Some(counters) = FARM_COUNTERS.get_ptr_mut(u32::from(farm)) {
        // SAFETY: this CPU's own entry, as above.
        unsafe { (*counters).turned[why as usize] += 1 };
    }
}

#[inline(always)]
pub fn count_verdict(verdict: Verdict) {
    if let Some(packets) = VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: this CPU's own entry, as above.
        unsafe { *packets += 1 };
    }
}
