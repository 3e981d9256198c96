//! io_uring.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::{io, mem, process};

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::outcome::Outcome;

thread_local! {
    /// The ring of this thread and the process that made it. It is kept, because taking one down
    /// interrupts its thread's sleep some time later.
    static RING: RefCell<Option<(u32, IoUring)>> = const { RefCell::new(None) };
}

/// Does something with this thread's ring.
fn with_ring(work: impl FnOnce(&mut IoUring) -> io::Result<Outcome>) -> Outcome {
    RING.with_borrow_mut(|place| {
        // A forked child cannot use its parent's.
        if let Some((_, foreign)) = place.take_if(|(pid, _)| *pid != process::id()) {
            mem::forget(foreign);
        }
        let done = match place {
            Some((_, ring)) => work(ring),
            None => IoUring::new(8).and_then(|new| {
                let (_, ring) = place.insert((process::id(), new));
                work(ring)
            }),
        };
        done.unwrap_or_else(|error| Outcome::of(-i64::from(error.raw_os_error().unwrap_or(0))))
    })
}

/// How a request went.
struct Completed {
    /// Results and flags.
    results: Vec<(i32, u32)>,
    /// What ended the first wait: EINTR when a signal came.
    interrupted: Option<io::Error>,
}

/// Waits for a completion or a signal, then cancels what is left of the request.
fn complete(ring: &mut IoUring, request: &squeue::Entry) -> io::Result<Completed> {
    // SAFETY: the buffers outlive the request, which is over when this returns.
    unsafe { ring.submission().push(request) }.expect("nothing else is in the ring");
    let interrupted = ring.submit_and_wait(1).err();
    let mut results: Vec<(i32, u32)> = Vec::new();
    let mut cancelled = false;
    loop {
        results.extend(ring.completion().map(|done| (done.result(), done.flags())));
        if results
            .last()
            .is_some_and(|(_, flags)| !cqueue::more(*flags))
        {
            return Ok(Completed {
                results,
                interrupted,
            });
        }
        if cancelled {
            let _ = ring.submit_and_wait(1);
        } else {
            let _ = ring
                .submitter()
                .register_sync_cancel(None, CancelBuilder::any());
            cancelled = true;
        }
    }
}

fn one(request: &squeue::Entry) -> Outcome {
    with_ring(|ring| {
        let done = complete(ring, request)?;
        match (done.results[0].0, done.interrupted) {
            (..0, Some(error)) => Err(error),
            (result, _) => Ok(Outcome::of(result.into())),
        }
    })
}

/// `IORING_OP_SEND`.
pub fn send(fd: RawFd, bytes: &[u8], flags: i32) -> Outcome {
    one(
        &opcode::Send::new(Fd(fd), bytes.as_ptr(), bytes.len() as u32)
            .flags(flags)
            .build(),
    )
}

/// `IORING_OP_RECV`.
pub fn recv(fd: RawFd, bytes: &mut [u8], flags: i32) -> Outcome {
    one(
        &opcode::Recv::new(Fd(fd), bytes.as_mut_ptr(), bytes.len() as u32)
            .flags(flags)
            .build(),
    )
}

/// Buffers that a multishot request may fill.
const BUFFERS: u16 = 64;

/// `IORING_OP_RECV` that goes on: waits for the first completion, then takes what else there is.
/// The outcome is the number of bytes, and every error or end.
pub fn recv_multishot(fd: RawFd, len: usize) -> Outcome {
    let len = len.max(1);
    let mut buffers = vec![0_u8; len * usize::from(BUFFERS)];
    let at = buffers.as_mut_ptr();
    with_ring(|ring| {
        complete(
            ring,
            &opcode::ProvideBuffers::new(at, len as i32, BUFFERS, 1, 0).build(),
        )?;
        let done = complete(ring, &opcode::RecvMulti::new(Fd(fd), 1).build())?;
        complete(ring, &opcode::RemoveBuffers::new(BUFFERS, 1).build())?;
        let mut outcome = Outcome::default();
        if let Some(error) = done.interrupted {
            outcome
                .more
                .push(-i64::from(error.raw_os_error().unwrap_or(0)));
        }
        let mut bytes = Vec::new();
        for (result, flags) in done.results {
            match usize::try_from(result) {
                Ok(got) if got > 0 => {
                    let buffer = usize::from(cqueue::buffer_select(flags).unwrap_or(0));
                    bytes.extend_from_slice(&buffers[buffer * len..buffer * len + got]);
                }
                _ if result == -libc::ECANCELED => {}
                _ => outcome.more.push(result.into()),
            }
        }
        outcome.ret = bytes.len() as i64;
        Ok(outcome.with(&bytes))
    })
}
