//! Writing a file whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Makes `text` the content of the file at `path`, which keeps its mode and owner; a new file has mode 0644.
///
/// A crash at any time leaves the old content or the new. A link is followed: what it points to is replaced.
/// Extended attributes and access lists are not kept.
pub fn write_atomically(path: &Path, text: &str) -> io::Result<()> {
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let old = match fs::metadata(&target) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    };
    let (temporary, mut file) = create_beside(&target, &folder)?;
    let written = (|| {
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
        fs::rename(&temporary, &target)
    })();
    if let Err(error) = written {
        // The error that counts is the one above; a file that is left behind is only untidy.
        fs::remove_file(&temporary).ok();
        return Err(error);
    }
    File::open(&folder)?.sync_all()
}

/// A new, empty file in the target's folder, which nobody else may read yet.
fn create_beside(target: &Path, folder: &Path) -> io::Result<(PathBuf, File)> {
    let name =
        target.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
    for attempt in 0..100u32 {
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{attempt}", std::process::id()));
        let temporary = folder.join(hidden);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many temporary files beside it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn content_is_replaced_and_mode_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drover.toml");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write_atomically(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(names(folder.path()), ["drover.toml"]);
    }

    #[test]
    fn a_new_file_can_be_read_by_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drover.toml");
        write_atomically(&path, "new").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("real.toml"), folder.path().join("link.toml"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write_atomically(&link, "new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn a_failure_leaves_everything_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("occupied");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "").unwrap();
        write_atomically(&path, "new").unwrap_err();
        assert_eq!(names(folder.path()), ["occupied"]);
        write_atomically(&folder.path().join("missing/drover.toml"), "new").unwrap_err();
    }
}
