//! Whether the configuration file is what runs: somebody may have edited it and not said so yet.
//!
//! [`FileWatch`] owns one task, which looks at the file once a second and reads it when it is another; what it finds
//! stands in the status, and each turn is an event. Dropped, the task ends. A disk that does not answer keeps one thread
//! waiting, and nobody else.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lb_core::state::{EventKind, EventLevel, News, Snapshot};
use tokio::sync::watch;

use super::patient::Patient;
use super::{LoadError, read_text};
use crate::clock;
use crate::events::Events;
use crate::supervise::{self, Supervisor};

const EVERY: Duration = Duration::from_secs(1);

/// What the file is, beside what runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileState {
    Same,
    Differs,
    Missing,
    /// In the words of what went wrong.
    Unreadable(String),
}

impl FileState {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Differs => "differs",
            Self::Missing => "missing",
            Self::Unreadable(_) => "unreadable",
        }
    }

    /// What there is to say of it; nothing if all is well.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Same => None,
            Self::Differs => Some(
                "it differs from what runs: `drover reload` makes it what runs; until then changes through the API \
                 are refused"
                    .to_owned(),
            ),
            Self::Missing => Some("it is gone; the next change through the API writes it anew".to_owned()),
            Self::Unreadable(why) => Some(format!("it cannot be read: {why}")),
        }
    }
}

/// A hold on the task.
#[derive(Debug)]
pub struct FileWatch {
    state: watch::Receiver<FileState>,
    task: supervise::Task,
}

impl FileWatch {
    /// Starts it for the file at `path`, which at this moment is what runs.
    pub fn spawn(path: PathBuf, snapshots: watch::Receiver<Arc<Snapshot>>, events: Arc<Events>) -> Self {
        let (sender, state) = watch::channel(FileState::Same);
        let task =
            Task { path, snapshots, sender, events, seen: None, doubt: None, patient: Patient::default() };
        Self { state, task: supervise::Task::spawn(task.run(EVERY)) }
    }

    /// Has the end of its task told.
    pub fn watch(&mut self, supervisor: &Supervisor) {
        self.task.watch(supervisor, "the configuration file");
    }

    pub fn state(&self) -> watch::Receiver<FileState> {
        self.state.clone()
    }
}

/// What tells a file that was written to from one that was not, as far as can be told without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What a look has found, and what it was compared with.
#[derive(Debug, Clone)]
struct Seen {
    stamp: Option<Stamp>,
    /// Two looks have seen this stamp, so that nothing can have been written within the same tick of the file system's
    /// clock after the second has read.
    settled: bool,
    text: Arc<str>,
    state: FileState,
}

struct Task {
    path: PathBuf,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    sender: watch::Sender<FileState>,
    events: Arc<Events>,
    seen: Option<Seen>,
    /// What the last look has found, if it is not told yet: the daemon, or an editor, may just be writing.
    doubt: Option<FileState>,
    patient: Patient<Seen>,
}

impl Task {
    async fn run(mut self, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let found = self.look().await;
            self.found(found);
        }
    }

    async fn look(&mut self) -> FileState {
        let (path, seen) = (self.path.clone(), self.seen.clone());
        let text = self.snapshots.borrow().text.clone();
        match self.patient.look(move || look(&path, text, seen)).await {
            Ok(seen) => self.seen.insert(seen).state.clone(),
            Err(why) => FileState::Unreadable(why),
        }
    }

    /// Tells what two looks in a row have found. That all is well is believed at once.
    fn found(&mut self, found: FileState) {
        let told = self.sender.borrow().clone();
        if found == told {
            self.doubt = None;
            return;
        }
        if found != FileState::Same && self.doubt.as_ref() != Some(&found) {
            self.doubt = Some(found);
            return;
        }
        self.doubt = None;
        let path = self.path.display();
        let (level, message) = match found.advice() {
            Some(advice) => (EventLevel::Warning, format!("the configuration file {path}: {advice}")),
            None => (EventLevel::Info, format!("the configuration file {path} is what runs")),
        };
        match level {
            EventLevel::Info => tracing::info!("{message}"),
            EventLevel::Warning | EventLevel::Error => tracing::warn!("{message}"),
        }
        self.sender.send_replace(found);
        let time = clock::wall();
        let kind = EventKind::ConfigFile;
        let news = News { level, kind, farm: None, backend: None, by: None, message };
        self.events.publish(|log| log.push(time, news));
    }
}

/// Blocks until the disk has answered.
fn look(path: &Path, text: Arc<str>, before: Option<Seen>) -> Seen {
    let stamp = stamp(path).ok();
    let known = before.filter(|before| stamp.is_some() && before.stamp == stamp);
    let settled = known.is_some();
    if let Some(known) = known
        && known.settled
        && Arc::ptr_eq(&known.text, &text)
    {
        return known;
    }
    let state = match read_text(path) {
        Ok(found) if *found == *text => FileState::Same,
        // What is no text is no configuration that runs.
        Ok(_) | Err(LoadError::NotUtf8 { .. } | LoadError::TooLarge(_) | LoadError::Invalid { .. }) => {
            FileState::Differs
        }
        Err(LoadError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => FileState::Missing,
        Err(LoadError::Read { source, .. }) => FileState::Unreadable(source.to_string()),
        Err(LoadError::NoFile { what, .. }) => FileState::Unreadable(format!("it is {what}")),
    };
    Seen { stamp, settled, text, state }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let found = std::fs::metadata(path)?;
    Ok(Stamp {
        device: found.dev(),
        inode: found.ino(),
        size: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_tells_what_the_file_is_beside_what_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drover.toml");
        let text: Arc<str> = "aa".into();
        let mut seen = None;
        let mut found = || {
            let now = look(&path, text.clone(), seen.take());
            seen.insert(now).state.clone()
        };
        assert_eq!(found(), FileState::Missing);
        std::fs::write(&path, "aa").unwrap();
        assert_eq!(found(), FileState::Same);
        // As many bytes, and perhaps within the same tick of the file system's clock.
        std::fs::write(&path, "bb").unwrap();
        assert_eq!(found(), FileState::Differs);
        std::fs::write(&path, "aa").unwrap();
        assert_eq!(found(), FileState::Same);
        std::fs::write(&path, b"a\xff").unwrap();
        assert_eq!(found(), FileState::Differs);
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(found(), FileState::Unreadable("it is a pipe".to_owned()));
    }

    #[test]
    fn a_file_that_was_not_touched_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drover.toml");
        std::fs::write(&path, "a").unwrap();
        let text: Arc<str> = "a".into();
        let first = look(&path, text.clone(), None);
        let second = look(&path, text.clone(), Some(first));
        // What no reading would say.
        let planted = Seen { state: FileState::Unreadable("planted".to_owned()), ..second };
        assert_eq!(look(&path, text, Some(planted.clone())).state, planted.state);
        // Another text runs now.
        assert_eq!(look(&path, "b".into(), Some(planted)).state, FileState::Differs);
    }
}
