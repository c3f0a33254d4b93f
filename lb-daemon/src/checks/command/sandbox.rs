//! What a command may do, and the two processes that see to it that nothing is left of it.
//!
//! ```text
//! daemon --- warden ---+--- reaper     (process 1 of a PID namespace of its own)
//!                      +--- command    (in that namespace, and in a user namespace of its own, with all that it forks)
//! ```
//!
//! The *warden* waits for the command's end, or for the end of the daemon's interest in it: the closing of a pipe, the
//! lifeline, which the kernel sees to even when the daemon is killed. Then it kills the *reaper*, with which the kernel
//! kills whatever is in the namespace: no double fork, new session or race of forks gets out of it. Last it ends as
//! the command did, so that its own status is the command's. Both are forks of the daemon that never run another
//! program, stay root, out of the command's sight and reach, and hold no descriptor but the lifeline.
//!
//! Everything here happens between fork and exec, in a child of a process with many threads: system calls alone, no
//! allocation and no lock.

use std::io;
use std::os::fd::RawFd;
use std::ptr;

use libc::{c_int, c_long, c_ulong, pid_t};
use seccompiler::BpfProgram;
use tokio::process::Command;

use super::namespace::Meeting;

/// The most memory that each process of a command may map.
const ADDRESS_SPACE: libc::rlim_t = 512 << 20;
const OPEN_FILES: libc::rlim_t = 256;
/// The most processes of a command, where it has a user namespace of its own: 64 commands that all fork without end are far
/// fewer than hurt the host.
const PROCESSES: libc::rlim_t = 256;
/// Else: of its user on the whole host.
const PROCESSES_OF_USER: libc::rlim_t = 2048;

/// Who the command is and what it may spend.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sandbox {
    pub uid: libc::uid_t,
    pub gid: libc::gid_t,
    /// Seconds of processor time for each process.
    pub cpu: u64,
    /// What it may not ask the kernel for.
    pub filters: &'static [BpfProgram; 2],
}

/// Makes `command` run in `sandbox`, for as long as the other end of the pipe `lifeline` is open.
pub(super) fn confine(command: &mut Command, sandbox: Sandbox, lifeline: RawFd) {
    // SAFETY: the closure owns plain numbers, and calls nothing but what the module promises.
    unsafe { command.pre_exec(move || sandbox.enter(lifeline)) };
}

impl Sandbox {
    /// Returns in the command's process alone; an error in the warden's ends it before there is a command.
    fn enter(self, lifeline: RawFd) -> io::Result<()> {
        // SAFETY: system calls on this process and its own children; the pointers are to locals that outlive the calls.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            ok(libc::sigprocmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut()))?;
            ok(libc::setsid())?;
            // What these processes share with the daemon is not for a core file.
            ok(libc::prctl(libc::PR_SET_DUMPABLE, 0))?;
            ok(libc::unshare(libc::CLONE_NEWPID))?;
            let reaper = ok(libc::fork())?;
            if reaper == 0 {
                reap();
            }
            let meeting = Meeting::new()?;
            match ok(libc::fork()) {
                Ok(0) => self.become_command(&meeting),
                Ok(command) => {
                    meeting.attend(command, self.uid, self.gid);
                    guard(reaper, command, lifeline)
                }
                Err(error) => {
                    libc::kill(reaper, libc::SIGKILL);
                    libc::waitpid(reaper, ptr::null_mut(), 0);
                    Err(error)
                }
            }
        }
    }

    /// Gives up everything.
    ///
    /// # Safety
    /// Only in a process that is about to run another program.
    unsafe fn become_command(self, meeting: &Meeting) -> io::Result<()> {
        // SAFETY: system calls on this process; the pointers are to locals that outlive the calls, or null where that
        // is allowed. Raw calls where the C library would want to tell threads that do not exist in this process.
        unsafe {
            ok(libc::setsid())?;
            defaults_for_signals()?;
            libc::umask(0o022);
            limit(libc::RLIMIT_AS as c_int, ADDRESS_SPACE)?;
            limit(libc::RLIMIT_CPU as c_int, self.cpu)?;
            limit(libc::RLIMIT_NOFILE as c_int, OPEN_FILES)?;
            limit(libc::RLIMIT_CORE as c_int, 0)?;
            let processes = if meeting.enter()? { PROCESSES } else { PROCESSES_OF_USER };
            limit(libc::RLIMIT_NPROC as c_int, processes)?;

            let zero: c_ulong = 0;
            ok(libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong,
                zero,
                zero,
                zero,
            ))?;
            let mut capability: c_ulong = 0;
            // EINVAL: the kernel knows no further one.
            while libc::prctl(libc::PR_CAPBSET_READ, capability, zero, zero, zero) >= 0 {
                ok(libc::prctl(libc::PR_CAPBSET_DROP, capability, zero, zero, zero))?;
                capability += 1;
            }
            done(libc::syscall(libc::SYS_setgroups, 0, ptr::null::<libc::gid_t>()))?;
            done(libc::syscall(libc::SYS_setresgid, self.gid, self.gid, self.gid))?;
            done(libc::syscall(libc::SYS_setresuid, self.uid, self.uid, self.uid))?;
            let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
            let none = [CapabilityData::default(); 2];
            done(libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()))?;
            ok(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as c_ulong, zero, zero, zero))?;
            for filter in self.filters {
                let program = libc::sock_fprog {
                    len: u16::try_from(filter.len()).unwrap_or(0),
                    filter: filter.as_ptr().cast_mut().cast(),
                };
                done(libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program))?;
            }

            // Marked rather than closed: by one of them the daemon learns whether the program could be run.
            done(libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC))
        }
    }
}

/// `_LINUX_CAPABILITY_VERSION_3` and the structures of `linux/capability.h`.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

pub(super) fn ok(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn done(result: c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lowers a limit, never raises it.
///
/// # Safety
/// Only in a process that is about to run another program.
unsafe fn limit(resource: c_int, most: libc::rlim_t) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is a local. The kernel's type for the resource is an int; C libraries differ.
    unsafe {
        ok(libc::getrlimit(resource as _, &raw mut limit))?;
        limit.rlim_max = limit.rlim_max.min(most);
        limit.rlim_cur = limit.rlim_cur.min(limit.rlim_max);
        ok(libc::setrlimit(resource as _, &raw const limit))?;
    }
    Ok(())
}

/// No signal handled, ignored or blocked, whatever the daemon does with it.
///
/// # Safety
/// Only in a process that is about to run another program, or to end.
unsafe fn defaults_for_signals() -> io::Result<()> {
    // SAFETY: a kernel's `sigaction` of zeroes is the default action without flags, on every architecture, and never
    // larger; the sets are locals. SIGKILL and SIGSTOP refuse, which is as well. The C library would keep two signals
    // to itself.
    unsafe {
        let default = [0_u64; 8];
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null_mut::<u64>(), 8);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        ok(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()))?;
    }
    Ok(())
}

/// The reaper's life: it takes in the command's orphans until it is killed, by the warden or with it.
///
/// # Safety
/// Only in the first process of a PID namespace, freshly forked.
unsafe fn reap() -> ! {
    // SAFETY: system calls on this process. Children of one that ignores SIGCHLD leave no zombie.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
        loop {
            libc::pause();
        }
    }
}

/// The warden's life. Ends as the command ended, once nothing is left in the namespace.
///
/// # Safety
/// Only in the parent of `reaper`, which is process 1 of its namespace, and of `command`.
unsafe fn guard(reaper: pid_t, command: pid_t, lifeline: RawFd) -> ! {
    // SAFETY: system calls on this process and its own two children, neither waited for before; the pointers are to
    // locals.
    unsafe {
        libc::dup2(lifeline, 0);
        libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0);
        let ended = libc::syscall(libc::SYS_pidfd_open, command, 0) as c_int;
        if ended >= 0 {
            let mut waits = [
                libc::pollfd { fd: ended, events: libc::POLLIN, revents: 0 },
                // Nothing is ever written: only its closing is told.
                libc::pollfd { fd: 0, events: 0, revents: 0 },
            ];
            libc::poll(waits.as_mut_ptr(), 2, -1);
        }
        libc::kill(reaper, libc::SIGKILL);
        let mut status: c_int = 0;
        // The command first: the reaper ends only when the namespace is empty.
        let waited = libc::waitpid(command, &raw mut status, 0);
        libc::waitpid(reaper, ptr::null_mut(), 0);
        if waited == command && libc::WIFEXITED(status) {
            libc::_exit(libc::WEXITSTATUS(status));
        }
        let signal = if waited == command { libc::WTERMSIG(status) } else { libc::SIGKILL };
        defaults_for_signals().ok();
        libc::kill(libc::getpid(), signal);
        libc::_exit(128 + signal)
    }
}
