//! cgroup2 guards: made for one process, left and removed on drop.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, NEEDS_ROOT, Result, Tried};
use crate::process::is_alive;
use crate::wait::wait_for;

/// How long removing a cgroup may take: its last processes may still be exiting.
const REMOVE_DEADLINE: Duration = Duration::from_secs(2);

/// Tells apart the cgroups that one process makes.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Where the cgroup2 hierarchy is mounted, as `/proc/self/mountinfo` says.
///
/// # Errors
/// [`Error::NoCgroup2`] when it is not mounted, [`Error::Os`] when mountinfo cannot be read.
pub fn cgroup2_mount() -> Result<PathBuf> {
    let file = "/proc/self/mountinfo";
    let mountinfo =
        fs::read_to_string(file).tried("is /proc mounted?", || format!("read {file}"))?;
    mount_in(&mountinfo).ok_or(Error::NoCgroup2)
}

/// Finds the first cgroup2 mount in the text of a mountinfo file (format: proc_pid_mountinfo(5)).
fn mount_in(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        // The optional fields before " - " vary in number, so the two halves are split first.
        let (mount, fs_type) = line.split_once(" - ")?;
        fs_type.starts_with("cgroup2 ").then_some(())?;
        mount.split(' ').nth(4).map(unescape)
    })
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> PathBuf {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(field.to_owned(), |text, (code, char)| {
        text.replace(code, char)
    })
    .into()
}

/// A cgroup that is removed on drop; members still in it are moved out first, never killed.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    /// Where members go on drop: where this process was before [`Cgroup::enter`], else the parent.
    back: Mutex<PathBuf>,
}

impl Cgroup {
    /// Makes `<cgroup2>/<prefix>-<pid>-<n>`, after removing what dead processes left under the same prefix.
    ///
    /// # Errors
    /// [`Error::NoCgroup2`], or [`Error::Os`] when it cannot be made.
    pub fn create(prefix: &str) -> Result<Self> {
        let mount = cgroup2_mount()?;
        Self::sweep(prefix)?;
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = mount.join(format!("{prefix}-{}-{n}", process::id()));
            match Self::make(path) {
                // Left by a dead process that had our pid and whose cgroup still had members.
                Err(Error::Os { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {}
                other => return other,
            }
        }
    }

    /// Makes a cgroup below this one. Drop it before its parent, or with it.
    ///
    /// # Errors
    /// [`Error::Os`] when it cannot be made, for instance because it exists.
    pub fn child(&self, name: &str) -> Result<Self> {
        Self::make(self.path.join(name))
    }

    fn make(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).tried(NEEDS_ROOT, || format!("make cgroup {}", path.display()))?;
        let parent = path.parent().unwrap_or(&path).to_owned();
        Ok(Self {
            path,
            back: Mutex::new(parent),
        })
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the whole calling process, all threads, into this cgroup; drop moves it back to where it was.
    ///
    /// # Errors
    /// [`Error::Os`] when the move is refused.
    pub fn enter(&self) -> Result<()> {
        let before = current()?;
        move_process(process::id(), &self.path)?;
        if before != self.path {
            *self.back.lock().unwrap_or_else(PoisonError::into_inner) = before;
        }
        Ok(())
    }

    /// Moves process `pid` into this cgroup.
    ///
    /// # Errors
    /// [`Error::Os`] when there is no such process or the move is refused.
    pub fn add(&self, pid: u32) -> Result<()> {
        move_process(pid, &self.path)
    }

    /// The pids in it, without those of its children.
    ///
    /// # Errors
    /// [`Error::Os`] when `cgroup.procs` cannot be read.
    pub fn members(&self) -> Result<Vec<u32>> {
        members(&self.path)
    }

    /// Removes empty cgroups named `<prefix>-<pid>-<n>` whose process is dead. Returns how many were removed.
    ///
    /// # Errors
    /// [`Error::NoCgroup2`], or [`Error::Os`] when the mount cannot be listed. A cgroup that cannot be removed is
    /// left alone: somebody may live in it, or another sweep is removing it at the same time.
    pub fn sweep(prefix: &str) -> Result<usize> {
        let mount = cgroup2_mount()?;
        let entries =
            fs::read_dir(&mount).tried(NEEDS_ROOT, || format!("list {}", mount.display()))?;
        let removed = entries
            .flatten()
            .filter(|entry| {
                owner(&entry.file_name().to_string_lossy(), prefix)
                    .is_some_and(|pid| !is_alive(pid))
            })
            .filter(|entry| remove_tree(&entry.path()).is_ok())
            .count();
        Ok(removed)
    }
}

impl Cgroup {
    /// Kills what is left in the cgroups that `pid`, a dead child of ours, made under `prefix`, and removes them.
    pub(crate) fn clear(prefix: &str, pid: u32) {
        let Ok(mount) = cgroup2_mount() else {
            return;
        };
        for path in children(&mount) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if owner(&name, prefix) != Some(pid) {
                continue;
            }
            let _ = wait_for("removal of a cgroup", REMOVE_DEADLINE, || {
                // cgroup.kill takes the cgroups below with it (since Linux 5.14).
                let _ = fs::write(path.join("cgroup.kill"), "1");
                remove_tree(&path).is_ok()
            });
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let before = self
            .back
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        // Where we were before may be a guard, too, that was dropped first.
        let back = before
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(&before);
        // A member may fork while it is being moved, so moving and removing are tried until both succeed. A failure
        // cannot be returned from here; the next `sweep` gets what is left.
        let _ = wait_for("removal of a cgroup", REMOVE_DEADLINE, || {
            move_members(&self.path, back);
            remove_tree(&self.path).is_ok()
        });
    }
}

/// The pid in a name `<prefix>-<pid>-<n>`.
fn owner(name: &str, prefix: &str) -> Option<u32> {
    let (pid, n) = name
        .strip_prefix(prefix)?
        .strip_prefix('-')?
        .split_once('-')?;
    n.parse::<u32>().ok()?;
    pid.parse().ok()
}

/// The cgroup2 directory that the calling process is in.
///
/// # Errors
/// [`Error::NoCgroup2`], or [`Error::Os`] when /proc cannot be read.
pub fn current() -> Result<PathBuf> {
    let file = "/proc/self/cgroup";
    let text = fs::read_to_string(file).tried("is /proc mounted?", || format!("read {file}"))?;
    let inside = text
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .ok_or(Error::NoCgroup2)?;
    Ok(cgroup2_mount()?.join(inside))
}

fn move_process(pid: u32, to: &Path) -> Result<()> {
    fs::write(to.join("cgroup.procs"), pid.to_string()).tried(NEEDS_ROOT, || {
        format!("move process {pid} to cgroup {}", to.display())
    })
}

fn members(cgroup: &Path) -> Result<Vec<u32>> {
    let file = cgroup.join("cgroup.procs");
    let text =
        fs::read_to_string(&file).tried(NEEDS_ROOT, || format!("read {}", file.display()))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Moves all members of a cgroup and of those below it; what has just exited is passed over.
fn move_members(cgroup: &Path, to: &Path) {
    for child in children(cgroup) {
        move_members(&child, to);
    }
    for pid in members(cgroup).unwrap_or_default() {
        let _ = move_process(pid, to);
    }
}

/// Removes a cgroup and those below it, deepest first. One that is gone already counts as removed.
fn remove_tree(cgroup: &Path) -> io::Result<()> {
    for child in children(cgroup) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(cgroup) {
        Err(err) if err.kind() != ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

fn children(cgroup: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(cgroup) else {
        return Vec::new();
    };
    let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries
        .flatten()
        .filter(is_dir)
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_is_found_on_hybrid_hosts_and_with_spaces() {
        let mountinfo = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n\
                         41 31 0:38 / /sys/fs/my\\040cgroup rw,relatime shared:1 master:2 - cgroup2 cgroup2 rw\n";
        assert_eq!(
            mount_in(mountinfo),
            Some(PathBuf::from("/sys/fs/my cgroup"))
        );
        assert_eq!(mount_in("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"), None);
    }

    #[test]
    fn only_own_names_have_an_owner() {
        assert_eq!(owner("beeline-test-42-0", "beeline-test"), Some(42));
        assert_eq!(owner("beeline-test-x-0", "beeline-test"), None);
        assert_eq!(owner("beeline-test-other-42-0", "beeline-test"), None);
        assert_eq!(owner("system.slice", "beeline-test"), None);
    }
}
