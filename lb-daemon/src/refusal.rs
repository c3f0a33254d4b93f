//! Why the daemon did not do what it was asked. Who decides says which; the words stand here, and what HTTP makes of it in
//! `api::problem`.

use std::path::PathBuf;

use lb_core::config::ConfigError;
use lb_core::config::model::{BackendName, FarmName};

use crate::config::{EditError, Format, LoadError, WriteError};

/// Nothing was changed, or what had been changed was changed back; only [`Failed::Unwritten`] is of a change that is in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no farm '{farm}'; {}", instead("farms", .there))]
    NoFarm { farm: FarmName, there: Vec<String> },
    #[error("farm '{farm}' has no backend '{backend}'; {}", instead("its backends", .there))]
    NoBackend { farm: FarmName, backend: BackendName, there: Vec<String> },
    /// The configuration is not valid.
    #[error("the configuration is not valid: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<ConfigError>),
    #[error("{0}")]
    Conflict(Conflict),
    /// Somebody else has written to the configuration file since the daemon last read or wrote it.
    #[error("{}", WriteError::Changed(.0.clone()))]
    FileChanged(PathBuf),
    /// What was to be changed is not the version that the change was meant for.
    #[error("{0} is not the version that the change was meant for: read it again, and change that")]
    Stale(Thing),
    #[error("{0}")]
    Failed(Failed),
}

/// The request does not fit the state that the daemon is in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    #[error("the daemon is stopping")]
    Stopping,
    #[error("the configuration file {} is {is}, and stays so", .path.display())]
    OtherFormat { path: PathBuf, is: Format },
    #[error(
        "{} can change only by a restart of the daemon (connections survive one: `drover run --stay`)", .0.join(", ")
    )]
    NeedsRestart(Vec<String>),
    #[error("the configuration file cannot be edited: {0}")]
    Uneditable(String),
    /// The configuration file is not of a kind that can be replaced; in the words of [`WriteError`].
    #[error("{0}")]
    NotReplaceable(String),
    #[error("farm '{0}' is disabled: nothing is checked")]
    Disabled(FarmName),
    #[error("farm '{0}' has no checks")]
    NoChecks(FarmName),
    #[error("farm '{0}' has no backends")]
    NoBackends(FarmName),
    #[error("too many changes wait for one that takes its time: try again")]
    TooMany,
}

/// The kernel, or a file, did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// The kernel's words.
    #[error("{0}")]
    Kernel(String),
    /// A file could not be read or written; the words name it.
    #[error("{0}")]
    File(String),
    #[error("{}: the disk, or what answers look-ups of users, has not answered for {seconds} s", .path.display())]
    NoAnswer { path: PathBuf, seconds: u64 },
    #[error("it came too late")]
    TooLate,
    /// There is no way back: the new file may take the old one's place at any time.
    #[error("the change is in force, but {} is not known to be written: the disk has not answered for {seconds} s", .path.display())]
    Unwritten { path: PathBuf, seconds: u64 },
    #[error("it broke off; the log says more")]
    BrokeOff,
}

/// What a change was meant for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Thing {
    #[error("the configuration")]
    Configuration,
    #[error("farm '{0}'")]
    Farm(FarmName),
}

fn instead(what: &str, there: &[String]) -> String {
    const LISTED: usize = 5;
    match there {
        [] => format!("there are no {what}"),
        few if few.len() <= LISTED => format!("{what} are {}", few.join(", ")),
        many => format!("{what} are {} and {} more", many[..LISTED].join(", "), many.len() - LISTED),
    }
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        let text = error.to_string();
        match error {
            WriteError::Changed(path) => Self::FileChanged(path),
            WriteError::Mounted(_) | WriteError::NoFile { .. } => {
                Self::Conflict(Conflict::NotReplaceable(text))
            }
            WriteError::Io { .. } => Self::Failed(Failed::File(text)),
        }
    }
}

impl From<LoadError> for Refusal {
    fn from(error: LoadError) -> Self {
        let text = error.to_string();
        match error {
            LoadError::Invalid { errors, .. } => Self::Invalid(errors),
            LoadError::Read { .. }
            | LoadError::NoFile { .. }
            | LoadError::TooLarge(_)
            | LoadError::NotUtf8 { .. } => Self::Failed(Failed::File(text)),
        }
    }
}

impl From<EditError> for Refusal {
    fn from(error: EditError) -> Self {
        match error {
            EditError::NoFarm { farm, there } => Self::NoFarm { farm, there },
            EditError::Invalid(errors) => Self::Invalid(errors),
            EditError::NoList | EditError::Json(_) => Self::Conflict(Conflict::Uneditable(error.to_string())),
        }
    }
}

impl From<Conflict> for Refusal {
    fn from(conflict: Conflict) -> Self {
        Self::Conflict(conflict)
    }
}

impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}
