//! What the API holds of the daemon: a snapshot to read, counters and connections to look up, commands to send.
//!
//! The daemon owns every map and decides; a handler reads what was published, or sends a [`Command`] and waits for
//! its answer. A handler that is dropped while waiting cancels nothing: the command is carried out all the same.

use std::collections::HashMap;
use std::sync::Arc;

use lb_common::abi::{BACKENDS_MAX, FARMS_MAX};
use lb_core::config::model::{BackendName, FarmName};
use lb_core::explain::{Explanation, Question};
use lb_core::ills::Condition;
use lb_core::state::{
    AdminState, CheckLoad, CheckReport, CheckRun, Connection, ConnectionFilter, Occurrences, Peer, Snapshot,
    Traffic,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{Defect, FileState};
use crate::precondition::{Precondition, Version};
use crate::refusal::Conflict;
use crate::vitals::Vitals;

pub use crate::config::{FarmEdit, Format};
pub use crate::events::Events;
pub use crate::refusal::Refusal;

/// What a change of the configuration did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// The generation in force afterwards (for a dry run: in force now).
    pub generation: u64,
    /// One line for people each, as in `farm 'web': backend '10.0.0.13' added`.
    pub lines: Vec<String>,
    /// Live connections to backends that the configuration no longer has. They go on until they end.
    pub orphaned_connections: u64,
    /// Of a dry run: whose live connections would be orphaned or cut.
    pub affected: Vec<Affected>,
    /// The version of what was changed, the farm or the whole; `None` when it is no longer there.
    pub version: Option<Version>,
}

/// What would become of a backend's live connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affected {
    pub farm: FarmName,
    pub backend: BackendName,
    /// They go on until they end, though the configuration no longer has the backend.
    pub orphaned: u64,
    /// Their VIP goes.
    pub cut: u64,
}

/// What to change in one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackendPatch {
    pub admin: Option<AdminState>,
    /// 0 to 256.
    pub weight: Option<u16>,
}

/// The answer's way back.
pub type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// Everything that can be asked of the daemon.
#[derive(Debug)]
pub enum Command {
    PatchBackend {
        farm: FarmName,
        backend: BackendName,
        patch: BackendPatch,
        reply: Reply<()>,
    },
    EditFarm {
        farm: FarmName,
        edit: FarmEdit,
        only_if: Precondition,
        reply: Reply<Changes>,
    },
    /// Make this text the configuration, and the content of the configuration file.
    Apply {
        text: String,
        format: Format,
        only_if: Precondition,
        reply: Reply<Changes>,
    },
    /// Say what [`Command::Apply`] would do.
    DryRun {
        text: String,
        format: Format,
        reply: Reply<Changes>,
    },
    /// Read the file again that the daemon was started with.
    Reload {
        reply: Reply<Changes>,
    },
    /// Say that the loop goes round.
    Ping {
        reply: Reply<()>,
    },
    /// Delete tracked connections; the answer is how many.
    Cut {
        filter: ConnectionFilter,
        reply: Reply<u64>,
    },
}

/// A command, and who gave it.
#[derive(Debug)]
pub struct Order {
    pub command: Command,
    pub by: Option<Peer>,
}

/// Everything that can be asked of the checks. The task that runs them answers; asking changes no judgement.
#[derive(Debug)]
pub enum CheckQuery {
    /// What is known of the checks of all backends, of one farm's, or of one backend's, each with at most `history` results.
    Tell {
        farm: Option<FarmName>,
        backend: Option<BackendName>,
        history: usize,
        reply: oneshot::Sender<ChecksTold>,
    },
    /// How the checks as a whole are doing: cheap, however many there are.
    Load { reply: oneshot::Sender<CheckLoad> },
    /// Run the checks of a farm or of one of its backends now. A way back that is dropped ends the run.
    Run { farm: FarmName, backend: Option<BackendName>, reply: oneshot::Sender<Vec<CheckRun>> },
    /// Something else says that a backend does not work: probe it at once.
    Suspect { farm: FarmName, backend: BackendName },
}

/// What [`CheckQuery::Tell`] is answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChecksTold {
    /// By farm and backend, then in the configuration's order.
    pub checks: Vec<CheckReport>,
    pub load: CheckLoad,
}

/// A cheap, cloneable hold on the checks.
#[derive(Debug, Clone)]
pub struct Checks {
    queries: mpsc::Sender<CheckQuery>,
}

impl Checks {
    /// The hold, and what whoever runs the checks gets of it.
    pub fn new() -> (Self, mpsc::Receiver<CheckQuery>) {
        let (queries, inbox) = mpsc::channel(256);
        (Self { queries }, inbox)
    }

    /// What is known of the checks; those of a farm or backend that has none are none. Cancel-safe.
    ///
    /// # Errors
    ///
    /// When nobody runs the checks any more.
    pub async fn tell(
        &self,
        farm: Option<FarmName>,
        backend: Option<BackendName>,
        history: usize,
    ) -> Result<ChecksTold, Refusal> {
        self.ask(|reply| CheckQuery::Tell { farm, backend, history, reply }).await
    }

    /// How the checks as a whole are doing. Cancel-safe.
    ///
    /// # Errors
    ///
    /// When nobody runs the checks any more.
    pub async fn load(&self) -> Result<CheckLoad, Refusal> {
        self.ask(|reply| CheckQuery::Load { reply }).await
    }

    /// Runs the checks of a farm, or of one of its backends, beside their schedule. The results count for nothing: a
    /// look by hand neither brings a backend up nor takes it out. Dropped, it ends what still runs.
    ///
    /// # Errors
    ///
    /// When nobody runs the checks any more.
    pub async fn run(&self, farm: FarmName, backend: Option<BackendName>) -> Result<Vec<CheckRun>, Refusal> {
        self.ask(|reply| CheckQuery::Run { farm, backend, reply }).await
    }

    /// Says that a backend is suspicious: its checks run now instead of at their next turn, unless they run already or
    /// did within their last fast interval. It is a hint: dropped when the checks are behind with their answers.
    pub fn suspect(&self, farm: FarmName, backend: BackendName) {
        if self.queries.try_send(CheckQuery::Suspect { farm, backend }).is_err() {
            tracing::debug!("a suspicion was not looked into: the checks are busy or have stopped");
        }
    }

    async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> CheckQuery) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let stopping = || Refusal::Conflict(Conflict::Stopping);
        self.queries.send(query(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }
}

/// How many newcomers a farm has turned away: `(reason, packets)`.
pub type TurnedAway = Vec<(&'static str, u64)>;

/// What the data plane can be asked without changing it.
pub trait DataplaneReader: Send + Sync {
    /// Up to `limit` connections that match, in no order, and how many match in all.
    fn connections(&self, filter: &ConnectionFilter, limit: usize) -> anyhow::Result<(Vec<Connection>, u64)>;
    /// How many packets had each outcome since the program was loaded: `(verdict, packets)`, every verdict once.
    /// A verdict's text is its name in metrics (`[a-z_]+`).
    fn verdicts(&self) -> anyhow::Result<Vec<(&'static str, u64)>>;
    /// How many newcomers a farm has turned away, by its number: every reason once.
    fn turned_away(&self, farm: u16) -> anyhow::Result<TurnedAway>;
    /// What happened in the connection tables since the program was loaded. A few system calls, which do not wait.
    fn occurrences(&self) -> anyhow::Result<Occurrences>;
    /// What the program would do with a packet now. Takes milliseconds, the first time a second or two.
    fn explain(&self, question: &Question) -> anyhow::Result<Explanation>;
    /// What backends have carried, by number. A system call for a thousand of them.
    fn traffic_of(&self, backends: Vec<u16>) -> anyhow::Result<HashMap<u16, Traffic>>;
}

/// A cheap, cloneable hold on the running daemon.
#[derive(Clone)]
pub struct Handle {
    pub commands: mpsc::Sender<Order>,
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    pub events: Arc<Events>,
    pub dataplane: Arc<dyn DataplaneReader>,
    pub checks: Checks,
    /// Whether the configuration file is what runs.
    pub file: watch::Receiver<FileState>,
    /// What the farms need of this host and do not find.
    pub defects: watch::Receiver<Arc<[Defect]>>,
    /// How the daemon itself does.
    pub condition: watch::Receiver<Arc<Condition>>,
    /// What the loop and its jobs leave to be seen from beside.
    pub vitals: Arc<Vitals>,
}

impl Handle {
    /// The state as last published.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// The same with what each backend has carried by now, which is read for whoever asks and not by the loop.
    ///
    /// # Errors
    ///
    /// If the counters cannot be read.
    pub fn measured(&self) -> anyhow::Result<Arc<Snapshot>> {
        let mut snapshot = (*self.snapshot()).clone();
        let backends = || snapshot.farms.iter().flat_map(|farm| &farm.backends);
        // Of farms that are disabled there are no numbers.
        let ids = backends().map(|backend| backend.id).filter(|id| u32::from(*id) < BACKENDS_MAX).collect();
        let traffic = self.dataplane.traffic_of(ids)?;
        for backend in snapshot.farms.iter_mut().flat_map(|farm| &mut farm.backends) {
            if let Some(traffic) = traffic.get(&backend.id) {
                backend.traffic = *traffic;
            }
        }
        Ok(Arc::new(snapshot))
    }

    /// How many newcomers each farm has turned away, by its name; of farms that are disabled there are no numbers.
    ///
    /// # Errors
    ///
    /// If the counters cannot be read.
    pub fn turned_away(&self) -> anyhow::Result<Vec<(String, TurnedAway)>> {
        let snapshot = self.snapshot();
        let farms = snapshot.farms.iter().filter(|farm| u32::from(farm.id) < FARMS_MAX);
        farms.map(|farm| Ok((farm.name.to_string(), self.dataplane.turned_away(farm.id)?))).collect()
    }

    /// Sends what `command` makes of the way back, in the name of `by`, and waits for the answer.
    pub async fn ask<T>(
        &self,
        by: Option<Peer>,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let stopping = || Refusal::Conflict(Conflict::Stopping);
        self.commands.send(Order { command: command(reply), by }).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}
