//! Both ends of a connection, played by hand: what the client sends must reach the backend, and what the backend sends must
//! reach the client, each with the other side's addresses as it knows them.

use crate::packet::*;
use crate::rig::*;

/// The first sequence number of every client, and of every backend.
pub const CLIENT_ISN: u32 = 1_000_000;
pub const BACKEND_ISN: u32 = 7_000_000;

/// What became of a packet that should have reached the other end: nothing, or the reason why it did not.
pub type Reached = Result<(), String>;

/// The addresses of a connection on both sides of the balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    pub client: String,
    pub vip: String,
    /// What the backend takes for its client.
    pub source: String,
    pub backend: String,
}

impl Way {
    /// Sends the packet that opens a connection.
    pub fn open(rig: &mut Rig, client: &str, vip: &str, l4: L4, payload: &[u8]) -> Result<Self, String> {
        let mut got = rig.send(&frame(client, vip, l4, payload));
        if got.verdict == "challenged" {
            // It is not what it waits for: it says so, and tries again.
            let (_, number, _) = numbers(&got.frame);
            let met = rig.verdict(&frame(client, vip, segment(RST, number, 0), b""));
            if met != "challenge_met" {
                return Err(format!("{client} was challenged and answered: {met}"));
            }
            got = rig.send(&frame(client, vip, l4, payload));
        }
        if got.verdict != "opened" {
            return Err(format!("{client} opens: {}", got.verdict));
        }
        let seen = read(&got.frame);
        Ok(Self {
            client: client.to_owned(),
            vip: vip.to_owned(),
            source: seen.src.to_string(),
            backend: seen.dst.to_string(),
        })
    }

    pub fn by_client(&self, l4: L4, payload: &[u8]) -> Vec<u8> {
        frame(&self.client, &self.vip, l4, payload)
    }

    pub fn by_backend(&self, l4: L4, payload: &[u8]) -> Vec<u8> {
        frame(&self.backend, &self.source, l4, payload)
    }

    /// Whether a packet of the client's has gone where the connection's go.
    pub fn reached_backend(&self, got: &Outcome) -> Reached {
        arrived(got, &self.source, &self.backend)
    }

    pub fn reached_client(&self, got: &Outcome) -> Reached {
        arrived(got, &self.vip, &self.client)
    }

    pub fn up(&self, rig: &mut Rig, l4: L4, payload: &[u8]) -> Reached {
        let got = rig.send(&self.by_client(l4, payload));
        self.reached_backend(&got)
    }

    pub fn down(&self, rig: &mut Rig, l4: L4, payload: &[u8]) -> Reached {
        let got = rig.send(&self.by_backend(l4, payload));
        self.reached_client(&got)
    }
}

fn arrived(got: &Outcome, src: &str, dst: &str) -> Reached {
    if got.action != XDP_TX && got.action != XDP_REDIRECT {
        return Err(format!("{}, action {}", got.verdict, got.action));
    }
    let seen = read(&got.frame);
    if (seen.src.to_string().as_str(), seen.dst.to_string().as_str()) != (src, dst) {
        return Err(format!("{}, but from {} to {}", got.verdict, seen.src, seen.dst));
    }
    Ok(())
}

/// A TCP connection.
#[derive(Debug, Clone)]
pub struct Tcp {
    pub way: Way,
    /// The client's next sequence number.
    pub client_next: u32,
    pub backend_next: u32,
}

impl Tcp {
    /// The client's SYN.
    pub fn syn(rig: &mut Rig, client: &str, vip: &str) -> Result<Self, String> {
        let way = Way::open(rig, client, vip, segment(SYN, CLIENT_ISN, 0), b"")?;
        Ok(Self { way, client_next: CLIENT_ISN + 1, backend_next: BACKEND_ISN })
    }

    /// The backend's answer to the SYN.
    pub fn syn_ack(&mut self, rig: &mut Rig) -> Reached {
        let l4 = segment(SYN | ACK, self.backend_next, self.client_next);
        self.backend_next += 1;
        self.way.down(rig, l4, b"")
    }

    /// The client's acknowledgment of all that it has got.
    pub fn ack(&self, rig: &mut Rig) -> Reached {
        self.way.up(rig, segment(ACK, self.client_next, self.backend_next), b"")
    }

    /// A whole handshake.
    pub fn open(rig: &mut Rig, client: &str, vip: &str) -> Result<Self, String> {
        let mut tcp = Self::syn(rig, client, vip)?;
        tcp.syn_ack(rig)?;
        tcp.ack(rig)?;
        Ok(tcp)
    }

    /// A request, acknowledged by the backend.
    pub fn asks(&mut self, rig: &mut Rig) -> Reached {
        self.way.up(rig, segment(ACK, self.client_next, self.backend_next), b"question")?;
        self.client_next += 8;
        self.way.down(rig, segment(ACK, self.backend_next, self.client_next), b"")
    }

    /// An answer, acknowledged by the client.
    pub fn answers(&mut self, rig: &mut Rig) -> Reached {
        self.way.down(rig, segment(ACK, self.backend_next, self.client_next), b"answer")?;
        self.backend_next += 6;
        self.ack(rig)
    }

    /// A request and its answer.
    pub fn talks(&mut self, rig: &mut Rig) -> Reached {
        self.asks(rig)?;
        self.answers(rig)
    }

    /// The client's FIN, acknowledged by the backend.
    pub fn client_ends(&mut self, rig: &mut Rig) -> Reached {
        self.way.up(rig, segment(FIN | ACK, self.client_next, self.backend_next), b"")?;
        self.client_next += 1;
        self.way.down(rig, segment(ACK, self.backend_next, self.client_next), b"")
    }

    /// The backend's FIN, acknowledged by the client.
    pub fn backend_ends(&mut self, rig: &mut Rig) -> Reached {
        self.way.down(rig, segment(FIN | ACK, self.backend_next, self.client_next), b"")?;
        self.backend_next += 1;
        self.ack(rig)
    }
}

/// A conversation by datagrams.
#[derive(Debug, Clone)]
pub struct Udp(pub Way);

impl Udp {
    /// The first question.
    pub fn open(rig: &mut Rig, client: &str, vip: &str) -> Result<Self, String> {
        Way::open(rig, client, vip, L4::Udp, b"question").map(Self)
    }

    pub fn asks(&self, rig: &mut Rig) -> Reached {
        self.0.up(rig, L4::Udp, b"question")
    }

    pub fn answers(&self, rig: &mut Rig) -> Reached {
        self.0.down(rig, L4::Udp, b"answer")
    }
}

/// Sequence numbers far from `number`, and from each other: more than any window.
pub fn far_from(number: u32) -> impl Iterator<Item = u32> {
    (1..16).map(move |k: u32| number.wrapping_add(k.wrapping_mul(0x0fff_0001)))
}
