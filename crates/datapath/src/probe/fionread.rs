//! Whether `ioctl(FIONREAD)` tells of TCP data that waits on a socket in a sockmap.
//!
//! "bpf, sockmap: Fix FIONREAD for sockmap" (Linux 6.19; in 6.6.128, 6.12.75 and 6.18.14) counts
//! the psock queue only, so that data in the TCP receive queue is not counted any more. Before, it
//! was the other way round.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use super::attempt::{Attempt, Refusal, attempt};
use crate::{Error, Result};

/// What FIONREAD says of a socket in a sockmap that has data to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FionreadReport {
    /// How much there is, as for any TCP socket.
    Counts,
    /// Nothing, although there is data.
    Zero,
    /// Another number than there are bytes.
    Other {
        /// Bytes there are.
        waiting: u64,
        /// Bytes it says.
        said: u64,
    },
    /// The kernel does not take a socket into a sockmap.
    NotTaken(Refusal),
}

pub(super) const DATA: &[u8] = b"beeline";

/// How long data may take over the loopback device.
const ARRIVAL: Duration = Duration::from_secs(2);

/// Asks a connection of this process's own, over the loopback device, before and after one end
/// entered a map of its own.
///
/// # Errors
/// When there is no loopback device to connect over, or FIONREAD is wrong for plain sockets too.
pub fn fionread() -> Result<FionreadReport> {
    let (mut sender, mut receiver) = pair().map_err(broken("connect over"))?;
    let plain = arrived(&mut sender, &receiver).map_err(broken("send over"))?;
    if plain != DATA.len() as u64 {
        let words = format!("FIONREAD of a plain socket is {plain}, not {}", DATA.len());
        return Err(broken("measure")(std::io::Error::other(words)));
    }
    receiver
        .read_exact(&mut [0; DATA.len()])
        .map_err(broken("read from"))?;

    let mut sockmap = None;
    let taken = attempt(|| {
        sockmap = Some(sockmap_with(&receiver)?);
        Ok(())
    })?;
    if let Attempt::Refused(refusal) = taken {
        return Ok(FionreadReport::NotTaken(refusal));
    }
    let said = arrived(&mut sender, &receiver).map_err(broken("send over"))?;
    Ok(FionreadReport::of(said))
}

impl FionreadReport {
    /// What it means that FIONREAD said this while [`DATA`] was waiting.
    pub(super) fn of(said: u64) -> Self {
        let waiting = DATA.len() as u64;
        match said {
            0 => Self::Zero,
            _ if said == waiting => Self::Counts,
            _ => Self::Other { waiting, said },
        }
    }
}

pub(super) fn broken(action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    Error::io(action, "the loopback device")
}

pub(super) fn pair() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let sender = TcpStream::connect(listener.local_addr()?)?;
    let own = sender.local_addr()?;
    // Anybody on the host may connect to the port; only the own connection counts.
    loop {
        let (receiver, peer) = listener.accept()?;
        if peer == own {
            receiver.set_read_timeout(Some(ARRIVAL))?;
            return Ok((sender, receiver));
        }
    }
}

/// Sends the data, waits for it, and returns what FIONREAD says of it.
pub(super) fn arrived(sender: &mut TcpStream, receiver: &TcpStream) -> std::io::Result<u64> {
    sender.write_all(DATA)?;
    wait_readable(receiver)?;
    Ok(rustix::io::ioctl_fionread(receiver)?)
}

fn wait_readable(socket: &TcpStream) -> std::io::Result<()> {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let timeout = i32::try_from(ARRIVAL.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one pollfd, which lives on the stack until the call returns.
    match unsafe { libc::poll(&raw mut poll, 1, timeout) } {
        1 => Ok(()),
        0 => Err(std::io::ErrorKind::TimedOut.into()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// A sockmap without programs, with the socket in it.
fn sockmap_with(socket: &TcpStream) -> Result<MapHandle> {
    const KEY: u32 = 0;
    let what = "a SOCKHASH of its own";
    let size = u32::try_from(size_of::<u32>()).expect("4");
    let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>()
            as libbpf_rs::libbpf_sys::size_t,
        ..Default::default()
    };
    let map = MapHandle::create(
        MapType::Sockhash,
        Some("beeline_probe"),
        size,
        size,
        1,
        &options,
    )
    .map_err(Error::bpf("make", what))?;
    map.update(
        &KEY.to_ne_bytes(),
        &socket.as_fd().as_raw_fd().to_ne_bytes(),
        MapFlags::ANY,
    )
    .map_err(Error::bpf("put a socket into", what))?;
    Ok(map)
}
