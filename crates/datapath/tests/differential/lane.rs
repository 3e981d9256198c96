//! A thread of an end's process, and how it is told what to do.
//!
//! Each end is a process of its own with one thread (or two, where the program says so): whether a
//! blocking socket is shared decides what may be done with it.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::calls::End;
use super::connect;
use super::outcome::{Outcome, Seen};
use super::program::{Call, Manner};
use super::sys::{self, sys};
use crate::common::{Result, SOON};

/// What a thread may be told.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Listen,
    /// Before a connection comes: what its listener is like.
    Await {
        manner: Manner,
    },
    Connect {
        port: u16,
        manner: Manner,
    },
    Accept {
        manner: Manner,
    },
    Call {
        call: Call,
        at: u64,
    },
    SendAll {
        len: usize,
        piece: usize,
        at: u64,
    },
    RecvAll {
        len: usize,
        piece: usize,
        at: u64,
    },
    Fill {
        piece: usize,
        at: u64,
    },
    See,
    Reset,
}

/// What it answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answer {
    pub outcome: Outcome,
    /// The end after the call.
    pub seen: Seen,
}

/// Longest request or answer.
const MESSAGE: usize = 1 << 16;

/// Serves requests until the other side is gone.
fn serve(end: &End, control: &OwnedFd) {
    sys::write(control, &sys!(libc::gettid()).to_ne_bytes());
    loop {
        let bytes = sys::read(control, MESSAGE);
        if bytes.is_empty() {
            // A signal meant for a call may come after it.
            match Outcome::errno().error() {
                libc::EINTR => continue,
                _ => return,
            }
        }
        let request = serde_json::from_slice(&bytes).expect("a request");
        let outcome = act(end, request);
        let answer = Answer {
            outcome,
            seen: end.see(),
        };
        sys::write(control, &serde_json::to_vec(&answer).expect("an answer"));
    }
}

fn act(end: &End, request: Request) -> Outcome {
    let ready = |sock, manner: Manner| {
        if !manner.nagle {
            sys::set(sock, libc::SOL_TCP, libc::TCP_NODELAY, 1);
        }
        end.adopt(sock);
        Outcome::of(0)
    };
    match request {
        Request::Listen => {
            let (listener, port) = connect::listen();
            end.listener.store(listener, Ordering::Relaxed);
            port
        }
        Request::Await { manner } => {
            let listener = end.listener.load(Ordering::Relaxed);
            sys::non_blocking(listener, manner.non_blocking)
        }
        Request::Connect { port, manner } => {
            ready(connect::connect(port, manner.non_blocking), manner)
        }
        Request::Accept { manner } => ready(
            connect::accept(end.listener.load(Ordering::Relaxed), manner.non_blocking),
            manner,
        ),
        Request::Call { call, at } => end.call(&call, at),
        Request::SendAll { len, piece, at } => end.send_all(len, piece, at),
        Request::RecvAll { len, piece, at } => end.recv_all(len, piece, at),
        Request::Fill { piece, at } => end.fill(piece, at),
        Request::See => Outcome::default(),
        Request::Reset => {
            end.reset();
            Outcome::default()
        }
    }
}

/// The life of an end's process; each control socket gets a thread.
pub fn live(seed: u64, controls: Vec<OwnedFd>) -> ! {
    let end = Arc::new(End::new(seed));
    for (signal, flags) in [(libc::SIGUSR1, 0), (libc::SIGUSR2, libc::SA_RESTART)] {
        // SAFETY: all zero is a valid action; the handler does nothing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as *const () as usize;
            action.sa_flags = flags;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
    let mut controls = controls.into_iter();
    let first = controls.next().expect("at least one");
    for control in controls {
        let end = Arc::clone(&end);
        thread::spawn(move || serve(&end, &control));
    }
    serve(&end, &first);
    sys!(libc::_exit(0))
}

extern "C" fn nothing(_signal: i32) {}

/// The harness's side of such a thread.
pub struct Lane {
    control: OwnedFd,
    /// As the process knows it: the descriptor that the thread reads requests from.
    theirs: i32,
    pub tid: i32,
}

/// How a request went on.
pub enum Went {
    /// It came to this.
    Done(Answer),
    /// The thread sleeps in the call.
    Asleep,
}

impl Lane {
    /// Waits for the thread's greeting.
    pub fn new(control: OwnedFd, theirs: i32) -> Result<Self> {
        let told = sys::read(&control, 4);
        let tid = i32::from_ne_bytes(told.try_into().map_err(|_| "an end's process died")?);
        Ok(Self {
            control,
            theirs,
            tid,
        })
    }

    /// Tells it what to do.
    pub fn start(&self, request: &Request) -> Result {
        match sys::write(&self.control, &serde_json::to_vec(request)?) {
            true => Ok(()),
            false => Err("an end's process died".into()),
        }
    }

    /// The answer, if it is there within that time.
    pub fn answer(&self, millis: i32) -> Result<Option<Answer>> {
        if sys::poll_for(self.control.as_raw_fd(), libc::POLLIN, millis) == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&sys::read(
            &self.control,
            MESSAGE,
        ))?))
    }

    /// Waits for the answer, however long the call takes.
    pub fn finish(&self) -> Result<Answer> {
        self.answer(SOON.as_millis() as i32)?
            .ok_or_else(|| "a call did not end".into())
    }

    /// Waits for the answer, or until the thread has been asleep for a while.
    pub fn settle(&self, a_while: Duration) -> Result<Went> {
        let mut since: Option<Instant> = None;
        loop {
            if let Some(answer) = self.answer(i32::from(since.is_some()))? {
                return Ok(Went::Done(answer));
            }
            if !self.sleeps() {
                since = None;
            } else if since.get_or_insert_with(Instant::now).elapsed() >= a_while {
                return Ok(Went::Asleep);
            }
        }
    }

    /// Whether it sleeps in a call, other than the one that waits for requests.
    /// /proc/PID/syscall is "running", or the number of the call and its arguments.
    fn sleeps(&self) -> bool {
        let file = format!("/proc/{}/syscall", self.tid);
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut words = text.split(' ');
        let (call, first) = (words.next(), words.next());
        call.is_some_and(|call| call.parse::<i64>().is_ok_and(|number| number >= 0))
            && first != Some(&format!("{:#x}", self.theirs))
    }
}
