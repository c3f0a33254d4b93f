//! Looking at the host without being held up by it: a disk or a directory service may take for ever to answer.

use std::time::Duration;

use tokio::task::JoinHandle;

/// How long a look may take before it is said to hang.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks one after the other. One that hangs keeps a thread waiting, and no second one is begun meanwhile.
#[derive(Debug)]
pub struct Patient<T> {
    patience: Duration,
    hangs: Option<JoinHandle<T>>,
}

impl<T> Default for Patient<T> {
    fn default() -> Self {
        Self { patience: PATIENCE, hangs: None }
    }
}

impl<T: Send + 'static> Patient<T> {
    /// What `look` finds, or an earlier one that had not come back; the error says that there is no answer.
    pub async fn look(&mut self, look: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let mut under_way = self.hangs.take().unwrap_or_else(|| tokio::task::spawn_blocking(look));
        match tokio::time::timeout(self.patience, &mut under_way).await {
            Ok(found) => found.map_err(|error| error.to_string()),
            Err(_) => {
                self.hangs = Some(under_way);
                Err(format!("no answer within {:?}", self.patience))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_look_that_hangs_holds_nobody_up_and_is_not_begun_twice() {
        let mut patient = Patient { patience: Duration::from_millis(20), ..Patient::default() };
        let (answer, hang) = mpsc::channel::<&str>();
        let late = patient.look(move || hang.recv().unwrap()).await;
        assert_eq!(late.unwrap_err(), "no answer within 20ms");
        answer.send("the first").unwrap();
        patient.patience = Duration::from_secs(20);
        assert_eq!(patient.look(|| "the second").await.unwrap(), "the first");
        assert_eq!(patient.look(|| "the third").await.unwrap(), "the third");
    }
}
