//! What the agent says while it serves: to stderr, a line an event, for people or as JSON.
//!
//! Connections are not logged, whatever the level: `beeline trace` tells of them.

use std::io;

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: the start on stdout, and what happens later with its time on stderr
    Human,
    /// One JSON object a line, all on stderr
    Json,
}

/// What is worth a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Why the agent ended
    Error,
    /// What does not work, too
    Warn,
    /// Start and stop, too
    Info,
    /// What the agent is asked, too
    Debug,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
        }
    }
}

/// Begins the log of this process.
///
/// # Panics
/// When it has begun already.
pub fn begin(format: Format, level: Level) {
    let log = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::from(level))
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false);
    match format {
        Format::Human => log.init(),
        Format::Json => log.json().flatten_event(true).init(),
    }
}
