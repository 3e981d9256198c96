//! Invariant 1: a socket is not released under a message that is on its way to it.
//!
//! The message is caught between verdict and queue: its sender waits there for the lock of the
//! peer's socket, which the peer holds while it sends from memory whose page does not come.

use std::fs;
use std::io::{self, PipeReader, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use datapath::abi::Reason;
use datapath::drain::{self, Held, HeldBy, Outcome};
use datapath::ends::Ends;
use datapath::pins::{self, Pins};
use datapath::socket::{Options, SocketPath};
use testbed::{Cgroup, kernel_test, traffic, wait_for};

const SOON: Duration = Duration::from_secs(10);

const PAGE: usize = 4096;

/// A page of memory that comes when told: userfaultfd(2).
struct LatePage {
    fault: OwnedFd,
    start: *mut libc::c_void,
}

// linux/userfaultfd.h
const UFFD_API: u64 = 0xAA;
const UFFDIO_API: libc::Ioctl = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00;
const UFFDIO_ZEROPAGE: libc::Ioctl = 0xc020_aa04;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

impl LatePage {
    fn new() -> Self {
        // SAFETY: a new mapping that overlaps nothing.
        let start = unsafe {
            let (read, private) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            libc::mmap(std::ptr::null_mut(), PAGE, read, private, -1, 0)
        };
        assert_ne!(start, libc::MAP_FAILED);
        // SAFETY: the system call returns a descriptor that nobody else owns, or -1.
        let fault = unsafe {
            let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC);
            OwnedFd::from_raw_fd(i32::try_from(fd).unwrap())
        };
        let page = Self { fault, start };
        page.control(UFFDIO_API, [UFFD_API, 0, 0, 0]);
        page.control(
            UFFDIO_REGISTER,
            [start as u64, PAGE as u64, UFFDIO_REGISTER_MODE_MISSING, 0],
        );
        page
    }

    fn come(&self) {
        self.control(UFFDIO_ZEROPAGE, [self.start as u64, PAGE as u64, 0, 0]);
    }

    fn control(&self, request: libc::Ioctl, mut argument: [u64; 4]) {
        // SAFETY: the argument is at least as long as any of the three requests wants it.
        let done = unsafe { libc::ioctl(self.fault.as_raw_fd(), request, &mut argument) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    /// The memory; who reads it sleeps until the page comes.
    fn bytes(&self) -> &'static [u8] {
        // SAFETY: mapped for as long as the process lives.
        unsafe { std::slice::from_raw_parts(self.start.cast(), PAGE) }
    }
}

/// Writes in a thread of its own; returns when that thread sleeps in the kernel function `at`.
fn write_until_asleep(write: impl FnOnce() + Send + 'static, at: &'static str) -> JoinHandle<()> {
    let (tell, told) = mpsc::channel();
    let writer = thread::spawn(move || {
        tell.send(rustix::thread::gettid().as_raw_nonzero())
            .unwrap();
        write();
    });
    let stack = format!("/proc/self/task/{}/stack", told.recv().unwrap());
    let asleep = || fs::read_to_string(&stack).is_ok_and(|now| now.contains(at));
    wait_for(&format!("the writer to sleep in {at}"), SOON, asleep).unwrap();
    writer
}

fn send_until_asleep(sock: TcpStream, data: &'static [u8], at: &'static str) -> JoinHandle<()> {
    let write = move || traffic::write_all(&sock, data).expect("plain TCP would take it");
    write_until_asleep(write, at)
}

/// A thread that may be sending to anyone, as far as one can see: it sleeps uninterruptibly in a write, for a pipe
/// that another has locked.
struct MaySend {
    page: LatePage,
    writers: [JoinHandle<()>; 2],
    _out: PipeReader,
}

impl MaySend {
    fn begin() -> Self {
        let page = LatePage::new();
        let (out, mut into) = io::pipe().unwrap();
        let (mut locks, data) = (into.try_clone().unwrap(), page.bytes());
        let locks = write_until_asleep(move || locks.write_all(data).unwrap(), "userfault");
        let waits = write_until_asleep(move || into.write_all(&[7]).unwrap(), "pipe_write");
        Self {
            page,
            writers: [locks, waits],
            _out: out,
        }
    }

    fn end(self) {
        self.page.come();
        for writer in self.writers {
            writer.join().unwrap();
        }
    }
}

fn soon() -> Instant {
    Instant::now() + SOON
}

kernel_test! {
    fn a_message_between_verdict_and_queue_is_waited_for(cgroup: &Cgroup) {
        if !pins::bpffs_mounted().unwrap() {
            pins::mount_bpffs().unwrap();
        }
        let pins = Pins::of(&format!("blt-{}", std::process::id()));
        let mut path = SocketPath::load_pinned(Options::default(), &pins).unwrap();
        path.attach_pinned(cgroup.path(), &pins).unwrap();
        let (listener, addr) = traffic::listen(([127, 0, 0, 1], 0)).unwrap();
        let client = traffic::connect(addr).unwrap();
        let server = traffic::accept(&listener).unwrap();

        let page = LatePage::new();
        let locks = send_until_asleep(server.try_clone().unwrap(), page.bytes(), "userfault");
        let caught = send_until_asleep(client.try_clone().unwrap(), &[7; 1000], "lock_sock");
        let ends = Ends::load(path.maps()).unwrap();
        let verdicts = || ends.list(path.maps()).unwrap().iter().map(|end| end.end.redirected_bytes).sum::<u64>();
        assert_eq!(verdicts(), 1000, "the verdict was: redirect");

        let early = Instant::now() + Duration::from_millis(200);
        let Outcome::Held(held) = drain::detach(&pins, early, |_| {}).unwrap() else {
            panic!("the server's socket was released under a message");
        };
        let on_server = |held: &Held| held.end.endpoints.local_port == addr.port();
        assert!(held.iter().any(|held| on_server(held) && matches!(held.by, HeldBy::Sender(_))));

        page.come();
        locks.join().unwrap();
        caught.join().unwrap();
        let (mut first, mut second) = ([0; 1000], [1; PAGE]);
        traffic::read_all(&server, &mut first).unwrap();
        traffic::read_all(&client, &mut second).unwrap();
        assert_eq!((first, second), ([7; 1000], [0; PAGE]));
        assert!(matches!(drain::detach(&pins, soon(), |_| {}).unwrap(), Outcome::Done { .. }));
    }

    /// Whoever begins to send after a socket was told to redirect no more is not waited for.
    fn senders_that_come_later_do_not_hold_a_retirement(cgroup: &Cgroup) {
        let mut path = SocketPath::load(Options::default()).unwrap();
        path.attach(cgroup.path()).unwrap();
        let (listener, addr) = traffic::listen(([127, 0, 0, 1], 0)).unwrap();
        let _client = traffic::connect(addr).unwrap();
        let _server = traffic::accept(&listener).unwrap();
        let maps = path.maps();
        let conns = maps.conns();
        assert_eq!(conns.len(), 1);

        // The next one is there before the last one is gone, so that one is at each look.
        let (mut at_hand, mut looks) = (Some(MaySend::begin()), 0);
        let next = |_| {
            looks += 1;
            let last = at_hand.replace(MaySend::begin());
            last.unwrap().end();
        };
        let outcome = drain::retire(maps, &conns, Reason::Retired, soon(), next).unwrap();
        at_hand.unwrap().end();
        assert!(matches!(outcome, Outcome::Done { released: 2 }), "{outcome:?}");
        assert!(looks > 1, "the first sender was waited for");
    }
}
