//! `cargo xtask VERB`: what a person does with this repository, one file a verb.
//!
//! Depends on nothing but `anyhow`, so that it compiles in seconds on a machine that has nothing yet. Progress goes to
//! standard error; standard output belongs to the programs that the verbs run.

mod bench;
mod build;
mod command;
mod demo;
mod kernels;
mod load;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask VERB

  setup                  install what is missing for all of these, and for .ci/run (asks nothing)
  build                  the release binary, target/release/drover, its XDP program inside, its symbols beside it
  load CONFIG [ARGS]     build, then run the daemon in the foreground with this configuration
  demo [--keep]          a small network on this machine, the daemon balancing real connections on it
  test [ARGS]            every test, end to end ones included (as root), several programs of them at once; ARGS, if there
                         are any, go to `cargo test`, which runs one after the other
  bench [--json FILE]    ns per packet, forwarding and HTTP against nftables and HAProxy (as root)
  kernels [--only 6.1]   Debian's kernels 6.1 and 6.12, emulated: the program loads and forwards there (minutes)
  tidy                   what the compiler does not check: lints inherited, no junk, no overlong file

Every verb but tidy begins with that part of setup that it needs, which takes a moment when nothing is missing.
";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let verb = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let done = match verb.as_str() {
        "setup" => setup::run(setup::Purpose::Merge),
        "build" => build::run(),
        "load" => load::run(&rest),
        "demo" => demo::run(&rest),
        "test" => test::run(&rest),
        "bench" => bench::run(&rest),
        "kernels" => kernels::run(&rest),
        "tidy" => tidy::run(),
        "-h" | "--help" | "help" => {
            help();
            return ExitCode::SUCCESS;
        }
        "" => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
        unknown => {
            eprint!("xtask: no verb '{unknown}'\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {verb}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "help that was asked for goes to standard output")]
fn help() {
    print!("{HELP}");
}
