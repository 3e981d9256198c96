//! The one error type of this crate.

use std::io;
use std::time::Duration;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What to do about most refusals: namespaces, cgroups and links are for root.
pub(crate) const NEEDS_ROOT: &str = "run as root: needs CAP_SYS_ADMIN and CAP_NET_ADMIN";

/// Why the testbed could not do something: what was tried, on what, and what the user can do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call or a file under /proc, /sys or a cgroup refused.
    #[error("cannot {tried}: {source} ({hint})")]
    Os {
        /// What was tried, on what.
        tried: String,
        /// What the kernel answered.
        source: io::Error,
        /// What the user can do.
        hint: &'static str,
    },

    /// No cgroup2 hierarchy is mounted.
    #[error(
        "no cgroup2 file system in /proc/self/mountinfo \
         (mount one: mount -t cgroup2 none /sys/fs/cgroup/unified)"
    )]
    NoCgroup2,

    /// Routing netlink refused a change to a link, an address or a route.
    #[error("cannot {tried} in namespace {namespace}: {source} ({NEEDS_ROOT})")]
    Netlink {
        /// What was tried, on what.
        tried: String,
        /// The namespace's name.
        namespace: String,
        /// What the kernel answered.
        source: Box<rtnetlink::Error>,
    },

    /// A program was not found on the PATH.
    #[error("cannot run {program}: not found on PATH (install it)")]
    NoProgram {
        /// The program's name.
        program: String,
    },

    /// An external program failed.
    #[error("{program} in namespace {namespace} ended with {status}: {stderr}")]
    Program {
        /// The program's name.
        program: String,
        /// The namespace's name.
        namespace: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it said on standard error.
        stderr: String,
    },

    /// Something did not happen in time.
    #[error("{what} did not happen within {after:?} (is the peer alive, is the host overloaded?)")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },

    /// A peer received something else than what was sent.
    #[error(
        "stream differs at byte {offset}: {got} instead of {expected} (lost, doubled or reordered)"
    )]
    Stream {
        /// The first byte that differs, counted from 0.
        offset: u64,
        /// What should have been there.
        expected: String,
        /// What was there.
        got: String,
    },

    /// An address cannot be used by this node.
    #[error("{addr} cannot be used on {node}: {why}")]
    Address {
        /// The address.
        addr: String,
        /// The node's name.
        node: String,
        /// What is wrong with it, and what to use.
        why: &'static str,
    },
}

impl Error {
    /// The kernel's answer, when it is about a system call.
    #[must_use]
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Os { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Names what was tried when a system call fails.
pub(crate) trait Tried<T> {
    /// Turns the failure into [`Error::Os`]; `tried` continues "cannot ...".
    fn tried(self, hint: &'static str, tried: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Tried<T> for std::result::Result<T, E> {
    fn tried(self, hint: &'static str, tried: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Os {
            tried: tried(),
            source: source.into(),
            hint,
        })
    }
}
