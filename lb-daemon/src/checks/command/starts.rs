//! Turns for starting programs. Whoever looks for a program and its user blocks a thread, and keeps it for as long as a disk
//! or a directory of users hangs. The threads are the whole daemon's, so few may be kept: a program that hangs makes others
//! of it wait, and no other program.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Starts of one program that are under way at once. One takes milliseconds where nothing hangs.
pub(super) const OF_ONE_PROGRAM: usize = 8;
/// Starts of all programs: where all hang, most of the runtime's threads (512) are left to others.
const OF_ALL: usize = 128;

static STARTS: LazyLock<Starts> =
    LazyLock::new(|| Starts { all: Arc::new(Semaphore::new(OF_ALL)), programs: Mutex::default() });

struct Starts {
    all: Arc<Semaphore>,
    /// By the name that the configuration has for it.
    programs: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// Leave to start a program, until it is dropped.
pub(super) struct Turn {
    _of_program: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// Waits for leave to start `program`; never `None` but in a process that ends. Cancel-safe.
pub(super) async fn turn(program: &str) -> Option<Turn> {
    let of_program = {
        let mut programs = STARTS.programs.lock().unwrap_or_else(PoisonError::into_inner);
        // Who waits and who has leave hold theirs.
        programs.retain(|_, turns| Arc::strong_count(turns) > 1);
        let new = || Arc::new(Semaphore::new(OF_ONE_PROGRAM));
        programs.entry(program.to_owned()).or_insert_with(new).clone()
    };
    // In this order: who waits for its own program keeps nobody else waiting.
    let of_program = of_program.acquire_owned().await.ok()?;
    let of_all = STARTS.all.clone().acquire_owned().await.ok()?;
    Some(Turn { _of_program: of_program, _of_all: of_all })
}
