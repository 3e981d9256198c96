//! Waiting until no thread is in the middle of a redirect.
//!
//! A sender takes its verdict under the lock of its own socket and queues the message under the
//! lock of the peer's (net/ipv4/tcp_bpf.c: `tcp_bpf_send_verdict`, `bpf_tcp_ingress`, 6.18). In
//! between nothing shows that a message is on its way. But all of it happens inside one system
//! call: once every thread of the host was seen outside of such a call after redirecting was
//! switched off, no message is on its way any more.
//!
//! Between verdict and queue a thread only runs, or sleeps uninterruptibly: for the peer's lock
//! (`__lock_sock`, net/core/sock.c) or for memory. So one that sleeps interruptibly or is stopped
//! is at rest, whatever call it is in; a sender that waits for room is such a one (`wait_woken`).

use std::collections::HashMap;

use libbpf_rs::{Link, Object};

use crate::abi::{Thread, Wire};
use crate::{Error, Result, object};

/// A thread that may still be sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// Its process, by the number in the initial namespace.
    pub pid: u32,
    /// Its own number there.
    pub tid: u32,
}

/// The threads that were not seen at rest since it began.
pub struct Quiesce {
    threads: Threads,
    /// By their numbers, with the nanoseconds they had spent in user mode.
    waiting: HashMap<u32, u64>,
}

impl Quiesce {
    /// Begins with every thread of the host. Redirecting must be off already.
    ///
    /// # Errors
    /// When the kernel refuses the iterator over threads.
    pub fn begin() -> Result<Self> {
        let mut new = Self {
            threads: Threads::load()?,
            waiting: HashMap::new(),
        };
        new.begin_again()?;
        Ok(new)
    }

    /// The same, with every thread once more.
    ///
    /// # Errors
    /// When the threads cannot be listed.
    pub fn begin_again(&mut self) -> Result<()> {
        self.waiting = noted(&self.threads.may_send()?);
        Ok(())
    }

    /// Looks again, and returns those that may still be in a redirect. None: no message is on its
    /// way.
    ///
    /// # Errors
    /// When the threads cannot be listed.
    pub fn look(&mut self) -> Result<Vec<Sender>> {
        if self.waiting.is_empty() {
            return Ok(Vec::new());
        }
        // One that spent time in user mode since was at rest as well.
        let before = &self.waiting;
        let still: Vec<Thread> = self
            .threads
            .may_send()?
            .into_iter()
            .filter(|thread| before.get(&thread.tid) == Some(&thread.user_ns))
            .collect();
        self.waiting = noted(&still);
        Ok(still.iter().map(Sender::from).collect())
    }
}

/// By their numbers, with their time in user mode.
fn noted(threads: &[Thread]) -> HashMap<u32, u64> {
    threads.iter().map(|one| (one.tid, one.user_ns)).collect()
}

impl From<&Thread> for Sender {
    fn from(thread: &Thread) -> Self {
        Self {
            pid: thread.pid,
            tid: thread.tid,
        }
    }
}

/// The threads of the host.
struct Threads {
    _object: Object,
    link: Link,
}

impl Threads {
    const WHAT: &str = "the iterator over threads";

    fn load() -> Result<Self> {
        let object = object::open(object::THREADS, "threads")?
            .load()
            .map_err(Error::bpf("load", Self::WHAT))?;
        let link = object::attach_iterator(&object, "beeline_threads")?;
        Ok(Self {
            _object: object,
            link,
        })
    }

    /// Those that may be sending.
    fn may_send(&self) -> Result<Vec<Thread>> {
        Ok(object::read(&self.link, Self::WHAT)?
            .chunks_exact(size_of::<Thread>())
            .filter_map(Thread::read)
            .filter(|thread| may_send_in(thread.call))
            .collect())
    }
}

/// System calls in which a message can be sent.
const SENDING: &[i64] = &[
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwritev2,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_io_uring_enter,
    libc::SYS_io_submit,
];

/// The last one that was looked at: `rseq_slice_yield`, Linux 7.0. Numbers above mean calls of later
/// kernels, or those of the x32 ABI.
const LAST: i64 = 471;

fn may_send_in(call: i32) -> bool {
    let call = i64::from(call);
    SENDING.contains(&call) || !(0..=LAST).contains(&call)
}

#[cfg(test)]
mod tests {
    use super::may_send_in;

    #[test]
    fn a_call_that_is_not_known_may_send() {
        let number = |call: i64| i32::try_from(call).unwrap();
        assert!(may_send_in(number(libc::SYS_sendto)));
        assert!(!may_send_in(number(libc::SYS_read)));
        // x32's writev, a call that is yet to come, and none.
        for call in [0x4000_0000 + 516, 1000, -1] {
            assert!(may_send_in(call), "{call}");
        }
    }
}
