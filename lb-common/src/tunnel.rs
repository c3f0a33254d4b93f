//! Packets within packets: what stands around one on its way to a backend that takes it out again (modes `ipip`, `gue`).
//!
//! - **TTL.** The outer one is always [64](crate::wire::Ipv4); the inner one has taken a hop, as of any router (RFC 2003,
//!   section 3.1), so that a circle of tunnels ends.
//! - **DSCP and ECN** are the inner packet's (RFC 2983, section 3: uniform; RFC 6040, section 4.1: normal mode).
//! - **DF** is the inner packet's; of IPv6 in IPv4, that which every way must carry may be taken apart outside, and nothing else
//!   (RFC 4213, section 3.2.2). The identification is the inner packet's, mixed with its flow.
//! - **The flow** shows outside, so that networks and receivers that look no further spread what they get: by the source port of
//!   UDP, by the flow label of IPv6 (RFC 6438). IP in IPv4 has no place for it.
//! - **The checksum of the outer UDP** is 0, over IPv6 as well (RFC 6935, RFC 6936): a tunnel without state cannot sum what it
//!   carries without reading it whole, and what it carries has checksums of its own.

/// Protocol numbers of packets within packets (IANA).
pub const IPV4: u8 = 4;
pub const IPV6: u8 = 41;

/// What an outer header takes over from the packet in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inner {
    /// Bytes of the whole packet, as its header says.
    pub length: u16,
    /// DSCP and ECN.
    pub class: u8,
    /// Nobody may take it apart.
    pub whole: bool,
    pub id: [u8; 2],
    /// [`IPV4`] or [`IPV6`].
    pub protocol: u8,
}

impl Inner {
    /// The same for an outer header of the flow that `tag` is a hash of: two flows' packets that are taken apart on their way are
    /// less likely to be put together as one.
    #[inline(always)]
    pub const fn of_flow(self, tag: u16) -> Self {
        let [t0, t1] = tag.to_be_bytes();
        let [i0, i1] = self.id;
        Self { id: [i0 ^ t0, i1 ^ t1], ..self }
    }
}

/// UDP and GUE (draft-ietf-intarea-gue, variant 0, a data message without flags or extension fields).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Gue(pub [u8; 12]);

impl Gue {
    pub const SIZE: usize = size_of::<Self>();

    /// Around a packet of the flow that `tag` is a hash of, to this port.
    #[inline(always)]
    pub const fn around(inner: Inner, port: [u8; 2], tag: u16) -> Self {
        // Of the ports that belong to nobody (RFC 6335, section 6).
        let [s0, s1] = (0xc000 | tag & 0x3fff).to_be_bytes();
        let [l0, l1] = (inner.length + Self::SIZE as u16).to_be_bytes();
        Self([s0, s1, port[0], port[1], l0, l1, 0, 0, 0, inner.protocol, 0, 0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::checksum;
    use crate::wire::{IpHeader, Ipv4, Ipv6};

    fn bytes<T, const N: usize>(header: T) -> [u8; N] {
        const { assert!(size_of::<T>() == N && align_of::<T>() == 1) };
        // SAFETY: of the same size, and made of bytes.
        unsafe { core::mem::transmute_copy(&header) }
    }

    fn v4(bytes: [u8; 20]) -> Ipv4 {
        // SAFETY: as above.
        unsafe { core::mem::transmute(bytes) }
    }

    fn v6(bytes: [u8; 40]) -> Ipv6 {
        // SAFETY: as above.
        unsafe { core::mem::transmute(bytes) }
    }

    fn inner_v4(flags: u8) -> Inner {
        v4([0x45, 0xb9, 5, 0xdc, 0x12, 0x34, flags, 0, 63, 6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).inner()
    }

    fn inner_v6(payload: u16) -> Inner {
        let mut header = [0; 40];
        header[..4].copy_from_slice(&[0x6b, 0x9f, 0xff, 0xff]);
        header[4..6].copy_from_slice(&payload.to_be_bytes());
        v6(header).inner()
    }

    #[test]
    fn what_is_taken_over_is_read_from_the_inner_header() {
        let whole = Inner { length: 1500, class: 0xb9, whole: true, id: [0x12, 0x34], protocol: IPV4 };
        assert_eq!(inner_v4(0x40), whole);
        assert_eq!(inner_v4(0), Inner { whole: false, ..whole });
        let v6 = Inner { length: 1280, class: 0xb9, whole: false, id: [0, 0], protocol: IPV6 };
        assert_eq!(inner_v6(1240), v6, "RFC 4213, section 3.2.2");
        assert_eq!(inner_v6(1241), Inner { length: 1281, whole: true, ..v6 });
    }

    #[test]
    fn an_outer_header_of_ipv4_has_the_inner_ones_class_and_df_and_a_ttl_of_its_own() {
        for (flags, df) in [(0x40, 0x40), (0, 0), (0x60, 0x40)] {
            let inner = inner_v4(flags).of_flow(0x00ff);
            let outer: [u8; 20] =
                bytes(Ipv4::around(inner, [10, 9, 9, 1], [10, 0, 0, 1], IPV4, inner.length));
            assert_eq!(outer[..10], [0x45, 0xb9, 5, 0xf0, 0x12, 0xcb, df, 0, 64, 4]);
            assert_eq!(outer[12..], [10, 9, 9, 1, 10, 0, 0, 1]);
            assert_eq!(checksum(&[&outer]), [0, 0]);
        }
    }

    #[test]
    fn an_outer_header_of_ipv6_shows_the_flow() {
        let inner = inner_v6(1240);
        let outer: [u8; 40] = bytes(Ipv6::around(inner, &[1; 16], &[2; 16], IPV6, inner.length, 0xbeef));
        assert_eq!(outer[..8], [0x6b, 0x90, 0xbe, 0xef, 5, 0, 41, 64]);
        assert_eq!((&outer[8..24], &outer[24..]), (&[1; 16][..], &[2; 16][..]));
    }

    #[test]
    fn gue_has_no_flags_and_its_source_port_shows_the_flow() {
        let Gue(head) = Gue::around(inner_v4(0), 6080u16.to_be_bytes(), 0xffff);
        assert_eq!(head, [0xff, 0xff, 0x17, 0xc0, 5, 0xe8, 0, 0, 0, 4, 0, 0]);
        let Gue(head) = Gue::around(inner_v6(1), [0, 9], 1);
        assert_eq!(head, [0xc0, 1, 0, 9, 0, 53, 0, 0, 0, 41, 0, 0]);
    }
}
