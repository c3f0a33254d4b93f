//! Histories of connections: two ends that open, talk, lose packets, close and reset as TCP has it, and strangers who guess.

use lb_common::tcp::{Direction, Direction::Forward, Direction::Reverse, Segment, flag};

use crate::random::Random;

/// What a segment is, for whoever reads a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Syn,
    /// The client asks again, by another number.
    OtherSyn,
    SynAck,
    /// A server with SYN cookies answers again, by another number.
    OtherSynAck,
    /// An acknowledgment of all that has arrived.
    Ack,
    Data,
    Fin,
    Reset,
    /// A segment sent a second time.
    Again,
    /// Another client's or an old SYN, in the middle.
    StraySyn,
    /// A reset or FIN with a number that somebody has guessed: any, or one above what is expected, but not by much.
    BlindReset,
    NearReset,
    BlindFin,
    NearFin,
    /// The client's acknowledgment of a SYN-ACK that it has not seen.
    BlindAck,
}

/// One end.
#[derive(Debug, Clone, Copy, Default)]
struct End {
    /// The next number that it will send.
    next: u32,
    /// The next that it expects of the other.
    expects: u32,
    fin: bool,
}

/// Makes a connection's segments, one after the other.
pub struct History {
    random: Random,
    ends: [End; 2],
    /// Sent so far of: SYN, SYN-ACK, the client's acknowledgment.
    steps: u32,
    over: bool,
    last: Option<(Kind, Segment)>,
}

impl History {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut end = || End { next: random.below(u32::MAX), ..End::default() };
        let ends = [end(), end()];
        Self { random, ends, steps: 0, over: false, last: None }
    }

    pub fn next(&mut self) -> (Kind, Segment) {
        let made = match self.steps {
            0 => self.syn(),
            1 => self.while_asked(),
            2 => self.while_answered(),
            _ => self.while_open(),
        };
        self.last = Some(made);
        made
    }

    fn syn(&mut self) -> (Kind, Segment) {
        self.steps = 1;
        (Kind::Syn, self.sent(Forward, flag::SYN, 0))
    }

    fn while_asked(&mut self) -> (Kind, Segment) {
        match self.random.below(8) {
            0 => self.again(),
            1 => (Kind::BlindAck, self.guess(Forward, flag::ACK)),
            2 => {
                let flags = if self.random.once_in(2) { flag::RST } else { flag::RST | flag::ACK };
                (Kind::BlindReset, self.guess(Reverse, flags))
            }
            3 if self.random.once_in(2) => {
                self.ends[0].next = self.random.below(u32::MAX);
                (Kind::OtherSyn, self.sent(Forward, flag::SYN, 0))
            }
            3 => {
                let refusal = self.segment(Reverse, flag::RST | flag::ACK, 0);
                self.over = true;
                (Kind::Reset, Segment { sequence: 0, acknowledgment: self.ends[0].next, ..refusal })
            }
            _ => {
                self.ends[1].expects = self.ends[0].next;
                self.steps = 2;
                (Kind::SynAck, self.sent(Reverse, flag::SYN | flag::ACK, 0))
            }
        }
    }

    fn while_answered(&mut self) -> (Kind, Segment) {
        let side = self.either();
        match self.random.below(8) {
            0 => self.again(),
            1 => (Kind::BlindAck, self.guess(Forward, flag::ACK)),
            2 => (Kind::BlindReset, self.guess(side, flag::RST)),
            3 => {
                self.ends[1].next = self.random.below(u32::MAX);
                (Kind::OtherSynAck, self.sent(Reverse, flag::SYN | flag::ACK, 0))
            }
            _ => {
                self.ends[0].expects = self.ends[1].next;
                self.steps = 3;
                (Kind::Ack, self.segment(Forward, flag::ACK, 0))
            }
        }
    }

    fn while_open(&mut self) -> (Kind, Segment) {
        if self.ends.iter().all(|end| end.fin) && self.random.once_in(3) {
            // The client comes again from the same port.
            self.ends = [0, 1].map(|_| End { next: self.random.below(u32::MAX), ..End::default() });
            return self.syn();
        }
        let side = self.either();
        match self.random.below(24) {
            0 | 1 => self.again(),
            2 => (Kind::StraySyn, self.guess(Forward, flag::SYN)),
            3 => (Kind::BlindReset, self.guess(side, flag::RST)),
            4 => (Kind::BlindFin, self.guess(side, flag::FIN | flag::ACK)),
            5 => {
                let above = 1 + self.random.below(9000);
                (Kind::NearReset, self.above(above, self.segment(side, flag::RST, 0)))
            }
            23 => {
                let above = 200_000 + self.random.below(1 << 22);
                (Kind::NearFin, self.above(above, self.segment(side, flag::FIN | flag::ACK, 0)))
            }
            6 => {
                self.over = true;
                (Kind::Reset, self.segment(side, flag::RST | flag::ACK, 0))
            }
            7..=11 if !self.ends[side as usize].fin => {
                let payload = 2 * self.random.below(4) * 100;
                self.ends[side as usize].fin = true;
                (Kind::Fin, self.sent(side, flag::FIN | flag::ACK, payload))
            }
            12..=17 if !self.ends[side as usize].fin => {
                let payload = 2 + 2 * self.random.below(700);
                (Kind::Data, self.sent(side, flag::ACK, payload))
            }
            _ => (Kind::Ack, self.segment(side, flag::ACK, 0)),
        }
    }

    fn either(&mut self) -> Direction {
        if self.random.once_in(2) { Forward } else { Reverse }
    }

    fn again(&mut self) -> (Kind, Segment) {
        let Some((_, segment)) = self.last else { return self.syn() };
        (Kind::Again, segment)
    }

    /// A segment as its sender would send it now.
    fn segment(&self, direction: Direction, flags: u8, payload: u32) -> Segment {
        let end = &self.ends[direction as usize];
        let acknowledgment = if flags & flag::ACK != 0 { end.expects } else { 0 };
        Segment { direction, flags, sequence: end.next, acknowledgment, payload }
    }

    /// The same, and what it says counts; the other end gets it, mostly.
    fn sent(&mut self, direction: Direction, flags: u8, payload: u32) -> Segment {
        let segment = self.segment(direction, flags, payload);
        let sender = &mut self.ends[direction as usize];
        let length = payload + u32::from(flags & (flag::SYN | flag::FIN) != 0);
        sender.next = sender.next.wrapping_add(length);
        let next = sender.next;
        if !self.random.once_in(5) {
            let receiver = &mut self.ends[other(direction) as usize];
            if receiver.expects == segment.sequence {
                receiver.expects = next;
            }
        }
        segment
    }

    /// A segment with a number so far above what its receiver expects.
    fn above(&self, above: u32, segment: Segment) -> Segment {
        let expected = self.ends[other(segment.direction) as usize].expects;
        Segment { sequence: expected.wrapping_add(above), ..segment }
    }

    /// A segment whose numbers somebody has made up, neither of them near the true one.
    fn guess(&mut self, direction: Direction, flags: u8) -> Segment {
        let sender = self.ends[direction as usize];
        let mut far_from =
            |truth: u32| truth.wrapping_add((1 << 25) + self.random.below(u32::MAX - (1 << 26)));
        let (sequence, acknowledgment) = (far_from(sender.next), far_from(sender.expects));
        Segment { direction, flags, sequence, acknowledgment, payload: 0 }
    }

    /// The rest is of no interest.
    pub fn is_over(&self) -> bool {
        self.over
    }
}

fn other(direction: Direction) -> Direction {
    match direction {
        Forward => Reverse,
        Reverse => Forward,
    }
}
