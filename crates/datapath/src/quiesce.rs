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
    /// With the ticks they had spent in user mode, for those that ran.
    waiting: HashMap<PathBuf, Option<u64>>,
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
            .retain(|task, ticks| may_send(task, *ticks).is_some());
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

/// `None`: the thread is at rest, or gone. Else its user-mode ticks, to compare with at the next
/// look: a running thread that spent time in user mode since was at rest as well.
fn may_send(task: &Path, ticks_before: Option<u64>) -> Option<Option<u64>> {
    let call = fs::read_to_string(task.join("syscall")).ok()?;
    if call.starts_with("running") {
        let ticks = user_ticks(task);
        let was_in_user_mode = ticks_before.is_some_and(|before| ticks.is_some_and(|t| t > before));
        return (!was_in_user_mode).then_some(ticks);
    }
    let number: Option<i64> = call.split(' ').next().and_then(|n| n.parse().ok());
    let harmless =
        number.is_some_and(|n| !SENDING.contains(&n)) && !is_io_worker(task) && !is_32_bit(task);
    if harmless || waits_elsewhere(task) {
        return None;
    }
    Some(None)
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

/// Where a thread sleeps that is inside one of those calls but not between verdict and queue:
/// waiting for room to send, for completions, for work, or stopped.
const WAITING: &[&str] = &[
    "wait_woken",
    "sk_stream_wait_memory",
    "io_cqring_wait",
    "io_cqring_schedule",
    "io_wq_worker",
    "io_sq_thread",
    "do_signal_stop",
    "ptrace_stop",
    "do_freezer_trap",
    "do_exit",
];

fn waits_elsewhere(task: &Path) -> bool {
    fs::read_to_string(task.join("wchan")).is_ok_and(|at| WAITING.contains(&at.trim()))
}

/// io_uring's threads send without a system call of their own (io_uring/io-wq.c, sqpoll.c).
fn is_io_worker(task: &Path) -> bool {
    fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("iou-"))
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

/// Field 14 of `stat` (proc(5)): time in user mode, in clock ticks.
fn user_ticks(task: &Path) -> Option<u64> {
    let stat = fs::read_to_string(task.join("stat")).ok()?;
    // The name in field 2 may hold spaces and parentheses; what follows the last one is plain.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(11)?
        .parse()
        .ok()
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
