//! What can go wrong between user space and the kernel's BPF.

use std::io;
use std::path::PathBuf;

/// Says what was tried, on what, and what the kernel answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory of the system did not do what it had to.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// A verb, such as `open`.
        action: &'static str,
        /// The object of the verb.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a BPF operation.
    #[error("cannot {action} {what}: {source}{}", hint(source))]
    Bpf {
        /// A verb, such as `load`.
        action: &'static str,
        /// The object of the verb.
        what: String,
        /// The kernel's answer, through libbpf.
        source: libbpf_rs::Error,
    },
    /// Pinned maps that this program cannot work with.
    #[error(
        "the datapath under {path} has layout {found}, this program needs layout {needed}: \
         run `beeline detach` with the version that started it, then start this one"
    )]
    Layout {
        /// The pin directory.
        path: PathBuf,
        /// Its `settings.abi`.
        found: u32,
        /// `BEELINE_ABI` of this program.
        needed: u32,
    },
    /// Nothing is loaded.
    #[error("Beeline is not loaded: there is no datapath under {path} (start it: `beeline run`)")]
    NotLoaded {
        /// The pin directory.
        path: PathBuf,
    },
}

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn hint(source: &libbpf_rs::Error) -> &'static str {
    match source.kind() {
        libbpf_rs::ErrorKind::PermissionDenied => {
            " (needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN)"
        }
        _ => "",
    }
}

impl Error {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    pub(crate) fn bpf(
        action: &'static str,
        what: impl Into<String>,
    ) -> impl FnOnce(libbpf_rs::Error) -> Self {
        let what = what.into();
        move |source| Self::Bpf {
            action,
            what,
            source,
        }
    }
}
