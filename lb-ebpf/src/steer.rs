//! What a packet does to the state of its connection, and what the state does to the packet. Both lines of a connection
//! change together; each by a swap of its first word that fails if the line has changed hands.

use lb_common::abi::{BACKEND_TAKES, BackendEntry};
use lb_common::table::{Fields as _, Hop, Layout as _, Line as _, Meta, State, Table};
use lb_common::tcp::{self, Action, Answer, Known, Segment};
use lb_common::trace::{Decision, Over};
use lb_common::udp;
use lb_common::verdict::Verdict;
use lb_common::wire::{Ethernet, Tcp};

use crate::calls::Calls;
use crate::direct;
use crate::explain;
use crate::line::{Connections, Line};
use crate::lookup::Found;
use crate::maps;
use crate::note;
use crate::ports;
use crate::work::{Outcome, Work};

/// Ticks that a backend has for its answer. After an answer to what makes no sense to it, it may be silent for that long, too:
/// Linux answers once in half a second (`tcp_invalid_ratelimit`).
const PATIENCE: i32 = 6;

/// What became of a packet of a known connection.
pub enum Steered {
    Done(Outcome),
    /// The connection is over: the packet is to open another one, or belongs to none.
    Anew,
}

/// Leads a packet that is not simply one more of an established connection.
#[inline(always)]
pub fn steer<F: Calls>(work: &mut Work<F>, found: &Found) -> Steered {
    let Found { index, line, meta } = *found;
    explain::decided(Decision::Line, u64::from(index));
    explain::decided(Decision::Meta, meta.0);
    let Some(backend) = maps::backend(F::Addr::backend(line)) else {
        return Steered::Done(Err(Verdict::Inconsistent));
    };
    if comes_astray::<F>(work.frame.ingress(), meta, backend) {
        return Steered::Done(Err(Verdict::WrongInterface));
    }
    let now = work.control.now;
    if line.last_seen() != now && F::expired(index, now) != 0 {
        explain::decided(Decision::Over, Over::Expired as u64);
        F::free_pair(index, meta.0);
        return Steered::Anew;
    }
    let peer = line.peer();
    let (Some(peer_meta), Some(peer_line)) =
        (Table(Connections::<F>::new()).peer_at(peer, index), F::line(peer))
    else {
        // Half a pair is nobody.
        explain::decided(Decision::Over, Over::Half as u64);
        F::free_pair(index, meta.0);
        return Steered::Anew;
    };
    let (forward, reverse) = if meta.is_reverse() { (peer_line, line) } else { (line, peer_line) };
    let (known, action) = match judge::<F>(work, meta, line, forward, reverse, backend) {
        Ok(judged) => judged,
        Err(verdict) => return Steered::Done(Err(verdict)),
    };
    match action {
        Action::Forward | Action::Probe => {}
        Action::Anew => {
            explain::decided(Decision::Over, Over::Anew as u64);
            F::free_pair(index, meta.0);
            return Steered::Anew;
        }
        Action::Refuse => return Steered::Done(Err(Verdict::Refused)),
        Action::Stray => return Steered::Done(Err(Verdict::NoConnection)),
    }
    let state = known.0;
    explain::decided(Decision::State, state as u64 | u64::from(known.1) << 8);
    work.read.notes = 0;
    if state != meta.state() || known.1 != meta.fins() {
        let to = |meta: Meta| meta.with_state(state).with_fins(known.1);
        // Who lost the race to another packet of the connection has nothing to add that would last.
        let own = line.swap_meta(meta, to(meta));
        let other = peer_line.swap_meta(peer_meta, to(peer_meta));
        let changed = if meta.is_reverse() { other } else { own };
        work.read.notes = note::what(meta, state, changed, backend.flags);
        if state == State::Established && !meta.is_dnat() {
            ports::taken(F::Addr::backend(line), source_port::<F>(forward));
        }
    }
    // One that comes too soon after another may stay unanswered, and is no question.
    if !matches!(action, Action::Probe) || since(now, line.last_seen()) >= PATIENCE {
        line.see(now);
    }
    // Who repeats his SYN still wants the port.
    if meta.is(State::Unanswered) && !meta.is_reverse() {
        reverse.see(now);
    }
    // The way back to the client is the way by which the handshake comes. Once it is complete, nobody else's SYN changes it.
    if !meta.is_reverse()
        && (meta.is(State::Unanswered) || meta.is(State::Answered))
        && work.is_tcp()
        && let Some(ethernet) = work.frame.view::<Ethernet>(0)
    {
        reverse.set_hop(Hop::new(work.read.interface as u16, &ethernet.src));
    }
    if matches!(action, Action::Probe)
        && let Some(tcp) = work.frame.edit_at::<Tcp>(work.transport())
    {
        tcp.set_bare_acknowledgment(forward.acknowledgment());
    }
    Steered::Done(work.send_by(found))
}

/// A packet that claims to be a backend's, but did not come by the way that leads to it.
#[inline(always)]
pub fn comes_astray<F: Calls>(ingress: u32, meta: Meta, backend: &BackendEntry) -> bool {
    let interface = F::hop(backend).ifindex;
    meta.is_reverse() && interface != 0 && interface != ingress
}

/// State and FINs after the packet, and what becomes of it. Numbers that are kept in the lines are written.
#[inline(always)]
fn judge<F: Calls>(
    work: &Work<F>,
    meta: Meta,
    line: Line,
    forward: Line,
    reverse: Line,
    backend: &BackendEntry,
) -> Result<((State, u8), Action), Verdict> {
    if meta.is_direct() {
        return direct::judge(work, meta, line, forward, backend.flags);
    }
    let direction = meta.direction();
    let now = work.control.now;
    if !work.is_tcp() {
        let age = now.wrapping_sub(forward.created());
        let idle = now.wrapping_sub(line.last_seen());
        let (state, action) = udp::judge(meta.state(), direction, age, idle, backend.flags);
        return Ok(((state, 0), action));
    }
    let header = work.frame.view_at::<Tcp>(work.transport()).ok_or(Verdict::TruncatedTransport)?;
    let segment = Segment {
        direction,
        flags: work.flags(),
        sequence: header.sequence(),
        acknowledgment: header.acknowledgment(),
        payload: work.read.length.wrapping_sub(header.header_length() as u32),
    };
    let before = Known {
        state: meta.state(),
        fins: meta.fins(),
        forward: forward.acknowledgment(),
        reverse: reverse.acknowledgment(),
        silent: is_unanswered(now, forward.last_seen(), reverse.last_seen()),
        opening: forward.opening(),
    };
    let step = tcp::judge(before, segment, backend.flags);
    let after = step.known;
    if after.forward != before.forward {
        forward.set_acknowledgment(after.forward);
    }
    if after.reverse != before.reverse {
        reverse.set_acknowledgment(after.reverse);
    }
    if after.opening != before.opening {
        forward.set_opening(after.opening);
    }
    match step.answer {
        Answer::None => {}
        Answer::SynAck => maps::count_answer(F::Addr::backend(line), false),
        Answer::Reset => maps::count_answer(F::Addr::backend(line), true),
    }
    Ok(((after.state, after.fins), step.action))
}

/// The backend has said nothing to the client's last packet, though it had time to, and nothing shortly before it either.
#[inline(always)]
fn is_unanswered(now: u32, asked: u32, said: u32) -> bool {
    since(asked, said) >= PATIENCE && since(now, asked) >= PATIENCE
}

/// Ticks from `then` to `now`; another CPU may be one ahead.
#[inline(always)]
fn since(now: u32, then: u32) -> i32 {
    now.wrapping_sub(then) as i32
}

/// The port that a connection has towards its backend.
#[inline(always)]
fn source_port<F: Calls>(forward: Line) -> u16 {
    u16::from_be_bytes(F::Addr::target(forward).ports().0)
}

/// Whether a packet is simply one more of its connection: nothing changes but times and numbers of its own line. `flags` are
/// TCP's.
#[inline(always)]
pub fn is_plain(tcp: bool, flags: u8, now: u32, found: &Found, backend: &BackendEntry) -> bool {
    let (meta, line) = (found.meta, found.line);
    if tcp {
        return (meta.is(State::Established) || meta.is(State::OneSided)) && !tcp::steers(flags);
    }
    if meta.is_reverse() {
        return meta.is(State::Established) || meta.is(State::Answered);
    }
    // A client's datagram for a backend that is to get no more may move.
    backend.flags & BACKEND_TAKES != 0
        && (meta.is(State::Established)
            || meta.is(State::OneSided)
            || (meta.is(State::Unanswered) && now.wrapping_sub(line.created()) < udp::ONE_SIDED_AFTER))
}

/// Notes that a plain packet has come.
///
/// `false`: the connection had been idle for longer than it may.
#[inline(always)]
pub fn note<F: Calls>(now: u32, found: &Found, backend: &BackendEntry) -> bool {
    let line = found.line;
    let idle = now.wrapping_sub(line.last_seen()) as i32;
    if idle != 0 {
        if idle > backend.timeouts.of(found.meta) as i32 && F::expired(found.index, now) != 0 {
            return false;
        }
        line.see(now);
    }
    true
}

/// Notes what a plain segment acknowledges.
#[inline(always)]
pub fn note_acknowledgment(header: Option<&Tcp>, flags: u8, found: &Found) {
    if flags & tcp::flag::ACK != 0
        && let Some(header) = header
    {
        let (kept, seen) = (found.line.acknowledgment(), header.acknowledgment());
        let latest = tcp::acknowledged(kept, seen);
        if latest != kept {
            found.line.set_acknowledgment(latest);
        }
    }
}
