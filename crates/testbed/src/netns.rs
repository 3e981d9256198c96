//! Anonymous network namespaces, and threads that run in them.

use std::any::Any;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Error, NEEDS_ROOT, Result, Tried};
use crate::link;
use crate::process::NsCommand;
use crate::wait::patiently;

/// The namespace of the calling thread; `/proc/self` would be that of the main thread.
const OWN_NS: &str = "/proc/thread-self/ns/net";

/// How long [`JoinHandle::join`] waits.
pub const JOIN_DEADLINE: Duration = Duration::from_secs(30);

/// A network namespace, held by a file descriptor alone.
///
/// It has no name under `/run/netns`, so the kernel removes it with the last descriptor, socket or thread in it, also
/// when the process is killed. A clone is another handle to the same namespace.
#[derive(Debug, Clone)]
pub struct NetNs {
    name: Arc<str>,
    file: Arc<File>,
}

impl NetNs {
    /// Makes a namespace with `lo` up. `name` appears in errors and as the name of threads.
    ///
    /// # Errors
    /// [`Error::Os`] when the kernel refuses; needs CAP_SYS_ADMIN.
    pub fn new(name: &str) -> Result<Self> {
        // A thread of its own, because unshare(2) moves the caller; its end leaves only the descriptor.
        let file = on_thread(name, || {
            unshare(CloneFlags::CLONE_NEWNET)
                .tried(NEEDS_ROOT, || format!("make network namespace {name}"))?;
            open_own()
        })?;
        let ns = Self {
            name: name.into(),
            file: Arc::new(file),
        };
        link::up(&ns, "lo")?;
        Ok(ns)
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Os`] when /proc cannot be read.
    pub fn current() -> Result<Self> {
        Ok(Self {
            name: "current".into(),
            file: Arc::new(open_own()?),
        })
    }

    /// The name given to [`NetNs::new`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its inode number in nsfs, as in `readlink /proc/<pid>/ns/net`.
    ///
    /// # Errors
    /// [`Error::Os`] when the descriptor cannot be examined.
    pub fn inode(&self) -> Result<u64> {
        let meta = self.file.metadata();
        Ok(meta
            .tried("", || format!("stat namespace {}", self.name))?
            .ino())
    }

    /// Runs `f` in this namespace on a thread of its own and returns its value; a panic in `f` continues here.
    ///
    /// Sockets, threads and programs that `f` makes belong to the namespace.
    ///
    /// # Errors
    /// [`Error::Os`] when the namespace cannot be entered; then `f` did not run.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(&self.name, || {
            self.enter()?;
            Ok(f())
        })
    }

    /// Starts `f` in this namespace on a thread of its own, for peers that live for longer.
    ///
    /// # Errors
    /// [`Error::Os`] when the namespace cannot be entered; then `f` does not run.
    pub fn spawn<T, F>(&self, f: F) -> Result<JoinHandle<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        // The new thread inherits the namespace of the one that makes it, so no error can come later.
        let (sender, result) = mpsc::channel();
        let body = move || {
            // Nobody listens when the handle was dropped.
            let _ = sender.send(catch_unwind(AssertUnwindSafe(f)));
        };
        let thread = self.run(|| {
            thread::Builder::new()
                .name(self.name.to_string())
                .spawn(body)
        })?;
        Ok(JoinHandle {
            name: self.name.clone(),
            thread: thread.tried("", || format!("start a thread in {}", self.name))?,
            result,
        })
    }

    /// A program to be run in this namespace. See [`NsCommand`].
    #[must_use]
    pub fn command(&self, program: &str) -> NsCommand {
        NsCommand::new(self, program)
    }

    /// Writes a sysctl of this namespace, for instance `net.ipv4.ip_forward`.
    ///
    /// # Errors
    /// [`Error::Os`] when there is no such key here or the value is refused.
    pub fn sysctl(&self, key: &str, value: impl ToString) -> Result<()> {
        let (path, value) = (sysctl_path(key), value.to_string());
        // proc_sys resolves the key in the namespace of the thread that opens the file
        // (net_ctl_header_lookup, net/sysctl_net.c, 6.18).
        self.run(|| fs::write(&path, &value))?
            .tried(NEEDS_ROOT, || {
                format!("set {key}={value} in namespace {}", self.name)
            })
    }

    /// Reads a sysctl of this namespace.
    ///
    /// # Errors
    /// [`Error::Os`] when there is no such key here.
    pub fn sysctl_value(&self, key: &str) -> Result<String> {
        let text = self.run(|| fs::read_to_string(sysctl_path(key)))?;
        let text = text.tried("", || format!("read {key} in namespace {}", self.name))?;
        Ok(text.trim().to_owned())
    }

    /// Moves the calling thread into this namespace.
    pub(crate) fn enter(&self) -> Result<()> {
        setns(&*self.file, CloneFlags::CLONE_NEWNET).tried(NEEDS_ROOT, || {
            format!("enter network namespace {}", self.name)
        })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open_own() -> Result<File> {
    File::open(OWN_NS).tried("is /proc mounted?", || format!("open {OWN_NS}"))
}

fn sysctl_path(key: &str) -> String {
    // As sysctl(8): dots separate, unless there are slashes (interface names may have dots).
    let key = if key.contains('/') {
        key.to_owned()
    } else {
        key.replace('.', "/")
    };
    format!("/proc/sys/{key}")
}

/// Runs `f` on a thread of its own; a panic in it continues in the caller.
fn on_thread<T: Send>(name: &str, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name(name.to_owned());
        let thread = builder
            .spawn_scoped(scope, f)
            .tried("", || format!("start a thread for {name}"))?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// A thread started by [`NetNs::spawn`]. Dropping it lets the thread run on.
#[derive(Debug)]
pub struct JoinHandle<T> {
    name: Arc<str>,
    thread: thread::JoinHandle<()>,
    result: mpsc::Receiver<Result<T, Box<dyn Any + Send>>>,
}

impl<T> JoinHandle<T> {
    /// Waits up to [`JOIN_DEADLINE`] for the thread and returns its value; its panic continues here.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it has not ended by then; it runs on.
    pub fn join(self) -> Result<T> {
        self.join_within(JOIN_DEADLINE)
    }

    /// As [`JoinHandle::join`], with a deadline of one's own.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it has not ended by then; it runs on.
    pub fn join_within(self, deadline: Duration) -> Result<T> {
        let deadline = patiently(deadline);
        let result = self
            .result
            .recv_timeout(deadline)
            .map_err(|_| Error::Timeout {
                what: format!("the end of a thread in namespace {}", self.name),
                after: deadline,
            })?;
        // The value is there, so the thread is about to end; then nothing of it holds the namespace any more.
        let _ = self.thread.join();
        result.map_err(|panic| resume_unwind(panic))
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}
