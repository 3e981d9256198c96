//! What runs behind a socket: process, cgroup, container.

mod container;
mod containers;
pub mod docker;
pub mod source;
pub mod tree;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use procfs::process;
use rustix::fs::{Dir, Mode, OFlags, open, readlinkat};
use serde::Serialize;

pub use container::{container, is_id_or_short, short, units};
pub use containers::{Container, Containers, Pod};

/// Who holds a socket, as far as known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Process id of one holder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Its command name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Path of the cgroup the socket was made in, from the cgroup2 root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Container or unit that this cgroup belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

impl Workload {
    /// The shortest name that tells it apart: container, command or cgroup.
    #[must_use]
    pub fn label(&self) -> String {
        let process = self.command.as_ref().map(|command| match self.pid {
            Some(pid) => format!("{command}[{pid}]"),
            None => command.clone(),
        });
        self.with_process(process)
    }

    /// As [`Workload::label`], the same for all processes of one command.
    #[must_use]
    pub fn name(&self) -> String {
        self.with_process(self.command.clone())
    }

    fn with_process(&self, process: Option<String>) -> String {
        match (&self.container, process) {
            (Some(container), Some(process)) => format!("{container}/{process}"),
            (Some(container), None) => container.clone(),
            (None, Some(process)) => process,
            (None, None) => self.cgroup.clone().unwrap_or_else(|| "-".into()),
        }
    }
}

/// What people call containers, by their ids.
pub type Names = HashMap<String, String>;

/// A picture of the host's processes and cgroups.
#[derive(Debug, Default)]
pub struct Workloads {
    /// A process by the inode of a socket.
    holders: HashMap<u64, i32>,
    /// Its name.
    commands: HashMap<i32, String>,
    cgroups: HashMap<u64, Cgroup>,
}

#[derive(Debug)]
struct Cgroup {
    path: String,
    container: Option<String>,
}

impl Workloads {
    /// Looks at every process and cgroup; what cannot be read is absent.
    #[must_use]
    pub fn find(names: &Names) -> Self {
        let cgroups = Self::cgroups().into_iter().map(|(id, path)| {
            let container = container::name(&path, names);
            (id, Cgroup { path, container })
        });
        let (holders, commands) = holders();
        Self {
            holders,
            commands,
            cgroups: cgroups.collect(),
        }
    }

    /// Cgroup ids (inode numbers) and paths from the cgroup2 root.
    #[must_use]
    pub fn cgroups() -> HashMap<u64, String> {
        let mut found = HashMap::new();
        if let Ok(root) = testbed::cgroup2_mount() {
            walk(&root, &root, &mut found);
        }
        found
    }

    /// The shortest name for a cgroup by its path: the container or unit that it belongs to.
    #[must_use]
    pub fn name_of(path: &str, names: &Names) -> String {
        container::name(path, names).unwrap_or_else(|| path.to_owned())
    }

    /// Who holds the socket with this inode, made in the cgroup with this id.
    #[must_use]
    pub fn of(&self, inode: u64, cgroup_id: u64) -> Workload {
        let pid = self.holders.get(&inode).filter(|_| inode != 0);
        let cgroup = self.cgroups.get(&cgroup_id);
        Workload {
            pid: pid.copied(),
            command: pid.and_then(|pid| self.commands.get(pid)).cloned(),
            container: cgroup.and_then(|cgroup| cgroup.container.clone()),
            cgroup: cgroup.map(|cgroup| cgroup.path.clone()),
        }
    }
}

/// One process for every socket inode, and the names of these processes.
fn holders() -> (HashMap<u64, i32>, HashMap<i32, String>) {
    let (mut found, mut commands) = (HashMap::new(), HashMap::new());
    let Ok(processes) = process::all_processes() else {
        return (found, commands);
    };
    for process in processes.flatten() {
        let (Ok(stat), Some(sockets)) = (process.stat(), sockets(process.pid)) else {
            continue;
        };
        for inode in sockets {
            found.entry(inode).or_insert(stat.pid);
        }
        commands.insert(stat.pid, stat.comm);
    }
    (found, commands)
}

/// The inodes of the sockets that a process has; with one call for each of its descriptors, as there may be
/// very many. `None` when it is gone.
fn sockets(pid: i32) -> Option<Vec<u64>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = open(format!("/proc/{pid}/fd"), flags, Mode::empty()).ok()?;
    let (mut found, mut buffer) = (Vec::new(), Vec::new());
    for entry in Dir::read_from(&dir).ok()?.flatten() {
        // Not a link, or closed meanwhile.
        let Ok(target) = readlinkat(&dir, entry.file_name(), std::mem::take(&mut buffer)) else {
            continue;
        };
        found.extend(target.to_str().ok().and_then(socket_inode));
        buffer = target.into_bytes();
    }
    Some(found)
}

/// Of `socket:[<inode>]` (proc_pid_fd(5)).
fn socket_inode(target: &str) -> Option<u64> {
    let inode = target.strip_prefix("socket:[")?.strip_suffix(']')?;
    inode.parse().ok()
}

fn walk(root: &Path, dir: &Path, found: &mut HashMap<u64, String>) {
    if let Ok(meta) = fs::metadata(dir) {
        let path = dir.strip_prefix(root).unwrap_or(dir);
        found.insert(meta.ino(), format!("/{}", path.display()));
    }
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(root, &entry.path(), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn sockets_of_a_process_are_found_among_its_files() {
        let (socket, file) = (TcpListener::bind("[::1]:0"), fs::File::open("/dev/null"));
        let (socket, file) = (socket.expect("loopback"), file.expect("a file"));
        let inode = |fd: &dyn AsFd| rustix::fs::fstat(fd.as_fd()).expect("it is open").st_ino;
        let found = sockets(std::process::id().cast_signed()).expect("we run");
        assert!(found.contains(&inode(&socket)) && !found.contains(&inode(&file)));
        assert_eq!(socket_inode("pipe:[7]"), None);
    }
}
