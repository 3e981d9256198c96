//! Kernel TLS that a program asks for at any moment of an accelerated connection (invariants 1 and 2). What
//! needs a kernel with the module `tls` runs in `make test-kernels`.

mod common;

use std::io::{self, ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use common::{Bed, Result, SOON, talk, unread};
use datapath::abi::Reason;
use datapath::adopt::Adopter;
use datapath::drain::{self, Outcome};
use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo};
use libbpf_rs::{ProgramAttachType, libbpf_sys};
use testbed::traffic::{pair, read_all, write_all};
use testbed::{Cgroup, Node, Pod, kernel_test, wait_for};

/// Sizes of records, and of several.
const SIZES: [usize; 3] = [1, 5000, 100_000];

/// A record's header: its type, the version, the length.
const HEADER: [u8; 3] = [0x17, 3, 3];

/// include/uapi/linux/tls.h: `struct tls12_crypto_info_aes_gcm_128`
#[repr(C)]
struct AesGcm128 {
    version: u16,
    cipher: u16,
    iv: [u8; 8],
    key: [u8; 16],
    salt: [u8; 4],
    rec_seq: [u8; 8],
}

/// The same in both directions, as nobody is to be kept out.
const KEY: AesGcm128 = AesGcm128 {
    version: 0x303,
    cipher: 51,
    iv: [1; 8],
    key: [2; 16],
    salt: [3; 4],
    rec_seq: [0; 8],
};

/// include/uapi/linux/tcp.h, tls.h
const TCP_ULP: i32 = 31;
const TLS_TX: i32 = 1;
const TLS_RX: i32 = 2;

fn set<T>(sock: &TcpStream, level: i32, name: i32, value: &T) -> io::Result<()> {
    let (at, len) = (&raw const *value, size_of::<T>() as libc::socklen_t);
    // SAFETY: the pointer and the size are those of a live value.
    match unsafe { libc::setsockopt(sock.as_raw_fd(), level, name, at.cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets the kernel's TLS own the socket; nothing is enciphered yet.
fn begin(sock: &TcpStream) -> io::Result<()> {
    set(sock, libc::SOL_TCP, TCP_ULP, b"tls")
}

fn encipher(sock: &TcpStream) -> io::Result<()> {
    set(sock, libc::SOL_TLS, TLS_TX, &KEY)
}

fn decipher(sock: &TcpStream) -> io::Result<()> {
    set(sock, libc::SOL_TLS, TLS_RX, &KEY)
}

/// Text that no record looks like.
fn text(size: usize) -> Vec<u8> {
    (0..size).map(|at| b'a' + (at % 26) as u8).collect()
}

/// Sends texts from one to the other, each read before the next.
fn carries(from: &TcpStream, to: &TcpStream) -> Result {
    for size in SIZES {
        let (sent, mut got) = (text(size), vec![0; size]);
        std::thread::scope(|scope| -> Result {
            let sender = scope.spawn(|| write_all(from, &sent));
            read_all(to, &mut got)?;
            Ok(sender.join().expect("the sender panicked")?)
        })?;
        assert!(got == sent, "a text of {size} bytes differs");
    }
    Ok(())
}

/// The first records that the kernel makes of a text on a connection, which must not be accelerated.
fn records(client: &Pod, web: &Pod, text: &[u8]) -> Result<Vec<u8>> {
    let (a, mut b) = pair(client, web, web.ip())?;
    begin(&a)?;
    encipher(&a)?;
    write_all(&a, text)?;
    drop(a);
    b.set_nonblocking(false)?;
    let mut got = Vec::new();
    b.read_to_end(&mut got)?;
    assert_eq!(got[..3], HEADER);
    Ok(got)
}

/// As a kernel without TLS answers, upon which a TLS library enciphers itself.
fn is_refused(sock: &TcpStream) {
    let refused = begin(sock).expect_err("the socket is enrolled");
    assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");
}

/// Detaches what is attached to the cgroup but sock_ops.
fn take_off_hook(cgroup: &Cgroup) -> Result {
    let id = cgroup.path().metadata()?.ino();
    let hook = LinkInfoIter::default()
        .find(|link| {
            matches!(&link.info, LinkTypeInfo::Cgroup(on) if on.cgroup_id == id
                && matches!(on.attach_type, ProgramAttachType::CgroupSetsockopt))
        })
        .ok_or("no hook is attached")?;
    // SAFETY: plain system calls; the descriptor is this function's.
    unsafe {
        let fd = libbpf_sys::bpf_link_get_fd_by_id(hook.id);
        assert!(fd >= 0 && libbpf_sys::bpf_link_detach(fd) == 0);
        libc::close(fd);
    }
    Ok(())
}

/// The connections of who has asked for it once are plain TCP.
fn next_one_enciphers(bed: &Bed, client: &Pod, web: &Pod) -> Result {
    let (a, b) = pair(client, web, web.ip())?;
    talk(&a, &b)?;
    for sock in [&a, &b] {
        begin(sock)?;
        encipher(sock)?;
        decipher(sock)?;
    }
    carries(&a, &b)?;
    carries(&b, &a)?;
    assert_eq!(bed.totals()?.count(Reason::Ulp), 1);
    Ok(())
}

/// What `TCP_ULP` comes to with a protocol that every kernel with Multipath TCP has, and gives to nobody.
fn ask_for_mptcp(sock: &TcpStream) -> Option<i32> {
    let refused = set(sock, libc::SOL_TCP, TCP_ULP, b"mptcp");
    refused.expect_err("nobody gets it").raw_os_error()
}

kernel_test! {
    fn any_protocol_is_refused_once(cgroup: &Cgroup) -> Result {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (plain, _peer) = pair(&client, &web, web.ip())?;
        let as_tcp = ask_for_mptcp(&plain);
        assert_ne!(as_tcp, Some(libc::ENOENT));
        let bed = Bed::on(cgroup)?;
        assert_eq!(ask_for_mptcp(&plain), as_tcp);
        let (a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        assert_eq!(ask_for_mptcp(&a), Some(libc::ENOENT));
        let (a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        assert_eq!(ask_for_mptcp(&a), as_tcp);
        assert_eq!(bed.totals()?.count(Reason::Ulp), 1);
        Ok(())
    }

    fn protocol_is_not_refused_to_one_that_has_left(cgroup: &Cgroup) -> Result {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (plain, _peer) = pair(&client, &web, web.ip())?;
        let bed = Bed::on(cgroup)?;
        let (a, b) = pair(&client, &web, web.ip())?;
        let outcome = drain::retire(&bed, &bed.conns(), Reason::Retired, Instant::now() + SOON, |_| {})?;
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
        for sock in [&a, &b] {
            assert_eq!(ask_for_mptcp(sock), ask_for_mptcp(&plain));
        }
        Ok(())
    }

    /// It blocked, so that it was not enrolled, and does not any more.
    #[ignore = "needs a kernel with TLS"]
    fn connection_that_has_it_is_not_adopted(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let listener = web.run(|| TcpListener::bind((web.ip(), 0)))??;
        let addr = listener.local_addr()?;
        let a = client.run(|| TcpStream::connect(addr))??;
        let b = listener.accept()?.0;
        bed.wait_reason(Reason::Blocking, 1)?;
        for sock in [&a, &b] {
            begin(sock)?;
            sock.set_nonblocking(true)?;
        }
        adopter.look()?;
        assert_eq!(bed.enrolled().len(), 0);
        for sock in [&a, &b] {
            encipher(sock)?;
            decipher(sock)?;
        }
        carries(&a, &b)?;
        carries(&b, &a)
    }

    /// As OpenSSL asks for it, when it is given the socket.
    #[ignore = "needs a kernel with TLS"]
    fn asked_for_before_anything_is_sent(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        bed.wait_paired(1)?;
        is_refused(&a);
        is_refused(&b);
        talk(&a, &b)?;
        assert_eq!(bed.redirected()?, 10);
        next_one_enciphers(&bed, &client, &web)
    }

    /// With a record that was redirected and waits.
    #[ignore = "needs a kernel with TLS"]
    fn asked_for_when_a_record_waits(cgroup: &Cgroup) -> Result {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let enciphered = records(&client, &web, &text(5000))?;
        let bed = Bed::on(cgroup)?;
        let (a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        write_all(&a, &enciphered)?;
        wait_for("the records", SOON, || unread(&b) == enciphered.len())?;
        is_refused(&b);
        let mut got = vec![0; enciphered.len()];
        read_all(&b, &mut got)?;
        assert!(got == enciphered, "the records differ: {:?}", &got[..8]);
        next_one_enciphers(&bed, &client, &web)
    }

    #[ignore = "needs a kernel with TLS"]
    fn retired_connection_enciphers(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        let connection = bed.ends()?[0].end.own;
        let outcome = drain::retire(&bed, &[connection], Reason::Retired, Instant::now() + SOON, |_| {})?;
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
        for sock in [&a, &b] {
            begin(sock)?;
            encipher(sock)?;
            decipher(sock)?;
        }
        carries(&a, &b)?;
        carries(&b, &a)
    }

    /// One that is enrolled between the hook's look and the kernel's own; here, because there is no hook. (The
    /// kernel does not decipher what comes to a socket in a sockmap with a verdict.)
    #[ignore = "needs a kernel with TLS"]
    fn text_is_not_redirected_past_the_cipher(cgroup: &Cgroup) -> Result {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let enciphered = records(&client, &web, &text(5000))?;
        let bed = Bed::on(cgroup)?;
        take_off_hook(cgroup)?;
        let (a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        let before = bed.redirected()?;
        begin(&a)?;
        // Linux 6.12 says EINVAL.
        if encipher(&a).is_ok() && write_all(&a, &text(5000)).is_ok() {
            let mut got = vec![0; enciphered.len()];
            read_all(&b, &mut got)?;
            assert!(got == enciphered, "the records differ: {:?}", &got[..8]);
        }
        assert_eq!(bed.redirected()?, before);
        Ok(())
    }

    /// As above.
    #[ignore = "needs a kernel with TLS"]
    fn nothing_is_redirected_to_a_socket_that_has_it(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        take_off_hook(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        let before = bed.redirected()?;
        begin(&b)?;
        write_all(&a, b"hello")?;
        assert_eq!(bed.redirected()?, before);
        assert_eq!(bed.totals()?.count(Reason::Ulp), 1);
        Ok(())
    }

    /// Another connection's setsockopt goes on as it did, and a large one as well.
    fn other_options_are_set(cgroup: &Cgroup) -> Result {
        let _bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        a.set_nodelay(true)?;
        assert!(a.nodelay()?);
        // More than a page, of which the kernel takes the first bytes.
        let mut large = [0_u8; 3 << 12];
        large[0] = 7;
        set(&b, libc::SOL_IP, libc::IP_TTL, &large)?;
        assert_eq!(b.ttl()?, 7);
        // Another level's option with the number of TCP_ULP, which no IPv4 socket has.
        let none = set(&a, libc::SOL_IPV6, TCP_ULP, &1_i32).expect_err("it is of IPv6");
        assert_eq!(none.raw_os_error(), Some(libc::ENOPROTOOPT));
        Ok(())
    }
}
