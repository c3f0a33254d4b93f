//! The connections that the scenes are about. All have the same first homes, with room for two lines each.

use crate::deeds::{Connection, Deed};
use crate::memory::Flow;

/// The first two find room at their first homes, the third and the fourth at their second homes.
pub const fn connection(number: u8) -> Connection {
    Connection {
        flow: Flow { number, first: 0, second: 4 },
        back: Flow { number: 0x80 + number, first: 2, second: 6 },
        number: number as u32,
    }
}

/// A connection whose second homes are its first: it must take somebody's line where there is none.
pub const fn hemmed_in(number: u8) -> Connection {
    Connection {
        flow: Flow { number, first: 0, second: 0 },
        back: Flow { number: 0x80 + number, first: 2, second: 2 },
        number: number as u32,
    }
}

/// Another connection that is given the source port of the first.
pub const fn with_port_of_first(number: u8) -> Connection {
    Connection { back: connection(1).back, ..connection(number) }
}

/// The first so many are open.
pub fn open(number: u8) -> Vec<Deed> {
    (1..=number).map(|number| Deed::Open(connection(number))).collect()
}
