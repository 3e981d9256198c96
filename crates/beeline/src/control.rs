//! The agent's control socket: one JSON request a connection, answered by JSON lines.
//!
//! Everything that a user may want to know without an agent is read from the pinned maps; only what
//! needs the agent goes through here. Root may ask for anything, and the group that the configuration
//! names for what changes nothing.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::explain::Question;
use crate::instance::Instance;
use crate::workload::Names;

/// How long either side waits for the other's next line.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What a client can ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub enum Request {
    /// Who are you? One [`AgentInfo`].
    Info,
    /// Events until the client hangs up.
    Trace,
    /// Stop, and leave the datapath as it is. One [`AgentInfo`].
    Stop,
    /// Read the configuration again and put it in force. One [`Reloaded`].
    Reload,
    /// Which path does a connection take, and why? One [`Answer`](crate::explain::Answer).
    Explain {
        /// Which connection.
        question: Question,
    },
    /// What are containers called? One [`Names`].
    Names,
    /// Let programs capture until the client hangs up. One [`Capturing`].
    Capture {
        /// So many bytes of each message.
        bytes: u32,
    },
}

impl Request {
    /// Whether it only asks, so that who is not root may.
    #[must_use]
    pub fn changes_nothing(&self) -> bool {
        match self {
            Self::Info | Self::Trace | Self::Explain { .. } | Self::Names => true,
            // A capture shows what others send.
            Self::Stop | Self::Reload | Self::Capture { .. } => false,
        }
    }
}

/// Who serves an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Process id.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// Where a browser on this host finds its page; absent when it serves none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// The capabilities that it has.
    #[serde(default)]
    pub capabilities: Vec<String>,
}

/// Whether anything is captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Capturing {
    /// From now on.
    Begun,
    /// Nothing is.
    Refused {
        /// What is wrong, and what to do.
        why: String,
    },
}

/// What became of a reload: all of the new settings are in force, or the old ones still are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Reloaded {
    /// The new ones are.
    InForce {
        /// Settings that differ from before.
        changed: Vec<Changed>,
        /// Connections that the new rules took back to plain TCP.
        #[serde(default)]
        excluded: usize,
    },
    /// The old ones are.
    Refused {
        /// What is wrong, and what to do.
        why: String,
    },
}

/// A setting with another value than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Its name.
    pub key: String,
    /// Its value before, in TOML.
    pub old: String,
    /// Its value now, in TOML.
    pub new: String,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, was {}", self.key, self.new, self.old)
    }
}

/// Sends a request and returns the answers.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` when no agent listens.
pub fn ask(instance: &Instance, request: Request) -> io::Result<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(instance.control_socket())?;
    stream.set_write_timeout(Some(PATIENCE))?;
    send(&mut stream, &request)?;
    Ok(BufReader::new(stream))
}

/// The agent that serves the instance; `None` when there is none.
#[must_use]
pub fn agent(instance: &Instance) -> Option<AgentInfo> {
    now(instance, Request::Info)
}

/// Asks the agent to stop; `None` when there is none.
#[must_use]
pub fn stop(instance: &Instance) -> Option<AgentInfo> {
    now(instance, Request::Stop)
}

/// What containers are called; nothing when there is no agent.
#[must_use]
pub fn names(instance: &Instance) -> Names {
    now(instance, Request::Names).unwrap_or_default()
}

fn now<T: DeserializeOwned>(instance: &Instance, request: Request) -> Option<T> {
    soon(ask(instance, request).ok()?).ok()?
}

/// The first answer, which has to come at once; `None` when the agent does not know the request.
///
/// # Errors
/// As [`receive`], or when it takes too long.
pub fn soon<T: DeserializeOwned>(mut answers: BufReader<UnixStream>) -> io::Result<Option<T>> {
    answers.get_ref().set_read_timeout(Some(PATIENCE))?;
    receive(&mut answers)
}

/// Writes one line.
///
/// # Errors
/// When the other side is gone.
pub fn send(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads one line; `None` at the end.
///
/// # Errors
/// When the line is none of ours.
pub fn receive<T: for<'de> Deserialize<'de>>(stream: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}
