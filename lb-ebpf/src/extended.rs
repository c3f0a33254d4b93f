//! Packets whose transport header is not where the fast way looks for it, or is not there: with IPv6 extension headers, and
//! fragments. They all take the slow way. The first fragment of a datagram, which has a transport header, is treated as a whole packet,
//! and leaves its ports for the others, which follow it by them; see [`lb_common::fragment`].

use aya_ebpf::bindings::xdp_md;
use lb_common::abi::{Address as _, FlowKey};
use lb_common::fragment::{self, Bucket, Datagram, Key, Memory, PLACES};
use lb_common::table::{Layout as _, Line as _, Meta, State};
use lb_common::verdict::Verdict;
use lb_common::wire::{Chain, Ethernet, IpHeader as _, Tcp, Udp, protocol};

use crate::calls::Calls;
use crate::line;
use crate::lookup::{self, Found};
use crate::maps::{self, Leg, Scratch};
use crate::parse;
use crate::steer;
use crate::step::{FOLLOWS, REMEMBERS, SENDS, SLOW};
use crate::work::Work;

/// What is handed on of a fragment.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Part {
    /// What became of it, while it is being remembered.
    pub sent: u64,
    pub id: u32,
    /// Where it begins in its datagram, or where it ends, if it is the first.
    pub place: u32,
    /// Not 0: it is one of a connection whose both sides have shown that they are there.
    pub proven: u32,
    pub reserved: u32,
}

/// Reads on to the transport header, or to where it should be. A function of its own; see `main`.
#[inline(never)]
pub fn read<F: Calls>(context: *mut xdp_md) -> u64 {
    let Some(mut work) = Work::<F>::of(context) else { return Verdict::Inconsistent as u64 };
    let Ok(header) = parse::ip::<F>(&work.frame) else { return Verdict::TruncatedIp as u64 };
    work.read.key = FlowKey::new(header.src(), header.dst(), [0; 2], [0; 2], 0);
    work.read.leg.ttl = u16::from(header.ttl());
    match try_read(&mut work) {
        Ok(number) => number,
        Err(verdict) => or_hosts(&work, verdict),
    }
}

/// Nothing is held against a packet before it is known to be for a VIP.
#[inline(always)]
fn or_hosts<F: Calls>(work: &Work<F>, verdict: Verdict) -> u64 {
    let destination = &work.read.key.dst;
    let ours = !destination.is_mapped() && maps::is_vip(destination);
    if ours { verdict as u64 } else { Verdict::NotForVip as u64 }
}

#[inline(always)]
fn try_read<F: Calls>(work: &mut Work<F>) -> Result<u64, Verdict> {
    let available = work.frame.len() - Ethernet::SIZE;
    let chain = F::Header::chain(&work.frame, available)?;
    let Chain { fragment, .. } = chain;
    work.read.interface = parse::own_interface(&work.frame, work.control)?;
    let place = if fragment.is_later() { fragment.offset } else { fragment.length };
    work.read.part = Part { sent: 0, id: fragment.id, place: place as u32, proven: 0, reserved: 0 };
    let transport = (Ethernet::SIZE + chain.offset) & 0xff;
    let known = chain.protocol == protocol::TCP || chain.protocol == protocol::UDP;
    if fragment.is_later() {
        // Of IPv6 the protocol may be a header that the first fragment has, and is no part of what tells datagrams apart.
        if !known && !is_open::<F>(chain.protocol) {
            return Err(Verdict::HostProtocol);
        }
        fragment.check(chain.protocol)?;
        let protocol = if is_v6::<F>() { 0 } else { chain.protocol };
        work.read.key.protocol = protocol;
        work.read.leg.transport = transport as u32 | Leg::LATER;
        return Ok(FOLLOWS);
    }
    if !known {
        return Err(Verdict::HostProtocol);
    }
    if fragment.more {
        fragment.check(chain.protocol)?;
    }
    let flags = ports::<F>(work, chain, transport)?;
    work.read.key.protocol = chain.protocol;
    work.read.leg.transport = transport as u32 | if fragment.more { Leg::FIRST } else { 0 };
    work.read.leg.protocol = u16::from(chain.protocol);
    (work.read.length, work.read.flags) = (chain.length as u32, u32::from(flags));
    work.read.homes = line::homes::<F>(&work.read.key).ok_or(Verdict::Inconsistent)?;
    Ok(SLOW)
}

#[inline(always)]
const fn is_v6<F: Calls>() -> bool {
    F::TABLE == 1
}

/// Whether a later fragment of this protocol may be one of TCP or UDP.
#[inline(always)]
fn is_open<F: Calls>(protocol: u8) -> bool {
    is_v6::<F>() && lb_common::wire::chain::extension::is_passed_over(protocol)
}

/// Notes the ports of a packet that has the whole transport header, and gives TCP's flags; as [`parse::packet`] does.
#[inline(always)]
fn ports<F: Calls>(work: &mut Work<F>, chain: Chain, transport: usize) -> Result<u8, Verdict> {
    // RFC 1858: a first fragment that hides what decides.
    let short = if chain.fragment.more { Verdict::FragmentMalformed } else { Verdict::TruncatedTransport };
    if chain.protocol == protocol::TCP {
        if chain.length < Tcp::SIZE {
            return Err(short);
        }
        let tcp = work.frame.view_at::<Tcp>(transport).ok_or(Verdict::TruncatedTransport)?;
        if tcp.header_length() < Tcp::SIZE {
            return Err(Verdict::BadTransportHeader);
        }
        if tcp.header_length() > chain.length {
            return Err(if chain.fragment.more { short } else { Verdict::BadTransportHeader });
        }
        (work.read.key.src_port, work.read.key.dst_port) = (tcp.src_port, tcp.dst_port);
        return Ok(tcp.flags);
    }
    if chain.length < Udp::SIZE {
        return Err(short);
    }
    let udp = work.frame.view_at::<Udp>(transport).ok_or(Verdict::TruncatedTransport)?;
    let beyond = udp.length() > chain.length;
    if udp.length() < Udp::SIZE || beyond != chain.fragment.more {
        return Err(Verdict::BadTransportHeader);
    }
    (work.read.key.src_port, work.read.key.dst_port) = (udp.src_port, udp.dst_port);
    Ok(0)
}

/// A bucket of the memory.
#[derive(Clone, Copy)]
struct Words {
    words: *mut u64,
    bucket: u32,
}

impl Words {
    #[inline(always)]
    fn of(bucket: u32) -> Option<Self> {
        let words: *mut Bucket = maps::fragments(bucket)?;
        Some(Self { words: words.cast(), bucket })
    }
}

impl Memory for Words {
    #[inline(always)]
    fn load(self, at: usize) -> u64 {
        // SAFETY: a word of a map's value, which lasts as long as the program runs; volatile, since other CPUs write it.
        unsafe { self.words.add(at & (2 * PLACES - 1)).read_volatile() }
    }
    #[inline(always)]
    fn store(self, at: usize, to: u64) {
        // SAFETY: as above.
        unsafe { self.words.add(at & (2 * PLACES - 1)).write_volatile(to) }
    }
    #[inline(always)]
    fn appraise(self, named: u64, word: u64, new: u64, tag: u32, now: u32) -> u64 {
        fragment_place(named, word, new, tag, now)
    }
    #[inline(always)]
    fn max(self, a: u64, b: u64) -> u64 {
        fragment_max(a, b)
    }
    #[inline(always)]
    fn write(self, at: usize, tag: u32, new: u64, now: u32) {
        fragment_write(u64::from(self.bucket) << 32 | at as u64, tag, new, now);
    }
}

/// Linux 6.1 would follow each place with each outcome of each comparison.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fragment_max(a: u64, b: u64) -> u64 {
    core::cmp::max(a, b)
}

/// Which place it is decides nothing but where these words are written.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fragment_write(place: u64, tag: u32, new: u64, now: u32) -> u64 {
    let Some(bucket) = Words::of((place >> 32) as u32) else { return 0 };
    fragment::write(bucket, place as usize, tag, new, now);
    0
}

/// Of eight places each is one of many things: for the verifier a function that is checked once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fragment_place(named: u64, word: u64, new: u64, tag: u32, now: u32) -> u64 {
    fragment::appraise(named, word, new, tag, now)
}

/// As [`fragment::remember`]: 0, or the verdict. For the verifier a function that is checked once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fragment_remember(hash: u64, id: u32, new: u64, now: u32) -> u64 {
    let key = Key { hash, id };
    let Some(bucket) = Words::of(key.bucket()) else { return Verdict::Inconsistent as u64 };
    match fragment::remember(bucket, key, new, now) {
        Ok(()) => 0,
        Err(verdict) => verdict as u64,
    }
}

/// Finds the line of a fragment that has no transport header. A function of its own; see `main`.
#[inline(never)]
pub fn follow<F: Calls>(context: *mut xdp_md) -> u64 {
    let Some(mut work) = Work::<F>::of(context) else { return Verdict::Inconsistent as u64 };
    match try_follow(&mut work) {
        Ok(number) => number,
        Err(Verdict::Fragment) => or_hosts(&work, Verdict::Fragment),
        Err(verdict) => verdict as u64,
    }
}

#[inline(always)]
fn try_follow<F: Calls>(work: &mut Work<F>) -> Result<u64, Verdict> {
    let Part { id, place, .. } = work.read.part;
    let key = Key { hash: F::Addr::hash(&work.read.key, &work.control.table_seed), id };
    let bucket = Words::of(key.bucket()).ok_or(Verdict::Inconsistent)?;
    let Some(datagram) = fragment::find(bucket, key, work.control.now) else { return Err(Verdict::Fragment) };
    if datagram.host {
        return Err(Verdict::HostPort);
    }
    if (place as usize) < datagram.end {
        return Err(Verdict::FragmentOverlaps);
    }
    work.read.key.src_port = datagram.src_port;
    work.read.key.dst_port = datagram.dst_port;
    work.read.key.protocol = if datagram.tcp { protocol::TCP } else { protocol::UDP };
    work.read.leg.protocol = u16::from(work.read.key.protocol);
    work.read.homes = line::homes::<F>(&work.read.key).ok_or(Verdict::Inconsistent)?;
    let found = lookup::find::<F>(&work.read.key, &work.read.homes).ok_or(Verdict::Fragment)?;
    let Found { index, line, meta } = found;
    let backend = maps::backend(F::Addr::backend(line)).ok_or(Verdict::Inconsistent)?;
    let now = work.control.now;
    if meta.is(State::Cut) || (line.last_seen() != now && F::expired(index, now) != 0) {
        return Err(Verdict::Fragment);
    }
    if steer::comes_astray::<F>(work.frame.ingress(), meta, backend) {
        return Err(Verdict::WrongInterface);
    }
    (work.read.meta, work.read.index) = (meta, index);
    Ok(SENDS)
}

/// The step after a packet has been sent on by a line whose first word is `meta`, with this result, which is to be what `main` gets in
/// the end.
#[inline(always)]
pub fn sent<A>(read: &mut Scratch<A>, meta: Meta, number: u64) -> u64 {
    if read.leg.transport & Leg::FIRST == 0 || number >> 32 == 0 {
        return number;
    }
    (read.part.sent, read.part.proven) = (number, u32::from(is_proven(meta)));
    REMEMBERS
}

/// Remembers where the first fragment of a datagram went: to a connection's end, or to the host. A function of its own; see `main`.
#[inline(never)]
pub fn remember<F: Calls>(context: *mut xdp_md, number: u64) -> u64 {
    let Some(work) = Work::<F>::of(context) else { return Verdict::Inconsistent as u64 };
    if work.read.leg.transport & Leg::FIRST == 0 {
        return number;
    }
    let host = number != REMEMBERS;
    let Part { sent, id, place, proven, .. } = work.read.part;
    let flow = &work.read.key;
    let datagram = Datagram {
        src_port: flow.src_port,
        dst_port: flow.dst_port,
        tcp: flow.protocol == protocol::TCP,
        host,
        proven: proven != 0,
        end: place as usize,
    };
    work.read.key.src_port = [0; 2];
    work.read.key.dst_port = [0; 2];
    if is_v6::<F>() {
        work.read.key.protocol = 0;
    }
    let key = Key { hash: F::Addr::hash(&work.read.key, &work.control.table_seed), id };
    let refused = fragment_remember(key.hash, id, datagram.word(key), work.control.now);
    if refused != 0 {
        refused
    } else if host {
        number
    } else {
        sent
    }
}

/// Of a connection whose both sides have shown that they are there.
#[inline(always)]
const fn is_proven(meta: Meta) -> bool {
    meta.is_reverse() || (!meta.is_direct() && meta.raw_state() >= State::HalfClosed as u8)
}
