//! The pid namespace: only in the first one are all threads seen for which [`crate::quiesce`] waits.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::{Error, Result};

/// Which processes this one sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PidNamespace {
    /// It is in the first pid namespace.
    pub initial: bool,
    /// The `/proc` it sees shows the kernel's own threads, which are in the first namespace only.
    pub sees_kernel: bool,
}

/// The pid namespace of this process and of its `/proc`.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn pid_namespace() -> Result<PidNamespace> {
    // include/linux/proc_ns.h: PROC_PID_INIT_INO
    const INITIAL: u64 = 0xefff_fffc;
    let path = "/proc/self/ns/pid";
    let namespace = fs::metadata(path).map_err(Error::io("ask", path))?;
    // kthreadd is made right after init, so it is process 2 (init/main.c, rest_init).
    let second = fs::read_to_string("/proc/2/comm");
    Ok(PidNamespace {
        initial: namespace.ino() == INITIAL,
        sees_kernel: second.is_ok_and(|name| name.trim() == "kthreadd"),
    })
}
