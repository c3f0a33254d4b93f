//! What every packet needs to know and the daemon alone decides: the time, the seeds, the interfaces, what a newcomer may
//! take. One value, mapped into the daemon, so that it writes one word at a time.

use super::FARMS_MAX;
use crate::wire::eth::Mac;

/// An interface that the program is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Interface {
    /// 0: none.
    pub ifindex: u32,
    /// Its own hardware address: frames to others are not ours.
    pub mac: Mac,
    /// Bytes of the largest packet that it carries; 0: not known.
    pub mtu: u16,
    pub reserved: [u16; 2],
}

/// Places for interfaces; their numbers are below this.
pub const INTERFACES_MAX: u32 = 64;

/// The number of the interface `ifindex`: its place in [`Control::interfaces`]. `factor` is one that gives each attached
/// interface a place of its own.
#[inline(always)]
pub const fn interface_number(ifindex: u32, factor: u32) -> u32 {
    ifindex.wrapping_mul(factor) >> 26
}

/// A newcomer takes an old unanswered connection's home line before it takes an empty one: there are too many of those.
pub const POLICY_UNANSWERED_FIRST: u32 = 1;
/// A newcomer may take the line of a TCP handshake that the backend has answered: there are too many of those.
pub const POLICY_TAKE_ANSWERED_TCP: u32 = 2;
/// The same for datagrams that were answered once.
pub const POLICY_TAKE_ANSWERED_UDP: u32 = 4;
/// The same for senders of datagrams that nobody answers.
pub const POLICY_TAKE_ONE_SIDED: u32 = 8;
/// UDP has its share of the table: its newcomers take no empty line.
pub const POLICY_UDP_FULL: u32 = 16;
/// Given to a newcomer whose farm, or protocol, has its share: it takes no empty line.
pub const POLICY_NO_EMPTY: u32 = 32;
/// Given to a newcomer of UDP if that has its share: he takes nothing from TCP.
pub const POLICY_UDP_ONLY: u32 = 64;

/// Some farms have so many half-open connections that their newcomers are [challenged](crate::challenge);
/// [`Control::farms_flooded`] says which.
pub const POLICY_CHALLENGE: u32 = 128;

/// A bit for each farm, by number.
pub type FarmSet = [u64; FARMS_MAX as usize / 64];

#[inline(always)]
pub fn has_farm(set: &FarmSet, farm: u16) -> bool {
    // The mask says to the verifier what the compiler knows.
    set.get((farm as usize / 64) & (FARMS_MAX as usize / 64 - 1))
        .is_some_and(|word| word >> (farm % 64) & 1 != 0)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// The time in ticks. It counts on only while a daemon runs.
    pub now: u32,
    /// See [`interface_number`].
    pub interface_factor: u32,
    /// `POLICY_*` for the table of IPv4 and for that of IPv6.
    pub policy: [u32; 2],
    /// Answers to packets that are refused which a CPU may send in a tick.
    pub refusals: u32,
    /// Bytes of the largest frame that every interface carries, as far as is known; 0: it is not. See [`Control::is_large`].
    pub largest: u32,
    /// Secrets of the connection tables' hash.
    pub table_seed: [u64; 2],
    /// The secret of the hash that picks a backend, the same on all nodes of an installation.
    pub flow_seed: u64,
    /// Farms that have their share of the one table and of the other, a bit each.
    pub farms_full: [FarmSet; 2],
    /// Farms whose newcomers by TCP are challenged, a bit each.
    pub farms_flooded: [FarmSet; 2],
    /// The secret of challenges.
    pub challenge_seed: [u64; 2],
    pub interfaces: [Interface; INTERFACES_MAX as usize],
}

impl Control {
    /// Whether there may be an interface that a frame of so many bytes is too large for.
    #[inline(always)]
    pub const fn is_large(&self, bytes: u32) -> bool {
        // Nothing is larger than what is not known.
        bytes.wrapping_sub(1) > self.largest.wrapping_sub(1)
    }
}

const _: () = assert!(size_of::<Interface>() == 16 && size_of::<Control>() == 48 + 2 * 128 + 16 + 1024);

#[cfg(feature = "user")]
// SAFETY: integers and bytes, any bit pattern valid, no padding (6*4, 3*8, 2*128, 2*8, 64*(4+6+6)).
unsafe impl aya::Pod for Control {}
