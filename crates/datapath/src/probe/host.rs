//! Facts that are written down somewhere in `/proc` and `/sys`.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::{Error, Result};

/// Where the kernel shows the BTF of its own types.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// The release of the running kernel, as `uname -r` prints it.
#[must_use]
pub fn kernel_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// Where the BTF of the kernel's types is; `None` when it has none.
///
/// # Errors
/// When it is there but cannot be looked at.
pub fn btf() -> Result<Option<PathBuf>> {
    Ok(unless_missing(fs::metadata(BTF), BTF)?.map(|_| BTF.into()))
}

/// How many processors this kernel may ever have; per-CPU maps have as many slots.
///
/// # Errors
/// When the kernel does not tell.
pub fn cpus() -> Result<usize> {
    libbpf_rs::num_possible_cpus().map_err(Error::bpf("count", "the possible processors"))
}

/// Whether the process is in the first user namespace: capabilities in others do not reach BPF.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn initial_user_namespace() -> Result<bool> {
    // include/linux/proc_ns.h: PROC_USER_INIT_INO
    const INITIAL: u64 = 0xefff_fffd;
    let path = "/proc/self/ns/user";
    // A kernel without user namespaces has only the first one.
    let found = unless_missing(fs::metadata(path), path)?;
    Ok(found.is_none_or(|namespace| namespace.ino() == INITIAL))
}

/// The kernel's lockdown mode: `none`, `integrity` or `confidentiality`; `None` where it has no
/// lockdown, or securityfs is not mounted.
///
/// # Errors
/// When it is there but cannot be read.
pub fn lockdown() -> Result<Option<String>> {
    let path = "/sys/kernel/security/lockdown";
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
        other => unless_missing(other, path)?,
    };
    // The mode in force stands in brackets: none [integrity] confidentiality
    Ok(text.as_deref().and_then(in_brackets).map(str::to_owned))
}

fn in_brackets(text: &str) -> Option<&str> {
    text.split_once('[')?
        .1
        .split_once(']')
        .map(|(inside, _)| inside)
}

/// How much memory TCP may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpMemory {
    /// Bytes that a receive buffer may grow to: the last of `net.ipv4.tcp_rmem`, of this network
    /// namespace.
    pub receive_max: u64,
    /// Pages of all of TCP at which it refuses more: the last of `net.ipv4.tcp_mem`.
    pub pages_max: u64,
}

/// The limits in force; `None` where this network namespace does not show them.
///
/// # Errors
/// When they are there but cannot be read.
pub fn tcp_memory() -> Result<Option<TcpMemory>> {
    let receive_max = last_number("/proc/sys/net/ipv4/tcp_rmem")?;
    let pages_max = last_number("/proc/sys/net/ipv4/tcp_mem")?;
    Ok(receive_max
        .zip(pages_max)
        .map(|(receive_max, pages_max)| TcpMemory {
            receive_max,
            pages_max,
        }))
}

/// Pages that TCP uses now on the whole host: the number that `settings.memory_limit` is compared
/// with (`mem` in net/ipv4/proc.c, `sockstat_seq_show`); `None` where it is not shown.
///
/// # Errors
/// When it is there but cannot be read.
pub fn tcp_memory_used() -> Result<Option<u64>> {
    let path = "/proc/net/sockstat";
    let text = unless_missing(fs::read_to_string(path), path)?;
    Ok(text.and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("TCP:"))?;
        line.split_once(" mem ")?.1.trim().parse().ok()
    }))
}

fn last_number(path: &str) -> Result<Option<u64>> {
    let text = unless_missing(fs::read_to_string(path), path)?;
    Ok(text.and_then(|text| text.split_whitespace().last()?.parse().ok()))
}

fn unless_missing<T>(found: io::Result<T>, path: &str) -> Result<Option<T>> {
    match found {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(Error::io("read", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lockdown_mode_stands_in_brackets() {
        assert_eq!(
            in_brackets("none [integrity] confidentiality\n"),
            Some("integrity")
        );
        assert_eq!(in_brackets("none"), None);
    }
}
