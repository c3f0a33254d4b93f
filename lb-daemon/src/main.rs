fn main() -> std::process::ExitCode {
    lb_daemon::cli::main()
}
