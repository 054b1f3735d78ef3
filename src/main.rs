//! The command line tool; see `stormlog --help`.

fn main() -> std::process::ExitCode {
    stormlog::cli::run()
}
