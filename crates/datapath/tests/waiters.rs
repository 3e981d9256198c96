//! Who waits for a socket is woken (invariant 2): one of several at least by each message, and a
//! writer by room. d/differential has readers that wait alone.

mod common;

use std::io::{ErrorKind, Read};
use std::mem;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use common::{Connection, Result, SOON, fill_up, poll, same_on_both_paths, seed};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{read_all, stream, write_all};
use testbed::{Cgroup, kernel_test, wait_for};

const WAITERS: usize = 4;
const MESSAGES: u64 = 200;

/// Reads bytes whenever its own epoll set says so, until the stream ends.
fn wait_and_read(mut sock: &TcpStream, flags: EventFlags, got: &AtomicU64) -> Result {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let flags = EventFlags::IN | EventFlags::EXCLUSIVE | flags;
    epoll::add(&epoll, sock.as_fd(), EventData::new_u64(0), flags)?;
    let mut events = [Event {
        flags: EventFlags::empty(),
        data: EventData::new_u64(0),
    }];
    loop {
        epoll::wait(&epoll, &mut events, None)?;
        loop {
            match sock.read(&mut [0]) {
                Ok(0) => return Ok(()),
                Ok(_) => got.fetch_add(1, Ordering::Relaxed),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            };
        }
    }
}

/// How a writer waits for room.
#[derive(Debug, Clone, Copy)]
enum RoomBy {
    Poll,
    Select,
    Epoll(EventFlags),
}

/// Sleeps until the socket can be written to.
fn wait_for_room(sock: &TcpStream, by: RoomBy) -> Result<bool> {
    match by {
        RoomBy::Poll => Ok(poll(sock, libc::POLLOUT, SOON) == libc::POLLOUT),
        RoomBy::Select => select(sock),
        RoomBy::Epoll(flags) => {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            epoll::add(
                &epoll,
                sock.as_fd(),
                EventData::new_u64(0),
                EventFlags::OUT | flags,
            )?;
            let mut events = [Event {
                flags: EventFlags::empty(),
                data: EventData::new_u64(0),
            }];
            let told = epoll::wait(&epoll, &mut events, Some(&SOON.try_into()?))?;
            let flags = events[0].flags;
            Ok(told == 1 && flags == EventFlags::OUT)
        }
    }
}

fn select(sock: &TcpStream) -> Result<bool> {
    let fd = sock.as_raw_fd();
    // SAFETY: all zero is an empty set, and the pointers are to live values.
    let told = unsafe {
        let mut set: libc::fd_set = mem::zeroed();
        libc::FD_SET(fd, &raw mut set);
        let mut time = libc::timeval {
            tv_sec: SOON.as_secs().cast_signed(),
            tv_usec: 0,
        };
        let none = ptr::null_mut();
        libc::select(fd + 1, none, &raw mut set, none, &raw mut time)
    };
    Ok(told == 1)
}

kernel_test! {
    fn writer_is_woken_when_there_is_room(cgroup: &Cgroup) -> Result {
        for by in [
            RoomBy::Poll,
            RoomBy::Select,
            RoomBy::Epoll(EventFlags::empty()),
            RoomBy::Epoll(EventFlags::ET),
            RoomBy::Epoll(EventFlags::ONESHOT),
        ] {
            same_on_both_paths(cgroup, |Connection { mut a, b, .. }| {
                let seed = seed();
                let filled = fill_up(&mut a, &mut Pattern::new(seed))?;
                thread::scope(|scope| {
                    let writer = scope.spawn(|| wait_for_room(&a, by));
                    let mut got = vec![0; usize::try_from(filled)?];
                    read_all(&b, &mut got)?;
                    assert_eq!(Pattern::new(seed).differs(&got), None);
                    assert!(writer.join().expect("a writer panicked")?, "{by:?}");
                    Ok(())
                })
            })?;
        }
        Ok(())
    }

    fn every_message_wakes_one_of_those_who_wait_exclusively(cgroup: &Cgroup) -> Result {
        for flags in [EventFlags::empty(), EventFlags::ET] {
            same_on_both_paths(cgroup, |Connection { a, b, .. }| {
                let got = AtomicU64::new(0);
                thread::scope(|scope| {
                    let waiters: Vec<_> = (0..WAITERS)
                        .map(|_| scope.spawn(|| wait_and_read(&b, flags, &got)))
                        .collect();
                    for sent in 1..=MESSAGES {
                        write_all(&a, b"x")?;
                        wait_for("its reader", SOON, || got.load(Ordering::Relaxed) == sent)?;
                    }
                    // The end wakes them one after the other: who reads it leaves.
                    stream::finish(&a)?;
                    for waiter in waiters {
                        waiter.join().expect("a waiter panicked")?;
                    }
                    Ok(())
                })
            })?;
        }
        Ok(())
    }
}
