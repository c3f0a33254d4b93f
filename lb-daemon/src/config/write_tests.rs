use super::*;

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A folder with a file that says "old".
fn scene() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drover.toml");
    fs::write(&path, "old").unwrap();
    (folder, path)
}

fn replace(path: &Path, known: &str, text: &str) -> Result<(), WriteError> {
    stage(path, known, text)?.commit()
}

#[test]
fn content_is_replaced_and_mode_and_owner_kept() {
    let (folder, path) = scene();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
    replace(&path, "old", "new").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o640, 65534, 65534));
    assert_eq!(names(folder.path()), ["drover.toml"]);
}

#[test]
fn what_somebody_else_has_written_is_not_written_over() {
    let (folder, path) = scene();
    let error = replace(&path, "older", "new").unwrap_err();
    assert!(error.to_string().contains("the file was changed since; reload first"), "{error}");
    // Between the two steps, too.
    let staged = stage(&path, "old", "new").unwrap();
    fs::write(&path, "by hand").unwrap();
    assert!(matches!(staged.commit().unwrap_err(), WriteError::Changed(_)));
    fs::write(&path, b"\xff").unwrap();
    assert!(matches!(replace(&path, "old", "new").unwrap_err(), WriteError::Changed(_)));
    assert_eq!(fs::read(&path).unwrap(), b"\xff");
    assert_eq!(names(folder.path()), ["drover.toml"]);
}

#[test]
fn a_file_that_says_it_already_is_left_alone() {
    let (_folder, path) = scene();
    let before = fs::metadata(&path).unwrap().ino();
    replace(&path, "older", "old").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), before);
}

#[test]
fn what_is_staged_and_not_committed_leaves_no_trace() {
    let (folder, path) = scene();
    drop(stage(&path, "old", "new").unwrap());
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(names(folder.path()), ["drover.toml"]);
}

#[test]
fn a_file_that_is_gone_is_written_anew_and_can_be_read_by_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drover.toml");
    replace(&path, "old", "new").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
}

#[test]
fn a_link_stays_a_link() {
    let (folder, path) = scene();
    let (first, second) = (folder.path().join("first.toml"), folder.path().join("second.toml"));
    std::os::unix::fs::symlink("drover.toml", &first).unwrap();
    std::os::unix::fs::symlink(&first, &second).unwrap();
    for text in ["new", "anew"] {
        replace(&second, &fs::read_to_string(&path).unwrap_or_default(), text).unwrap();
        assert!(fs::symlink_metadata(&first).unwrap().is_symlink());
        assert!(fs::symlink_metadata(&second).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        // The second time it leads nowhere.
        fs::remove_file(&path).unwrap();
        fs::write(&path, text).unwrap();
    }
    fs::remove_file(&path).unwrap();
    replace(&second, "anew", "again").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "again");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&first, &path).unwrap();
    assert!(replace(&second, "", "new").is_err(), "links that go round");
}

#[test]
fn what_is_no_file_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("occupied");
    fs::create_dir(&path).unwrap();
    assert!(matches!(replace(&path, "", "new").unwrap_err(), WriteError::NoFile { .. }));
    write_atomically(&path, "new").unwrap_err();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(replace(&pipe, "", "new").unwrap_err(), WriteError::NoFile { what: "a pipe", .. }));
    write_atomically(&pipe, "new").unwrap_err();
    replace(&folder.path().join("missing/drover.toml"), "", "new").unwrap_err();
    let mut left = names(folder.path());
    left.sort();
    assert_eq!(left, ["occupied", "pipe"]);
}

#[test]
fn an_error_means_that_the_file_is_as_it_was() {
    let (folder, path) = scene();
    let nobody = nix::unistd::Uid::from_raw(65534);
    for path in [folder.path(), &path] {
        std::os::unix::fs::chown(path, Some(nobody.as_raw()), None).unwrap();
    }
    // Files can be made and renamed there, but the folder itself cannot be opened.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o300)).unwrap();
    let at = path.clone();
    let written = std::thread::spawn(move || {
        // Of this thread alone, and with it go the capabilities of root that concern files.
        nix::unistd::setfsuid(nobody);
        replace(&at, "old", "new")
    });
    written.join().unwrap().unwrap_err();
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(names(folder.path()), ["drover.toml"]);
}

#[test]
fn what_is_renamed_is_written_though_its_folder_cannot_be_synced() {
    let (folder, path) = scene();
    let mut staged = stage(&path, "old", "new").unwrap();
    // Of such a descriptor fsync(2) says EBADF.
    let unsynced = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(folder.path()).unwrap();
    unsynced.sync_all().unwrap_err();
    staged.temporary.as_mut().unwrap().folder = unsynced;
    staged.commit().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(names(folder.path()), ["drover.toml"]);
}
