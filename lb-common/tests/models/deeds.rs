//! What the program and the daemon do with the table, each with one processor's view of it.

use lb_common::table::{Claim, Line, Lines, Meta, State, Table};

use crate::cpu::{Cpu, Fault};
use crate::memory::Flow;

pub const NOW: u32 = 50;

/// A connection: the flows of its directions, and a number that both lines bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    pub flow: Flow,
    pub back: Flow,
    pub number: u32,
}

/// One thing that somebody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// A packet of a known flow is translated.
    Read(Connection),
    /// A packet that opens a connection, or comes on one that is known.
    Open(Connection),
    /// The same, and nobody takes it.
    Withdraw(Connection),
    /// Only one line, which is its own peer.
    Enter(Connection),
    /// Both lines change their state.
    Establish(Connection),
    /// One line goes, and leaves half a pair.
    Tear(Flow),
    /// The daemon, on half a pair.
    FreeHalf(Flow),
    /// The daemon, on a connection that is over.
    FreePair(Connection),
    /// The daemon, on a line whose owner is gone.
    FreeStuck(u32),
}

impl Deed {
    pub fn run(self, cpu: &Cpu) {
        let table = Table(cpu);
        match self {
            Self::Read(connection) => read(&table, &connection),
            Self::Open(connection) => open(&table, &connection),
            Self::Withdraw(connection) => withdraw(&table, &connection),
            Self::Enter(connection) => enter(&table, &connection),
            Self::Establish(connection) => establish(&table, &connection),
            Self::Tear(flow) => {
                if let Some((index, meta)) = table.find(&flow.homes(), &flow) {
                    table.free(index, meta);
                }
            }
            Self::FreeHalf(flow) => {
                if let Some((index, meta)) = table.find(&flow.homes(), &flow)
                    && table.peer_at(table.0.at(index).unwrap().peer(), index).is_none()
                {
                    table.free(index, meta);
                }
            }
            Self::FreePair(connection) => {
                if let Some((index, meta)) = table.find(&connection.flow.homes(), &connection.flow) {
                    table.free_pair(index, meta);
                }
            }
            Self::FreeStuck(index) => {
                let meta = table.0.at(index).unwrap().meta();
                table.free_stuck(index, meta);
            }
        }
    }
}

/// The value of a line: the connection's number, and which flow it stands in.
fn value(flow: Flow, number: u32) -> u32 {
    u32::from(flow.number) << 16 | number
}

fn read(table: &Table<&Cpu>, connection: &Connection) {
    let flow = connection.flow;
    let Some((index, meta)) = table.find(&flow.homes(), &flow) else { return };
    let line = table.0.at(index).unwrap();
    let [first, second] = line.values();
    if line.meta().version() != meta.version() {
        return;
    }
    assert_eq!(first, second, "torn: halves of two entries");
    assert_eq!(first >> 16, u32::from(flow.number), "foreign: another flow's entry");
}

fn open(table: &Table<&Cpu>, connection: &Connection) {
    let flow = &connection.flow;
    if let Some((index, meta)) = table.find(&flow.homes(), flow) {
        let peer = table.0.at(index).unwrap().peer();
        // Half a pair is nobody.
        if table.peer_at(peer, index).is_some() || !table.free(index, meta) {
            return;
        }
    }
    let Claim::At { index, meta, .. } = table.claim(&flow.homes(), flow, NOW, 0) else { return };
    let Some((peer, peer_meta)) = claim_back(table, &connection.back) else {
        return table.give_back(index, meta, &flow.homes());
    };
    write(table, flow, index, peer, connection.number);
    write(table, &connection.back, peer, index, connection.number);
    let (meta, peer_meta) = (meta.with_state(State::Unanswered), peer_meta.with_state(State::Unanswered));
    if table.0.has(Fault::PublishedByTwo) {
        table.publish(peer, peer_meta);
        table.publish(index, meta);
    } else {
        table.publish_pair(index, meta, peer, peer_meta);
    }
}

/// A source port that is free, or that somebody has to whom nobody has answered.
fn claim_back(table: &Table<&Cpu>, back: &Flow) -> Option<(u32, Meta)> {
    match table.find(&back.homes(), back) {
        Some((index, meta)) if meta.is(State::Unanswered) => Some((index, table.take_over(index, meta)?)),
        Some(_) => None,
        None => match table.claim(&back.homes(), back, NOW, 0) {
            Claim::At { index, meta, .. } => Some((index, meta)),
            Claim::Taken | Claim::Full => None,
        },
    }
}

fn write(table: &Table<&Cpu>, flow: &Flow, index: u32, peer: u32, number: u32) {
    table.0.at(index).unwrap().write(*flow, peer, NOW, value(*flow, number));
}

fn withdraw(table: &Table<&Cpu>, connection: &Connection) {
    let flow = &connection.flow;
    if let Claim::At { index, meta, .. } = table.claim(&flow.homes(), flow, NOW, 0) {
        table.give_back(index, meta, &flow.homes());
    }
}

fn enter(table: &Table<&Cpu>, connection: &Connection) {
    let flow = &connection.flow;
    if let Claim::At { index, meta, .. } = table.claim(&flow.homes(), flow, NOW, 0) {
        write(table, flow, index, index, connection.number);
        table.publish(index, meta.with_state(State::Unanswered));
    }
}

fn establish(table: &Table<&Cpu>, connection: &Connection) {
    let Some((index, meta)) = table.find(&connection.flow.homes(), &connection.flow) else { return };
    let line = table.0.at(index).unwrap();
    let peer = line.peer();
    if !line.swap_meta(meta, meta.with_state(State::Established)) {
        return;
    }
    if let Some(meta) = table.peer_at(peer, index) {
        table.0.at(peer).unwrap().swap_meta(meta, meta.with_state(State::Established));
    }
}
