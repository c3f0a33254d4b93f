//! Watching the daemon's tasks. One that ends before the daemon does, by itself or by a panic, is never missed in silence:
//! the loop hears of it, tells it as an event, and ends. Packets go on flowing by the pinned maps, and the next daemon takes
//! over.
//!
//! `run` makes a [`Supervisor`]; whoever starts a task that must not end hands it over. Dropping it ends no task.

use std::fmt;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError, JoinHandle};

/// A task that has ended though the daemon has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What it did, as in `the checks`.
    pub task: &'static str,
    pub how: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the task of {} {}", self.task, self.how)
    }
}

/// What the loop gets of it.
pub type Endings = mpsc::UnboundedReceiver<Ended>;

/// See the module.
#[derive(Debug, Clone)]
pub struct Supervisor {
    endings: mpsc::UnboundedSender<Ended>,
}

impl Supervisor {
    pub fn new() -> (Self, Endings) {
        let (endings, inbox) = mpsc::unbounded_channel();
        (Self { endings }, inbox)
    }

    /// Tells of the end of a task unless it was aborted, as tasks are by those who own them. What is returned ends after the
    /// task has, however that was.
    pub fn watch(&self, task: &'static str, handle: JoinHandle<()>) -> JoinHandle<()> {
        let endings = self.endings.clone();
        tokio::spawn(async move {
            let how = match handle.await {
                Ok(()) => "has ended".to_owned(),
                Err(error) if error.is_cancelled() => return,
                Err(error) => format!("has broken off: {}", last_words(error)),
            };
            // Nobody listens any more when the daemon has ended, too.
            endings.send(Ended { task, how }).ok();
        })
    }
}

/// A task that ends with its owner: dropped, it is aborted.
#[derive(Debug)]
pub struct Task {
    abort: AbortHandle,
    /// For who watches it.
    handle: Option<JoinHandle<()>>,
}

impl Task {
    /// Must be called within a tokio runtime.
    pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        let handle = tokio::spawn(work);
        Self { abort: handle.abort_handle(), handle: Some(handle) }
    }

    /// Has its end told by that name. It is watched once.
    pub fn watch(&mut self, supervisor: &Supervisor, name: &'static str) {
        if let Some(handle) = self.handle.take() {
            supervisor.watch(name, handle);
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// What a task said when it panicked. Where panics abort the process nobody asks.
fn last_words(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "it was aborted".to_owned() };
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no words".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_and_a_panic_are_told_and_an_abort_is_not() {
        let (supervisor, mut endings) = Supervisor::new();
        let mut owned = Task::spawn(std::future::pending());
        owned.watch(&supervisor, "waiting");
        drop(owned);
        supervisor.watch("coming home", tokio::spawn(async {}));
        assert_eq!(endings.recv().await.unwrap().to_string(), "the task of coming home has ended");
        let panic = tokio::spawn(async { panic!("with {} words", 3) });
        supervisor.watch("falling", panic);
        let told = endings.recv().await.unwrap();
        assert_eq!(told.to_string(), "the task of falling has broken off: with 3 words");
        drop(supervisor);
        assert_eq!(endings.recv().await, None, "nothing of the one that was aborted");
    }
}
