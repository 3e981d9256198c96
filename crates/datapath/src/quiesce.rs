//! Waiting until no thread is in the middle of a redirect.
//!
//! A sender takes its verdict under the lock of its own socket and queues the message under the
//! lock of the peer's (net/ipv4/tcp_bpf.c: `tcp_bpf_send_verdict`, `bpf_tcp_ingress`, 6.18). In
//! between nothing shows that a message is on its way. But all of it happens inside one system
//! call: once every thread of the host was seen outside of such a call after redirecting was
//! switched off, no message is on its way any more.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A thread that may still be sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// Its `/proc/<pid>/task/<tid>`.
    pub task: PathBuf,
    /// The inode of the socket it sends on, when the system call names one.
    pub socket_inode: Option<u64>,
}

/// The threads that were not seen at rest since it began.
pub struct Quiesce {
    /// With the ticks they had spent in user mode.
    waiting: HashMap<PathBuf, u64>,
}

impl Quiesce {
    /// Begins with every thread of the host. Redirecting must be off already.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn begin() -> Result<Self> {
        let waiting = tasks()?
            .into_iter()
            .filter_map(|task| may_send(&task, None).map(|ticks| (task, ticks)))
            .collect();
        Ok(Self { waiting })
    }

    /// Looks again, and returns those that may still be in a redirect. None: no message is on its
    /// way.
    pub fn look(&mut self) -> Vec<Sender> {
        self.waiting
            .retain(|task, ticks| may_send(task, Some(*ticks)).is_some());
        self.waiting
            .keys()
            .map(|task| Sender {
                socket_inode: socket_inode(task),
                task: task.clone(),
            })
            .collect()
    }
}

/// Every thread of the host but the calling one.
fn tasks() -> Result<Vec<PathBuf>> {
    let own = rustix::thread::gettid().as_raw_nonzero().to_string();
    let mut tasks = Vec::new();
    for process in fs::read_dir("/proc")
        .map_err(Error::io("read", "/proc"))?
        .flatten()
    {
        let numeric = process
            .file_name()
            .to_string_lossy()
            .bytes()
            .all(|c| c.is_ascii_digit());
        if !numeric {
            continue;
        }
        // A process that ended meanwhile has no threads.
        let Ok(threads) = fs::read_dir(process.path().join("task")) else {
            continue;
        };
        tasks.extend(
            threads
                .flatten()
                .filter(|t| *t.file_name() != *own)
                .map(|t| t.path()),
        );
    }
    Ok(tasks)
}

/// `None`: the thread is at rest, or gone. Else its ticks in user mode, to compare with at the next
/// look: a thread that spent time there since was at rest as well.
///
/// Between verdict and queue a thread only runs, or sleeps uninterruptibly: for the peer's lock
/// (`__lock_sock`, net/core/sock.c) or for memory. So one that sleeps interruptibly or is stopped
/// is at rest, whatever call it is in; a sender that waits for room is such a one (`wait_woken`).
fn may_send(task: &Path, ticks_before: Option<u64>) -> Option<u64> {
    let now = Stat::of(task)?;
    let was_in_user_mode = ticks_before.is_some_and(|before| now.user_ticks > before);
    let awake = matches!(now.state, 'R' | 'D');
    let may = awake && !was_in_user_mode && (now.is_kernels || !calls_else(task));
    (may && !is_frozen(task)).then_some(now.user_ticks)
}

/// What `stat` tells of a thread (proc(5)).
struct Stat {
    state: char,
    /// A thread of the kernel or of io_uring: these send without a system call.
    is_kernels: bool,
    user_ticks: u64,
}

impl Stat {
    /// `None` when the thread is gone.
    fn of(task: &Path) -> Option<Self> {
        // include/linux/sched.h: PF_IO_WORKER, PF_USER_WORKER, PF_KTHREAD
        const WORKERS: u32 = 0x10 | 0x4000 | 0x0020_0000;
        let stat = fs::read_to_string(task.join("stat")).ok()?;
        // The name in field 2 may hold spaces and parentheses; what follows the last one is plain.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        let flags: u32 = field(9)?.parse().ok()?;
        Some(Self {
            state: field(3)?.chars().next()?,
            is_kernels: flags & WORKERS != 0,
            user_ticks: field(14)?.parse().ok()?,
        })
    }
}

/// System calls in which a message can be sent; -1, a thread that stands outside of any, is none.
const SENDING: &[i64] = &[
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwritev2,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_io_uring_enter,
    libc::SYS_io_submit,
];

/// Whether the thread is known to be in a call that cannot send. One that is on a processor shows
/// no number, and one may be forbidden to read it.
fn calls_else(task: &Path) -> bool {
    let call = fs::read_to_string(task.join("syscall")).unwrap_or_default();
    let number = call
        .split_whitespace()
        .next()
        .and_then(|number| number.parse().ok());
    number.is_some_and(|number| !SENDING.contains(&number)) && !is_32_bit(task)
}

/// The cgroup freezer stops threads on their way out of the kernel, and shows them as `D`.
fn is_frozen(task: &Path) -> bool {
    fs::read_to_string(task.join("wchan")).is_ok_and(|at| at.trim() == "do_freezer_trap")
}

/// The numbers of a 32-bit process mean other calls.
fn is_32_bit(task: &Path) -> bool {
    use std::io::Read;
    const ELF_CLASS: usize = 4;
    let mut head = [0u8; ELF_CLASS + 1];
    fs::File::open(task.join("exe"))
        .and_then(|mut exe| exe.read_exact(&mut head))
        .is_ok_and(|()| head[ELF_CLASS] == 1)
}

/// The socket behind the first argument of the call.
fn socket_inode(task: &Path) -> Option<u64> {
    let call = fs::read_to_string(task.join("syscall")).ok()?;
    let fd = u64::from_str_radix(call.split(' ').nth(1)?.strip_prefix("0x")?, 16).ok()?;
    let target = fs::read_link(task.join("fd").join(fd.to_string())).ok()?;
    target
        .to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}
