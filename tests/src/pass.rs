//! The smallest XDP program, which passes everything, for the far ends of the balancer's links.
//!
//! A virtual link hands frames that were sent by XDP to its other end only if that end has an XDP program. (GRO alone is
//! enough for `XDP_REDIRECT`; with `XDP_TX` the frames are queued there, and nobody is woken to take them:
//! `veth_xdp_flush` of drivers/net/veth.c looks for a program.) A network card needs nothing of the kind.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};

/// From `include/uapi/linux/bpf.h`.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;

/// `struct bpf_insn`, twice: `r0 = XDP_PASS; exit`.
static PASS: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// The first fields of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes what is left out as zero.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    program: u64,
    license: u64,
}

/// `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct Link {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches the program to an interface of the network that this thread is in, until the returned link is dropped.
pub fn attach(interface: &str) -> Result<OwnedFd> {
    let load = Load {
        kind: BPF_PROG_TYPE_XDP,
        instructions: PASS.len() as u32,
        program: PASS.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
    };
    let program = bpf(BPF_PROG_LOAD, &load).context("loading a program that passes everything")?;
    let index = nix::net::if_::if_nametoindex(interface).with_context(|| interface.to_owned())?;
    let program = u32::try_from(program.as_raw_fd()).map(|fd| (fd, program))?;
    let link = Link { program: program.0, interface: index, attach_type: BPF_XDP, flags: 0 };
    bpf(BPF_LINK_CREATE, &link).with_context(|| format!("attaching a program to {interface}"))
}

/// Calls bpf(2) for a command that answers with a file descriptor.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: both callers pass attributes laid out for their command, and what these point to is static.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    match i32::try_from(answer) {
        // SAFETY: the kernel has just made this descriptor, for this call alone.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
