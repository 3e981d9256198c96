//! Capabilities: those that the agent needs to start, and those that it keeps.
//!
//! Each was found by taking it away and watching a test of `tests/privileges.rs` or
//! `tests/service.rs` fail, on Linux 6.18.

use std::collections::HashSet;

use anyhow::{Context, Result};
use caps::{CapSet, Capability, CapsHashSet};
use rustix::thread::set_no_new_privs;

/// What it does while it serves, all that its process keeps. `CAP_SYS_ADMIN` contains `CAP_BPF` and
/// `CAP_PERFMON`.
pub const TO_SERVE: [Capability; 4] = [
    // Reads executables and libraries of programs whose files are closed to others.
    Capability::CAP_DAC_READ_SEARCH,
    // Finds functions of the kernel in /proc/kallsyms, which hides addresses from others.
    Capability::CAP_SYSLOG,
    // Loads iterators, opens what processes have mapped, and enters network namespaces: an iterator
    // sees the sockets of the one in which it was opened.
    Capability::CAP_SYS_ADMIN,
    // Looks at the executables and the descriptors of other processes.
    Capability::CAP_SYS_PTRACE,
];

/// What only starting takes. Before Linux 5.11 so does a limit of locked memory that is too low, which
/// the systemd unit lifts.
pub const TO_START: [Capability; 3] = [
    // Gives the control socket to the group that the configuration names.
    Capability::CAP_CHOWN,
    // Makes the self-test's cgroup, below a directory where root may not write otherwise.
    Capability::CAP_DAC_OVERRIDE,
    // Loads and attaches what runs in the network stack.
    Capability::CAP_NET_ADMIN,
];

/// Gives up all but [`TO_SERVE`], for good and for all programs that this process might execute.
/// Holds for the calling thread and those that it starts from then on, so there must be no others yet.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn give_up() -> Result<()> {
    let kept: CapsHashSet = TO_SERVE.into();
    let held = held()?;
    // Who may not change the bounding set gains nothing from it, as no program gains anything.
    set_no_new_privs(true).context("cannot rule out new privileges")?;
    if held.contains(&Capability::CAP_SETPCAP) {
        for other in caps::read(None, CapSet::Bounding)?.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *other)?;
        }
    }
    let kept = kept.intersection(&held).copied().collect();
    // What is effective has to be permitted.
    caps::set(None, CapSet::Inheritable, &HashSet::new())?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(())
}

/// The names of those that the calling thread has.
///
/// # Errors
/// When the kernel does not tell.
pub(super) fn names() -> Result<Vec<String>> {
    let mut names: Vec<_> = held()?.iter().map(ToString::to_string).collect();
    names.sort();
    Ok(names)
}

fn held() -> Result<CapsHashSet> {
    caps::read(None, CapSet::Permitted).context("cannot read the capabilities of this process")
}
