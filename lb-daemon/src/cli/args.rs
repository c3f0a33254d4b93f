//! What can be typed, and the help that documents it.

mod packets;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

pub use lb_core::config::keys::SOCKET as DEFAULT_SOCKET;
pub use packets::ExplainArgs;

const DEFAULT_CONFIG: &str = "/etc/drover/drover.toml";

const GLOBAL: &str = "Options of every command";

const EXAMPLES: &str = "\
Examples:
  drover check --config ./drover.toml     is this file valid?
  drover run                              run the daemon, in the foreground
  drover status                           everything on one screen
  drover backend drain web ex1            no new connections for ex1
  drover events --follow                  watch what happens

Exit status:
  0  done
  1  the daemon refused, or cannot be reached; one line on stderr says why
  2  wrong usage, or an invalid configuration";

/// The definition from which help, completions and the man page are made.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Drover shares connections to a virtual address between real servers, in XDP.
///
/// `drover run` is the daemon. The other commands ask the running daemon through its control socket; `check`,
/// `completions`, `man` and `version` need no daemon.
#[derive(Debug, Parser)]
#[command(name = "drover", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        value_hint = ValueHint::FilePath,
        help_heading = GLOBAL,
        help = "The daemon's control socket [default: /run/drover/control.sock]"
    )]
    pub socket: Option<PathBuf>,
    /// Print the API's answer, unchanged, instead of a text for people
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon, in the foreground
    ///
    /// Loads the XDP program, attaches it to the configured interfaces and balances until SIGTERM or SIGINT. It
    /// adopts what an earlier daemon has left running, without losing a connection.
    #[command(after_help = "Examples:
  drover run
  drover run --config ./drover.toml
  drover run --stay     # packets flow on after a stop")]
    Run {
        /// The configuration, TOML or (by its ending) JSON
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG, value_hint = ValueHint::FilePath)]
        config: PathBuf,
        /// Leave program and connections in the kernel when told to stop, for the next start to adopt
        #[arg(long)]
        stay: bool,
    },
    /// Check a configuration without touching anything
    ///
    /// Prints every error with its line, its column and what to do. Needs no daemon and no privileges. Exit status 2
    /// if the file is not valid.
    #[command(after_help = "Examples:
  drover check
  drover check --config ./drover.toml")]
    Check {
        /// The configuration to check
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG, value_hint = ValueHint::FilePath)]
        config: PathBuf,
    },
    #[command(flatten)]
    Online(Online),
    /// Print a completion script for a shell
    #[command(after_help = "Examples:
  drover completions bash > /etc/bash_completion.d/drover
  drover completions fish > ~/.config/fish/completions/drover.fish")]
    Completions { shell: Shell },
    /// Print the manual page
    #[command(after_help = "Examples:
  drover man | man -l -
  drover man > /usr/local/share/man/man1/drover.1")]
    Man,
    /// Print the version
    Version,
}

/// What the running daemon is asked.
#[derive(Debug, Subcommand)]
pub enum Online {
    /// Show node, interfaces, farms and backends on one screen
    ///
    /// The first line sums up. What is down is written in capitals and marked with `!`. `unchecked` means that no
    /// check is configured: nobody knows whether such a backend works. With --json: the answer of GET /v1/status.
    #[command(after_help = "Examples:
  drover status
  drover status --problems
  watch -n1 drover status
  drover status --json")]
    Status {
        /// Of the farms, only what is wrong
        #[arg(long)]
        problems: bool,
    },
    /// List the farms, one line each
    #[command(after_help = "Examples:
  drover farms
  drover farms --json")]
    Farms,
    /// Show or change one farm
    Farm {
        #[command(subcommand)]
        action: FarmAction,
    },
    /// Take a backend out, bring it back, or change its weight
    ///
    /// What is set here is not written to the configuration file. A backend's name is
    /// shown by `drover status`; it is its first address unless the configuration gives another.
    Backend {
        #[command(subcommand)]
        action: BackendAction,
    },
    /// List the checks, or run them now
    ///
    /// One line for each check at each address and port of each backend: what it holds the backend to be, how long ago
    /// it last ran and how long that took, when it runs next, and what the last run said. With --json also the last 20
    /// results of each.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:
  drover checks
  drover checks --farm web --backend ex1
  drover checks run web ex1"
    )]
    Checks(ChecksArgs),
    /// List tracked connections, or cut them
    ///
    /// In no order. The last line says how many match when not all are listed.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:
  drover connections --farm web
  drover connections --client 198.51.100.7
  drover connections cut --farm web --backend ex1"
    )]
    Connections(ConnectionsArgs),
    /// Say what would become of a packet, and why
    ///
    /// The program itself runs it, in a second instance that is attached to nothing: each decision is printed in order, and the entry that
    /// the packet would make. Nothing is sent, counted or remembered.
    #[command(after_help = "Examples:
  drover explain --src 198.51.100.7:40000 --dst 192.0.2.10:80
  drover explain --src 198.51.100.7:40000 --dst 192.0.2.10:53 --proto udp
  drover explain --src 10.0.0.11:80 --dst 192.0.2.10:40000 --flags SA")]
    Explain(ExplainArgs),
    /// Show what happened: backends up and down, configurations, interventions
    ///
    /// The daemon keeps the last 1000 events since its start; its log has them all. Times are UTC.
    #[command(after_help = "Examples:
  drover events --since 10m
  drover events --since 2026-11-03T08:00:00Z
  drover events --follow --json")]
    Events {
        /// Go on and print each event as it happens
        #[arg(long, short)]
        follow: bool,
        /// Only from then on: how long ago (30s, 10m, 2h), or an RFC 3339 time
        #[arg(long, value_name = "WHEN")]
        since: Option<String>,
    },
    /// Make FILE the configuration, all of it or nothing
    ///
    /// The daemon writes it to its own configuration file, so that it holds after a restart. Connected clients stay
    /// where they are. Exit status 2 if the file is not valid; nothing is changed then.
    #[command(after_help = "Examples:
  drover apply ./drover.toml --dry-run     # what would change?
  drover apply ./drover.toml")]
    Apply {
        /// TOML or, by its ending `.json`, JSON
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Read the configuration file again that the daemon was started with
    ///
    /// Exit status 2 if the file is not valid; nothing is changed then.
    #[command(after_help = "Example:
  drover check && drover reload")]
    Reload,
}

#[derive(Debug, Subcommand)]
pub enum FarmAction {
    /// Show a farm with its settings, backends and traffic
    #[command(after_help = "Example:
  drover farm show web")]
    Show(FarmName),
    /// Serve a farm again that was disabled
    ///
    /// Written to the configuration file.
    #[command(after_help = "Example:
  drover farm enable web")]
    Enable(FarmName),
    /// Stop serving a farm, but keep it in the configuration
    ///
    /// Written to the configuration file.
    #[command(after_help = "Example:
  drover farm disable web")]
    Disable(FarmName),
    /// Delete a farm from the configuration
    ///
    /// Written to the configuration file. Live connections go on until they end.
    #[command(after_help = "Example:
  drover farm delete web")]
    Delete(FarmName),
}

#[derive(Debug, Args)]
pub struct FarmName {
    /// The farm's name
    pub farm: String,
}

#[derive(Debug, Args)]
pub struct BackendOf {
    /// The farm's name
    pub farm: String,
    /// The backend's name in the farm
    pub backend: String,
}

#[derive(Debug, Subcommand)]
pub enum BackendAction {
    /// Let the checks decide again, after `drain` or `maintenance`
    #[command(after_help = "Example:
  drover backend up web ex1")]
    Up(BackendOf),
    /// No new connections; the old ones go on
    #[command(after_help = "Example:
  drover backend drain web ex1")]
    Drain(BackendOf),
    /// Take it out by hand: no new connections, and checks go on but do not bring it back
    ///
    /// Old connections go on. To end them: drover connections cut --farm FARM --backend BACKEND
    #[command(after_help = "Example:
  drover backend maintenance web ex1")]
    Maintenance(BackendOf),
    /// Set its share of new connections, relative to the others'
    #[command(after_help = "Example:
  drover backend weight web ex1 3     # three times the share of a backend of weight 1")]
    Weight {
        #[command(flatten)]
        of: BackendOf,
        /// 0 to 256; 0 takes no new connections
        #[arg(value_parser = clap::value_parser!(u16).range(0..=256))]
        weight: u16,
    },
}

#[derive(Debug, Args)]
pub struct ChecksArgs {
    /// Only this farm's
    #[arg(long)]
    pub farm: Option<String>,
    /// Only this backend's, by its name in the farm
    #[arg(long, requires = "farm")]
    pub backend: Option<String>,
    #[command(subcommand)]
    pub action: Option<ChecksAction>,
}

#[derive(Debug, Subcommand)]
pub enum ChecksAction {
    /// Run the checks of a farm, or of one of its backends, and show their whole output
    ///
    /// The results count for nothing: a look neither brings a backend up nor takes it out. Exit status 0 if all pass,
    /// else 1.
    #[command(after_help = "Examples:
  drover checks run web
  drover checks run web ex1")]
    Run {
        /// The farm's name
        farm: String,
        /// The backend's name in the farm [default: all of them]
        backend: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct ConnectionsArgs {
    #[command(flatten)]
    pub filter: Filter,
    /// List no more than so many
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub limit: u32,
    #[command(subcommand)]
    pub action: Option<ConnectionsAction>,
}

#[derive(Debug, Subcommand)]
pub enum ConnectionsAction {
    /// Cut the connections that match
    ///
    /// The daemon forgets them; a client's next packet is treated as if the connection had never been. At least one
    /// filter, or --all, must be given.
    #[command(
        group = clap::ArgGroup::new("which").args(["farm", "backend", "client", "all"]).required(true).multiple(true),
        after_help = "Examples:
  drover connections cut --client 198.51.100.7
  drover connections cut --farm web --backend ex1
  drover connections cut --all"
    )]
    Cut {
        #[command(flatten)]
        filter: Filter,
        /// Every connection of every farm
        #[arg(long, conflicts_with_all = ["farm", "backend", "client"])]
        all: bool,
    },
}

/// Which connections; all that is given must match.
#[derive(Debug, Args)]
pub struct Filter {
    /// Only this farm's
    #[arg(long)]
    pub farm: Option<String>,
    /// Only this backend's, by its name in the farm
    #[arg(long, requires = "farm")]
    pub backend: Option<String>,
    /// Only those of this client
    #[arg(long, value_name = "IP")]
    pub client: Option<IpAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn what_is_asked_is_whole() {
        let parses = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        let cases = [
            ("drover connections", true),
            ("drover connections --farm web --backend ex1 --limit 5", true),
            ("drover connections --backend ex1", false),
            ("drover connections --client everyone", false),
            ("drover connections cut", false),
            ("drover connections cut --all", true),
            ("drover connections cut --farm web --json", true),
            ("drover connections cut --client 2001:db8::7", true),
            ("drover connections cut --all --farm web", false),
            ("drover --json connections cut --farm web", true),
            ("drover checks --farm web --backend ex1", true),
            ("drover checks --backend ex1", false),
            ("drover checks run", false),
            ("drover checks run web ex1 --json", true),
        ];
        for (line, expected) in cases {
            assert_eq!(parses(line), expected, "{line}");
        }
    }
}
