//! The command line: one file a subcommand, each a client of the control socket or a word about the program itself.
//!
//! A subcommand returns what goes to stdout or a [`Failure`]; only this file turns them into output and exit status.

mod args;
mod backend;
mod changes;
pub mod check;
mod checks;
mod client;
mod connections;
mod docs;
mod events;
mod explain;
mod farms;
mod status;
mod text;
mod view;
#[cfg(test)]
mod width_tests;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use serde::de::DeserializeOwned;

use args::{Cli, Command, Online};
use client::Client;
use text::Style;

pub use args::command;

/// Exit status for a refusal and for a daemon out of reach.
const REFUSED: u8 = 1;
/// Exit status for wrong usage and for an invalid configuration; clap's own is the same.
const INVALID: u8 = 2;

/// Why a command did not do what it was asked.
#[derive(Debug)]
struct Failure {
    exit: u8,
    /// For stderr: what is wrong and what to do, one line unless a configuration has several errors.
    message: String,
    /// The API's answer, for `--json`.
    answer: Option<String>,
}

impl Failure {
    fn refused(message: impl Into<String>) -> Self {
        Self { exit: REFUSED, message: message.into(), answer: None }
    }
}

/// What every client subcommand gets.
struct Context {
    client: Client,
    json: bool,
    style: Style,
}

impl Context {
    /// An answer as it goes to stdout: unchanged with `--json`, else as `render` has it.
    fn show<T: DeserializeOwned>(
        &self,
        answer: &str,
        render: impl FnOnce(T) -> String,
    ) -> Result<String, Failure> {
        if self.json {
            return Ok(format!("{answer}\n"));
        }
        self.client.read(answer).map(render)
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let Cli { socket, json, command } = Cli::parse();
    let offline = match command {
        Command::Run { .. } if socket.is_some() || json => {
            let (exit, answer) = (INVALID, None);
            let message =
                "`drover run` takes neither --socket nor --json: the socket is set in the configuration";
            Err(Failure { exit, message: message.to_owned(), answer })
        }
        Command::Run { config, stay } => return crate::run::run(&config, stay),
        Command::Check { config } => return check::run(&config, json),
        Command::Completions { shell } => docs::completions(shell),
        Command::Man => docs::man(),
        Command::Version => Ok(docs::version(json)),
        Command::Online(online) => {
            let style = Style { colour: colour_wanted(), narrow: io::stdout().is_terminal() };
            let client = Client::new(socket.unwrap_or_else(|| args::DEFAULT_SOCKET.into()));
            return ask(online, Context { client, json, style });
        }
    };
    finish(offline, json)
}

/// Runs a command that talks to the daemon.
fn ask(command: Online, context: Context) -> ExitCode {
    let json = context.json;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return finish(Err(Failure::refused(format!("cannot start: {error}"))), json),
    };
    finish(runtime.block_on(dispatch(command, &context)), json)
}

async fn dispatch(command: Online, context: &Context) -> Result<String, Failure> {
    match command {
        Online::Status { problems } => status::run(context, problems).await,
        Online::Farms => farms::list(context).await,
        Online::Farm { action } => farms::run(context, action).await,
        Online::Backend { action } => backend::run(context, action).await,
        Online::Checks(args) => checks::run(context, args).await,
        Online::Connections(args) => connections::run(context, args).await,
        Online::Explain(args) => explain::run(context, args).await,
        Online::Events { follow, since } => events::run(context, follow, since).await,
        Online::Apply { file, dry_run } => changes::apply(context, &file, dry_run).await,
        Online::Reload => changes::reload(context).await,
    }
}

fn finish(result: Result<String, Failure>, json: bool) -> ExitCode {
    let (text, exit) = match result {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(failure) => {
            eprintln!("drover: {}", failure.message);
            let answer = failure.answer.filter(|_| json).map(|answer| format!("{answer}\n"));
            (answer.unwrap_or_default(), ExitCode::from(failure.exit))
        }
    };
    match print(&text) {
        Ok(()) => exit,
        // The reader has seen enough, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit,
        Err(error) => {
            eprintln!("drover: cannot write to stdout: {error}");
            ExitCode::from(REFUSED)
        }
    }
}

/// Writes to stdout at once.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
}

fn colour_wanted() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !set("NO_COLOR") && !dumb
}
