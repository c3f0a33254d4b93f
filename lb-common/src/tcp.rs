//! What a connection's packets say about its state: enough of RFC 9293 to know when an entry may be forgotten.

/// TCP flags as they stand in the 14th byte of the header (RFC 9293, section 3.1).
pub mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}

/// Which way a packet of a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// From the client to the backend.
    Forward = 0,
    /// From the backend to the client.
    Reverse = 1,
}

/// A connection's state. Each has a time-out of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// TCP: the handshake is not complete. UDP: nobody has answered.
    Opening = 0,
    Established = 1,
    /// One side has sent its FIN.
    Closing = 2,
    /// Both have, or one has reset the connection.
    Closed = 3,
    /// Cut by the daemon: whoever sends another packet is told by a reset.
    Cut = 4,
}

impl State {
    /// The state of a stored number; an unknown one counts as closed, so that it ages.
    pub const fn from_raw(raw: u8) -> Self {
        match raw {
            0 => Self::Opening,
            1 => Self::Established,
            2 => Self::Closing,
            4 => Self::Cut,
            _ => Self::Closed,
        }
    }
    /// Nothing more is expected of such a connection: a new one may take its place.
    #[inline(always)]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Closed | Self::Cut)
    }
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Cut => "cut",
        }
    }
}

/// A packet that starts a connection: SYN alone among the flags that steer (ECN's and PSH do not count).
#[inline(always)]
pub const fn opens(flags: u8) -> bool {
    flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN
}

/// A flag that may change the state of a known connection; all other packets leave it alone.
#[inline(always)]
pub const fn steers(flags: u8) -> bool {
    flags & (flag::SYN | flag::RST | flag::FIN) != 0
}

/// Which sides have sent a FIN, as a bit set by [`Direction`], after a packet with `flags` in `direction`.
#[inline(always)]
pub const fn fins(before: u8, direction: Direction, flags: u8) -> u8 {
    if flags & flag::FIN != 0 { before | 1 << direction as u8 } else { before }
}

/// The state after a packet with `flags`; `fins` as [`fins`] returns it for that packet.
///
/// A reset closes whatever the state: the ends judge by its sequence number whether it is genuine, and if it is
/// not, the traffic that goes on keeps the entry alive all the same.
#[inline(always)]
pub const fn after(state: State, fins: u8, flags: u8) -> State {
    if matches!(state, State::Cut) {
        return State::Cut;
    }
    if flags & flag::RST != 0 {
        return State::Closed;
    }
    match (state, fins) {
        (_, 0b11) => State::Closed,
        (State::Opening | State::Established | State::Closing, 0b01 | 0b10) => State::Closing,
        (state, _) => state,
    }
}

/// Whether a client's `acknowledgment` answers a SYN-ACK of sequence number `synack`: it must lie just above it.
/// A sender that has not seen the SYN-ACK hits this window of 2^16 by chance once in 65,536 tries.
#[inline(always)]
pub const fn completes_handshake(synack: u32, acknowledgment: u32) -> bool {
    acknowledgment.wrapping_sub(synack.wrapping_add(1)) < 1 << 16
}

#[cfg(test)]
mod tests {
    use super::{Direction::*, State::*, flag::*, *};

    #[test]
    fn states_follow_the_packets() {
        // (state, sides that have sent FIN, direction, flags) -> (state, sides)
        let table = [
            ((Established, 0b00, Forward, FIN | ACK), (Closing, 0b01)),
            ((Established, 0b00, Reverse, FIN | ACK), (Closing, 0b10)),
            ((Closing, 0b01, Forward, FIN | ACK), (Closing, 0b01)),
            ((Closing, 0b01, Reverse, FIN | ACK), (Closed, 0b11)),
            ((Closing, 0b10, Forward, ACK), (Closing, 0b10)),
            ((Established, 0b00, Reverse, RST), (Closed, 0b00)),
            ((Opening, 0b00, Reverse, RST | ACK), (Closed, 0b00)),
            ((Opening, 0b00, Reverse, SYN | ACK), (Opening, 0b00)),
            ((Opening, 0b00, Forward, FIN), (Closing, 0b01)),
            ((Established, 0b00, Forward, SYN), (Established, 0b00)),
            ((Closed, 0b11, Reverse, ACK), (Closed, 0b11)),
            ((Closed, 0b00, Reverse, ACK), (Closed, 0b00)),
            ((Cut, 0b00, Forward, RST), (Cut, 0b00)),
        ];
        for ((state, before, direction, flags), expected) in table {
            let sides = fins(before, direction, flags);
            assert_eq!(
                (after(state, sides, flags), sides),
                expected,
                "{state:?} {before:02b} {direction:?} {flags:#x}"
            );
        }
    }

    #[test]
    fn only_a_bare_syn_opens() {
        assert!(opens(SYN));
        assert!(opens(SYN | 0xc0), "ECN set-up (RFC 3168, section 6.1.1)");
        for flags in [0, ACK, SYN | ACK, SYN | FIN, SYN | RST, RST, FIN, FIN | ACK] {
            assert!(!opens(flags), "{flags:#x}");
        }
    }

    #[test]
    fn a_handshake_completes_only_with_the_number_that_the_server_chose() {
        assert!(completes_handshake(1000, 1001));
        assert!(completes_handshake(1000, 1001 + 1460), "the server spoke first");
        assert!(completes_handshake(u32::MAX, 0), "wrapped");
        assert!(!completes_handshake(1000, 1000));
        assert!(!completes_handshake(1000, 0));
        assert!(!completes_handshake(1000, 1001 + (1 << 16)));
    }
}
