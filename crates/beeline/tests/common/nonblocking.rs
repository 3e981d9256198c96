//! Connections whose sockets never block, from before they are established.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, accept_with};

use super::SOON;

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// A connection over loopback: the client's and the server's end.
pub fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback listens");
    listener
        .set_nonblocking(true)
        .expect("a socket has the flag");
    let addr = listener.local_addr().expect("it is bound");
    let client = net::socket_with(AddressFamily::INET, SocketType::STREAM, FLAGS, None);
    let client = client.expect("a socket");
    match net::connect(&client, &addr) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => panic!("connect to {addr}: {error}"),
    }
    wait(PollFd::new(&listener, PollFlags::IN), addr);
    let server = accept_with(&listener, FLAGS).expect("there is one");
    wait(PollFd::new(&client, PollFlags::OUT), addr);
    (client.into(), server.into())
}

fn wait(fd: PollFd<'_>, addr: SocketAddr) {
    let time = Timespec::try_from(SOON).expect("a short time");
    let ready = poll(&mut [fd], Some(&time)).expect("sockets can be polled");
    assert!(ready > 0, "no connection to {addr} came about");
}
