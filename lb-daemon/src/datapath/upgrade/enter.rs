//! Connections of layout 1 into a table of this version.

use lb_common::abi::FlowKey;
use lb_common::table::{Claim, Hop, Lines as _, Meta, New, opening};
use lb_common::tcp::Direction;
use lb_common::wire::protocol;

use super::super::flows::{Family, View};
use super::former::OldConnection;

/// What became of the connections.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Brought {
    pub over: u64,
    /// There was no room, or something that they need is gone.
    pub lost: u64,
}

impl Brought {
    pub fn add(&mut self, entered: Entered) {
        match entered {
            Entered::Now => self.over += 1,
            Entered::Not => self.lost += 1,
            Entered::Before => {}
        }
    }
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    Now,
    /// It was there, or is over.
    Before,
    Not,
}

/// A table of this version, and what numbers its lines are to bear.
pub(super) struct Ground<'a, A> {
    pub table: View<'a, A>,
    pub interface: &'a dyn Fn(u32) -> Option<u16>,
    pub vip: &'a dyn Fn(A) -> Option<u16>,
    pub now: u32,
}

impl<A: Family> Ground<'_, A> {
    /// Enters both lines of a connection, as the program does.
    pub fn enter(&self, key: &FlowKey<A>, forward: &OldConnection<A>, reverse: &OldConnection<A>) -> Entered {
        let udp = key.protocol == protocol::UDP;
        let Some(state) = forward.state(reverse, udp) else { return Entered::Before };
        let numbers = ((self.vip)(key.dst), (self.interface)(forward.client_hop.ifindex));
        let (Some(vip), Some(interface)) = numbers else { return Entered::Not };
        let to = forward.translated(key.protocol);
        let (back, from) = (key.reversed(), to.reversed());
        let (homes, reverse_homes) = (self.table.0.homes(key), self.table.0.homes(&from));
        let (index, meta) = match self.table.claim(&homes, key, self.now, 0) {
            Claim::At { index, meta, .. } => (index, meta),
            Claim::Taken => return Entered::Before,
            Claim::Full => return Entered::Not,
        };
        let Claim::At { index: peer, meta: peer_meta, .. } =
            self.table.claim(&reverse_homes, &from, self.now, 0)
        else {
            self.table.give_back(index, meta, &homes);
            return Entered::Not;
        };
        // Numbers of segments are not known but for a handshake's; the next ones tell.
        let new = New {
            key,
            to: &to,
            reverse: false,
            backend: forward.backend,
            vip,
            peer,
            now: forward.last_seen,
            acknowledgment: reverse.synack,
            tail: opening(forward.created, reverse.synack),
        };
        let hop = Hop::new(interface, &forward.client_hop.destination);
        let answers = New {
            key: &from,
            to: &back,
            reverse: true,
            peer: index,
            now: reverse.last_seen,
            acknowledgment: 0,
            tail: hop.0,
            ..new
        };
        let dnat = forward.source == key.src;
        let finished =
            |meta: Meta, direction| meta.of(direction, udp, dnat).with_state(state).with_fins(forward.fins);
        let (meta_now, peer_now) =
            (finished(meta, Direction::Forward), finished(peer_meta, Direction::Reverse));
        if self.write(index, meta_now, &new) && self.write(peer, peer_now, &answers) {
            self.table.publish_pair(index, meta_now, peer, peer_now);
            return Entered::Now;
        }
        self.table.give_back(index, meta, &homes);
        self.table.give_back(peer, peer_meta, &reverse_homes);
        Entered::Not
    }

    /// Whether the line then says what it was told: one of IPv6 names addresses by numbers.
    fn write(&self, index: u32, meta: Meta, new: &New<'_, A>) -> bool {
        let Some(line) = self.table.0.at(index) else { return false };
        A::write(line, new);
        let numbers = &self.table.0.numbers;
        A::key(line, meta, numbers).as_ref() == Some(new.key)
            && A::translated(line, meta, numbers).as_ref() == Some(new.to)
    }
}

#[cfg(test)]
mod tests {
    use lb_common::abi::NextHop;
    use lb_common::table::{Fields as _, Line as _, State};
    use lb_core::state::ConnectionFilter;

    use super::super::super::test_world::{Addresses, VIP_NUMBER, World, live, world};
    use super::*;

    const INTERFACE: u16 = 9;
    const CLIENT_HOP: NextHop = NextHop { ifindex: 5, destination: [1, 2, 3, 4, 5, 6], source: [7; 6] };

    /// The two entries of a connection of the client `client` to backend 1, from port 40000 and, for `nat`, by port 50000.
    fn old<A: Addresses>(
        client: A,
        state: u8,
        dnat: bool,
    ) -> (FlowKey<A>, OldConnection<A>, OldConnection<A>) {
        let port = |port: u16| port.to_be_bytes();
        let key = FlowKey::new(client, A::vip_address(), port(40000), port(443), protocol::TCP);
        let source = if dnat { client } else { A::vip_address() };
        let to = FlowKey::new(
            source,
            A::backend_address(1),
            port(if dnat { 40000 } else { 50000 }),
            port(8080),
            protocol::TCP,
        );
        let entry = |to: &FlowKey<A>, direction: Direction| OldConnection {
            client_hop: CLIENT_HOP,
            source: to.src,
            destination: to.dst,
            source_port: to.src_port,
            destination_port: to.dst_port,
            deltas: [0; 2],
            farm: 0,
            backend: 1,
            last_seen: 9_990,
            created: 9_000,
            synack: 77,
            direction: direction as u8,
            state,
            fins: 0b10,
            synack_seen: 1,
        };
        (key, entry(&to, Direction::Forward), entry(&key.reversed(), Direction::Reverse))
    }

    fn bring<A: Addresses>(
        world: &World,
        (key, forward, reverse): &(FlowKey<A>, OldConnection<A>, OldConnection<A>),
    ) -> Entered {
        let interface = |ifindex| (ifindex == CLIENT_HOP.ifindex).then_some(INTERFACE);
        let ground = Ground {
            table: A::view(world),
            interface: &interface,
            vip: &|_| Some(VIP_NUMBER),
            now: world.control().now(),
        };
        ground.enter(key, forward, reverse)
    }

    fn check<A: Addresses + std::fmt::Debug>(client: A, dnat: bool) {
        let world = world(1 << 10);
        let old = old(client, 1, dnat);
        assert_eq!(bring(&world, &old), Entered::Now);
        assert_eq!(bring(&world, &old), Entered::Before, "once is enough");
        assert_eq!(live::<A>(&world), 2);
        let table = A::view(&world);
        let (key, forward, _) = old;
        let to = forward.translated(protocol::TCP);
        let (index, meta) = table.find(&table.0.homes(&key), &key).unwrap();
        let (peer, peer_meta) = table.find(&table.0.homes(&to.reversed()), &to.reversed()).unwrap();
        let (line, other) = (table.0.at(index).unwrap(), table.0.at(peer).unwrap());
        assert_eq!((line.peer(), other.peer()), (peer, index));
        assert_eq!((meta.state(), meta.is_reverse(), meta.is_dnat()), (State::Established, false, dnat));
        assert_eq!((peer_meta.state(), peer_meta.is_reverse()), (State::Established, true));
        assert_eq!(A::translated(other, peer_meta, &table.0.numbers), Some(key.reversed()));
        assert_eq!(other.hop(), Hop::new(INTERFACE, &CLIENT_HOP.destination));
        assert_eq!((line.created(), line.last_seen(), other.last_seen()), (9_000, 9_990, 9_990));
        let (told, _) = world.list(&ConnectionFilter::default(), 1);
        assert_eq!(told[0].backend.port(), 8080);
    }

    #[test]
    fn connections_are_what_they_were_in_both_families_and_modes() {
        for dnat in [false, true] {
            check([198, 51, 100, 7], dnat);
            check([0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7], dnat);
        }
    }

    #[test]
    fn states_are_told_in_this_versions_words() {
        let table = [
            (0, State::Answered, Entered::Now),
            (1, State::Established, Entered::Now),
            (2, State::HalfClosed, Entered::Now),
            (3, State::Empty, Entered::Before),
            (4, State::Empty, Entered::Before),
        ];
        for (number, state, entered) in table {
            let world = world(1 << 10);
            let old = old([198, 51, 100, 7], number, false);
            assert_eq!(bring(&world, &old), entered, "{number}");
            let table = world.v4();
            let found = table.find(&table.0.homes(&old.0), &old.0);
            assert_eq!(found.map_or(State::Empty, |(_, meta)| meta.state()), state);
            if let Some((index, meta)) = found {
                let line = table.0.at(index).unwrap();
                assert_eq!((meta.fins(), line.opening(), line.acknowledgment()), (0b10, 77, 77));
            }
        }
        let world = world(1 << 10);
        let mut silent = old([198, 51, 100, 7], 0, false);
        silent.2.synack_seen = 0;
        assert_eq!(bring(&world, &silent), Entered::Now);
        assert_eq!(world.list(&ConnectionFilter::default(), 1).0[0].state, "unanswered");
    }

    #[test]
    fn what_cannot_be_brought_over_leaves_nothing_behind() {
        let world = world(1 << 10);
        let mut gone = old([198, 51, 100, 7], 1, false);
        gone.1.client_hop.ifindex = 6;
        assert_eq!(bring(&world, &gone), Entered::Not, "by an interface that is gone");
        let client = [0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        let mut other = old(client, 1, false);
        (other.1.backend, other.2.backend) = (2, 2);
        assert_eq!(bring(&world, &other), Entered::Not, "the number is another address's");
        let first = old([198, 51, 100, 7], 1, false);
        assert_eq!(bring(&world, &first), Entered::Now);
        assert_eq!(bring(&world, &old([198, 51, 100, 8], 1, false)), Entered::Not, "the port is taken");
        assert_eq!((live::<[u8; 4]>(&world), live::<[u8; 16]>(&world)), (2, 0));
    }
}
