//! One client of the control socket: who it is, and whose turn it is.
//!
//! The server makes one for each connection and puts it among the extensions of each request. Dropped with the connection,
//! it gives its seat up.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use lb_core::seats::{Admission, Seat, Seats};
use lb_core::state::Peer;
use tokio::net::UnixStream;

use crate::clock;

/// How many of one kind are served at once, and how many of them may follow the events.
pub const SEATS: usize = 64;
pub const STREAMS: usize = 32;
/// How long a client may take over its turn: over its request with its body, over its answer, between two requests.
const PATIENCE: Duration = Duration::from_secs(10);

/// The seats of one kind of clients.
type Shared = Arc<Mutex<Seats>>;

/// The seats: those of root are its own, whatever others do.
#[derive(Debug, Clone)]
pub struct Room {
    root: Shared,
    others: Shared,
}

impl Default for Room {
    fn default() -> Self {
        let seats = || Arc::new(Mutex::new(Seats::new(SEATS, STREAMS, PATIENCE)));
        Self { root: seats(), others: seats() }
    }
}

/// Whose seat it is; unique among all kinds.
pub type Place = (bool, Seat);

/// See the module.
#[derive(Debug)]
pub struct Client {
    pub peer: Option<Peer>,
    seat: Seat,
    seats: Shared,
    is_root: bool,
}

impl Room {
    /// Seats a newcomer, and says who has to leave for it; `None`: there is no room.
    pub fn admit(&self, stream: &UnixStream) -> Option<(Client, Option<Place>)> {
        let peer = stream.peer_cred().ok().map(|peer| Peer { uid: peer.uid(), pid: peer.pid() });
        let is_root = peer.is_some_and(|peer| peer.uid == 0);
        let seats = if is_root { &self.root } else { &self.others };
        match lock(seats).admit(clock::now()) {
            Admission::Seated { seat, instead_of } => {
                let client = Client { peer, seat, seats: seats.clone(), is_root };
                Some((client, instead_of.map(|other| (is_root, other))))
            }
            Admission::TurnedAway => None,
        }
    }
}

impl Client {
    pub fn place(&self) -> Place {
        (self.is_root, self.seat)
    }

    /// Its request is whole, and it waits for us.
    pub fn has_asked(&self) {
        lock(&self.seats).ours(self.seat);
    }

    /// It is its turn.
    pub fn wait_for(&self) {
        lock(&self.seats).client(self.seat, clock::now());
    }

    /// Whether it may follow a stream; it does from now on.
    pub fn follow(&self) -> bool {
        lock(&self.seats).follow(self.seat)
    }

    /// Whether it follows a stream.
    pub fn is_following(&self) -> bool {
        lock(&self.seats).follows(self.seat)
    }

    /// Resolves when the client has taken too long over its turn.
    pub async fn patience_ends(&self) {
        loop {
            let now = clock::now();
            let end = lock(&self.seats).ends(self.seat);
            match end {
                Some(end) if end <= now => return,
                Some(end) => clock::sleep_until(Some(end)).await,
                // Its turn begins later than now, so its patience does not end before this.
                None => tokio::time::sleep(PATIENCE).await,
            }
        }
    }
}

/// Who sent a request; nobody who comes by another way than the socket.
#[derive(Debug, Clone, Copy)]
pub struct By(pub Option<Peer>);

impl<S: Send + Sync> FromRequestParts<S> for By {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<Arc<Client>>().and_then(|client| client.peer)))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        lock(&self.seats).leave(self.seat);
    }
}

fn lock(seats: &Mutex<Seats>) -> MutexGuard<'_, Seats> {
    // They are whole between any two calls.
    seats.lock().unwrap_or_else(PoisonError::into_inner)
}
