//! Whether the socket path keeps TCP's promises on this kernel: tried with the real programs on
//! connections of the calling process's own.
//!
//! Kernels differ, and distributions carry changes back and forth; what a version number promises
//! may not hold. As in [`crate::probe`], nothing here judges: each check says what it found.

mod checks;
mod pair;

use std::fmt;
use std::time::Duration;

use crate::ends::Ends;
use crate::socket::SocketPath;
use crate::{Error, Result};

/// How long one step of a check may take. It takes microseconds where it works and the host is not busy;
/// a busy host must not take itself for a broken one.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Check {
    /// Both directions of a connection are redirected.
    Redirect,
    /// What is redirected arrives as it was sent.
    Integrity,
    /// Bytes over the kernel path are read behind those that were redirected before.
    Order,
    /// A reader that stops reading stops its sender, at the queue limit and TCP's own buffers.
    BackPressure,
    /// One read gets what was redirected and what took the kernel path behind it.
    OneQueue,
    /// A direction that was left for want of room is redirected again, in order.
    WayBack,
    /// A send after `shutdown(SHUT_WR)` fails with EPIPE.
    ShutDown,
    /// After one end's `shutdown(SHUT_WR)` the other reads all, then end of file, and sends on.
    HalfClose,
    /// After one end closed, the other reads all, then end of file.
    Close,
    /// A connection that used both paths becomes plain TCP again, and goes on.
    Retire,
    /// FIONREAD counts what was redirected and not read.
    FionreadRedirected,
    /// FIONREAD counts what took the kernel path to an enrolled socket.
    FionreadKernelPath,
    /// splice(2) from an enrolled socket finds redirected data, or is refused.
    Splice,
}

impl Check {
    /// Every check, in the order in which they run.
    pub const ALL: [Self; 13] = [
        Self::Redirect,
        Self::Integrity,
        Self::Order,
        Self::OneQueue,
        Self::BackPressure,
        Self::WayBack,
        Self::ShutDown,
        Self::HalfClose,
        Self::Close,
        Self::Retire,
        Self::FionreadRedirected,
        Self::FionreadKernelPath,
        Self::Splice,
    ];

    /// The name in output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Integrity => "integrity",
            Self::Order => "order",
            Self::OneQueue => "one queue",
            Self::BackPressure => "back-pressure",
            Self::WayBack => "way back",
            Self::ShutDown => "send after shutdown",
            Self::HalfClose => "half-close",
            Self::Close => "close",
            Self::Retire => "retire",
            Self::FionreadRedirected => "FIONREAD, redirected",
            Self::FionreadKernelPath => "FIONREAD, kernel path",
            Self::Splice => "splice",
        }
    }

    /// The check of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|check| check.name() == name)
    }
}

/// How one check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was tried.
    pub check: Check,
    /// `None`: it is as it should be.
    pub failure: Option<Failure>,
}

/// What happened instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Bytes were lost, changed or out of order (invariant 1).
    Data(String),
    /// A call did not do what it has to.
    Call(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(what) | Self::Call(what) => f.write_str(what),
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Call(error.to_string())
    }
}

/// Runs every check. The calling process has to be in the cgroup that `path` is attached to, and in
/// a network namespace with a loopback device; nobody else may use `path`, whose settings change
/// meanwhile. The descriptor table should be the calling thread's alone: where threads share it, the
/// datapath may decline to enrol.
///
/// # Errors
/// When there is no loopback device to connect over, or the sockets cannot be listed.
pub fn run(path: &SocketPath) -> Result<Vec<Finding>> {
    let ends = Ends::load(path.maps())?;
    let bench = pair::Bench::new(path.maps(), &ends)
        .map_err(|error| Error::io("listen on", "the loopback device")(error))?;
    let found = Check::ALL.map(|check| Finding {
        check,
        failure: checks::run(check, &bench).err(),
    });
    Ok(found.to_vec())
}
