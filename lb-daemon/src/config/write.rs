//! Writing a file whole or not at all, and never over what somebody else has written meanwhile.
//!
//! A write has two steps: [`stage`] does all that takes time or can fail, beside the file; [`Staged::commit`] looks once
//! more whether the file is what it was, and puts the new one in its place. Dropped between the two, nothing has happened.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::LoadError;
use super::read::{kind, read_text};

/// How many links may lead to a file, as the kernel has it (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;

/// Why a file was not written. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("{}: the file was changed since; reload first (`drover reload`), then change it again", .0.display())]
    Changed(PathBuf),
    /// It is a mount point, as of a container's volume: nothing can be put in its place.
    #[error(
        "{}: the file is mounted by itself and cannot be replaced: mount the directory that holds it instead, \
         or change the file where it comes from and run `drover reload`", .0.display()
    )]
    Mounted(PathBuf),
    #[error("{}: is {what}, not a regular file; put a file in its place", .path.display())]
    NoFile { path: PathBuf, what: &'static str },
    #[error("cannot write {}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// What is ready to become the content of a file.
#[derive(Debug)]
#[must_use = "nothing is written before it is committed"]
pub struct Staged {
    target: PathBuf,
    /// What the file holds, as far as whoever writes knows; `None`: it does not matter.
    known: Option<String>,
    /// The new file beside the old one; `None`: the file says it already.
    temporary: Option<Temporary>,
}

/// Gone when it is dropped, unless it was renamed before.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    /// Where it is, open: after the renaming nothing may fail any more.
    folder: File,
    renamed: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // By then the name may be another's.
        if !self.renamed {
            // A file that is left behind is only untidy.
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Prepares `text` to become the content of the file at `path`, which whoever writes knows to hold `known`; a file that
/// already holds `text`, or is not there, is as good. It keeps its mode and owner; a new file has mode 0644.
///
/// A link is followed, and stays: what it points to is replaced. Extended attributes and access lists are not kept.
pub fn stage(path: &Path, known: &str, text: &str) -> Result<Staged, WriteError> {
    let target = target(path).map_err(|source| WriteError::Io { path: path.to_owned(), source })?;
    match disk(&target)? {
        Some(found) if found == text => return Ok(Staged { target, known: None, temporary: None }),
        Some(found) if found != known => return Err(WriteError::Changed(path.to_owned())),
        Some(_) | None => {}
    }
    if is_mount_point(&target) {
        return Err(WriteError::Mounted(path.to_owned()));
    }
    let failed = |source| WriteError::Io { path: target.clone(), source };
    let temporary = write_beside(&target, text).map_err(failed)?;
    Ok(Staged { known: Some(known.to_owned()), temporary: Some(temporary), target })
}

/// Makes `text` the content of the file at `path`, whatever it holds. For files that are the daemon's own.
///
/// A crash at any time leaves the old content or the new.
pub fn write_atomically(path: &Path, text: &str) -> Result<(), WriteError> {
    let failed = |source| WriteError::Io { path: path.to_owned(), source };
    let target = target(path).map_err(failed)?;
    let temporary = write_beside(&target, text).map_err(failed)?;
    Staged { target, known: None, temporary: Some(temporary) }.commit()
}

impl Staged {
    /// Puts the new file in the old one's place, if that is still what it was. A crash at any time leaves the old content
    /// or the new.
    pub fn commit(self) -> Result<(), WriteError> {
        let Self { target, known, temporary } = self;
        let Some(mut temporary) = temporary else { return Ok(()) };
        // Between this look and the next line somebody could still write; no system call does both.
        if let Some(known) = known
            && disk(&target)?.is_some_and(|found| found != known)
        {
            return Err(WriteError::Changed(target));
        }
        match fs::rename(&temporary.path, &target) {
            Ok(()) => temporary.renamed = true,
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                return Err(WriteError::Mounted(target));
            }
            Err(source) => return Err(WriteError::Io { path: target, source }),
        }
        // The file is what it was to become, so this is no error: an error says that it is as it was.
        if let Err(error) = temporary.folder.sync_all() {
            tracing::warn!(
                "{}: written, but if the machine crashes now the former content may be back: cannot sync its directory: \
                 {error}",
                target.display()
            );
        }
        Ok(())
    }
}

/// The file's text; `None` if there is no file. What is no text differs from every text.
fn disk(target: &Path) -> Result<Option<String>, WriteError> {
    match read_text(target) {
        Ok(text) => Ok(Some(text)),
        Err(LoadError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(LoadError::Read { path, source }) => Err(WriteError::Io { path, source }),
        Err(LoadError::NoFile { path, what }) => Err(WriteError::NoFile { path, what }),
        Err(
            LoadError::TooLarge(path) | LoadError::NotUtf8 { path, .. } | LoadError::Invalid { path, .. },
        ) => Err(WriteError::Changed(path)),
    }
}

/// What `path` stands for when every link is followed. The last one may lead to a file that is not there yet.
fn target(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::symlink_metadata(&target) {
            Ok(found) if found.is_symlink() => {
                let to = fs::read_link(&target)?;
                // An absolute one replaces the whole.
                target = folder_of(&target).join(to);
            }
            Ok(_) => return fs::canonicalize(target),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(target),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

fn folder_of(target: &Path) -> PathBuf {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// Whether something is mounted on `target` itself (proc_pid_mountinfo(5): the fifth field, its blanks in octal). If
/// nobody can tell, the kernel does at the end.
fn is_mount_point(target: &Path) -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return false };
    let mut escaped = String::new();
    for &byte in target.as_os_str().as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => escaped += &format!("\\{byte:03o}"),
            byte => escaped.push(char::from(byte)),
        }
    }
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(&escaped))
}

/// The new file, beside the target and as the target is to be.
fn write_beside(target: &Path, text: &str) -> io::Result<Temporary> {
    let old = match fs::metadata(target) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(old) = old.as_ref().filter(|old| !old.is_file()) {
        let message = format!("it is {}, not a regular file", kind(old));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let folder = File::open(folder_of(target))?;
    let (temporary, mut file) = create_beside(target, folder)?;
    file.write_all(text.as_bytes())?;
    match &old {
        Some(old) => {
            // The owner first: chown(2) takes set-id bits away.
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
            file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
        }
        None => file.set_permissions(fs::Permissions::from_mode(0o644))?,
    }
    file.sync_all()?;
    Ok(temporary)
}

/// A new, empty file in the target's folder, which nobody else may read yet.
fn create_beside(target: &Path, folder: File) -> io::Result<(Temporary, File)> {
    let name =
        target.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
    for attempt in 0..100u32 {
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{attempt}", std::process::id()));
        let path = folder_of(target).join(hidden);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return Ok((Temporary { path, folder, renamed: false }, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many temporary files beside it"))
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
