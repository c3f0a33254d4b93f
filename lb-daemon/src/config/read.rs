//! Reading a configuration file, which may be anything: a pipe that nobody writes to, a device without an end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use lb_core::config::Position;

use super::{FILE_MAX, LoadError, lines};

/// The text of the file at `path`. What is no regular file is refused at once, whatever it would have to say.
pub fn read_text(path: &Path) -> Result<String, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let file = match open(path) {
        Ok(file) => file,
        // As a socket answers, and a device without a driver.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            let found = std::fs::metadata(path).map_err(failed)?;
            return Err(LoadError::NoFile { path: path.to_owned(), what: kind(&found) });
        }
        Err(error) => return Err(failed(error)),
    };
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(LoadError::NoFile { path: path.to_owned(), what: kind(&found) });
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(LoadError::TooLarge(path.to_owned()));
    }
    String::from_utf8(bytes)
        .map_err(|error| LoadError::NotUtf8 { path: path.to_owned(), at: broken_at(&error) })
}

/// Without waiting for a writer of a pipe, and without making a terminal the daemon's own.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// What something is that is no regular file.
pub fn kind(of: &std::fs::Metadata) -> &'static str {
    let of = of.file_type();
    if of.is_dir() {
        "a directory"
    } else if of.is_fifo() {
        "a pipe"
    } else if of.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

fn broken_at(error: &std::string::FromUtf8Error) -> Position {
    let valid = error.utf8_error().valid_up_to();
    let before = String::from_utf8_lossy(error.as_bytes().get(..valid).unwrap_or_default());
    lines::Lines::new(&before).position(valid)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// What reading `path` says, or that it did not end.
    fn refusal(path: &Path) -> String {
        let (answer, answered) = mpsc::channel();
        let path = path.to_owned();
        // Not waited for: a reader of a pipe that hangs would hang the test.
        std::thread::spawn(move || answer.send(read_text(&path).map_err(|error| error.to_string())));
        answered.recv_timeout(Duration::from_secs(5)).expect("the reader hangs").unwrap_err()
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe.toml");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let socket = folder.path().join("socket.toml");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = folder.path().join("link.toml");
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        for (path, what) in [
            (pipe.as_path(), "a pipe"),
            (link.as_path(), "a pipe"),
            (folder.path(), "a directory"),
            (socket.as_path(), "a socket"),
            (Path::new("/dev/zero"), "a device"),
        ] {
            let refusal = refusal(path);
            assert!(refusal.contains(&format!("is {what}, not a regular file")), "{refusal}");
        }
    }
}
