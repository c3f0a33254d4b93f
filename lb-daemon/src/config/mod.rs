//! The configuration file: reading it, editing it with its comments kept, writing it whole or not at all.
//!
//! Owns no state. The daemon calls [`load`] at its start and at a reload, [`parse`] for what the API sends, and
//! [`edit`] and [`stage`] when a change is to last; `drover check` calls [`load`]. They wait for the disk and for nothing
//! else: what is no regular file is refused unread.

mod defects;
mod edit;
mod edit_json;
mod edit_toml;
mod ends;
mod host;
mod json;
mod lines;
mod own;
mod patient;
mod read;
mod toml;
mod watch;
mod write;

use std::io;
use std::path::{Path, PathBuf};

use lb_core::config::model::{Config, Farm};
use lb_core::config::{ConfigError, Position};

pub use defects::DefectWatch;
pub use edit::{EditError, FarmEdit, edit};
pub use host::{Defect, defects_of};
pub use patient::Patient;
pub use read::read_text;
pub use watch::{FileState, FileWatch};
pub use write::{Staged, WriteError, stage, write_atomically};

/// The largest configuration file that is read, in bytes.
pub const FILE_MAX: u64 = 16 << 20;

/// How a configuration's text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Toml,
    Json,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Toml => "TOML",
            Self::Json => "JSON",
        })
    }
}

/// Why a file is not a configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{}: {}", .path.display(), reason(.source))]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: is {what}, not a regular file; write the configuration to a file and name that", .path.display())]
    NoFile { path: PathBuf, what: &'static str },
    #[error("{}: is larger than {} MiB, so it is not a configuration", .0.display(), FILE_MAX >> 20)]
    TooLarge(PathBuf),
    #[error("{}:{}:{}: is not UTF-8 text", .path.display(), .at.line, .at.column)]
    NotUtf8 { path: PathBuf, at: Position },
    #[error("{}: is not valid: {}", .path.display(), summary(.errors))]
    Invalid { path: PathBuf, text: String, errors: Vec<ConfigError> },
}

fn reason(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        return "there is no such file; name another with --config FILE".to_owned();
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        return "no permission to read it".to_owned();
    }
    format!("cannot be read: {error}")
}

fn summary(errors: &[ConfigError]) -> String {
    match errors {
        [] => "no reason given".to_owned(),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first}; and {} more", rest.len()),
    }
}

/// A file's format, by its name: JSON if it ends in `.json`, else TOML.
pub fn format_of(path: &Path) -> Format {
    match path.extension() {
        Some(extension) if extension.eq_ignore_ascii_case("json") => Format::Json,
        Some(_) | None => Format::Toml,
    }
}

/// A text that is a valid configuration, wherever it may run.
#[derive(Debug)]
pub struct Judged {
    pub config: Config,
    /// What it needs of this host and does not find, in the text's order, each with the number of its farm.
    defects: Vec<(usize, ConfigError)>,
}

impl Judged {
    /// The configuration, if no farm that `strict` names lacks something on this host. One farm's defect is no reason to
    /// stop another.
    pub fn unless(self, strict: impl Fn(&Farm) -> bool) -> Result<Config, Vec<ConfigError>> {
        let Self { config, defects } = self;
        let concerned = |farm: usize| config.farms.get(farm).is_none_or(&strict);
        let errors: Vec<_> =
            defects.into_iter().filter(|(farm, _)| concerned(*farm)).map(|(_, error)| error).collect();
        if errors.is_empty() { Ok(config) } else { Err(errors) }
    }
}

/// Makes a configuration of a text, or says everything that is wrong with it, on this host as well.
pub fn judge(text: &str, format: Format) -> Result<Judged, Vec<ConfigError>> {
    let tree = match format {
        Format::Toml => toml::tree(text)?,
        Format::Json => json::tree(text)?,
    };
    let (config, mut errors) = match lb_core::config::read(&tree) {
        Ok(config) => (Some(config), Vec::new()),
        Err(errors) => (None, errors),
    };
    // Of a value that is wrong by itself, nobody else is asked.
    let told: Vec<String> = errors.iter().map(|error| error.path.clone()).collect();
    let repeats = |path: &str| {
        told.iter().any(|told| path.strip_prefix(told).is_some_and(|rest| rest.is_empty() || rest == "[0]"))
    };
    errors.extend(host::patterns(&tree).into_iter().filter(|error| !repeats(&error.path)));
    let mut defects = host::defects(&tree);
    defects.retain(|(_, error)| !repeats(&error.path));
    match config {
        Some(config) if errors.is_empty() => Ok(Judged { config, defects }),
        Some(_) | None => {
            errors.extend(defects.into_iter().map(|(_, error)| error));
            errors.sort_by_key(|error| error.at);
            Err(errors)
        }
    }
}

/// As [`judge`], and no farm may lack anything on this host.
pub fn parse(text: &str, format: Format) -> Result<Config, Vec<ConfigError>> {
    let mut judged = judge(text, format)?;
    judged.defects.sort_by_key(|(_, error)| error.at);
    judged.unless(|_| true)
}

/// Reads a file, and makes a configuration of it that lacks nothing on this host.
pub fn load(path: &Path) -> Result<(String, Format, Config), LoadError> {
    load_by(path, parse)
}

/// As [`load`], for a daemon that starts: what a farm lacks on this host keeps no other from being served. It is told by
/// [`DefectWatch`].
pub fn load_to_run(path: &Path) -> Result<(String, Format, Config), LoadError> {
    load_by(path, |text, format| judge(text, format)?.unless(|_| false))
}

fn load_by(
    path: &Path,
    parse: impl FnOnce(&str, Format) -> Result<Config, Vec<ConfigError>>,
) -> Result<(String, Format, Config), LoadError> {
    let text = read_text(path)?;
    let format = format_of(path);
    match parse(&text, format) {
        Ok(config) => Ok((text, format, config)),
        Err(errors) => Err(LoadError::Invalid { path: path.to_owned(), text, errors }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    #[test]
    fn the_name_tells_the_format() {
        for (name, format) in [
            ("drover.toml", Format::Toml),
            ("drover.json", Format::Json),
            ("drover.JSON", Format::Json),
            ("drover.conf", Format::Toml),
            ("drover", Format::Toml),
        ] {
            assert_eq!(format_of(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(Path::new("/nonexistent/drover.toml")).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/drover.toml: there is no such file"), "{error}");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_located() {
        let (_folder, path) = write("a.toml", b"[daemon]\ninterfaces = [\"\xc3\xa9\xff\"]\n");
        let LoadError::NotUtf8 { at, .. } = load(&path).unwrap_err() else { panic!() };
        assert_eq!(at, Position { line: 2, column: 17 });
    }

    #[test]
    fn an_invalid_file_comes_back_with_its_text_and_errors() {
        let (_folder, path) = write("a.toml", b"[daemon]\n");
        let LoadError::Invalid { text, errors, .. } = load(&path).unwrap_err() else { panic!() };
        assert_eq!(text, "[daemon]\n");
        assert_eq!(errors.len(), 1);
    }

    #[test]
    fn a_valid_file_is_loaded() {
        let (_folder, path) = write("a.json", br#"{"daemon": {"interfaces": ["eth0"]}}"#);
        let (text, format, config) = load(&path).unwrap();
        assert_eq!((text.len(), format), (36, Format::Json));
        assert_eq!(config.daemon.interfaces, ["eth0"]);
    }
}
