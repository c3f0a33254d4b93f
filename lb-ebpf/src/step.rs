//! What a step of a packet's way comes to where that is no verdict: which step is next. Numbers, since a function of its own returns
//! nothing else; far above those of verdicts and interfaces.

/// Each has its own number: the compiler sees to it.
#[repr(u64)]
enum Step {
    Remembers = u64::MAX - 14,
    Follows,
    Extended,
    Measures,
    Wraps,
    Quotes,
    Icmp,
    Hands,
    Notes,
    Chooses,
    Asks,
    Enters,
    Sends,
    Opens,
    Slow,
}

/// The fast way has come to no outcome: the packet takes the slow one.
pub const SLOW: u64 = Step::Slow as u64;
/// It may be too large for the interface that it is to leave by; see [`crate::size::next`].
pub const MEASURES: u64 = Step::Measures as u64;
/// The packet opens a connection.
pub const OPENS: u64 = Step::Opens as u64;
/// It is to be sent on; see [`crate::work::Work::send_by`].
pub const SENDS: u64 = Step::Sends as u64;
/// Both lines of a new connection are claimed; they are to be written.
pub const ENTERS: u64 = Step::Enters as u64;
/// It would open a connection, if its sender is known to be there.
pub const ASKS: u64 = Step::Asks as u64;
/// It opens one, as soon as its backend is chosen.
pub const CHOOSES: u64 = Step::Chooses as u64;
/// It is to be sent on, and has shown its sender to be there: that is to be noted.
pub const NOTES: u64 = Step::Notes as u64;
/// It is to be handed on as it is, by [`crate::direct::hand`].
pub const HANDS: u64 = Step::Hands as u64;
/// It is to be handed on in another one, by [`crate::wrap::wrap`].
pub const WRAPS: u64 = Step::Wraps as u64;
/// It is an ICMP message.
pub const ICMP: u64 = Step::Icmp as u64;
/// It is an ICMP error, and the flow of the packet that it quotes stands in the scratch space, reversed: as that of those that come
/// from where the error comes from.
pub const QUOTES: u64 = Step::Quotes as u64;
/// It has extension headers, or is a fragment.
pub const EXTENDED: u64 = Step::Extended as u64;
/// It is a fragment without a transport header.
pub const FOLLOWS: u64 = Step::Follows as u64;
/// It is the first fragment of a datagram, has been sent on, and is to be remembered.
pub const REMEMBERS: u64 = Step::Remembers as u64;
