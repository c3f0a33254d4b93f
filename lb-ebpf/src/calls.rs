//! Operations on the table that are functions of their own for the verifier: it checks a global function once (kernel 5.6),
//! for all who call it, and not on every way that leads to it. Arguments and results are plain numbers and pointers to
//! structures of known size; a null pointer is refused, as the verifier demands.

use lb_common::abi::FlowKey;
use lb_common::table::{self, Claim, Homes, Line as _, Meta, State, Table, WINDOW};

use crate::explain;
use crate::family::{Family, V4, V6};
use crate::line::Connections;
use crate::maps;

/// No line.
pub const NOWHERE: u64 = u64::MAX;

const TAKEN: u64 = 1 << 32;
const FULL: u64 = 2 << 32;
const EVICTED: u64 = 1 << 40;

/// What [`Family::claim`] has come to, out of the number that a function can return.
pub enum Claimed {
    /// The number of the line, and whether somebody had it before.
    At(u32, bool),
    Taken,
    Full,
}

impl Claimed {
    #[inline(always)]
    pub fn of(number: u64) -> Self {
        match number & 0xff_0000_0000 {
            TAKEN => Self::Taken,
            FULL => Self::Full,
            _ => Self::At(number as u32, number & EVICTED != 0),
        }
    }
}

/// Operations by family; each is a global function.
pub trait Calls: Family {
    /// The number of the line that holds a flow, or [`NOWHERE`].
    fn find(key: &FlowKey<Self::Addr>, homes: &Homes) -> u64;
    /// See [`Claimed::of`].
    fn claim(key: &FlowKey<Self::Addr>, homes: &Homes, now: u32, policy: u32) -> u64;
    /// The line's first word by now, or 0.
    fn take_over(index: u32, meta: u64) -> u64;
    /// Frees both lines of a connection if the one is as it was.
    fn free_pair(index: u32, meta: u64) -> u64;
    /// See [`Lines::search`](lb_common::table::Lines::search).
    fn search(home: u32, now: u32, policy: u32) -> u64;
    /// See [`Lines::appraise`](lb_common::table::Lines::appraise).
    fn appraise(index: u32, now: u32, policy: u32) -> u64;
    /// See [`Lines::is_taken`](lb_common::table::Lines::is_taken).
    fn is_taken(key: &FlowKey<Self::Addr>, homes: &Homes, own: u32) -> u64;
    /// See [`Lines::unlink`](lb_common::table::Lines::unlink).
    fn unlink(index: u32, meta: u64) -> u64;
    /// Gives back a line that is claimed for the flow of these homes.
    fn give_back(index: u32, homes: &Homes) -> u64;
    /// Whether a connection has been idle for too long.
    fn expired(index: u32, now: u32) -> u64;
}

#[inline(always)]
fn of<F: Calls>() -> Table<Connections<F>> {
    Table(Connections::new())
}

/// Without notes, for which there is no stack left. Who copies a line for an instance that explains copies its other direction, too.
#[inline(always)]
fn quiet<F: Calls>() -> Table<Connections<F, false>> {
    Table(Connections::quiet())
}

#[inline(always)]
fn find<F: Calls>(key: *const FlowKey<F::Addr>, homes: *const Homes) -> u64 {
    // SAFETY: not null, or refused; the caller's values outlive the call.
    let (Some(key), Some(homes)) = (unsafe { key.as_ref() }, unsafe { homes.as_ref() }) else {
        return NOWHERE;
    };
    if explain::is_on() {
        // What is looked at below takes no notes. Both windows, then, beforehand.
        for i in 0..2 * WINDOW {
            let home = if i < WINDOW { homes.first } else { homes.second };
            let line = F::line_at(home.wrapping_add(i & (WINDOW - 1)) & maps::lines_mask());
            explain::found(line, F::LINES, home);
        }
    }
    quiet::<F>().find(homes, key).map_or(NOWHERE, |(index, _)| u64::from(index))
}

#[inline(always)]
fn claim<F: Calls>(key: *const FlowKey<F::Addr>, homes: *const Homes, now: u32, policy: u32) -> u64 {
    // SAFETY: as above.
    let (Some(key), Some(homes)) = (unsafe { key.as_ref() }, unsafe { homes.as_ref() }) else { return FULL };
    match of::<F>().claim(homes, key, now, policy) {
        Claim::At { index, evicted, .. } => u64::from(index) | if evicted { EVICTED } else { 0 },
        Claim::Taken => TAKEN,
        Claim::Full => FULL,
    }
}

#[inline(always)]
fn is_taken<F: Calls>(key: *const FlowKey<F::Addr>, homes: *const Homes, own: u32) -> u64 {
    // SAFETY: as above.
    let (Some(key), Some(homes)) = (unsafe { key.as_ref() }, unsafe { homes.as_ref() }) else { return 1 };
    u64::from(table::is_taken(&Connections::<F>::new(), homes, key, own))
}

#[inline(always)]
fn give_back<F: Calls>(index: u32, homes: *const Homes) -> u64 {
    // SAFETY: as above.
    let (Some(line), Some(homes)) = (F::line(index), unsafe { homes.as_ref() }) else { return 0 };
    let meta = line.meta();
    if meta.is(State::Claimed) {
        of::<F>().give_back(index, meta, homes);
    }
    0
}

#[inline(always)]
fn expired<F: Calls>(index: u32, now: u32) -> u64 {
    let Some(line) = F::line(index) else { return 1 };
    u64::from(of::<F>().expired(index, line, line.meta(), now))
}

macro_rules! calls {
    ($family:ty, $address:ty, $find:ident, $claim:ident, $take_over:ident, $free_pair:ident, $search:ident, $appraise:ident, $is_taken:ident, $unlink:ident, $give_back:ident, $expired:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $find(key: *const FlowKey<$address>, homes: *const Homes) -> u64 {
            find::<$family>(key, homes)
        }
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $claim(
            key: *const FlowKey<$address>,
            homes: *const Homes,
            now: u32,
            policy: u32,
        ) -> u64 {
            claim::<$family>(key, homes, now, policy)
        }
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $take_over(index: u32, meta: u64) -> u64 {
            of::<$family>().take_over(index, Meta(meta)).map_or(0, |meta| meta.0)
        }
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $free_pair(index: u32, meta: u64) -> u64 {
            u64::from(quiet::<$family>().free_pair(index, Meta(meta)))
        }
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $search(home: u32, now: u32, policy: u32) -> u64 {
            table::search(&Connections::<$family>::new(), home, now, policy)
        }
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $appraise(index: u32, now: u32, policy: u32) -> u64 {
            u64::from(table::appraise(&Connections::<$family>::new(), index, now, policy))
        }
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $is_taken(key: *const FlowKey<$address>, homes: *const Homes, own: u32) -> u64 {
            is_taken::<$family>(key, homes, own)
        }
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $unlink(index: u32, meta: u64) -> u64 {
            table::unlink(&Connections::<$family>::new(), index, Meta(meta));
            0
        }
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $give_back(index: u32, homes: *const Homes) -> u64 {
            give_back::<$family>(index, homes)
        }
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $expired(index: u32, now: u32) -> u64 {
            expired::<$family>(index, now)
        }
        impl Calls for $family {
            #[inline(always)]
            fn find(key: &FlowKey<$address>, homes: &Homes) -> u64 {
                $find(key, homes)
            }
            #[inline(always)]
            fn claim(key: &FlowKey<$address>, homes: &Homes, now: u32, policy: u32) -> u64 {
                $claim(key, homes, now, policy)
            }
            #[inline(always)]
            fn take_over(index: u32, meta: u64) -> u64 {
                $take_over(index, meta)
            }
            #[inline(always)]
            fn free_pair(index: u32, meta: u64) -> u64 {
                $free_pair(index, meta)
            }
            #[inline(always)]
            fn search(home: u32, now: u32, policy: u32) -> u64 {
                $search(home, now, policy)
            }
            #[inline(always)]
            fn appraise(index: u32, now: u32, policy: u32) -> u64 {
                $appraise(index, now, policy)
            }
            #[inline(always)]
            fn is_taken(key: &FlowKey<$address>, homes: &Homes, own: u32) -> u64 {
                $is_taken(key, homes, own)
            }
            #[inline(always)]
            fn unlink(index: u32, meta: u64) -> u64 {
                $unlink(index, meta)
            }
            #[inline(always)]
            fn give_back(index: u32, homes: &Homes) -> u64 {
                $give_back(index, homes)
            }
            #[inline(always)]
            fn expired(index: u32, now: u32) -> u64 {
                $expired(index, now)
            }
        }
    };
}

calls!(
    V4,
    [u8; 4],
    find_v4,
    claim_v4,
    take_over_v4,
    free_pair_v4,
    search_v4,
    appraise_v4,
    is_taken_v4,
    unlink_v4,
    give_back_v4,
    expired_v4
);
calls!(
    V6,
    [u8; 16],
    find_v6,
    claim_v6,
    take_over_v6,
    free_pair_v6,
    search_v6,
    appraise_v6,
    is_taken_v6,
    unlink_v6,
    give_back_v6,
    expired_v6
);
