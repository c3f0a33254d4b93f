//! Who is served on a socket that has room for so many: nobody who only waits keeps others out.
//!
//! Each client has a seat. When all are taken, a newcomer gets that of the client whose turn it has been for longest: one
//! that has not sent its request yet, takes its time over the body, or does not take its answer. Only if none is waited for,
//! a newcomer is turned away, at once. Those that follow a stream are counted apart. The time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The client's since then: to ask, to send the rest, to take its answer.
    Client(Instant),
    /// Its request is being worked at.
    Ours,
    /// It follows a stream.
    Stream,
}

/// Where a client sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat(u64);

/// What becomes of a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is seated; whoever it takes the seat from is to leave.
    Seated {
        seat: Seat,
        instead_of: Option<Seat>,
    },
    TurnedAway,
}

/// All seats.
#[derive(Debug)]
pub struct Seats {
    turns: BTreeMap<Seat, Turn>,
    next: u64,
    most: usize,
    streams: usize,
    patience: Duration,
}

impl Seats {
    /// Room for `most`, of whom `streams` may follow; a client's turn lasts for at most `patience`.
    pub fn new(most: usize, streams: usize, patience: Duration) -> Self {
        Self { turns: BTreeMap::new(), next: 0, most, streams, patience }
    }

    /// A newcomer. It is its turn.
    pub fn admit(&mut self, now: Instant) -> Admission {
        let mut instead_of = None;
        if self.turns.len() >= self.most {
            let waited_for = self.turns.iter().filter_map(|(seat, turn)| match turn {
                Turn::Client(since) => Some((*since, *seat)),
                Turn::Ours | Turn::Stream => None,
            });
            let Some((_, longest)) = waited_for.min() else { return Admission::TurnedAway };
            self.turns.remove(&longest);
            instead_of = Some(longest);
        }
        self.next += 1;
        let seat = Seat(self.next);
        self.turns.insert(seat, Turn::Client(now));
        Admission::Seated { seat, instead_of }
    }

    /// It is the client's turn, and its patience begins anew.
    pub fn client(&mut self, seat: Seat, now: Instant) {
        self.set(seat, Turn::Client(now));
    }

    /// Its request is whole.
    pub fn ours(&mut self, seat: Seat) {
        self.set(seat, Turn::Ours);
    }

    /// It wants to follow a stream; whether there is room for one more.
    pub fn follow(&mut self, seat: Seat) -> bool {
        let followers = self.turns.values().filter(|turn| **turn == Turn::Stream).count();
        let room = followers < self.streams;
        if room {
            self.set(seat, Turn::Stream);
        }
        room
    }

    pub fn follows(&self, seat: Seat) -> bool {
        self.turns.get(&seat) == Some(&Turn::Stream)
    }

    pub fn leave(&mut self, seat: Seat) {
        self.turns.remove(&seat);
    }

    /// When patience with a client ends, if nothing changes; `None` while it is not its turn.
    pub fn ends(&self, seat: Seat) -> Option<Instant> {
        match self.turns.get(&seat) {
            Some(Turn::Client(since)) => Some(*since + self.patience),
            Some(Turn::Ours | Turn::Stream) | None => None,
        }
    }

    fn set(&mut self, seat: Seat, turn: Turn) {
        // One that had to leave is not seated again.
        if let Some(place) = self.turns.get_mut(&seat) {
            *place = turn;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn seated(seats: &mut Seats, now: Instant) -> Seat {
        match seats.admit(now) {
            Admission::Seated { seat, instead_of: None } => seat,
            other @ (Admission::Seated { .. } | Admission::TurnedAway) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_newcomer_takes_the_seat_of_whom_was_waited_for_longest() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut seats = Seats::new(3, 3, PATIENCE);
        let [first, second, third] = [1, 2, 3].map(|second| seated(&mut seats, at(second)));
        // The first has asked and has its answer: its turn began last.
        seats.ours(first);
        seats.client(first, at(4));
        let taken = |admission| match admission {
            Admission::Seated { instead_of, .. } => instead_of,
            Admission::TurnedAway => None,
        };
        assert_eq!(taken(seats.admit(at(5))), Some(second));
        assert_eq!(taken(seats.admit(at(6))), Some(third));
        assert_eq!(taken(seats.admit(at(7))), Some(first));
    }

    #[test]
    fn whoever_is_worked_for_or_follows_keeps_the_seat_and_newcomers_are_turned_away() {
        let now = Instant::now();
        let mut seats = Seats::new(2, 1, PATIENCE);
        let (asking, following) = (seated(&mut seats, now), seated(&mut seats, now));
        seats.ours(asking);
        assert!(seats.follow(following));
        assert_eq!(seats.admit(now), Admission::TurnedAway);
        assert!(!seats.follow(asking), "one stream is all there may be");
        assert_eq!((seats.ends(asking), seats.ends(following)), (None, None));
        seats.leave(following);
        assert!(seats.follow(asking));
        seated(&mut seats, now);
    }

    #[test]
    fn patience_lasts_for_a_turn_and_who_had_to_leave_stays_away() {
        let now = Instant::now();
        let mut seats = Seats::new(1, 1, PATIENCE);
        let first = seated(&mut seats, now);
        assert_eq!(seats.ends(first), Some(now + PATIENCE));
        seats.client(first, now + PATIENCE);
        assert_eq!(seats.ends(first), Some(now + 2 * PATIENCE));
        let Admission::Seated { seat: second, instead_of } = seats.admit(now) else { panic!("no seat") };
        assert_eq!(instead_of, Some(first));
        seats.ours(first);
        assert_eq!(seats.ends(first), None);
        assert_eq!(seats.ends(second), Some(now + PATIENCE));
        assert!(
            matches!(seats.admit(now), Admission::Seated { instead_of: Some(seat), .. } if seat == second)
        );
    }
}
