//! ICMP: echo requests to a VIP are answered while it is served, errors about a connection are translated and sent on to the end that
//! has sent what they quote. The rest is the host's. An error changes nothing about a connection.

use aya_ebpf::bindings::xdp_md;
use lb_common::abi::{Address as _, FlowKey};
use lb_common::icmp::{self, Kind};
use lb_common::table::{Fields as _, Layout as _, Line as _, Meta, State, Table};
use lb_common::verdict::Verdict;
use lb_common::wire::{Ethernet, Head, Icmp, IpHeader as _, Transport, protocol};

use crate::calls::Calls;
use crate::direct;
use crate::forward;
use crate::line::{self, Connections, Line, Numbers};
use crate::lookup::{self, Found};
use crate::maps::{self, Leg};
use crate::parse;
use crate::refuse;
use crate::steer;
use crate::step::QUOTES;
use crate::work::Work;

/// What becomes of an ICMP message. A function of its own; see `main`.
#[inline(never)]
pub fn receive<F: Calls>(context: *mut xdp_md) -> u64 {
    let Some(mut work) = Work::<F>::of(context) else { return Verdict::Inconsistent as u64 };
    match try_receive(&mut work) {
        Ok(number) => number,
        Err(verdict) => verdict as u64,
    }
}

#[inline(always)]
fn try_receive<F: Calls>(work: &mut Work<F>) -> Result<u64, Verdict> {
    let destination = parse::ip::<F>(&work.frame)?.dst();
    if destination.is_mapped() {
        return Err(Verdict::NotForVip);
    }
    // A backend's client may be told directly, in mode `dnat`: whatever the message quotes decides.
    let ours = maps::is_vip(&destination);
    match read(work) {
        Ok(number) => Ok(number),
        Err(verdict) => Err(if ours { verdict } else { Verdict::NotForVip }),
    }
}

/// Reads on to the ports of what an error quotes. The error is the verdict on the message if it is for a VIP.
#[inline(always)]
fn read<F: Calls>(work: &mut Work<F>) -> Result<u64, Verdict> {
    work.read.interface = parse::own_interface(&work.frame, work.control)?;
    let header = parse::ip::<F>(&work.frame)?;
    let length = header.message(work.frame.len() - Ethernet::SIZE)?;
    if !header.is_intact() {
        return Err(Verdict::BadIpHeader);
    }
    let icmp = work.frame.view::<Icmp>(Ethernet::SIZE + F::Header::BARE).ok_or(Verdict::IcmpMalformed)?;
    match icmp::kind(F::ICMP, icmp.kind) {
        Kind::EchoRequest => return echo(work),
        Kind::Other => return Err(Verdict::HostProtocol),
        Kind::Error => {}
    }
    let quote = icmp::quote::<F::Header>();
    let quoted = work.frame.view::<F::Header>(quote).ok_or(Verdict::IcmpMalformed)?;
    let found = F::Header::quoted(&work.frame, quote, length - Icmp::SIZE)?;
    // An error goes to the sender of what it quotes.
    if quoted.src() != header.dst() {
        return Err(Verdict::IcmpMalformed);
    }
    if !maps::may_concern(&quoted.src(), &quoted.dst()) {
        return Err(Verdict::IcmpUnknown);
    }
    let transport = quote + (found.offset & 0x3f);
    let head = work.frame.view_at::<Head>(transport).ok_or(Verdict::IcmpMalformed)?;
    work.read.key = FlowKey::new(quoted.dst(), quoted.src(), head.dst_port, head.src_port, found.protocol);
    let (protocol, ttl) = (u16::from(found.protocol), u16::from(header.ttl()));
    work.read.leg = Leg { transport: transport as u32, protocol, ttl };
    work.read.length = found.length as u32;
    work.read.homes = line::homes::<F>(&work.read.key).ok_or(Verdict::Inconsistent)?;
    Ok(QUOTES)
}

/// Makes an echo request the answer to itself. It costs its sender as much as us, so there is no limit.
#[inline(always)]
fn echo<F: Calls>(work: &mut Work<F>) -> Result<u64, Verdict> {
    let header = parse::ip::<F>(&work.frame)?;
    let (source, destination) = (header.src(), header.dst());
    if !maps::is_vip(&destination) {
        return Err(Verdict::NotForVip);
    }
    if source.is_impossible_source() || source == destination {
        return Err(Verdict::BadSource);
    }
    if !maps::echoes(&destination) {
        return Err(Verdict::EchoUnanswered);
    }
    refuse::turn::<F>(&mut work.frame, |frame| {
        frame.edit::<F::Header>(Ethernet::SIZE).ok_or(Verdict::TruncatedIp)?.turn();
        let icmp = frame.edit::<Icmp>(Ethernet::SIZE + F::Header::BARE).ok_or(Verdict::IcmpMalformed)?;
        icmp.set_kind(icmp::echo_reply(F::ICMP));
        Ok(())
    })?;
    Ok(Verdict::EchoAnswered as u64 | u64::from(work.frame.ingress()) << 32)
}

/// Translates an error whose quoted flow has been read, and sends it on. A function of its own; see `main`.
#[inline(never)]
pub fn pass_on<F: Calls>(context: *mut xdp_md) -> u64 {
    let Some(mut work) = Work::<F>::of(context) else { return Verdict::Inconsistent as u64 };
    match try_pass_on(&mut work) {
        Ok(number) => number,
        Err(Verdict::IcmpUnknown) if !maps::is_vip(&work.read.key.dst) => Verdict::NotForVip as u64,
        Err(verdict) => verdict as u64,
    }
}

#[inline(always)]
fn try_pass_on<F: Calls>(work: &mut Work<F>) -> Result<u64, Verdict> {
    let found = lookup::find::<F>(&work.read.key, &work.read.homes).ok_or(Verdict::IcmpUnknown)?;
    let Found { index, line, meta } = found;
    let backend = maps::backend(F::Addr::backend(line)).ok_or(Verdict::Inconsistent)?;
    let now = work.control.now;
    if meta.is(State::Cut) || (line.last_seen() != now && F::expired(index, now) != 0) {
        return Err(Verdict::IcmpUnknown);
    }
    if steer::comes_astray::<F>(work.frame.ingress(), meta, backend) {
        return Err(Verdict::WrongInterface);
    }
    let transport = work.transport();
    if work.is_tcp() {
        let head = work.frame.view_at::<Head>(transport).ok_or(Verdict::IcmpMalformed)?;
        let acknowledged = acknowledged::<F>(index, line, meta).ok_or(Verdict::IcmpUnknown)?;
        if !icmp::is_plausible(head.sequence(), acknowledged) {
            return Err(Verdict::IcmpImplausible);
        }
    }
    if work.read.leg.ttl <= 1 {
        return Err(Verdict::TtlExpired);
    }
    // It quotes what the end has sent as it has sent it.
    if meta.is_direct() {
        let leg = work.read.leg;
        return Ok(direct::note::<F>(leg, &found, Verdict::IcmpTranslated));
    }
    work.read.to = F::Addr::translated(line, meta, &Numbers).ok_or(Verdict::Inconsistent)?;
    let client = line.hop();
    // All that was read is of one connection if the line has not changed hands meanwhile.
    if line.meta().version() != meta.version() {
        return Err(Verdict::Contended);
    }
    let egress = forward::address::<F>(&mut work.frame, work.control, meta, client, backend)?;
    let quoted = Transport {
        offset: transport,
        protocol: if work.is_tcp() { protocol::TCP } else { protocol::UDP },
        length: work.read.length as usize,
    };
    let changes_source = meta.is_reverse() || !meta.is_dnat();
    icmp::translate::<F::Header, _>(&mut work.frame, quoted, &work.read.to, changes_source)
        .ok_or(Verdict::Inconsistent)?;
    Ok(Verdict::IcmpTranslated as u64 | u64::from(egress) << 32)
}

/// What the end that the quoted packet was sent to has acknowledged last; 0: that is not known. `None`: half a pair is nobody.
#[inline(always)]
fn acknowledged<F: Calls>(index: u32, line: Line, meta: Meta) -> Option<u32> {
    if !meta.is_reverse() || !meta.is(State::Unanswered) {
        return Some(line.acknowledgment());
    }
    // Nothing yet: it can be about the SYN alone.
    let peer = line.peer();
    Table(Connections::<F>::new()).peer_at(peer, index)?;
    Some(F::line(peer)?.opening())
}
