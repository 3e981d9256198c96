//! Threads that are caught inside a system call, until a page of memory comes.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use testbed::{traffic, wait_for};

use super::SOON;

pub const PAGE: usize = 4096;

/// A page of memory that comes when told: userfaultfd(2).
pub struct LatePage {
    fault: OwnedFd,
    start: u64,
    memory: *mut u8,
}

// linux/userfaultfd.h
const UFFD_API: u64 = 0xAA;
const UFFDIO_API: libc::Ioctl = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00;
const UFFDIO_ZEROPAGE: libc::Ioctl = 0xc020_aa04;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

impl LatePage {
    pub fn new() -> Self {
        // SAFETY: a new mapping that overlaps nothing.
        let start = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), PAGE, access, private, -1, 0)
        };
        assert_ne!(start, libc::MAP_FAILED);
        // SAFETY: the system call returns a descriptor that nobody else owns, or -1.
        let fault = unsafe {
            let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC);
            OwnedFd::from_raw_fd(i32::try_from(fd).unwrap())
        };
        let page = Self {
            fault,
            start: start as u64,
            memory: start.cast(),
        };
        page.control(UFFDIO_API, [UFFD_API, 0, 0, 0]);
        page.control(
            UFFDIO_REGISTER,
            [page.start, PAGE as u64, UFFDIO_REGISTER_MODE_MISSING, 0],
        );
        page
    }

    pub fn come(&self) {
        self.control(UFFDIO_ZEROPAGE, [self.start, PAGE as u64, 0, 0]);
    }

    fn control(&self, request: libc::Ioctl, mut argument: [u64; 4]) {
        // SAFETY: the argument is at least as long as any of the three requests wants it.
        let done = unsafe { libc::ioctl(self.fault.as_raw_fd(), request, &mut argument) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    /// The memory, once; who reads or writes it sleeps until the page comes.
    pub fn bytes(&mut self) -> &'static mut [u8] {
        let start = std::mem::replace(&mut self.memory, std::ptr::null_mut());
        assert!(!start.is_null(), "somebody has it");
        // SAFETY: mapped for as long as the process lives, and nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(start, PAGE) }
    }
}

/// Calls in a thread of its own; returns when that thread sleeps in the kernel function `at`.
pub fn call_until_asleep(call: impl FnOnce() + Send + 'static, at: &'static str) -> JoinHandle<()> {
    let (tell, told) = mpsc::channel();
    let caller = thread::spawn(move || {
        tell.send(rustix::thread::gettid().as_raw_nonzero())
            .unwrap();
        call();
    });
    let task = format!("/proc/self/task/{}", told.recv().unwrap());
    let of = |file| fs::read_to_string(format!("{task}/{file}")).unwrap_or_default();
    // In this order: one that is about to sleep there may be in no queue yet.
    let asleep = || of("stack").contains(at) && !of("stat").contains(") R ");
    wait_for(&format!("a thread to sleep in {at}"), SOON, asleep).unwrap();
    caller
}

/// As [`call_until_asleep`], when it sends.
pub fn send_until_asleep(sock: TcpStream, data: &'static [u8], at: &'static str) -> JoinHandle<()> {
    let send = move || traffic::write_all(&sock, data).expect("plain TCP would take it");
    call_until_asleep(send, at)
}

/// Reads a request of so many bytes that waits, with the socket locked until the page comes.
pub fn read_until_asleep(
    mut sock: TcpStream,
    page: &'static mut [u8],
    request: usize,
) -> JoinHandle<()> {
    let read = move || assert_eq!(sock.read(page).expect("a request waits"), request);
    call_until_asleep(read, "userfault")
}
