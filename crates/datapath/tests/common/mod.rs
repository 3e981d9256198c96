//! What the tests of the socket path share: a loaded path, traffic with hashes, and strict sums.
#![allow(dead_code)] // every test file uses its own part of it

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use datapath::Maps;
use datapath::abi::{End, EndRecord, Handshake, Program, Reason, Totals, Verdict, Wire};
use datapath::ends::Ends;
use datapath::socket::{Options, SocketPath};
use libbpf_rs::{MapCore, MapFlags};
use testbed::traffic::pair;
use testbed::traffic::pattern::Pattern;
use testbed::traffic::stream::{self, Chunk};
use testbed::{Cgroup, NetNs, Node, Pod, traffic, wait_for};

pub mod late_page;
pub mod other;
pub mod part;
pub mod segment;
pub mod stage;
pub mod unheeded;

/// What tests return: the errors of every crate fit in.
pub type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// A BPF object that is part of the test, aligned as libbpf needs it.
#[repr(C, align(8))]
pub struct Elf<T: ?Sized>(pub T);

/// How long a condition may take to come true; only failures wait that long.
pub const SOON: Duration = Duration::from_secs(30);

/// More than a socket may block after its enrolment without leaving: GRACE_NS, bpf/socket.bpf.c.
pub const GRACE: Duration = Duration::from_millis(150);

/// Large enough to fill every buffer of the kernel path.
pub const LARGE: u64 = 12 << 20;

/// The socket path on the cgroup of one test.
pub struct Bed {
    path: SocketPath,
    ends: Ends,
}

impl Bed {
    /// Attaches with the default options, but with room for all that a test sends at once: whether
    /// a reader falls behind is up to the scheduler.
    pub fn on(cgroup: &Cgroup) -> Result<Self> {
        let (queue_limit, memory_limit) = (1 << 30, u64::MAX);
        Self::with(
            cgroup,
            Options {
                queue_limit,
                memory_limit,
                ..Options::default()
            },
        )
    }

    /// Attaches with options of one's choice.
    pub fn with(cgroup: &Cgroup, options: Options) -> Result<Self> {
        let mut path = SocketPath::load(options)?;
        path.attach(cgroup.path())?;
        let ends = Ends::load(path.maps())?;
        trust_programs(path.maps())?;
        Ok(Self { path, ends })
    }

    /// Every socket that is or was enrolled and still exists.
    pub fn ends(&self) -> Result<Vec<EndRecord>> {
        Ok(self.ends.list(self.path.maps())?)
    }

    /// Both ends of this socket's connection.
    pub fn ends_of(&self, sock: &TcpStream) -> Result<Vec<EndRecord>> {
        let ports = [sock.local_addr()?.port(), sock.peer_addr()?.port()];
        let mut ends = self.ends()?;
        ends.retain(|end| end.endpoints.have_ports(ports));
        Ok(ends)
    }

    /// What they redirected.
    pub fn redirected_of(&self, sock: &TcpStream) -> Result<u64> {
        let ends = self.ends_of(sock)?;
        Ok(ends.iter().map(|end| end.end.redirected_bytes).sum())
    }

    /// Of how many sockets it is known what comes next over the kernel path.
    pub fn expected(&self) -> usize {
        self.cookies("expected").len()
    }

    /// How many sockets are known to have left the maps.
    pub fn left(&self) -> usize {
        self.cookies("left").len()
    }

    /// The keys of a map whose keys are cookies.
    fn cookies(&self, map: &str) -> Vec<u64> {
        let cookie = |key: Vec<u8>| u64::from_ne_bytes(key.try_into().expect("eight bytes"));
        self.get(map).keys().map(cookie).collect()
    }

    /// What a map has under a key.
    pub fn value<T: Wire>(&self, map: &str, key: &[u8]) -> Result<T> {
        let bytes = self.get(map).lookup(key, MapFlags::ANY)?;
        Ok(T::read(&bytes.ok_or("it is gone")?).ok_or("it is too short")?)
    }

    /// Puts a socket into a sockmap, under a key that it does not have yet.
    pub fn put(&self, map: &str, key: Handshake, sock: &TcpStream) -> Result {
        let fd = u64::try_from(sock.as_raw_fd())?.to_ne_bytes();
        Ok(self.get(map).update(key.bytes(), &fd, MapFlags::NO_EXIST)?)
    }

    /// Changes all values of a map.
    pub fn change<T: Wire>(&self, map: &str, how: impl Fn(&mut T)) -> Result {
        for key in self.get(map).keys() {
            let mut value: T = self.value(map, &key)?;
            how(&mut value);
            self.get(map).update(&key, value.bytes(), MapFlags::EXIST)?;
        }
        Ok(())
    }

    /// Waits until both ends of `count` connections were enrolled since the start.
    pub fn wait_paired(&self, count: u64) -> Result {
        let paired = || self.totals().is_ok_and(|totals| totals.paired >= count);
        Ok(wait_for(&format!("pair {count}"), SOON, paired)?)
    }

    /// Waits until the reason was counted `count` times.
    pub fn wait_reason(&self, reason: Reason, count: u64) -> Result {
        let counted = || self.totals().is_ok_and(|t| t.count(reason) >= count);
        Ok(wait_for(
            &format!("reason {}", reason.name()),
            SOON,
            counted,
        )?)
    }

    /// Waits until every enrolled socket is closed and no map has an element, and returns the sums.
    pub fn emptied(&self) -> Result<Totals> {
        wait_for("the end of every record", SOON, || {
            self.left_over(0).is_empty()
        })
        .map_err(|error| {
            format!(
                "{error}: {}; sockets {:?}",
                self.left_over(0).join(", "),
                self.ends()
            )
        })?;
        Ok(self.totals()?)
    }

    /// What the maps still have, in words. The end of this many sockets may not have been told.
    pub fn left_over(&self, untold: u64) -> Vec<String> {
        let totals = match self.totals() {
            Ok(totals) if (totals.closed..=totals.closed + untold).contains(&totals.enrolled) => {
                None
            }
            Ok(totals) => Some(Sums(&totals).to_string()),
            Err(error) => Some(error.to_string()),
        };
        let all = [
            totals,
            elements("socks", &self.enrolled()),
            elements("conns", &self.conns()),
            elements("waiting", &self.waiting()),
            elements("offers", &self.offers()),
            elements("left", &self.cookies("left")),
            elements("expected", &self.cookies("expected")),
        ];
        all.into_iter().flatten().collect()
    }

    /// As [`Bed::emptied`], and every byte of `connections` connections, `bytes` in all, was
    /// redirected, and nothing was left on the kernel path for any reason.
    pub fn all_redirected(&self, connections: u64, bytes: u64) -> Result {
        let totals = self.emptied()?;
        expect_reasons(&totals, &[]);
        expect_connections(&totals, connections);
        assert_eq!(
            (totals.closed_redirected_bytes, totals.closed_kernel_bytes),
            (bytes, 0),
            "bytes redirected and through the stack: {}",
            Sums(&totals)
        );
        Ok(())
    }

    /// What enrolled sockets redirected.
    pub fn redirected(&self) -> Result<u64> {
        Ok(self.of_open(|end| end.redirected_bytes)? + self.totals()?.closed_redirected_bytes)
    }

    /// What enrolled sockets sent over the kernel path.
    pub fn over_kernel(&self) -> Result<u64> {
        Ok(self.of_open(|end| end.kernel_bytes)? + self.totals()?.closed_kernel_bytes)
    }

    /// A sum over ends whose connections are not over.
    fn of_open(&self, bytes: impl Fn(&End) -> u64) -> Result<u64> {
        let ends = self.ends()?;
        let open = ends.iter().filter(|one| !one.end.is_closed());
        Ok(open.map(|one| bytes(&one.end)).sum())
    }

    /// Bytes of all ends that were redirected, and that took the kernel path.
    pub fn moved(&self) -> Result<(u64, u64)> {
        Ok((self.redirected()?, self.over_kernel()?))
    }

    /// Talks until both ways redirect, which an adopted connection does once all that it sent before
    /// has arrived.
    pub fn until_redirected(&self, (a, b): &(TcpStream, TcpStream)) -> Result {
        Ok(wait_for("both ways to redirect", SOON, || {
            let (redirected, kernel) = self.moved().expect("it lists");
            talk(a, b).expect("it talks");
            self.moved().expect("it lists") == (redirected + 10, kernel)
        })?)
    }

    /// As [`Bed::until_redirected`], and from then on all of an exchange is redirected.
    pub fn exchange_redirected(&self, both: &(TcpStream, TcpStream), bytes: u64) -> Result {
        self.until_redirected(both)?;
        let (redirected, kernel) = self.moved()?;
        exchange(&both.0, &both.1, bytes)?;
        assert_eq!(
            self.moved()?,
            (redirected + 2 * bytes, kernel),
            "bytes redirected and over the kernel path"
        );
        Ok(())
    }

    /// As [`Bed::emptied`], and no connection was enrolled; the reasons are just these.
    pub fn none_enrolled(&self, reasons: &[(Reason, u64)]) -> Result {
        let totals = self.emptied()?;
        expect_connections(&totals, 0);
        expect_reasons(&totals, reasons);
        Ok(())
    }
}

impl Deref for Bed {
    type Target = Maps;

    fn deref(&self) -> &Maps {
        self.path.maps()
    }
}

/// Programs that tests start and that do not splice. The agent finds that out when it first sees
/// them; tests want their first connection enrolled.
const TRUSTED: &[&str] = &[
    "curl",
    "iperf3",
    "memcached",
    "nginx",
    "redis-benchmark",
    "redis-cli",
    "redis-server",
    "wrk",
];

/// Names programs as the kernel does, by their files; which is right where a file has one inode.
fn trust_programs(maps: &Maps) -> Result {
    use std::os::unix::fs::MetadataExt;
    for dir in ["/usr/bin", "/usr/sbin"] {
        for name in TRUSTED {
            let Ok(file) = std::fs::metadata(format!("{dir}/{name}")) else {
                continue;
            };
            let (major, minor) = (libc::major(file.dev()), libc::minor(file.dev()));
            let program = Program {
                inode: file.ino(),
                ctime: file.ctime(),
                ctime_nsec: u32::try_from(file.ctime_nsec())?,
                device: major << 20 | minor,
            };
            maps.set_verdict(program, Verdict::NeverSplices)?;
        }
    }
    Ok(())
}

/// Both ends of this many connections were enrolled, and nothing else.
#[track_caller]
pub fn expect_connections(totals: &Totals, connections: u64) {
    assert_eq!(
        (totals.enrolled, totals.paired),
        (2 * connections, connections),
        "sockets enrolled and connections paired: {}",
        Sums(totals)
    );
}

/// These reasons were counted as often as this, and no other at all.
#[track_caller]
pub fn expect_reasons(totals: &Totals, expected: &[(Reason, u64)]) {
    for reason in Reason::ALL {
        let want = expected.iter().find(|(other, _)| other == reason);
        assert_eq!(
            totals.count(*reason),
            want.map_or(0, |(_, count)| *count),
            "{}: {}",
            reason.name(),
            Sums(totals)
        );
    }
}

/// Every byte sent was counted, on whichever path.
#[track_caller]
pub fn expect_bytes(totals: &Totals, bytes: u64) {
    assert_eq!(
        totals.closed_redirected_bytes + totals.closed_kernel_bytes,
        bytes,
        "{}",
        Sums(totals)
    );
}

fn elements(map: &str, found: &[impl fmt::Debug]) -> Option<String> {
    (!found.is_empty()).then(|| format!("{} in {map}: {found:?}", found.len()))
}

/// Totals with the names of the reasons.
pub struct Sums<'a>(pub &'a Totals);

impl fmt::Display for Sums<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = self.0;
        write!(
            f,
            "enrolled {} paired {} closed {} redirected {} kernel {}",
            t.enrolled, t.paired, t.closed, t.closed_redirected_bytes, t.closed_kernel_bytes
        )?;
        let counted = Reason::ALL.iter().filter(|reason| t.count(**reason) > 0);
        for reason in counted {
            write!(f, " {} {}", reason.name(), t.count(*reason))?;
        }
        Ok(())
    }
}

/// A seed that no other stream of this process has.
pub fn seed() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A message each way, each read before the next.
pub fn talk(a: &TcpStream, b: &TcpStream) -> Result {
    for (from, to) in [(a, b), (b, a)] {
        traffic::write_all(from, b"hello")?;
        let mut got = [0; 5];
        traffic::read_all(to, &mut got)?;
        assert_eq!(&got, b"hello");
    }
    Ok(())
}

/// Two pods on a node, and a connection from one to the other.
pub struct Connection {
    pub client: Pod,
    pub web: Pod,
    pub a: TcpStream,
    pub b: TcpStream,
    _node: Node,
}

impl Connection {
    pub fn new() -> Result<Self> {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        Ok(Self {
            client,
            web,
            a,
            b,
            _node: node,
        })
    }
}

/// Runs a scenario on a plain connection and on an enrolled one on which data was redirected, and
/// returns what each came to.
pub fn on_both_paths<T>(
    cgroup: &Cgroup,
    scenario: impl Fn(Connection) -> Result<T>,
) -> Result<(T, T)> {
    let talked = || -> Result<Connection> {
        let connection = Connection::new()?;
        talk(&connection.a, &connection.b)?;
        Ok(connection)
    };
    let plain = scenario(talked()?)?;
    let bed = Bed::with(cgroup, Options::default())?;
    let connection = talked()?;
    let ends = bed.ends()?;
    assert_eq!(
        ends.iter().map(|end| end.end.redirected_bytes).sum::<u64>(),
        10
    );
    Ok((plain, scenario(connection)?))
}

/// As [`on_both_paths`]; both come to the same.
#[track_caller]
pub fn same_on_both_paths<T: PartialEq + fmt::Debug>(
    cgroup: &Cgroup,
    scenario: impl Fn(Connection) -> Result<T>,
) -> Result<T> {
    let (plain, redirected) = on_both_paths(cgroup, scenario)?;
    assert_eq!(plain, redirected, "plain and redirected");
    Ok(plain)
}

/// Sends `bytes` each way at once, in random pieces on both sides, ends both directions, and
/// compares what arrived with what was sent by length and hash. Returns the bytes of both.
pub fn exchange(a: &TcpStream, b: &TcpStream, bytes: u64) -> Result<u64> {
    exchange_in(a, b, bytes, 100_000)
}

/// As [`exchange`], in pieces of at most `piece`.
///
/// Neither direction ends before all arrived: what is sent to a blocking socket after it ended its
/// own direction takes the kernel path.
pub fn exchange_in(a: &TcpStream, b: &TcpStream, bytes: u64, piece: usize) -> Result<u64> {
    let (up, down, all) = (seed(), seed(), Barrier::new(4));
    thread::scope(|scope| {
        let peers = [
            scope.spawn(|| -> Result { one_way_until(a, b, up, bytes, piece, &all) }),
            scope.spawn(|| -> Result { one_way_until(b, a, down, bytes, piece, &all) }),
        ];
        for peer in peers {
            peer.join().expect("a peer panicked")?;
        }
        Ok(2 * bytes)
    })
}

/// Sends `bytes` from one socket, ends the stream, and compares what the other got.
pub fn one_way(
    from: &TcpStream,
    to: &TcpStream,
    seed: u64,
    bytes: u64,
    piece: usize,
) -> Result<()> {
    one_way_until(from, to, seed, bytes, piece, &Barrier::new(2))
}

/// As [`one_way`]; the stream ends when sender and reader and whoever else waits at `all` are done.
fn one_way_until(
    from: &TcpStream,
    to: &TcpStream,
    seed: u64,
    bytes: u64,
    piece: usize,
    all: &Barrier,
) -> Result<()> {
    thread::scope(|scope| {
        let reader = scope.spawn(|| read_stream(to, seed, bytes, piece, all));
        let sent = stream::send(from, seed, bytes, Chunk::up_to(piece, seed));
        all.wait();
        sent?;
        stream::finish(from)?;
        reader.join().expect("the reader panicked")
    })
}

/// Drops segments that arrive in a namespace while it lives.
pub struct Dropping<'a>(&'a NetNs);

impl<'a> Dropping<'a> {
    /// `what` is a match in nft's words.
    pub fn arriving(ns: &'a NetNs, what: &str) -> Result<Self> {
        ns.nft(&format!(
            "table inet drops {{ chain input {{ type filter hook input priority -300; {what} drop\n }}\n }}\n"
        ))?;
        Ok(Self(ns))
    }

    /// No more.
    pub fn end(self) -> Result {
        self.0.nft("delete table inet drops")?;
        Ok(())
    }
}

/// Segments without SYN, FIN or RST: the last one of a handshake, and all data.
pub const PLAIN_ACKS: &str = "tcp flags & (syn | fin | rst) == 0x0";

/// Reads so much, which has to be what `pattern` says.
pub fn read_exactly(sock: &TcpStream, pattern: &mut Pattern, len: u64) -> Result {
    let mut got = vec![0; usize::try_from(len)?];
    traffic::read_all(sock, &mut got)?;
    assert_eq!(pattern.differs(&got), None, "the first wrong byte");
    Ok(())
}

/// Reads `bytes` of the stream of `seed`, and after `all` are done its end.
fn read_stream(sock: &TcpStream, seed: u64, bytes: u64, piece: usize, all: &Barrier) -> Result<()> {
    let (mut pattern, mut buf) = (Pattern::new(seed), vec![0; piece]);
    let mut read = || -> Result {
        while pattern.offset() < bytes {
            let n = traffic::read(sock, &mut buf)?;
            assert_ne!(n, 0, "the stream ended after {} bytes", pattern.offset());
            assert_eq!(pattern.differs(&buf[..n]), None, "the first wrong byte");
        }
        assert_eq!(pattern.offset(), bytes);
        Ok(())
    };
    let done = read();
    all.wait();
    done?;
    assert_eq!(traffic::read(sock, &mut [0])?, 0, "more than was sent");
    Ok(())
}

/// Makes the socket non-blocking and writes until it refuses more. Returns how much it took.
pub fn fill(sock: &mut TcpStream, pattern: &mut Pattern, piece: usize) -> Result<u64> {
    sock.set_nonblocking(true)?;
    let mut piece = vec![0; piece];
    let mut sent = 0;
    loop {
        let mut next = pattern.clone();
        next.fill(&mut piece);
        match sock.write(&piece) {
            Ok(n) => {
                pattern.fill(&mut piece[..n]);
                sent += n as u64;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(sent),
            Err(error) => return Err(error.into()),
        }
    }
}

/// As [`fill`], until there is no room for long: acknowledgements that were under way, or are delayed
/// (40 ms), may have made some more.
pub fn fill_up(sock: &mut TcpStream, pattern: &mut Pattern) -> Result<u64> {
    let mut sent = 0;
    loop {
        sent += fill(sock, pattern, 65_536)?;
        if poll(sock, libc::POLLOUT, Duration::from_millis(300)) == 0 {
            return Ok(sent);
        }
    }
}

/// poll(2) of one socket: its events, or 0 when the time is over.
pub fn poll(sock: &TcpStream, events: i16, time: Duration) -> i16 {
    let mut one = libc::pollfd {
        fd: sock.as_fd().as_raw_fd(),
        events,
        revents: 0,
    };
    let millis = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one element, which lives.
    unsafe { libc::poll(&raw mut one, 1, millis) };
    one.revents
}

/// A socket option of an integer value that neither std nor socket2 knows.
pub fn set_option(sock: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let value: libc::c_int = value;
    // SAFETY: the pointer and the size are those of a live integer.
    let done = unsafe {
        libc::setsockopt(
            sock.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The integer value of a socket option.
pub fn option(sock: impl AsFd, level: i32, name: i32) -> i32 {
    let (mut value, mut len): (libc::c_int, libc::socklen_t) = (0, 4);
    // SAFETY: the pointers are those of live integers, and `len` is the size of the value.
    let done = unsafe {
        let to = (&raw mut value).cast();
        libc::getsockopt(sock.as_fd().as_raw_fd(), level, name, to, &mut len)
    };
    assert_eq!(done, 0, "option {level}, {name}");
    value
}

/// `TCP_INFO`, as far as libc knows it.
pub fn tcp_info(sock: impl AsFd) -> libc::tcp_info {
    // SAFETY: a plain structure of integers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the pointers are those of live values, and `len` is the size of the first.
    let done = unsafe {
        let to = (&raw mut info).cast();
        libc::getsockopt(
            sock.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            to,
            &mut len,
        )
    };
    assert_eq!(done, 0, "TCP_INFO");
    info
}

/// connect(2) with AF_UNSPEC.
pub fn disconnect(sock: &TcpStream) -> Result {
    use std::os::fd::AsRawFd;
    let nowhere = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as libc::sa_family_t,
        sa_data: [0; 14],
    };
    let size = size_of_val(&nowhere) as libc::socklen_t;
    // SAFETY: the pointer and the size are those of a live address.
    let done = unsafe { libc::connect(sock.as_raw_fd(), &raw const nowhere, size) };
    match done {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// Bytes in the send queue that the peer's kernel has not acknowledged or the window forbids.
pub fn unsent(sock: &TcpStream) -> i32 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one integer to a live place.
    let done = unsafe { libc::ioctl(sock.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done == 0 { bytes } else { 0 }
}

/// Bytes to read, as FIONREAD counts them.
pub fn unread(sock: &TcpStream) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one integer to a live place.
    let done = unsafe { libc::ioctl(sock.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if done == 0 {
        usize::try_from(bytes).unwrap_or(0)
    } else {
        0
    }
}

/// Threads of this process that sleep in a read. `wchan` would tell as well, but not before Linux
/// 5.16 on x86 with the ORC unwinder (arch/x86/kernel/process.c, get_wchan).
pub fn sleeping_readers() -> usize {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };
    tasks
        .flatten()
        .filter(|task| {
            let of = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let call: Option<i64> = of("syscall").split(' ').next().and_then(|n| n.parse().ok());
            matches!(call, Some(libc::SYS_read | libc::SYS_recvfrom))
                && of("stack").contains("wait_woken")
        })
        .count()
}

/// What a non-blocking connect says.
pub fn in_progress(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::EINPROGRESS) => Ok(()),
        _ => Err(error),
    }
}
