//! The daemon's log: lines for standard error, by way of a queue, so that nobody who has something to say waits or fails.
//!
//! One thread owns the descriptor and writes. A full disk, a closed pipe, or a reader that hangs holds up that thread and
//! nobody else. Lines that cannot be written, or for which the queue has no room, are lost and counted; as soon as lines go
//! out again, the log says itself how many it has lost. `run` starts it, and everything that `drover run` prints goes
//! through it: `eprintln!` would panic on a full disk, and wait for a reader that hangs. The thread ends with the process.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// The most lines that wait to be written, and the most bytes that they may have.
const WAITING_LINES: usize = 4096;
const WAITING_BYTES: usize = 1 << 20;
/// How long the end waits for the last lines to be written.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// How often it looks whether they are.
const LOOK: Duration = Duration::from_millis(5);

/// What became of the lines, told to whoever asks.
#[derive(Debug, Default)]
pub struct Lines {
    /// Put into the queue; of those, written or failed to be.
    accepted: AtomicU64,
    handled: AtomicU64,
    waiting_bytes: AtomicUsize,
    written: AtomicU64,
    lost: AtomicU64,
    /// The last line was lost.
    failing: AtomicBool,
    trouble: Mutex<Option<String>>,
}

impl Lines {
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether lines are being lost: none has been written since the last that was.
    pub fn failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Why the last line was lost that was.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lose(&self, why: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.failing.store(true, Ordering::Relaxed);
    }

    /// How many were written or lost.
    pub fn handled(&self) -> u64 {
        self.handled.load(Ordering::Acquire)
    }

    /// Whether none waits.
    pub fn is_idle(&self) -> bool {
        self.handled() >= self.accepted.load(Ordering::Acquire)
    }
}

/// A hold on the log.
#[derive(Debug, Clone)]
pub struct Log {
    queue: SyncSender<Vec<u8>>,
    lines: Arc<Lines>,
}

impl Log {
    /// Starts the thread that writes to standard error.
    ///
    /// # Errors
    ///
    /// If there is no descriptor or no thread to be had.
    pub fn start() -> io::Result<Self> {
        // Not `Stderr`, whose lock would be held for as long as a write takes.
        Self::to(File::from(io::stderr().as_fd().try_clone_to_owned()?))
    }

    fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, waiting) = sync_channel(WAITING_LINES);
        let lines = Arc::new(Lines::default());
        let counts = Arc::clone(&lines);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&waiting, out, &counts))?;
        Ok(Self { queue, lines })
    }

    pub fn lines(&self) -> Arc<Lines> {
        Arc::clone(&self.lines)
    }

    /// Says something beside tracing, line end included. Never waits.
    pub fn say(&self, text: &str) {
        self.put(text.as_bytes());
    }

    fn put(&self, line: &[u8]) {
        let lines = &self.lines;
        let before = lines.waiting_bytes.fetch_add(line.len(), Ordering::Relaxed);
        lines.accepted.fetch_add(1, Ordering::Release);
        // One line alone always has room, however long it is.
        let fits = before == 0 || before.saturating_add(line.len()) <= WAITING_BYTES;
        if !fits || self.queue.try_send(line.to_vec()).is_err() {
            lines.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            lines.lose("nobody takes the lines that are written".to_owned());
            lines.handled.fetch_add(1, Ordering::Release);
        }
    }

    /// Waits until what was said so far is written or lost, but not for longer than `patience`.
    pub fn flush(&self, patience: Duration) {
        let looks = patience.as_millis() / LOOK.as_millis();
        for _ in 0..looks {
            if self.lines.is_idle() {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Makes this the way of all that is told to `tracing`: plain lines for a person at a terminal, with time and fields
    /// for a collector. `DROVER_LOG` sets the level, as in `debug` or `lb_daemon::netlink=trace`; `DROVER_LOG_FORMAT=json`
    /// makes each line a JSON object. A panic is told here, too.
    pub fn take_all(&self) {
        use tracing_subscriber::EnvFilter;
        let filter = EnvFilter::try_from_env("DROVER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
        // Internal errors would be told by `eprintln!`.
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .log_internal_errors(false)
            .with_writer(self.clone());
        let json = std::env::var_os("DROVER_LOG_FORMAT").is_some_and(|format| format == "json");
        // Fails only if somebody has set logging up before, who then gets the lines.
        if json {
            lines.json().try_init().ok();
        } else if io::stderr().is_terminal() {
            lines.with_target(false).compact().try_init().ok();
        } else {
            lines.with_ansi(false).try_init().ok();
        }
        let log = self.clone();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current().name().unwrap_or("without a name").to_owned();
            let trace = std::backtrace::Backtrace::capture();
            tracing::error!("a defect of Drover's, please report it: thread '{thread}': {panic}\n{trace}");
            // The process may end right after.
            log.flush(PATIENCE);
        }));
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// One line's way into the queue; it is written whole.
#[derive(Debug)]
pub struct Line<'a>(&'a Log);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread: writes what waits, and says what was lost as soon as there is nothing else to say.
fn write_all(waiting: &Receiver<Vec<u8>>, mut out: impl Write, lines: &Lines) {
    let mut told = 0;
    while let Ok(line) = waiting.recv() {
        let written = out.write_all(&line).and_then(|()| out.flush());
        lines.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        match &written {
            Ok(()) => {
                lines.written.fetch_add(1, Ordering::Relaxed);
                lines.failing.store(false, Ordering::Relaxed);
            }
            Err(error) => lines.lose(error.to_string()),
        }
        lines.handled.fetch_add(1, Ordering::Release);
        let lost = lines.lost();
        if written.is_ok() && lost > told && lines.is_idle() {
            tracing::warn!("{} lines of this log were lost before this one", lost - told);
            told = lost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes what it is given, but only while it may.
    #[derive(Clone, Default)]
    struct Reader {
        taken: Arc<Mutex<String>>,
        full: Arc<AtomicBool>,
        hangs: Arc<Mutex<()>>,
    }

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _wait = self.hangs.lock().unwrap();
            if self.full.load(Ordering::SeqCst) {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            self.taken.lock().unwrap().push_str(std::str::from_utf8(line).unwrap());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log() -> (Log, Reader) {
        let reader = Reader::default();
        (Log::to(reader.clone()).unwrap(), reader)
    }

    #[test]
    fn what_is_said_is_written_in_order() {
        let (log, reader) = log();
        (0..100).for_each(|n| log.say(&format!("{n}\n")));
        log.flush(Duration::from_secs(10));
        let expected: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert_eq!(*reader.taken.lock().unwrap(), expected);
        assert_eq!((log.lines.written(), log.lines.lost(), log.lines.failing()), (100, 0, false));
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_its_reason_told() {
        let (log, reader) = log();
        reader.full.store(true, Ordering::SeqCst);
        (0..3).for_each(|_| log.say("lost\n"));
        log.flush(Duration::from_secs(10));
        assert_eq!((log.lines.lost(), log.lines.failing()), (3, true));
        assert_eq!(log.lines.trouble().as_deref(), Some("no storage space"));
        reader.full.store(false, Ordering::SeqCst);
        log.say("seen\n");
        log.flush(Duration::from_secs(10));
        assert_eq!((log.lines.written(), log.lines.failing()), (1, false));
        assert_eq!(*reader.taken.lock().unwrap(), "seen\n");
    }

    #[test]
    fn nobody_waits_for_a_reader_that_hangs_and_what_waits_is_bounded() {
        let (log, reader) = log();
        let hang = reader.hangs.lock().unwrap();
        let line = "x".repeat(1000);
        (0..100_000).for_each(|_| log.say(&line));
        let bytes = log.lines.waiting_bytes.load(Ordering::SeqCst);
        assert!(bytes <= WAITING_BYTES, "{bytes} bytes wait");
        assert!(log.lines.lost() > 98_000, "{}", log.lines.lost());
        log.flush(Duration::from_millis(20));
        drop(hang);
        log.flush(Duration::from_secs(10));
        assert_eq!(log.lines.written() + log.lines.lost(), 100_000);
    }

    #[test]
    fn a_line_longer_than_the_queue_is_written_when_nothing_waits() {
        let (log, reader) = log();
        log.say(&"x".repeat(WAITING_BYTES + 1));
        log.flush(Duration::from_secs(10));
        assert_eq!(reader.taken.lock().unwrap().len(), WAITING_BYTES + 1);
    }
}
