//! The cgroup tree, followed as it changes.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tracing::warn;

/// What became of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is there: its id, and its path from the root of cgroup2.
    Appeared(u64, String),
    /// It is no more.
    Gone(u64),
}

/// A cgroup directory and all below it, each watched by inotify.
///
/// What cannot be watched for want of watches (`fs.inotify.max_user_watches`) is not followed, which
/// is logged.
#[derive(Debug)]
pub struct Tree {
    /// Where cgroup2 is mounted.
    mount: PathBuf,
    top: PathBuf,
    inotify: OwnedFd,
    watched: HashMap<i32, PathBuf>,
    known: HashMap<PathBuf, u64>,
    is_blind: bool,
}

impl Tree {
    /// Watches the directory `top` of the cgroup2 hierarchy at `mount`.
    ///
    /// # Errors
    /// When there is no inotify to have, or the directory is not there.
    pub fn open(mount: &Path, top: &Path) -> io::Result<Self> {
        fs::metadata(top)?;
        let mut tree = Self {
            mount: mount.into(),
            top: top.into(),
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            watched: HashMap::new(),
            known: HashMap::new(),
            is_blind: false,
        };
        tree.walk(top, &mut Vec::new());
        Ok(tree)
    }

    /// Every cgroup that is known: ids, and paths from the root of cgroup2.
    #[must_use]
    pub fn cgroups(&self) -> HashMap<u64, String> {
        let all = self.known.iter();
        all.map(|(dir, id)| (*id, self.path(dir))).collect()
    }

    /// Waits at most `timeout` for cgroups that come and go.
    ///
    /// # Errors
    /// When inotify cannot be read.
    pub fn poll(&mut self, timeout: Duration) -> io::Result<Vec<Change>> {
        let mut changes = Vec::new();
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match poll(
            &mut [PollFd::new(&self.inotify, PollFlags::IN)],
            Some(&timeout),
        ) {
            Err(Errno::INTR) | Ok(0) => return Ok(changes),
            other => other?,
        };
        for (flags, watch, name) in self.events()? {
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                self.rescan(&mut changes);
            } else if flags.contains(ReadFlags::IGNORED) {
                self.watched.remove(&watch);
            } else if let Some(dir) = self.watched.get(&watch).map(|dir| dir.join(&name)) {
                if flags.contains(ReadFlags::CREATE) {
                    self.walk(&dir, &mut changes);
                } else {
                    changes.extend(self.known.remove(&dir).map(Change::Gone));
                }
            }
        }
        Ok(changes)
    }

    /// All that is there to read, of directories only.
    fn events(&self) -> io::Result<Vec<(ReadFlags, i32, PathBuf)>> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut events = Vec::new();
        loop {
            let event = match reader.next() {
                Err(Errno::AGAIN) => return Ok(events),
                other => other?,
            };
            let flags = event.events();
            let name = event.file_name().map_or(&b""[..], |name| name.to_bytes());
            let name = PathBuf::from(std::ffi::OsStr::from_bytes(name));
            let own = ReadFlags::QUEUE_OVERFLOW | ReadFlags::IGNORED;
            if flags.intersects(own | ReadFlags::ISDIR) {
                events.push((flags, event.wd(), name));
            }
        }
    }

    /// Events were lost: what is there now is compared with what was known.
    fn rescan(&mut self, changes: &mut Vec<Change>) {
        let before = std::mem::take(&mut self.known);
        self.walk(&self.top.clone(), &mut Vec::new());
        let now = self.cgroups();
        let gone = before.into_values().filter(|id| !now.contains_key(id));
        changes.extend(gone.map(Change::Gone));
        changes.extend(now.into_iter().map(|(id, path)| Change::Appeared(id, path)));
    }

    /// Watched before it is read, so that what comes meanwhile is seen by one or the other.
    fn walk(&mut self, dir: &Path, changes: &mut Vec<Change>) {
        self.watch(dir);
        let Ok(meta) = fs::metadata(dir) else {
            return; // It is gone again.
        };
        // The inode number of a cgroup2 directory is the cgroup's id (kernfs).
        if self.known.insert(dir.into(), meta.ino()) != Some(meta.ino()) {
            changes.push(Change::Appeared(meta.ino(), self.path(dir)));
        }
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.walk(&entry.path(), changes);
            }
        }
    }

    fn watch(&mut self, dir: &Path) {
        let wanted = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.inotify, dir, wanted) {
            Ok(watch) => drop(self.watched.insert(watch, dir.into())),
            Err(Errno::NOENT) => {}
            Err(error) if !self.is_blind => {
                self.is_blind = true;
                warn!(
                    "cannot watch the cgroup {}: {error}; new ones in it stay on the kernel path \
                     where rules ask for cgroups (is fs.inotify.max_user_watches too small?)",
                    dir.display()
                );
            }
            Err(_) => {}
        }
    }

    fn path(&self, dir: &Path) -> String {
        let below = dir.strip_prefix(&self.mount).unwrap_or(dir);
        format!("/{}", below.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any directory will do.
    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::TempDir::new().unwrap();
        let tree = Tree::open(dir.path(), dir.path()).unwrap();
        (dir, tree)
    }

    /// What is known after all changes, as the directories are.
    fn agrees(dir: &Path, tree: &mut Tree) {
        let mut known = tree.cgroups();
        loop {
            let changes = tree.poll(Duration::from_millis(1)).unwrap();
            if changes.is_empty() {
                break;
            }
            for change in changes {
                match change {
                    Change::Appeared(id, path) => drop(known.insert(id, path)),
                    Change::Gone(id) => drop(known.remove(&id)),
                }
            }
        }
        assert_eq!(known, Tree::open(dir, dir).unwrap().cgroups());
    }

    #[test]
    fn directories_made_at_once_are_all_found() {
        let (dir, mut tree) = tree();
        for n in 0..50 {
            fs::create_dir_all(dir.path().join(format!("{n}/b/c/d"))).unwrap();
        }
        agrees(dir.path(), &mut tree);
        assert_eq!(tree.cgroups().len(), 1 + 50 * 4);
    }

    #[test]
    fn directories_that_are_gone_are_forgotten() {
        let (dir, mut tree) = tree();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        agrees(dir.path(), &mut tree);
        fs::remove_dir_all(dir.path().join("a")).unwrap();
        fs::create_dir_all(dir.path().join("c")).unwrap();
        agrees(dir.path(), &mut tree);
        assert_eq!(tree.cgroups().len(), 2);
    }

    #[test]
    fn more_events_than_the_kernel_keeps_lose_nothing() {
        let (dir, mut tree) = tree();
        let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let more = queue.trim().parse::<usize>().unwrap() / 2 + 10;
        for n in 0..more {
            let path = dir.path().join(format!("{}", n % 7));
            fs::create_dir(&path).unwrap();
            fs::remove_dir(&path).unwrap();
        }
        fs::create_dir_all(dir.path().join("late/later")).unwrap();
        agrees(dir.path(), &mut tree);
        assert_eq!(tree.cgroups().len(), 3);
    }
}
