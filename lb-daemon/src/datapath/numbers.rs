//! What the numbers that lines bear stand for, read from the maps `BACKENDS` and `VIPS`. Only the daemon writes those.

use std::cell::OnceCell;
use std::mem::offset_of;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use lb_common::abi::{BackendEntry, TimeoutTicks};
use lb_common::table::{Book, Meta};

/// Words of a backend's entry.
const ENTRY: usize = size_of::<BackendEntry>() / 8;
const TIMEOUTS: usize = offset_of!(BackendEntry, timeouts) / 8;
const ADDRESS_V4: usize = offset_of!(BackendEntry, address_v4) / 8;
const ADDRESS_V6: usize = offset_of!(BackendEntry, address_v6) / 8;

// Time-outs and farm are read in three words.
const _: () = assert!(offset_of!(BackendEntry, timeouts).is_multiple_of(8));
const _: () = assert!(offset_of!(BackendEntry, address_v6).is_multiple_of(8));
const _: () = assert!(offset_of!(BackendEntry, address_v4).is_multiple_of(8));
const _: () = assert!(offset_of!(BackendEntry, farm) == offset_of!(BackendEntry, timeouts) + 20);
const _: () = assert!(offset_of!(BackendEntry, flags) == offset_of!(BackendEntry, farm) + 2);
const _: () = assert!(offset_of!(TimeoutTicks, syn) == 0 && offset_of!(TimeoutTicks, established) == 4);
const _: () = assert!(offset_of!(TimeoutTicks, half_closed) == 8 && offset_of!(TimeoutTicks, fin) == 12);
const _: () = assert!(offset_of!(TimeoutTicks, udp) == 16);

/// Both maps, for one look at the table. Addresses are copied once, when the first line of IPv6 asks for one: a number's address
/// does not change while a line bears it.
pub struct Numbers<'a> {
    backends: &'a [AtomicU64],
    vips: &'a [AtomicU64],
    addresses: OnceCell<Addresses>,
}

struct Addresses {
    backends: Vec<[u8; 16]>,
    vips: Vec<[u8; 16]>,
}

impl<'a> Numbers<'a> {
    pub fn new(backends: &'a [AtomicU64], vips: &'a [AtomicU64]) -> Self {
        Self { backends, vips, addresses: OnceCell::new() }
    }

    /// How long a backend's connections may be idle, and its farm's number. Of a number that nobody has: no time at all.
    pub fn settings(&self, backend: u16) -> (TimeoutTicks, u16) {
        let at = usize::from(backend) * ENTRY + TIMEOUTS;
        let Some([a, b, c]) = self.backends.get(at..at + 3) else { return (TimeoutTicks::default(), 0) };
        let bytes = |word: &AtomicU64| word.load(Ordering::Relaxed).to_ne_bytes();
        let ([a0, a1], [b0, b1]) = (split(bytes(a)), split(bytes(b)));
        let [c0, c1] = split(bytes(c));
        let [f0, f1, ..] = c1.to_ne_bytes();
        let timeouts = TimeoutTicks { syn: a0, established: a1, half_closed: b0, fin: b1, udp: c0 };
        (timeouts, u16::from_ne_bytes([f0, f1]))
    }

    /// `BACKEND_*`; none of a number that nobody has.
    pub fn flags(&self, backend: u16) -> u16 {
        let word = self.backends.get(usize::from(backend) * ENTRY + TIMEOUTS + 2);
        let [.., a, b] = word.map_or([0; 8], |word| word.load(Ordering::Relaxed).to_ne_bytes());
        u16::from_ne_bytes([a, b])
    }

    /// How many ticks a line of `backend` may be idle.
    pub fn timeout(&self, backend: u16, meta: Meta) -> u32 {
        self.settings(backend).0.of(meta)
    }

    /// A backend's own address, of IPv4 if it has one and `v4` is preferred.
    pub fn backend_address(&self, backend: u16, v4: bool) -> Option<IpAddr> {
        let entry = self.backends.chunks(ENTRY).nth(usize::from(backend))?;
        let [a, b, c, d, ..] = entry.get(ADDRESS_V4)?.load(Ordering::Relaxed).to_ne_bytes();
        let four = Some([a, b, c, d]).filter(|four| *four != [0; 4]).map(IpAddr::from);
        let six = Some(address(entry.get(ADDRESS_V6..)?)).filter(|six| *six != [0; 16]).map(IpAddr::from);
        if v4 { four.or(six) } else { six.or(four) }
    }

    fn addresses(&self) -> &Addresses {
        self.addresses.get_or_init(|| Addresses {
            backends: self.backends.chunks(ENTRY).map(|entry| address(&entry[ADDRESS_V6..])).collect(),
            vips: self.vips.chunks(2).map(address).collect(),
        })
    }
}

impl Book for Numbers<'_> {
    fn vip(&self, number: u16) -> Option<&[u8; 16]> {
        self.addresses().vips.get(usize::from(number))
    }
    fn backend(&self, number: u16) -> Option<&[u8; 16]> {
        self.addresses().backends.get(usize::from(number))
    }
}

/// A word's two halves, in the order of memory.
fn split([a, b, c, d, e, f, g, h]: [u8; 8]) -> [u32; 2] {
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

fn address(words: &[AtomicU64]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, word) in bytes.chunks_mut(8).zip(words) {
        to.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    bytes
}
