//! Every reason for every outcome: a stable number, a name for metrics, a sentence for people, and what becomes
//! of the packet.

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Sent on, rewritten.
    Forward,
    /// Left to the host, untouched.
    Pass,
    /// Dropped.
    Drop,
}

macro_rules! verdicts {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $disposition:ident, $text:literal;)*) => {
        /// Why a packet met its fate. Numbers are part of the layout of the verdict counters: they are never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Verdict { $($(#[$doc])* $variant = $number),* }

        impl Verdict {
            /// Every verdict, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The verdict of a number, or [`Verdict::Inconsistent`].
            #[inline(always)]
            pub const fn from_raw(raw: u32) -> Self {
                match raw { $($number => Self::$variant,)* _ => Self::Inconsistent }
            }
            /// The name in metrics, `[a-z_]+`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
            /// One sentence for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
            #[inline(always)]
            pub const fn disposition(self) -> Disposition {
                match self { $(Self::$variant => Disposition::$disposition),* }
            }
        }
    };
}

verdicts! {
    Forwarded = 0, "forwarded", Forward, "belongs to a connection and was sent on";
    Opened = 1, "opened", Forward, "opened a connection and was sent on";
    NotForVip = 2, "not_for_vip", Pass, "is not for a VIP";
    NotIp = 3, "not_ip", Pass, "is neither IPv4 nor IPv6";
    /// 802.1Q and 802.1ad are not read yet.
    Tagged = 4, "tagged", Pass, "carries a VLAN tag";
    /// Too short to say whom it is for.
    TruncatedIp = 5, "truncated_ip", Pass, "ends within the IP header";
    /// Protocols other than TCP, UDP and ICMP; of ICMP what is neither an error nor an echo request.
    HostProtocol = 6, "host_protocol", Pass, "is for a VIP, but of a protocol that is the host's";
    HostPort = 7, "host_port", Pass, "is for a port of a VIP that no farm serves";
    BadIpHeader = 8, "bad_ip_header", Drop, "has an IP header that contradicts itself";
    TruncatedTransport = 9, "truncated_transport", Drop, "ends within the TCP or UDP header";
    BadTransportHeader = 10, "bad_transport_header", Drop, "has a TCP or UDP header that contradicts itself";
    BadSource = 11, "bad_source", Drop, "claims a source that no packet can come from";
    Fragment = 12, "fragment", Drop, "is a fragment of a datagram whose first one has not come";
    ExtensionHeader = 13, "extension_header", Drop, "has an IPv6 extension header that is not passed over";
    TtlExpired = 14, "ttl_expired", Drop, "has no hop left";
    NoConnection = 15, "no_connection", Drop, "belongs to no tracked connection and does not open one";
    NoBackend = 16, "no_backend", Drop, "is for a farm that has no backend to serve it";
    NoNextHop = 17, "no_next_hop", Drop, "goes to a backend whose next hop is not known";
    PortsExhausted = 18, "ports_exhausted", Drop, "found no free source port towards its backend";
    TableFull = 19, "table_full", Drop, "found the connection table full";
    /// Cannot happen while the maps agree with each other.
    Inconsistent = 20, "inconsistent", Drop, "met maps that contradict each other";
    /// A farm of which nobody serves, or a connection that was cut.
    Refused = 21, "refused", Forward, "was answered with a reset or an ICMP error";
    /// Answers to refused packets are limited: each costs its sender as much as us.
    RefusalLimited = 22, "refusal_limited", Drop, "was to be refused, but too many were answered already";
    /// A backend's answer from anywhere else than the way that leads to it is somebody's invention.
    WrongInterface = 23, "wrong_interface", Drop, "claims to be a backend's, but came by another interface";
    /// Broadcast, multicast, or frames that a switch floods.
    OtherHost = 24, "other_host", Pass, "is in a frame for another host";
    /// The client repeats it.
    Contended = 25, "contended", Drop, "opens a connection that another CPU is just opening or ending";
    FarmFull = 26, "farm_full", Drop, "is for a farm that has its share of the connection table";
    /// A SYN in a flood.
    Challenged = 27, "challenged", Drop, "opens a connection in a flood; its sender was asked whether it is there";
    ChallengeMet = 28, "challenge_met", Drop, "is the answer of a sender who was asked whether it is there";
    /// Outer and quoted headers are rewritten.
    IcmpTranslated = 29, "icmp_translated", Forward, "is an ICMP error about a connection and was translated and sent on";
    /// The host's own connections have errors, too.
    IcmpUnknown = 30, "icmp_unknown", Pass, "is an ICMP error about something that is not tracked";
    IcmpMalformed = 31, "icmp_malformed", Drop, "is an ICMP message that contradicts itself";
    /// RFC 5927, section 4.1.
    IcmpImplausible = 32, "icmp_implausible", Drop, "is an ICMP error about a segment that cannot be on its way";
    EchoAnswered = 33, "echo_answered", Forward, "is an echo request and was answered";
    EchoUnanswered = 34, "echo_unanswered", Drop, "is an echo request to a VIP that nobody serves";
    /// In the modes in which backends answer themselves.
    ByTable = 35, "by_table", Forward, "belongs to no tracked connection and was sent to whom the farm's table names";
    /// By its lists.
    Denied = 36, "denied", Drop, "comes from an address from which its farm takes nobody";
    /// Its sender is told, within limits: RFC 1191, RFC 8201.
    TooBig = 37, "too_big", Drop, "is larger than what the way ahead of it carries";
    /// No address of ours to send from, or no room in front of the frame.
    NotWrapped = 38, "not_wrapped", Drop, "could not be wrapped for the tunnel to its backend";
    /// IPv6's extension headers, by number or bytes.
    HeadersTooMany = 39, "headers_too_many", Drop, "has more IPv6 extension headers than are passed over";
    /// RFC 1858, RFC 3128, RFC 7112.
    FragmentMalformed = 40, "fragment_malformed", Drop, "is a fragment that contradicts itself, or lacks headers that it must have";
    FragmentOverlaps = 41, "fragment_overlaps", Drop, "is a fragment that overlaps the first one of its datagram, or takes its place";
    FragmentsFull = 42, "fragments_full", Drop, "is the first fragment of a datagram that there is no room to remember";
    /// By its limits.
    Limited = 43, "limited", Drop, "opens more connections than its farm takes";
}

impl Verdict {
    /// How many counters there are: some for verdicts to come, so that the map of counters keeps its size.
    pub const ROOM: u32 = 64;
}

const _: () = assert!(Verdict::ALL.len() <= Verdict::ROOM as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_are_dense_and_names_unique() {
        let mut names = HashSet::new();
        for (index, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, index);
            assert!(names.insert(verdict.name()));
            assert!(verdict.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }
}
