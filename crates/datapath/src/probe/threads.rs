//! What `/proc` tells of the host's threads; [`crate::quiesce`] waits for them by it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::{Error, Result};

/// Whether a file of `/proc` can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// With what it is for.
    Yes,
    /// This process may not.
    Denied,
    /// This kernel has no such file.
    Absent,
}

/// The files that tell in which system call a thread is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadFiles {
    /// `syscall` of the calling process itself.
    pub syscall: Read,
    /// Threads of which `/proc` tells.
    pub threads: usize,
    /// How many of them do not let the calling process read their `syscall`.
    pub hidden: usize,
    /// The names of those, each once, in order.
    pub hidden_names: Vec<String>,
}

/// Tries the files of every thread that `/proc` shows.
///
/// # Errors
/// When `/proc` cannot be listed, or answers with something else than yes or no.
pub fn thread_files() -> Result<ThreadFiles> {
    let mut files = ThreadFiles {
        syscall: read("/proc/self/syscall")?.0,
        threads: 0,
        hidden: 0,
        hidden_names: Vec::new(),
    };
    for process in fs::read_dir("/proc")
        .map_err(Error::io("list", "/proc"))?
        .flatten()
    {
        // What is no process, or ended meanwhile, has no threads.
        let Ok(threads) = fs::read_dir(process.path().join("task")) else {
            continue;
        };
        for thread in threads.flatten() {
            files.threads += 1;
            if hides(&thread.path()) {
                files.hidden += 1;
                let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
                files.hidden_names.push(name.trim().to_owned());
            }
        }
    }
    files.hidden_names.sort_unstable();
    files.hidden_names.dedup();
    Ok(files)
}

fn hides(task: &Path) -> bool {
    fs::read_to_string(task.join("syscall"))
        .is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

fn read(path: &str) -> Result<(Read, String)> {
    match fs::read_to_string(path) {
        Ok(text) => Ok((Read::Yes, text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok((Read::Absent, String::new())),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Ok((Read::Denied, String::new()))
        }
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

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
