//! Where a program, or its administrator, can tell that data was redirected: the differences that
//! docs/semantics.md lists and that one call does not show.

mod common;

use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::thread;

use common::{Bed, Dropping, PLAIN_ACKS, Result, SOON, talk, unread};
use datapath::socket::Options;
use testbed::traffic::{self, accept, pair};
use testbed::{Cgroup, Node, Pod, kernel_test, wait_for};

/// Two pods on a node.
fn pods() -> Result<(Node, Pod, Pod)> {
    let node = Node::new()?;
    let (web, client) = (node.pod("web")?, node.pod("client")?);
    Ok((node, web, client))
}

/// tcpi_bytes_acked and tcpi_bytes_received of struct tcp_info, include/uapi/linux/tcp.h.
fn counted(sock: &TcpStream) -> (u64, u64) {
    const AT: usize = 120;
    let (mut info, mut len) = ([0_u8; AT + 16], (AT + 16) as libc::socklen_t);
    // SAFETY: the pointers are those of live values, and `len` is the size of the first.
    let done = unsafe {
        libc::getsockopt(
            sock.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    assert_eq!((done, len), (0, (AT + 16) as libc::socklen_t));
    let number = |at: usize| u64::from_ne_bytes(info[at..at + 8].try_into().expect("eight"));
    (number(AT), number(AT + 8))
}

kernel_test! {
    fn tcp_info_does_not_count_redirected_bytes(cgroup: &Cgroup) -> Result {
        let (_node, web, client) = pods()?;
        for is_enrolled in [false, true] {
            let bed = is_enrolled.then(|| Bed::on(cgroup)).transpose()?;
            let (a, b) = pair(&client, &web, web.ip())?;
            talk(&a, &b)?;
            let bytes = if is_enrolled { 0 } else { 5 };
            // A client's SYN counts.
            assert_eq!((counted(&a), counted(&b)), ((bytes + 1, bytes), (bytes, bytes)));
            drop(bed);
        }
        Ok(())
    }

    /// The data came with the last segment of the handshake, before there was a queue for it.
    fn bytes_that_came_before_accept_are_counted_from_the_first_read_on(cgroup: &Cgroup) -> Result {
        let (_node, web, client) = pods()?;
        let _bed = Bed::on(cgroup)?;
        let (listener, addr) = web.listen((web.ip(), 0))?;
        let held = Dropping::arriving(&web, PLAIN_ACKS)?;
        let a = client.connect(addr)?;
        traffic::write_all(&a, b"hello")?;
        held.end()?;
        let b = accept(&listener)?;
        let waits = || matches!(b.peek(&mut [0; 5]), Ok(5));
        assert_eq!(unread(&b), 0);
        wait_for("the data", SOON, waits)?;
        assert_eq!(unread(&b), 5);
        Ok(())
    }

    fn filter_rule_of_later_does_not_see_redirected_bytes(cgroup: &Cgroup) -> Result {
        let (_node, web, client) = pods()?;
        let _bed = Bed::on(cgroup)?;
        let (a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        let _dropping = Dropping::arriving(&web, "meta l4proto tcp")?;
        talk(&a, &b)
    }

    /// Their bytes may mix as those of no two writes of plain TCP do; none is lost.
    fn two_threads_write_at_once_while_the_reader_is_behind(cgroup: &Cgroup) -> Result {
        const RECORD: usize = 4096;
        const RECORDS: usize = 3000;
        let options = Options { queue_limit: 256 << 10, ..Options::default() };
        let _bed = Bed::with(cgroup, options)?;
        let (_node, web, client) = pods()?;
        let (a, b) = pair(&client, &web, web.ip())?;
        let write = |marker: u8| -> Result {
            let record = [marker; RECORD];
            (0..RECORDS).try_for_each(|_| Ok(traffic::write_all(&a, &record)?))
        };
        let mut got = vec![0; 2 * RECORD * RECORDS];
        thread::scope(|scope| {
            let writers = [scope.spawn(|| write(1)), scope.spawn(|| write(2))];
            traffic::read_all(&b, &mut got)?;
            for writer in writers {
                writer.join().expect("a writer panicked")?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })?;
        for marker in [1, 2] {
            let bytes = got.iter().filter(|byte| **byte == marker).count();
            assert_eq!(bytes, RECORD * RECORDS, "of writer {marker}");
        }
        Ok(())
    }
}
