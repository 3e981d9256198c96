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

use datapath::holders;
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

/// One process for every inode of a TCP socket, and the names of these processes.
fn holders() -> (HashMap<u64, i32>, HashMap<i32, String>) {
    let (mut found, mut commands) = (HashMap::new(), HashMap::new());
    for holder in holders::all().unwrap_or_default() {
        let pid = holder.pid.cast_signed();
        found.entry(holder.inode).or_insert(pid);
        commands.entry(pid).or_insert_with(|| holder.name());
    }
    (found, commands)
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
