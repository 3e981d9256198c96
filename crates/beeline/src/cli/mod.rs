//! The command line: one file a command.

mod ask;
mod bench;
mod config;
mod conns;
mod demo;
mod detach;
mod doctor;
mod explain;
mod filter;
mod generate;
mod hist;
mod measure;
mod output;
mod plot;
mod release;
mod reload;
mod retire;
mod rows;
mod run;
mod self_test;
mod status;
mod top;
mod trace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use datapath::abi::ABI;

use crate::instance::Instance;
use crate::selftest;

/// Shortens the way between containers on a Linux host.
///
/// TCP data between two local sockets goes from one socket's send to the other's receive and skips
/// the network stack. Whatever is not proven local stays exactly as it was.
#[derive(Debug, Parser)]
#[command(name = "beeline", version, long_version = long_version(), arg_required_else_help = true)]
struct Cli {
    /// Name of the datapath to work with: its pins are under /sys/fs/bpf/<NAME>, its sockets under
    /// /run/<NAME>
    #[arg(long, global = true, value_name = "NAME", default_value = "beeline")]
    instance: Instance,

    #[command(subcommand)]
    command: Command,
}

/// What they do is said at their `Args`.
#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Detach(detach::Args),
    Reload(reload::Args),
    Retire(retire::Args),
    Status(status::Args),
    Conns(conns::Args),
    Top(top::Args),
    Hist(hist::Args),
    Trace(trace::Args),
    Explain(explain::Args),
    Doctor(doctor::Args),
    Config(config::Args),
    Demo(demo::Args),
    Bench(bench::Args),
    #[command(hide = true, name = selftest::COMMAND)]
    SelfTest,
    #[command(hide = true, name = bench::scale::hold::COMMAND)]
    Hold(bench::scale::hold::Args),
    #[command(hide = true)]
    Generate(generate::Args),
}

/// Versions with the same map layout take over from each other; packages look at it.
fn long_version() -> String {
    format!("{}\nmap layout {ABI}", env!("CARGO_PKG_VERSION"))
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run(args) => run::run(&cli.instance, &args),
        Command::Detach(args) => detach::run(&cli.instance, &args),
        Command::Retire(args) => retire::run(&cli.instance, &args),
        Command::Status(args) => status::run(&cli.instance, &args),
        Command::Conns(args) => conns::run(&cli.instance, &args),
        Command::Top(args) => top::run(&cli.instance, &args),
        Command::Hist(args) => hist::run(&cli.instance, &args),
        Command::Trace(args) => trace::run(&cli.instance, &args),
        Command::Explain(args) => explain::run(&cli.instance, &args),
        Command::Reload(args) => reload::run(&cli.instance, &args),
        Command::Config(args) => config::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::SelfTest => self_test::run(),
        Command::Hold(args) => bench::scale::hold::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and what caused it; some errors tell their cause themselves.
fn causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
