//! The command probe: a program of the operator's judges the backend, by FarmGuardian's contract or HAProxy's.
//!
//! Called by the runner for each probe, and by whoever runs a check on request to see its whole output. What the program
//! may do is in [`sandbox`]; how it is run, and what is left when a future is dropped (nothing), in [`process`].
//! The contract with the program's author is in `docs/command-checks.md`.

mod namespace;
pub(crate) mod process;
mod sandbox;
mod starts;
mod syscalls;

use std::net::SocketAddr;
use std::time::Duration;

use lb_core::config::model::{BackendName, CommandCheck, CommandContract, FarmName};
use lb_core::health::Outcome;

use self::process::{GRACE, Job};
pub use self::process::{OUTPUT_MAX, Run};
use super::Untried;
use super::probe::just_before;

/// What HAProxy says where a proxy has no address of its own.
const NOT_USED: &str = "NOT_USED";

/// What a command is told beside the address that it judges, and how long it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    pub farm: FarmName,
    pub backend: BackendName,
    /// Where clients connect to the farm, for HAProxy's contract.
    pub vip: Option<SocketAddr>,
    /// The whole run's; the command is killed at its end.
    pub timeout: Duration,
}

/// Judges the backend at `address`. The command is killed just before the check's time-out, where the board would count
/// the probe as failed too but could not say what the command had said; and when this is dropped.
pub(super) async fn probe(
    address: SocketAddr,
    check: &CommandCheck,
    context: &Context,
) -> Result<Outcome, Untried> {
    // Its dying is not waited for: the answer must be there in time.
    let (timeout, grace) = (just_before(context.timeout), Duration::ZERO);
    let run = Job { timeout, grace, ..job(address, check, context) }.run().await?;
    let reason = run.reason(context.timeout);
    Ok(if run.passed() { Outcome::passed(reason) } else { Outcome::failed(reason) })
}

/// Runs the check's command once; at its end nothing is left of it. The error says why it could not be run at all.
pub async fn run(address: SocketAddr, check: &CommandCheck, context: &Context) -> Result<Run, Untried> {
    job(address, check, context).run().await
}

fn job(address: SocketAddr, check: &CommandCheck, context: &Context) -> Job {
    Job {
        command: arguments(address, check, context),
        user: check.user.clone(),
        environment: environment(address, check, context),
        input: None,
        timeout: context.timeout,
        grace: GRACE,
    }
}

/// Program and arguments, as they are run.
fn arguments(address: SocketAddr, check: &CommandCheck, context: &Context) -> Vec<String> {
    let (program, arguments) = check.command.split_at(1.min(check.command.len()));
    let mut command = program.to_vec();
    match check.contract {
        CommandContract::FarmGuardian => command.extend(arguments.iter().map(|it| fill_in(it, address))),
        CommandContract::Haproxy => {
            command.extend_from_slice(arguments);
            let (vip, vip_port) = proxy(context);
            command.extend([vip, vip_port, address.ip().to_string(), address.port().to_string()]);
        }
    }
    command
}

/// The VIP's address and port, in words of HAProxy's contract.
fn proxy(context: &Context) -> (String, String) {
    let not_used = || (NOT_USED.to_owned(), NOT_USED.to_owned());
    context.vip.map_or_else(not_used, |vip| (vip.ip().to_string(), vip.port().to_string()))
}

/// `argument` with the backend's address for HOST and its port for PORT, where they are whole words: neither preceded
/// nor followed by a letter, a digit or an underscore. An IPv6 address is put into brackets where it is part of a URL or
/// followed by a colon.
fn fill_in(argument: &str, address: SocketAddr) -> String {
    let in_word = |byte: Option<&u8>| byte.is_some_and(|it| it.is_ascii_alphanumeric() || *it == b'_');
    let mut filled = String::with_capacity(argument.len() + 40);
    let mut rest = argument;
    while let Some(at) = [rest.find("HOST"), rest.find("PORT")].into_iter().flatten().min() {
        let (before, from) = rest.split_at(at);
        let (word, after) = from.split_at("HOST".len());
        filled.push_str(before);
        // What is before the word may have been filled in itself; then it ends in a digit of another word.
        let start = argument.len() - from.len();
        let previous = start.checked_sub(1).and_then(|index| argument.as_bytes().get(index));
        if in_word(previous) || in_word(after.as_bytes().first()) {
            filled.push_str(word);
        } else if word == "PORT" {
            filled.push_str(&address.port().to_string());
        } else if address.is_ipv6() && (before.ends_with("//") || after.starts_with(':')) {
            filled.push_str(&format!("[{}]", address.ip()));
        } else {
            filled.push_str(&address.ip().to_string());
        }
        rest = after;
    }
    filled + rest
}

/// What a command finds in its environment beside PATH and LANG.
fn environment(address: SocketAddr, check: &CommandCheck, context: &Context) -> Vec<(&'static str, String)> {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let (farm, backend) = (context.farm.to_string(), context.backend.to_string());
    let mut variables = vec![
        ("DROVER_FARM", farm.clone()),
        ("DROVER_BACKEND", backend.clone()),
        ("DROVER_HOST", host.clone()),
        ("DROVER_PORT", port.clone()),
    ];
    if check.contract == CommandContract::Haproxy {
        let (vip, vip_port) = proxy(context);
        variables.extend([
            ("HAPROXY_PROXY_NAME", farm.clone()),
            ("HAPROXY_PROXY_ID", farm),
            ("HAPROXY_PROXY_ADDR", vip),
            ("HAPROXY_PROXY_PORT", vip_port),
            ("HAPROXY_SERVER_NAME", backend.clone()),
            ("HAPROXY_SERVER_ID", backend),
            ("HAPROXY_SERVER_ADDR", host),
            ("HAPROXY_SERVER_PORT", port),
            // A layer-4 balancer does not speak TLS to a backend, and a check does not count connections.
            ("HAPROXY_SERVER_SSL", "0".to_owned()),
            ("HAPROXY_SERVER_CURCONN", "0".to_owned()),
            ("HAPROXY_SERVER_MAXCONN", "0".to_owned()),
        ]);
    }
    variables
}

#[cfg(test)]
mod tests;
