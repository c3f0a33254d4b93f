//! `drover run`: the daemon, in the foreground.

use std::path::Path;
use std::process::ExitCode;

/// Runs the daemon with the configuration file at `config` until it is told to stop; with `stay`, the data plane goes
/// on without it.
pub fn run(config: &Path, stay: bool) -> ExitCode {
    eprintln!("drover: cannot run {} (stay: {stay}): the daemon is not in this build", config.display());
    ExitCode::FAILURE
}
