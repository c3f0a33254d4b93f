//! Very many connections: one thread is all clients and all servers, and speaks in frames.
//!
//! Clients and servers here have no sockets. What the hosts' own TCP would say of their segments is kept from it.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::Result;
use lb_common::tcp::flag;
use lb_common::wire::eth::Mac;

use crate::bench::packet::Ends;
use crate::frame::{Seen, Segment, seen, tcp};
use crate::topology::Topology;
use crate::wire::Wire;

/// Where the clients are: 10.1.32.0/19, which no link carries.
const CLIENTS: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 1, 32, 0), 19);

/// The ports that clients choose from one after the other, as Linux' own do (`ip_local_port_range`).
const CLIENT_PORTS: RangeInclusive<u16> = 32768..=60999;

/// How many handshakes are under way at once. All their frames have room in the queues on their way.
const WINDOW: usize = 128;

/// How long nothing comes until what is still awaited is taken for lost, and how often a lost SYN is sent.
const QUIET: Duration = Duration::from_millis(30);
const TRIES: u32 = 3;

const CLIENT_SEQUENCE: u32 = 1_000;
const SERVER_SEQUENCE: u32 = 5_000;

/// The clients and servers of a topology.
#[derive(Debug)]
pub struct Crowd {
    clients: Wire,
    servers: Vec<Wire>,
    /// Where the servers listen.
    ports: RangeInclusive<u16>,
    /// The balancer's hardware address.
    gate: Mac,
}

impl Crowd {
    /// Takes the clients' addresses and the backends' TCP `ports` out of their hosts' hands.
    pub fn new(topology: &Topology, ports: RangeInclusive<u16>) -> Result<Self> {
        let (network, length) = CLIENTS;
        let aside = format!(
            "table netdev crowd {{\nchain in {{\ntype filter hook ingress device eth0 priority 0;\n\
             ip daddr {network}/{length} drop\n}}\n}}"
        );
        topology.client.run("nft", &[&aside])?;
        let (first, last) = (ports.start(), ports.end());
        let aside = format!(
            "table netdev crowd {{\nchain in {{\ntype filter hook ingress device eth0 priority 0;\n\
             tcp dport {first}-{last} drop\n}}\n}}"
        );
        let mut servers = Vec::new();
        for backend in &topology.backends {
            backend.netns.run("nft", &[&aside])?;
            servers.push(Wire::open(&backend.netns, "eth0", Some((backend.v4, 32)))?);
        }
        let clients = Wire::open(&topology.client, "eth0", Some(CLIENTS))?;
        Ok(Self { clients, servers, ports, gate: topology.front_mac()? })
    }

    /// The clients' addresses and ports in the order in which they come: each address' ports solidly, from the lowest.
    pub fn sources() -> impl Iterator<Item = SocketAddr> {
        let (network, length) = CLIENTS;
        let hosts = 1..1 << (32 - u32::from(length));
        hosts.flat_map(move |host| {
            let address = Ipv4Addr::from_bits(network.to_bits() + host);
            CLIENT_PORTS.map(move |port| SocketAddr::from((address, port)))
        })
    }

    /// Opens a connection from each of `sources`; those that nobody answered, however often they asked.
    pub fn open(&self, target: SocketAddr, sources: &[SocketAddr]) -> Result<Vec<SocketAddr>> {
        let mut refused = Vec::new();
        for sources in sources.chunks(WINDOW) {
            let answers = self.begin(target, sources)?;
            self.complete(&answers)?;
            let answered: HashSet<_> = answers.iter().map(|answer| answer.ends.dst).collect();
            refused.extend(sources.iter().filter(|source| !answered.contains(source)));
        }
        Ok(refused)
    }

    /// Sends a SYN from each of `sources`, again if need be, and lets the servers answer; the SYN-ACKs that have come back.
    pub fn begin(&self, target: SocketAddr, sources: &[SocketAddr]) -> Result<Vec<Seen>> {
        let mut waiting: HashSet<SocketAddr> = sources.iter().copied().collect();
        let mut answers = Vec::new();
        for _ in 0..TRIES {
            let asking: Vec<_> = waiting.iter().copied().collect();
            self.knock(target, &asking)?;
            let mut last = Instant::now();
            while !waiting.is_empty() && last.elapsed() < QUIET {
                let (served, before) = (self.serve()?, answers.len());
                let both = flag::SYN | flag::ACK;
                let new = received(&self.clients)?.into_iter().filter(|it| it.segment.flags == both);
                answers.extend(new.filter(|it| waiting.remove(&it.ends.dst)));
                if served > 0 || answers.len() > before {
                    last = Instant::now();
                }
            }
            if waiting.is_empty() {
                break;
            }
        }
        Ok(answers)
    }

    /// Sends a SYN from each of `sources` and does no more.
    pub fn knock(&self, target: SocketAddr, sources: &[SocketAddr]) -> Result<()> {
        let segment = Segment { flags: flag::SYN, sequence: CLIENT_SEQUENCE, acknowledgment: 0 };
        let macs = (self.gate, self.clients.mac());
        let frame = |&src: &SocketAddr| tcp(macs, Ends { src, dst: target }, segment);
        let frames = sources.iter().map(frame).collect::<Result<Vec<_>>>()?;
        self.clients.send_all(&frames)?;
        Ok(())
    }

    /// Acknowledges SYN-ACKs.
    pub fn complete(&self, answers: &[Seen]) -> Result<()> {
        let third = |answer: &Seen| {
            let segment = Segment {
                flags: flag::ACK,
                sequence: answer.segment.acknowledgment,
                acknowledgment: answer.segment.sequence.wrapping_add(1),
            };
            tcp((self.gate, self.clients.mac()), answer.ends.reversed(), segment)
        };
        let frames = answers.iter().map(third).collect::<Result<Vec<_>>>()?;
        self.clients.send_all(&frames)?;
        Ok(())
    }

    /// How many clients' acknowledgments have come to the servers since somebody looked.
    pub fn acknowledged(&self) -> Result<usize> {
        let mut senders = HashSet::new();
        for server in &self.servers {
            let acknowledgments = self.asked(server, flag::ACK)?;
            senders.extend(acknowledgments.iter().map(|it| (it.ends.src, it.ends.dst)));
        }
        Ok(senders.len())
    }

    /// Answers the SYNs that have come; how many.
    fn serve(&self) -> Result<usize> {
        let mut served = 0;
        for server in &self.servers {
            let answer = |&Seen { macs, ends, segment }: &Seen| {
                let answer = Segment {
                    flags: flag::SYN | flag::ACK,
                    sequence: SERVER_SEQUENCE,
                    acknowledgment: segment.sequence.wrapping_add(1),
                };
                tcp((macs.1, macs.0), ends.reversed(), answer)
            };
            let asked = self.asked(server, flag::SYN)?;
            served += server.send_all(&asked.iter().map(answer).collect::<Result<Vec<_>>>()?)?;
        }
        Ok(served)
    }

    /// The segments with these flags that have come to a server.
    fn asked(&self, server: &Wire, flags: u8) -> Result<Vec<Seen>> {
        let mut asked = received(server)?;
        asked.retain(|it| it.segment.flags == flags && self.ports.contains(&it.ends.dst.port()));
        Ok(asked)
    }
}

/// The TCP segments that have come in.
fn received(wire: &Wire) -> Result<Vec<Seen>> {
    let mut found = Vec::new();
    while let Some(frame) = wire.receive(Duration::ZERO)? {
        found.extend(seen(&frame));
    }
    Ok(found)
}
