//! The host's own sockets: a packet of theirs is the host's, though it looks like one that nobody asked for. The balancer's
//! only address may be the VIP, and its checks and log-ins come from it.

use aya_ebpf::bindings::bpf_sock_tuple;
use aya_ebpf::helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use lb_common::abi::{Address, FlowKey};
use lb_common::wire::protocol;

use crate::context::Frame;

/// The namespace of the interface that the packet came in by (`BPF_F_CURRENT_NETNS`, linux/bpf.h).
const CURRENT_NETNS: u64 = u64::MAX;
/// linux/tcp_states.h.
const ESTABLISHED: u32 = 1;
const LISTEN: u32 = 10;

/// Whether the packet is for a socket of the host. TCP: one that knows the packet's sender, not one that listens. UDP: one that is
/// connected to the sender or, with `any`, one that would take datagrams from everybody.
#[inline(always)]
pub fn want<A: Address>(frame: &Frame, key: &FlowKey<A>, any: bool) -> bool {
    // Both addresses and both ports, in this order: the tuple begins as the key does (linux/bpf.h, `bpf_sock_tuple`).
    let tuple = (&raw const *key).cast_mut().cast::<bpf_sock_tuple>();
    let size = 2 * size_of::<A>() as u32 + 4;
    // SAFETY: the key has at least that many bytes and outlives the call; a socket that is found is released here.
    unsafe {
        if key.protocol == protocol::TCP {
            let socket = bpf_skc_lookup_tcp(frame.context().cast(), tuple, size, CURRENT_NETNS, 0);
            if socket.is_null() {
                return false;
            }
            let state = (&raw const (*socket).state).read_volatile();
            bpf_sk_release(socket.cast());
            return state != LISTEN;
        }
        let socket = bpf_sk_lookup_udp(frame.context().cast(), tuple, size, CURRENT_NETNS, 0);
        if socket.is_null() {
            return false;
        }
        let state = (&raw const (*socket).state).read_volatile();
        bpf_sk_release(socket.cast());
        any || state == ESTABLISHED
    }
}
