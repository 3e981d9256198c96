//! The `beeline` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    beeline::cli::main()
}
