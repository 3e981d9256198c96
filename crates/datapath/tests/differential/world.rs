//! A pair of connected sockets whose two ends are processes in one cgroup.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::ptr;

use super::lane::{Answer, Lane, Request, live};
use super::program::{Manner, Side};
use super::sys::{self, sys};
use crate::common::Result;

/// An end's process, and what speaks with its threads.
struct Process {
    pid: i32,
    lanes: Vec<Lane>,
}

impl Process {
    fn start(cgroup: &Path, side: Side, threads: usize) -> Result<Self> {
        let pairs: Vec<_> = (0..threads).map(|_| sys::packets()).collect();
        let parent = sys!(libc::getpid());
        let pid = sys!(libc::fork());
        if pid == 0 {
            sys!(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL));
            if sys!(libc::getppid()) != parent {
                sys!(libc::_exit(1));
            }
            let theirs: Vec<OwnedFd> = pairs.into_iter().map(|(_, theirs)| theirs).collect();
            close_others(&theirs);
            fs::write(cgroup.join("cgroup.procs"), "0").expect("enter the cgroup");
            live(side as u64 + 1, theirs);
        }
        if pid < 0 {
            return Err("fork".into());
        }
        let lanes: Result<Vec<_>> = pairs
            .into_iter()
            .map(|(ours, theirs)| Lane::new(ours, theirs.as_raw_fd()))
            .collect();
        Ok(Self { pid, lanes: lanes? })
    }
}

/// The process has copies of whatever the harness had open, its BPF links among them.
fn close_others(keep: &[OwnedFd]) {
    for fd in 3..256 {
        if keep.iter().all(|kept| kept.as_raw_fd() != fd) {
            sys!(libc::close(fd));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        sys!(libc::kill(self.pid, libc::SIGKILL));
        sys!(libc::waitpid(self.pid, ptr::null_mut(), 0));
    }
}

/// Where programs run: on sockets that Beeline takes, or on plain ones.
pub struct World {
    cgroup: PathBuf,
    /// By side, and by whether it has two threads.
    processes: [[Option<Process>; 2]; 2],
    ports: [u16; 2],
    /// Which of the processes the present connection uses.
    threads: [bool; 2],
}

impl World {
    /// Processes start when they are needed.
    pub fn new(cgroup: PathBuf) -> Self {
        Self {
            cgroup,
            processes: Default::default(),
            ports: [0; 2],
            threads: [false; 2],
        }
    }

    /// The threads of an end.
    pub fn lanes(&self, side: Side) -> &[Lane] {
        let process =
            self.processes[side as usize][usize::from(self.threads[side as usize])].as_ref();
        process.map_or(&[], |process| &process.lanes)
    }

    /// The process of an end.
    pub fn pid(&self, side: Side) -> i32 {
        let process =
            self.processes[side as usize][usize::from(self.threads[side as usize])].as_ref();
        process.map_or(-1, |process| process.pid)
    }

    /// Makes a call that cannot sleep for long.
    pub fn ask(&self, side: Side, lane: usize, request: &Request) -> Result<Answer> {
        let lane = &self.lanes(side)[lane];
        lane.start(request)?;
        lane.finish()
    }

    /// A new connection.
    pub fn connect(&mut self, manners: [Manner; 2]) -> Result {
        for side in Side::BOTH {
            let threads = manners[side as usize].threads;
            self.threads[side as usize] = threads;
            let place = &mut self.processes[side as usize][usize::from(threads)];
            if place.is_some() {
                continue;
            }
            *place = Some(Process::start(
                &self.cgroup,
                side,
                1 + usize::from(threads),
            )?);
            if side == Side::Server {
                let port = self.ask(side, 0, &Request::Listen)?.outcome.ret;
                self.ports[usize::from(threads)] = u16::try_from(port)?;
            }
        }
        let port = self.ports[usize::from(self.threads[Side::Server as usize])];
        let [client, server] = manners;
        self.ask(Side::Server, 0, &Request::Await { manner: server })?;
        self.ask(
            Side::Client,
            0,
            &Request::Connect {
                port,
                manner: client,
            },
        )?;
        self.ask(Side::Server, 0, &Request::Accept { manner: server })?;
        Ok(())
    }

    /// Ends the processes of the present connection, with whatever they were doing.
    pub fn abandon(&mut self) {
        for side in Side::BOTH {
            self.processes[side as usize][usize::from(self.threads[side as usize])] = None;
        }
    }
}
