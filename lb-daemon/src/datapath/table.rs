//! A hash map of the kernel read in batches (`BPF_MAP_LOOKUP_BATCH`) and deleted from by several holders at once, which aya's
//! own type does not offer. A sweep over a million connections, one system call each, would take seconds.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::Pod;
use aya::maps::MapData;

/// Entries asked for at once. No bucket of a map holds as many.
const BATCH: u32 = 4096;

// Commands of bpf(2), linux/bpf.h.
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// Flag of an update: the key must be there.
const BPF_EXIST: u64 = 2;

/// The part of `union bpf_attr` that commands on one element use (linux/bpf.h).
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part that batch commands use.
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A hash map from `K` to `V`.
pub(super) struct Table<K, V> {
    map: MapData,
    _entry: PhantomData<fn(K) -> V>,
}

impl<K: Pod, V: Pod> Table<K, V> {
    /// Takes a map over.
    ///
    /// # Errors
    ///
    /// If its keys or values are not of the sizes of `K` and `V`.
    pub fn new(map: MapData) -> anyhow::Result<Self> {
        let info = map.info()?;
        let sizes = (info.key_size() as usize, info.value_size() as usize);
        anyhow::ensure!(
            sizes == (size_of::<K>(), size_of::<V>()),
            "the pinned connection table has another layout than this version's; stop the other version first"
        );
        Ok(Self { map, _entry: PhantomData })
    }

    /// The value of `key`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = std::mem::MaybeUninit::<V>::uninit();
        match self.element(BPF_MAP_LOOKUP_ELEM, key, value.as_mut_ptr() as u64, 0) {
            // SAFETY: the kernel has written a value of the map's size, which is `V`'s, and any bit pattern is a valid `Pod`.
            Ok(()) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the value of `key`; whether it was there.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn replace(&self, key: &K, value: &V) -> io::Result<bool> {
        match self.element(BPF_MAP_UPDATE_ELEM, key, std::ptr::from_ref(value) as u64, BPF_EXIST) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes `key`; whether it was there.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn remove(&self, key: &K) -> io::Result<bool> {
        match self.element(BPF_MAP_DELETE_ELEM, key, 0, 0) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn element(&self, command: libc::c_long, key: &K, value: u64, flags: u64) -> io::Result<()> {
        let mut attr = ElementAttr {
            map_fd: self.raw_fd(),
            padding: 0,
            key: std::ptr::from_ref(key) as u64,
            value,
            flags,
        };
        // SAFETY: the attribute is as linux/bpf.h has it for these commands; its pointers lead to a key and, where the command
        // takes or writes one, to a value or room for it, of the map's sizes (checked in `new`), and outlive the call.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<ElementAttr>()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn raw_fd(&self) -> u32 {
        // A descriptor is never negative.
        self.map.fd().as_fd().as_raw_fd().unsigned_abs()
    }

    /// Calls `visit` with every entry, in no order. Entries that come or go meanwhile may be missed or seen.
    ///
    /// # Errors
    ///
    /// If the kernel refuses; what was visited by then stays visited.
    pub fn for_each(&self, mut visit: impl FnMut(&K, &V)) -> io::Result<()> {
        let mut keys: Vec<K> = Vec::with_capacity(BATCH as usize);
        let mut values: Vec<V> = Vec::with_capacity(BATCH as usize);
        let mut position: Option<u32> = None;
        loop {
            let mut next = 0u32;
            let mut attr = BatchAttr {
                in_batch: position.as_ref().map_or(0, |position| std::ptr::from_ref(position) as u64),
                out_batch: &raw mut next as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: BATCH,
                map_fd: self.raw_fd(),
                elem_flags: 0,
                flags: 0,
            };
            // SAFETY: the attribute is as linux/bpf.h has it for this command; its pointers lead to a u32 each and to room for
            // `BATCH` keys and values of the map's sizes (checked in `new`), and outlive the call.
            let result = unsafe {
                libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attr, size_of::<BatchAttr>())
            };
            let error = io::Error::last_os_error();
            // The last batch, often a short one, comes with ENOENT.
            let last = result < 0 && error.raw_os_error() == Some(libc::ENOENT);
            if result < 0 && !last {
                return Err(error);
            }
            let count = attr.count.min(BATCH) as usize;
            // SAFETY: the kernel has written that many keys and values, and any bit pattern is a valid `Pod`.
            unsafe {
                keys.set_len(count);
                values.set_len(count);
            }
            keys.iter().zip(&values).for_each(|(key, value)| visit(key, value));
            if last {
                return Ok(());
            }
            position = Some(next);
            keys.clear();
            values.clear();
        }
    }
}
