//! `beeline generate`, which packages call when they are built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;

/// Write manual pages and shell completions, as they belong below /usr/share.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The directory to write to, in the place of /usr/share
    #[arg(value_name = "DIR")]
    share: PathBuf,
}

/// What shells look for, and where.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/beeline"),
    (Shell::Zsh, "zsh/vendor-completions/_beeline"),
    (Shell::Fish, "fish/vendor_completions.d/beeline.fish"),
];

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    manual(&args.share.join("man/man1"))?;
    for (shell, path) in COMPLETIONS {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "beeline", &mut script);
        write(&args.share.join(path), &script)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A page for the program, and one for each command that is not hidden.
fn manual(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .with_context(|| format!("cannot write manual pages to {}", dir.display()))
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    let dir = path.parent().expect("it is below the directory");
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(path, content))
        .with_context(|| format!("cannot write {}", path.display()))
}
