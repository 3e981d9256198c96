//! What the calling process is allowed to do.

use std::io;

use caps::{CapSet, Capability};

use crate::{Error, Result};

/// The effective capabilities that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// CAP_BPF (Linux 5.8): load programs, make maps.
    pub bpf: bool,
    /// CAP_NET_ADMIN: networking programs, sockmaps.
    pub net_admin: bool,
    /// CAP_PERFMON (Linux 5.8): read kernel memory in programs.
    pub perfmon: bool,
    /// CAP_SYS_ADMIN: contains CAP_BPF and CAP_PERFMON; mount, and list the programs of others.
    pub sys_admin: bool,
    /// CAP_SYS_PTRACE: see in which system call the threads of others are.
    pub sys_ptrace: bool,
}

/// The capabilities of the calling thread.
///
/// # Errors
/// When the kernel does not tell.
pub fn capabilities() -> Result<Capabilities> {
    let held = caps::read(None, CapSet::Effective)
        .map_err(|error| Error::io("read", "/proc/self/status")(io::Error::other(error)))?;
    let has = |capability: Capability| held.contains(&capability);
    Ok(Capabilities {
        bpf: has(Capability::CAP_BPF),
        net_admin: has(Capability::CAP_NET_ADMIN),
        perfmon: has(Capability::CAP_PERFMON),
        sys_admin: has(Capability::CAP_SYS_ADMIN),
        sys_ptrace: has(Capability::CAP_SYS_PTRACE),
    })
}
