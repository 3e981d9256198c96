//! Where a program, or its administrator, can tell that data was redirected: the differences that
//! docs/semantics.md lists and that one call does not show.

mod common;

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Instant;

use common::{
    Bed, Connection, Dropping, PLAIN_ACKS, Result, SOON, on_both_paths, option, talk, unread,
};
use datapath::abi::Reason;
use datapath::drain;
use datapath::probe;
use datapath::socket::Options;
use datapath::tidy::Tidy;
use libbpf_rs::{MapCore, MapFlags};
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::{Domain, Protocol, Socket, Type};
use testbed::traffic::{self, accept, pair};
use testbed::{Cgroup, Node, Pod, kernel_test, wait_for};

/// Two pods on a node.
fn pods() -> Result<(Node, Pod, Pod)> {
    let node = Node::new()?;
    let (web, client) = (node.pod("web")?, node.pod("client")?);
    Ok((node, web, client))
}

/// Of struct tcp_info, include/uapi/linux/tcp.h: tcpi_bytes_acked and tcpi_bytes_received, then
/// tcpi_data_segs_out and tcpi_data_segs_in.
fn counted(sock: &TcpStream) -> ((u64, u64), (u32, u32)) {
    const LEN: usize = 160;
    let (mut info, mut len) = ([0_u8; LEN], LEN as libc::socklen_t);
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
    assert_eq!((done, len), (0, LEN as libc::socklen_t));
    let long = |at: usize| u64::from_ne_bytes(info[at..at + 8].try_into().expect("eight"));
    let short = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().expect("four"));
    ((long(120), long(128)), (short(156), short(152)))
}

/// All that an interface of a pod sees, as tcpdump does.
struct Capture(Socket);

impl Capture {
    fn of(pod: &Pod) -> Result<Self> {
        let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        let socket = pod.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(all)))??;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// What has come since.
    fn bytes(&mut self) -> Vec<u8> {
        let (mut all, mut frame) = (Vec::new(), [0; 65_536]);
        while let Ok(len) = self.0.read(&mut frame) {
            all.extend_from_slice(&frame[..len]);
        }
        all
    }
}

/// Recv-Q as ss and `/proc/net/tcp` tell it, of the socket that is connected to this port.
fn receive_queue(pod: &Pod, port: u16) -> Result<u64> {
    let text = pod.run(|| fs::read_to_string("/proc/thread-self/net/tcp"))??;
    let to = format!(":{port:04X}");
    for line in text.lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        if fields[2].ends_with(&to) {
            let (_, queue) = fields[4].split_once(':').ok_or("two queues")?;
            return Ok(u64::from_str_radix(queue, 16)?);
        }
    }
    Err("no such socket".into())
}

/// Lets this thread run on one processor only.
fn run_on(cpu: usize) -> Result {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

kernel_test! {
    /// What is known of where it was does not stand for who is there now, and is forgotten.
    fn socket_that_is_gone_is_neither_listed_nor_known_for_long(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let (_node, web, client) = pods()?;
        let _left = pair(&client, &web, web.ip())?;
        drain::retire(&bed, &bed.conns(), Reason::Retired, Instant::now() + SOON, |_| {})?;
        let _enrolled = pair(&client, &web, web.ip())?;
        for map in ["left", "expected"] {
            let map = bed.get(map);
            let cookie = map.keys().next().ok_or("nothing is known")?;
            let known = map.lookup(&cookie, MapFlags::ANY)?.ok_or("it is gone")?;
            map.update(&u64::MAX.to_ne_bytes(), &known, MapFlags::NO_EXIST)?;
        }
        assert_eq!((bed.left(), bed.expected(), bed.ends()?.len()), (3, 3, 4));
        Tidy::load(&bed)?.look()?;
        assert_eq!((bed.left(), bed.expected(), bed.ends()?.len()), (2, 2, 4));
        Ok(())
    }

    fn tcp_info_does_not_count_redirected_bytes(cgroup: &Cgroup) -> Result {
        let (_node, web, client) = pods()?;
        for is_enrolled in [false, true] {
            let bed = is_enrolled.then(|| Bed::on(cgroup)).transpose()?;
            let (a, b) = pair(&client, &web, web.ip())?;
            talk(&a, &b)?;
            let (bytes, segments) = if is_enrolled { (0, 0) } else { (5, 1) };
            let segments = (segments, segments);
            // A client's SYN counts.
            assert_eq!(counted(&a), ((bytes + 1, bytes), segments));
            assert_eq!(counted(&b), ((bytes, bytes), segments));
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

    fn capture_does_not_see_redirected_bytes(cgroup: &Cgroup) -> Result {
        const MARK: &[u8] = b"these bytes are easy to find";
        let (plain, redirected) = on_both_paths(cgroup, |Connection { a, b, web, .. }| {
            let mut capture = Capture::of(&web)?;
            traffic::write_all(&a, MARK)?;
            traffic::read_all(&b, &mut [0; MARK.len()])?;
            // Both see the end.
            drop((a, b));
            let mut seen = Vec::new();
            wait_for("a segment", SOON, || {
                seen.extend(capture.bytes());
                !seen.is_empty()
            })?;
            Ok(seen.windows(MARK.len()).any(|bytes| bytes == MARK))
        })?;
        assert_eq!((plain, redirected), (true, false));
        Ok(())
    }

    fn receive_queue_of_ss_does_not_count_redirected_bytes(cgroup: &Cgroup) -> Result {
        let (plain, redirected) = on_both_paths(cgroup, |Connection { a, b, web, .. }| {
            traffic::write_all(&a, b"hello")?;
            wait_for("the data", SOON, || unread(&b) == 5)?;
            receive_queue(&web, a.local_addr()?.port())
        })?;
        assert_eq!((plain, redirected), (5, 0));
        Ok(())
    }

    /// The processor that last took a segment from the network: that of the sender, in memory.
    fn incoming_cpu_is_that_of_the_last_segment(cgroup: &Cgroup) -> Result {
        let (last, first) = (probe::cpus()? - 1, 0);
        let (plain, redirected) = on_both_paths(cgroup, |_| {
            run_on(first)?;
            let Connection { a, b, client: _client, web: _web, .. } = Connection::new()?;
            talk(&a, &b)?;
            run_on(last)?;
            traffic::write_all(&a, b"hello")?;
            traffic::read_all(&b, &mut [0; 5])?;
            let cpu = option(&b, libc::SOL_SOCKET, libc::SO_INCOMING_CPU);
            run_on(first)?;
            Ok(usize::try_from(cpu)?)
        })?;
        assert_eq!((plain, redirected), (last, first));
        Ok(())
    }
}
