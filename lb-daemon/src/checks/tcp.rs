//! The TCP probe: a handshake, then an orderly close.
//!
//! The source address is the host's own, by routing. The close is a FIN: the server sees a client that came and left,
//! as it does every day. A reset would spare this host a socket in TIME_WAIT for a minute, but servers log it as
//! an error. Dropping the future closes the socket; the time-out is the caller's.

use std::net::SocketAddr;

use lb_core::health::Outcome;
use tokio::net::TcpStream;

use super::Untried;
use super::probe::{took, words};
use crate::clock;

pub(super) async fn probe(address: SocketAddr) -> Result<Outcome, Untried> {
    let started = clock::now();
    match TcpStream::connect(address).await {
        Ok(stream) => {
            let took = took(started);
            drop(stream);
            Ok(Outcome::passed(format!("connected in {took}")))
        }
        Err(error) => Ok(Outcome::failed(words(&error)?)),
    }
}
