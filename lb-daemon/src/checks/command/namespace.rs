//! A user namespace for each command: the kernel (since 5.14) counts a user's processes in each of them by itself, so a command that
//! forks without end takes no process away from others of the same user. The command's user and group are the only ones in it, by
//! the same numbers as outside, and it keeps no capability in it: it is a box to count in.
//!
//! The maps of a namespace can only be written from outside it: the command waits until the warden has.
//!
//! As all of the sandbox, between fork and exec: system calls alone, no allocation and no lock.

use std::io;

use libc::{c_int, pid_t};

use super::sandbox::ok;

/// Two pipes between the warden and the command.
pub(super) struct Meeting {
    /// The command has entered a namespace (1), or cannot (0).
    entered: [c_int; 2],
    /// The warden has written its maps (1), or cannot (0).
    mapped: [c_int; 2],
}

impl Meeting {
    pub fn new() -> io::Result<Self> {
        let mut meeting = Self { entered: [-1; 2], mapped: [-1; 2] };
        // SAFETY: each call writes two numbers into a local.
        unsafe {
            ok(libc::pipe2(meeting.entered.as_mut_ptr(), libc::O_CLOEXEC))?;
            ok(libc::pipe2(meeting.mapped.as_mut_ptr(), libc::O_CLOEXEC))?;
        }
        Ok(meeting)
    }

    /// In the command, as root: whether it is in a namespace of its own now. A kernel, or an administrator, may have none
    /// to give.
    pub fn enter(&self) -> io::Result<bool> {
        // SAFETY: system calls on this process and its own descriptors.
        let entered = unsafe {
            libc::close(self.mapped[1]);
            libc::unshare(libc::CLONE_NEWUSER) == 0
        };
        tell(self.entered[1], entered)?;
        if !entered {
            return Ok(false);
        }
        if hear(self.mapped[0]) { Ok(true) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
    }

    /// In the warden: writes the maps, if the command wants any. Whatever goes wrong is the command's to tell.
    pub fn attend(&self, command: pid_t, uid: libc::uid_t, gid: libc::gid_t) {
        // SAFETY: this process's own descriptor.
        unsafe { libc::close(self.entered[1]) };
        if hear(self.entered[0]) {
            let mapped = map(command, b"/uid_map", uid) && map(command, b"/gid_map", gid);
            tell(self.mapped[1], mapped).ok();
        }
    }
}

fn tell(to: c_int, what: bool) -> io::Result<()> {
    // SAFETY: one byte from a local.
    let written = unsafe { libc::write(to, (&raw const what).cast(), 1) };
    if written == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `false` also if the other one is gone.
fn hear(from: c_int) -> bool {
    let mut byte = 0u8;
    // SAFETY: one byte into a local.
    unsafe { libc::read(from, (&raw mut byte).cast(), 1) == 1 && byte == 1 }
}

/// Makes `id` the only one in a namespace, by the same number as outside.
fn map(process: pid_t, file: &[u8], id: u32) -> bool {
    let mut path = Text::default();
    path.push(b"/proc/");
    path.number(process.unsigned_abs());
    path.push(file);
    path.push(b"\0");
    let mut line = Text::default();
    line.number(id);
    line.push(b" ");
    line.number(id);
    line.push(b" 1");
    // SAFETY: the path ends with a zero byte, and the line is as long as is said; both are locals.
    unsafe {
        let file = libc::open(path.bytes.as_ptr().cast(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file < 0 {
            return false;
        }
        let written = libc::write(file, line.bytes.as_ptr().cast(), line.length);
        libc::close(file);
        usize::try_from(written) == Ok(line.length)
    }
}

/// A short text, in place.
struct Text {
    bytes: [u8; 64],
    length: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; 64], length: 0 }
    }
}

impl Text {
    fn push(&mut self, text: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(self.length).zip(text) {
            *place = *byte;
            self.length += 1;
        }
    }

    fn number(&mut self, number: u32) {
        if number >= 10 {
            self.number(number / 10);
        }
        self.push(&[b'0' + (number % 10) as u8]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        let mut text = Text::default();
        for number in [0, 7, 10, 65534, u32::MAX] {
            text.number(number);
            text.push(b" ");
        }
        assert_eq!(&text.bytes[..text.length], b"0 7 10 65534 4294967295 ");
    }
}
