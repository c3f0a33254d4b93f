//! Programs of checks and hooks: where they are found, and which of them may be run.
//!
//! Owns nothing. The configuration asks when it is read, so that a mistake is told with its line; the runner asks
//! before each run, since the file system may have changed.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

/// Where Debian, Red Hat, and those who build for themselves put monitoring plugins.
const PLUGIN_FOLDERS: [&str; 4] = [
    "/usr/lib/nagios/plugins",
    "/usr/lib64/nagios/plugins",
    "/usr/local/lib/nagios/plugins",
    "/usr/lib/monitoring-plugins",
];

/// Anybody may write to it.
const WORLD_WRITABLE: u32 = 0o002;
/// In a folder with this bit only the owner of a file, or of the folder, may replace the file.
const STICKY: u32 = 0o1000;

/// Why a program is not run, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    pub message: String,
    pub hint: String,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.hint)
    }
}

fn unfit(message: String, hint: impl Into<String>) -> Unfit {
    Unfit { message, hint: hint.into() }
}

/// The file of the program `name`: an absolute path as it is, a bare name by the daemon's PATH and then by the
/// folders of monitoring plugins. The error says why there is none, or why it is not to be run.
pub fn find_program(name: &str) -> Result<PathBuf, String> {
    find(name).map_err(|unfit| unfit.to_string())
}

/// As [`find_program`], with what to do apart from what is wrong.
pub fn find(name: &str) -> Result<PathBuf, Unfit> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A relative folder would mean another place after each change of the working directory.
    let folders = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    find_in(name, folders.chain(PLUGIN_FOLDERS.iter().map(PathBuf::from)))
}

fn find_in(name: &str, folders: impl Iterator<Item = PathBuf>) -> Result<PathBuf, Unfit> {
    if name.contains('/') {
        let path = PathBuf::from(name);
        if !path.is_absolute() {
            let message = format!("'{name}' is neither a name nor an absolute path");
            return Err(unfit(message, "begin it with a slash, or write the name alone"));
        }
        judge(&path)?;
        return Ok(path);
    }
    let mut first = None;
    for folder in folders {
        let path = folder.join(name);
        match judge(&path) {
            Ok(()) => return Ok(path),
            // As a shell does: a file that cannot be run does not hide a later one. One that must not be run does.
            Err(Verdict::Refused(unfit)) => return Err(unfit),
            Err(Verdict::NoProgram(unfit)) => first = first.or(Some(unfit)),
            Err(Verdict::NotThere(_)) => {}
        }
    }
    Err(first.unwrap_or_else(|| {
        let hint = "install the package that has it (Debian: monitoring-plugins), or write its absolute path";
        unfit(format!("there is no program '{name}' on the daemon's PATH or among the plugins"), hint)
    }))
}

/// Why a path is no program.
enum Verdict {
    NotThere(Unfit),
    /// It cannot be run.
    NoProgram(Unfit),
    /// It could be run, and must not.
    Refused(Unfit),
}

impl From<Verdict> for Unfit {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::NotThere(unfit) | Verdict::NoProgram(unfit) | Verdict::Refused(unfit) => unfit,
        }
    }
}

fn judge(path: &Path) -> Result<(), Verdict> {
    let shown = path.display();
    let metadata = fs::metadata(path).map_err(|error| {
        let message = if error.kind() == std::io::ErrorKind::NotFound {
            format!("there is no file {shown}")
        } else {
            format!("{shown} cannot be looked at: {error}")
        };
        Verdict::NotThere(unfit(message, "write the path of a program"))
    })?;
    if metadata.is_dir() {
        let hint = "write the path of a program in it";
        return Err(Verdict::NoProgram(unfit(format!("{shown} is a directory"), hint)));
    }
    if !metadata.is_file() {
        let hint = "write the path of a program";
        return Err(Verdict::NoProgram(unfit(format!("{shown} is not a file"), hint)));
    }
    if metadata.mode() & 0o111 == 0 {
        let hint = format!("run chmod +x {shown}");
        return Err(Verdict::NoProgram(unfit(format!("{shown} is not executable"), hint)));
    }
    if metadata.mode() & WORLD_WRITABLE != 0 {
        let message = format!("{shown} can be written by everybody, and so must not be run");
        return Err(Verdict::Refused(unfit(message, format!("run chmod o-w {shown}"))));
    }
    judge_folders(path, &metadata)?;
    match fs::canonicalize(path) {
        // What a link points to can be replaced in its own folder.
        Ok(real) if real != path => judge_folders(&real, &metadata),
        Ok(_) => Ok(()),
        Err(error) => {
            Err(Verdict::NotThere(unfit(format!("{shown} cannot be looked at: {error}"), "mend it")))
        }
    }
}

/// Whoever may write to a folder above a file may put another in its place.
fn judge_folders(path: &Path, file: &Metadata) -> Result<(), Verdict> {
    for folder in path.ancestors().skip(1) {
        let Ok(metadata) = fs::metadata(folder) else { continue };
        let own = file.uid() == 0 || file.uid() == Uid::effective().as_raw();
        let kept = metadata.mode() & STICKY != 0 && own;
        if metadata.mode() & WORLD_WRITABLE != 0 && !kept {
            let (folder, shown) = (folder.display(), path.display());
            let message = format!("everybody can write to {folder}, so {shown} must not be run");
            return Err(Verdict::Refused(unfit(
                message,
                format!("run chmod o-w {folder}, or move the program"),
            )));
        }
    }
    Ok(())
}

/// The user that runs a command: there must be one of that name, and it is not root.
pub fn find_user(name: &str) -> Result<User, Unfit> {
    let hint = "write \"nobody\", or create the user: useradd --system --no-create-home NAME";
    match User::from_name(name) {
        Ok(Some(user)) if user.uid.is_root() => {
            Err(unfit(format!("the user '{name}' is root by another name"), "commands never run as root"))
        }
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(unfit(format!("there is no user '{name}' on this machine"), hint)),
        Err(error) => Err(unfit(format!("the user '{name}' cannot be looked up: {error}"), hint)),
    }
}

/// Whether `user` gets to the file at `path` and may run it, by their modes: commands run without further groups,
/// and access lists are not looked at.
pub fn judge_user(path: &Path, user: &User) -> Result<(), Unfit> {
    let may = |metadata: &Metadata| {
        let shift = if metadata.uid() == user.uid.as_raw() {
            6
        } else if metadata.gid() == user.gid.as_raw() {
            3
        } else {
            0
        };
        metadata.mode() >> shift & 1 != 0
    };
    // From the root down: the first that is closed is the one to open.
    let steps: Vec<&Path> = path.ancestors().collect();
    for step in steps.into_iter().rev() {
        let Ok(metadata) = fs::metadata(step) else { continue };
        if !may(&metadata) {
            let (name, step, shown) = (&user.name, step.display(), path.display());
            let what = if metadata.is_dir() { format!(": {step} is closed to it") } else { String::new() };
            let message = format!("the user '{name}' may not run {shown}{what}");
            return Err(unfit(message, format!("run chmod o+x {step}, or name another `user`")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder that is not world-writable, whatever is above it.
    struct Scene(tempfile::TempDir);

    impl Scene {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }
        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }
        fn file(&self, name: &str, mode: u32) -> PathBuf {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }
        fn folder(&self, name: &str, mode: u32) -> PathBuf {
            let path = self.path(name);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }
        fn find(&self, name: &str, folders: &[&str]) -> Result<PathBuf, String> {
            let folders = folders.iter().map(|folder| self.path(folder));
            find_in(name, folders).map_err(|unfit| unfit.to_string())
        }
    }

    #[test]
    fn what_must_not_or_cannot_be_run_is_refused() {
        let scene = Scene::new();
        scene.file("good", 0o755);
        scene.file("plain", 0o644);
        scene.file("writable", 0o757);
        scene.folder("open", 0o777);
        scene.file("open/inside", 0o755);
        scene.folder("open/deep", 0o755);
        scene.file("open/deep/inside", 0o755);
        scene.folder("sticky", 0o1777);
        scene.file("sticky/inside", 0o755);
        std::os::unix::fs::symlink(scene.path("open/inside"), scene.path("link-out")).unwrap();
        std::os::unix::fs::symlink(scene.path("good"), scene.path("open/link-in")).unwrap();
        std::os::unix::fs::symlink("nowhere", scene.path("dangling")).unwrap();
        for (name, wrong) in [
            ("good", None),
            ("sticky/inside", None),
            ("plain", Some("is not executable (run chmod +x ")),
            ("writable", Some("can be written by everybody")),
            ("open", Some("is a directory")),
            ("open/inside", Some("everybody can write to")),
            ("open/deep/inside", Some("everybody can write to")),
            ("link-out", Some("everybody can write to")),
            ("open/link-in", Some("everybody can write to")),
            ("dangling", Some("there is no file")),
            ("missing", Some("there is no file")),
        ] {
            let path = scene.path(name);
            let found = scene.find(path.to_str().unwrap(), &[]);
            match wrong {
                None => assert_eq!(found, Ok(path)),
                Some(wrong) => assert!(found.clone().unwrap_err().contains(wrong), "{name}: {found:?}"),
            }
        }
        assert!(scene.find("/dev/null", &[]).unwrap_err().contains("is not a file"));
        assert!(scene.find("bin/true", &[]).unwrap_err().contains("neither a name nor"));
    }

    #[test]
    fn a_bare_name_is_looked_for_in_each_folder_in_turn() {
        let scene = Scene::new();
        scene.file("a/text", 0o644);
        scene.folder("a/check", 0o755);
        let (in_b, in_c) = (scene.file("b/check", 0o755), scene.file("c/text", 0o755));
        scene.file("b/bad", 0o757);
        scene.file("c/bad", 0o755);
        let folders = ["missing", "a", "b", "c"];
        assert_eq!(scene.find("check", &folders), Ok(in_b));
        assert_eq!(scene.find("text", &folders), Ok(in_c));
        assert!(scene.find("text", &["a"]).unwrap_err().contains("is not executable"));
        assert!(scene.find("bad", &folders).unwrap_err().contains("can be written by everybody"));
        assert!(scene.find("other", &folders).unwrap_err().contains("there is no program 'other'"));
    }

    #[test]
    fn the_daemons_own_path_is_used() {
        assert!(find_program("sh").unwrap().ends_with("sh"));
        assert!(find_program("no-such-plugin").is_err());
    }

    #[test]
    fn a_user_must_get_to_the_program() {
        let scene = Scene::new();
        let nobody = find_user("nobody").unwrap();
        let (open, closed) = (scene.file("open", 0o755), scene.file("closed", 0o744));
        fs::set_permissions(scene.0.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let error = judge_user(&open, &nobody).unwrap_err();
        assert!(error.message.ends_with("is closed to it"), "{error}");
        fs::set_permissions(scene.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(judge_user(&open, &nobody), Ok(()));
        assert!(judge_user(&closed, &nobody).unwrap_err().hint.starts_with("run chmod o+x "));
    }

    #[test]
    fn commands_run_as_somebody_who_is_there_and_not_root() {
        assert!(find_user("nobody").is_ok());
        assert!(find_user("root").is_err());
        assert!(find_user("no-such-user").unwrap_err().message.contains("no user"));
    }
}
