//! Whether redirecting works, and what FIONREAD says of redirected data: tried on a connection of
//! this process's own.

use std::io::{self, Read};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::{MapCore, MapFlags, Object};

use super::attempt::{Attempt, attempt};
use super::fionread::{DATA, FionreadReport, arrived, broken, pair};
use super::tracing::{load, program};
use crate::{Error, Result};

/// Keys of `probe_socks` in bpf/probe.bpf.c.
const SENDER: u32 = 0;
const RECEIVER: u32 = 1;

/// Redirects a message from one socket to another, asks FIONREAD of the receiver, and reads the
/// message.
///
/// # Errors
/// When there is no loopback device to connect over, or the message did not arrive as it was sent.
pub fn redirect() -> Result<FionreadReport> {
    let (mut sender, mut receiver) = pair().map_err(broken("connect over"))?;
    let mut object = None;
    let taken = attempt(|| {
        object = Some(between(&sender, &receiver)?);
        Ok(())
    })?;
    if let Attempt::Refused(refusal) = taken {
        return Ok(FionreadReport::NotTaken(refusal));
    }
    let said = arrived(&mut sender, &receiver).map_err(broken("redirect over"))?;
    let mut got = [0; DATA.len()];
    receiver
        .read_exact(&mut got)
        .map_err(broken("read a redirected message from"))?;
    if got != *DATA {
        let words = "the message is not what was sent";
        return Err(broken("redirect over")(io::Error::other(words)));
    }
    Ok(FionreadReport::of(said))
}

/// Everything that `sender` sends goes to `receiver`, as long as the object lives.
fn between(sender: &TcpStream, receiver: &TcpStream) -> Result<Object> {
    const PROGRAM: &str = "probe_redirect";
    const MAP: &str = "the map probe_socks";
    let object = load(PROGRAM, true)?;
    {
        let map = object
            .maps()
            .find(|map| map.name() == "probe_socks")
            .expect("bpf/probe.bpf.c defines it");
        let fd = map.as_fd().as_raw_fd();
        program(&object, PROGRAM)
            .attach_sockmap(fd)
            .map_err(Error::bpf("attach sk_msg to", MAP))?;
        for (key, socket) in [(SENDER, sender), (RECEIVER, receiver)] {
            let value = socket.as_raw_fd().to_ne_bytes();
            map.update(&key.to_ne_bytes(), &value, MapFlags::ANY)
                .map_err(Error::bpf("put a socket into", MAP))?;
        }
    }
    Ok(object)
}
