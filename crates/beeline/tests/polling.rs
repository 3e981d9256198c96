//! Invariant 2: who waits in epoll is woken, whichever way the data came.

mod common;

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{Beeline, SOON, pair};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{Timespec, epoll::Event};
use testbed::traffic::pattern::Pattern;
use testbed::traffic::stream;
use testbed::{Cgroup, kernel_test, wait_for};

const BYTES: u64 = 200_000;

struct Reader {
    thread: JoinHandle<()>,
    has: Arc<AtomicU64>,
}

/// Reads `len` bytes of the stream `seed` whenever epoll says so; tells how many it has.
fn poll_reader(mut sock: TcpStream, seed: u64, len: u64, flags: EventFlags) -> Reader {
    let has = Arc::<AtomicU64>::default();
    let told = has.clone();
    let thread = thread::spawn(move || {
        sock.set_nonblocking(true).unwrap();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(
            &epoll,
            sock.as_fd(),
            EventData::new_u64(1),
            EventFlags::IN | flags,
        )
        .unwrap();
        let (mut pattern, mut buf) = (Pattern::new(seed), vec![0; 7000]);
        let deadline = Instant::now() + SOON;
        while pattern.offset() < len {
            assert!(
                Instant::now() < deadline,
                "no event after {} bytes",
                pattern.offset()
            );
            let mut events = [Event {
                flags: EventFlags::empty(),
                data: EventData::new_u64(0),
            }];
            let beat = Timespec::try_from(Duration::from_millis(500)).unwrap();
            if epoll::wait(&epoll, &mut events, Some(&beat)).unwrap() == 0 {
                continue;
            }
            loop {
                match sock.read(&mut buf) {
                    Ok(n) => assert_eq!(pattern.differs(&buf[..n]), None),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
                told.store(pattern.offset(), Ordering::Relaxed);
                if pattern.offset() == len {
                    break;
                }
            }
        }
    });
    Reader { thread, has }
}

/// Sends [`BYTES`] in two pieces, the second when the reader has all before it, and waits for it.
fn send_in_pieces(sock: &TcpStream, pattern: &mut Pattern, reader: Reader) {
    stream::send_from(sock, pattern, BYTES / 2, 1000).unwrap();
    let sent = pattern.offset();
    let has_all = || reader.has.load(Ordering::Relaxed) == sent;
    wait_for("the first half", SOON, has_all).unwrap();
    stream::send_from(sock, pattern, BYTES / 2, 1000).unwrap();
    reader.thread.join().unwrap();
}

kernel_test! {
    fn redirected_data_wakes_level_and_edge(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        for flags in [EventFlags::empty(), EventFlags::ET] {
            let (client, server) = pair();
            let reader = poll_reader(server, 1, BYTES, flags);
            send_in_pieces(&client, &mut Pattern::new(1), reader);
        }
    }

    fn kernel_path_data_of_an_enrolled_socket_wakes_level_and_edge(cgroup: &Cgroup) {
        for flags in [EventFlags::empty(), EventFlags::ET] {
            let beeline = Beeline::new(cgroup);
            let _agent = beeline.agent();
            let (client, server) = pair();
            let mut pattern = Pattern::new(2);
            stream::send_from(&client, &mut pattern, 1000, 1000).unwrap();
            // Unread data keeps the sockets in the map, and moves them to the kernel path.
            beeline.fails(&["detach", "--timeout", "100ms"]);
            let maps = beeline.maps();
            assert!(!maps.enrolled().is_empty(), "the reader is held");
            let reader = poll_reader(server, 2, 1000 + BYTES, flags);
            send_in_pieces(&client, &mut pattern, reader);
            beeline.ok(&["detach"]);
        }
    }
}
