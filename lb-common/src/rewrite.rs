//! Edits on header views: what a connection does to each of its packets. Knows no context and no maps.

use crate::abi::{Address, FlowKey, Port};
use crate::checksum::Delta;
use crate::wire::{IpHeader, Tcp, Udp};

/// New addresses and ports, and what they do to the checksums: computed once, when a connection opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Translation<A> {
    pub src: A,
    pub dst: A,
    pub src_port: Port,
    pub dst_port: Port,
    addresses: Delta,
    /// Of addresses (they are in the pseudo-header) and ports.
    transport: Delta,
}

impl<A: Address> Translation<A> {
    /// Makes this what turns packets of `from` into packets of `to`, in place: for a BPF program, whose stack is short.
    #[inline(always)]
    pub fn set(&mut self, from: &FlowKey<A>, to: &FlowKey<A>) {
        self.addresses = A::delta(&from.src, &to.src).and(A::delta(&from.dst, &to.dst));
        self.src = to.src;
        self.dst = to.dst;
        self.src_port = to.src_port;
        self.dst_port = to.dst_port;
        let ports =
            Delta::replace(&from.src_port, &to.src_port).and(Delta::replace(&from.dst_port, &to.dst_port));
        self.transport = self.addresses.and(ports);
    }

    /// The same, for packets that arrive with the destination port `new` in place of `old`.
    #[inline(always)]
    pub fn arriving_at(&mut self, old: Port, new: Port) {
        self.transport = self.transport.and(Delta::replace(&new, &old));
    }

    #[inline(always)]
    pub fn ip<H: IpHeader<Addr = A>>(&self, header: &mut H) {
        header.redirect(&self.src, &self.dst, self.addresses);
    }
    #[inline(always)]
    pub fn tcp(&self, header: &mut Tcp) {
        header.redirect(self.src_port, self.dst_port, self.transport);
    }
    #[inline(always)]
    pub fn udp(&self, header: &mut Udp) {
        header.redirect(self.src_port, self.dst_port, self.transport);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_port_is_as_good_as_a_new_translation() {
        let flow = |port: u16| FlowKey::new([10, 0, 0, 11], [192, 0, 2, 10], [0, 80], port.to_be_bytes(), 6);
        let to = FlowKey::new([192, 0, 2, 10], [198, 51, 100, 7], [0, 80], 40000u16.to_be_bytes(), 6);
        let new = |from: &FlowKey<[u8; 4]>| {
            let mut translation = Translation {
                src: [0; 4],
                dst: [0; 4],
                src_port: [0; 2],
                dst_port: [0; 2],
                addresses: Delta::ZERO,
                transport: Delta::ZERO,
            };
            translation.set(from, &to);
            translation
        };
        let mut translation = new(&flow(40000));
        translation.arriving_at(40000u16.to_be_bytes(), 1024u16.to_be_bytes());
        let fresh = new(&flow(1024));
        for field in 0..=u16::MAX {
            let field = field.to_be_bytes();
            let (a, b) = (translation.transport.apply(field), fresh.transport.apply(field));
            assert!(a == b || (a == [0, 0] && b == [255, 255]) || (a == [255, 255] && b == [0, 0]));
        }
    }
}
