//! Noticing that the configuration's files have changed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{self, Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::Sources;
use super::mistake::File;

/// Files that say the same for so long are complete: who saves several does not pause between them.
const QUIET: Duration = Duration::from_millis(300);

/// The files that are read, or why they cannot be.
type Found = Result<Vec<File>, String>;

/// The files of a configuration, those that may appear included.
///
/// Their directories are watched by inotify, as editors replace files. Of files that are links, the
/// directories of both ends are.
#[derive(Debug)]
pub struct Watch {
    sources: Sources,
    inotify: OwnedFd,
    dirs: HashMap<i32, PathBuf>,
    seen: Found,
}

impl Watch {
    /// Watches from now on.
    ///
    /// # Errors
    /// When inotify is not to be had, or not for so many directories.
    pub fn of(sources: &Sources) -> io::Result<Self> {
        let mut watch = Self {
            sources: sources.clone(),
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            dirs: HashMap::new(),
            seen: Ok(Vec::new()),
        };
        watch.seen = watch.look()?;
        Ok(watch)
    }

    /// Waits until the files say something else than before, and still do a moment later. A file
    /// that is being written counts when it is closed.
    ///
    /// # Errors
    /// When inotify fails.
    pub fn wait(&mut self) -> io::Result<()> {
        loop {
            self.wait_for_event()?;
            let now = self.settled()?;
            if now != self.seen {
                self.seen = now;
                return Ok(());
            }
        }
    }

    fn wait_for_event(&self) -> io::Result<()> {
        loop {
            match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            if self.take_events()? {
                return Ok(());
            }
        }
    }

    /// Whether any is of interest.
    fn take_events(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4 << 10];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut is_of_interest = false;
        loop {
            match reader.next() {
                Err(Errno::AGAIN) => return Ok(is_of_interest),
                other => is_of_interest |= !self.is_begun(&other?),
            }
        }
    }

    /// A new file that somebody writes: there will be another event when it is closed.
    fn is_begun(&self, event: &inotify::Event<'_>) -> bool {
        let (Some(dir), Some(name)) = (self.dirs.get(&event.wd()), event.file_name()) else {
            return false;
        };
        let path = dir.join(OsStr::from_bytes(name.to_bytes()));
        event.events().contains(ReadFlags::CREATE)
            && fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.nlink() == 1)
    }

    fn settled(&mut self) -> io::Result<Found> {
        let mut found = self.look()?;
        loop {
            thread::sleep(QUIET);
            self.take_events()?;
            let later = self.look()?;
            if later == found {
                return Ok(found);
            }
            found = later;
        }
    }

    /// Watches before it reads, so that what comes meanwhile is seen by one or the other.
    fn look(&mut self) -> io::Result<Found> {
        let path = path::absolute(self.sources.path())?;
        // It may come and go itself.
        self.watch(path.parent().unwrap_or(&path))?;
        self.watch(&path)?;
        self.watch(&path.join("conf.d"))?;
        for file in self.sources.files().unwrap_or_default() {
            if let Some(dir) = fs::canonicalize(file).iter().find_map(|file| file.parent()) {
                self.watch(dir)?;
            }
        }
        Ok(self.sources.read().map_err(|error| error.to_string()))
    }

    /// Watching a directory twice is watching it once.
    fn watch(&mut self, dir: &Path) -> io::Result<()> {
        let wanted = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.inotify, dir, wanted) {
            Ok(watch) => self.dirs.insert(watch, dir.into()),
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }
}
