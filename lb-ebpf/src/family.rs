//! What differs between IPv4 and IPv6.

use aya_ebpf::maps::PerCpuArray;
use lb_common::abi::{Address as _, BackendEntry, FlowKey, NextHop};
use lb_common::checksum::Delta;
use lb_common::refusal::{self, IcmpHeader};
use lb_common::table::{Layout, Target};
use lb_common::trace::Paged;
use lb_common::wire::{Ethernet, IpHeader, Ipv4, Ipv6, protocol};

use crate::explain;
use crate::line::Line;
use crate::maps::{self, Scratch};

/// What differs between IPv4 and IPv6: the program is one text for both.
pub trait Family {
    type Addr: Layout;
    type Header: IpHeader<Addr = Self::Addr>;

    /// The head of a packet that an ICMP error quotes: the IP header and 8 bytes.
    type Quoted: Quote;

    const ETHERTYPE: u16;
    /// Which of the two in what is kept for both tables.
    const TABLE: usize;
    /// The protocol of this family's ICMP.
    const ICMP: u8;
    /// Bytes of a packet that every way carries: nobody sends smaller ones for being told to (RFC 791, RFC 8200, section 5).
    const LEAST_MTU: u16;
    /// The map of its lines.
    const LINES: Paged;

    /// An ICMP error (RFC 792; RFC 4443, section 3) in answer to the flow `key`, by the sum of what it quotes; `length`
    /// in bytes, header included.
    fn error(told: Told, key: &FlowKey<Self::Addr>, quote: Delta, length: u16) -> IcmpHeader;
    /// A line of this family's table.
    #[inline(always)]
    fn line(index: u32) -> Option<Line> {
        explain::found(Self::line_at(index), Self::LINES, index)
    }
    /// The same, where an instance that explains notes nothing.
    fn line_at(index: u32) -> Option<Line>;
    /// Puts a packet's new addresses in, and takes a hop. `reverse` and `dnat` are of the line that `target` is from.
    fn readdress(
        header: &mut Self::Header,
        target: &Target,
        reverse: bool,
        dnat: bool,
        backend: &BackendEntry,
    ) -> Option<()>;
    /// What a translation does to the transport's checksum.
    fn transport_delta(target: &Target) -> Delta;
    fn scratch() -> &'static PerCpuArray<Scratch<Self::Addr>>;
    fn address(backend: &BackendEntry) -> Self::Addr;
    fn hop(backend: &BackendEntry) -> &NextHop;
    /// Our own address towards the backend; zeros: not known.
    fn source(backend: &BackendEntry) -> Self::Addr;
    /// Whether the tunnel of this family's packets leads to the backend's address of IPv4: to the one of their own family, if it has
    /// one.
    fn wraps_in_v4(backend: &BackendEntry) -> bool;
}

/// What the sender of a packet is told by ICMP.
#[derive(Clone, Copy)]
pub enum Told {
    PortUnreachable,
    TimeExceeded,
    /// And how large it may be.
    TooBig(u16),
}

/// Bytes that can be summed.
pub trait Quote: Sized {
    const SIZE: usize = size_of::<Self>();
    fn sum(&self) -> Delta;
}

impl<const N: usize> Quote for [u8; N] {
    #[inline(always)]
    fn sum(&self) -> Delta {
        Delta::of(self)
    }
}

pub struct V4;
pub struct V6;

impl Family for V4 {
    type Addr = [u8; 4];
    type Header = Ipv4;
    type Quoted = [u8; Ipv4::SIZE + 8];

    const ETHERTYPE: u16 = Ethernet::IPV4;
    const TABLE: usize = 0;
    const ICMP: u8 = protocol::ICMP;
    const LEAST_MTU: u16 = 68;
    const LINES: Paged = Paged::ConnectionsV4;

    #[inline(always)]
    fn error(told: Told, _: &FlowKey<[u8; 4]>, quote: Delta, _: u16) -> IcmpHeader {
        match told {
            Told::PortUnreachable => refusal::icmp(3, 3, quote),
            Told::TimeExceeded => refusal::icmp(11, 0, quote),
            Told::TooBig(mtu) => refusal::icmp_with_mtu(3, 4, mtu, quote),
        }
    }

    #[inline(always)]
    fn line_at(index: u32) -> Option<Line> {
        maps::CONNECTIONS_V4.get_ptr_mut(index).map(Line::new)
    }
    #[inline(always)]
    fn readdress(header: &mut Ipv4, target: &Target, _: bool, _: bool, _: &BackendEntry) -> Option<()> {
        header.redirect(target.new_source_v4(), target.new_destination_v4(), target.deltas_v4().0);
        Some(())
    }
    #[inline(always)]
    fn transport_delta(target: &Target) -> Delta {
        target.deltas_v4().1
    }
    #[inline(always)]
    fn scratch() -> &'static PerCpuArray<Scratch<[u8; 4]>> {
        &maps::SCRATCH_V4
    }
    #[inline(always)]
    fn address(backend: &BackendEntry) -> [u8; 4] {
        backend.address_v4
    }
    #[inline(always)]
    fn hop(backend: &BackendEntry) -> &NextHop {
        &backend.hop_v4
    }
    #[inline(always)]
    fn source(backend: &BackendEntry) -> [u8; 4] {
        backend.path.source_v4
    }
    #[inline(always)]
    fn wraps_in_v4(backend: &BackendEntry) -> bool {
        backend.address_v4 != [0; 4]
    }
}

impl Family for V6 {
    type Addr = [u8; 16];
    type Header = Ipv6;
    type Quoted = [u8; Ipv6::SIZE + 8];

    const ETHERTYPE: u16 = Ethernet::IPV6;
    const TABLE: usize = 1;
    const ICMP: u8 = protocol::ICMPV6;
    const LEAST_MTU: u16 = Ipv6::LEAST_MTU;
    const LINES: Paged = Paged::ConnectionsV6;

    #[inline(always)]
    fn error(told: Told, key: &FlowKey<[u8; 16]>, quote: Delta, length: u16) -> IcmpHeader {
        let sum = quote.and(refusal::pseudo_header(key, protocol::ICMPV6, length));
        match told {
            Told::PortUnreachable => refusal::icmp(1, 4, sum),
            Told::TimeExceeded => refusal::icmp(3, 0, sum),
            Told::TooBig(mtu) => refusal::icmp_with_mtu(2, 0, mtu, sum),
        }
    }

    #[inline(always)]
    fn line_at(index: u32) -> Option<Line> {
        maps::CONNECTIONS_V6.get_ptr_mut(index).map(Line::new)
    }
    #[inline(always)]
    fn readdress(
        header: &mut Ipv6,
        target: &Target,
        reverse: bool,
        dnat: bool,
        backend: &BackendEntry,
    ) -> Option<()> {
        if reverse {
            header.set_source(maps::vip(target.delta_and_vip_v6().1)?);
            header.set_destination_words(target.addresses);
        } else {
            if !dnat {
                header.set_source(maps::vip(target.delta_and_vip_v6().1)?);
            }
            header.set_destination(&backend.address_v6);
        }
        header.take_hop();
        Some(())
    }
    #[inline(always)]
    fn transport_delta(target: &Target) -> Delta {
        target.delta_and_vip_v6().0
    }
    #[inline(always)]
    fn scratch() -> &'static PerCpuArray<Scratch<[u8; 16]>> {
        &maps::SCRATCH_V6
    }
    #[inline(always)]
    fn address(backend: &BackendEntry) -> [u8; 16] {
        backend.address_v6
    }
    #[inline(always)]
    fn hop(backend: &BackendEntry) -> &NextHop {
        &backend.hop_v6
    }
    #[inline(always)]
    fn source(backend: &BackendEntry) -> [u8; 16] {
        backend.path.source_v6
    }
    #[inline(always)]
    fn wraps_in_v4(backend: &BackendEntry) -> bool {
        backend.address_v6.words() == [0; 2]
    }
}
