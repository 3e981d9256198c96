//! Whether redirecting works, and what FIONREAD says of redirected data: tried on a connection of
//! this process's own.

use std::io::{self, Read};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::{MapCore, MapFlags, Object};

use super::attempt::{Attempt, Refusal, attempt};
use super::fionread::{DATA, FionreadReport, arrived, broken, pair};
use super::tracing::{load, program};
use crate::{Error, Result};

/// Keys of `probe_socks` in bpf/probe.bpf.c.
const SENDER: u32 = 0;
const RECEIVER: u32 = 1;

/// What became of a redirected message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectReport {
    /// It was read as it was sent; before that, FIONREAD said this.
    Delivered(FionreadReport),
    /// It was not, and this is what happened.
    NotDelivered(String),
    /// The kernel refused the program, the map, or a socket.
    Refused(Refusal),
}

/// Redirects a message from one socket to another, asks FIONREAD of the receiver, and reads the
/// message.
///
/// # Errors
/// When there is no loopback device to connect over.
pub fn redirect() -> Result<RedirectReport> {
    let (sender, receiver) = pair().map_err(broken("connect over"))?;
    let mut object = None;
    let taken = attempt(|| {
        object = Some(between(&sender, &receiver)?);
        Ok(())
    })?;
    if let Attempt::Refused(refusal) = taken {
        return Ok(RedirectReport::Refused(refusal));
    }
    Ok(match deliver(sender, receiver) {
        Ok(said) => RedirectReport::Delivered(FionreadReport::of(said)),
        Err(error) => RedirectReport::NotDelivered(error.to_string()),
    })
}

/// Sends and reads the message; returns what FIONREAD says in between.
fn deliver(mut sender: TcpStream, mut receiver: TcpStream) -> io::Result<u64> {
    let said = arrived(&mut sender, &receiver)?;
    let mut got = [0; DATA.len()];
    receiver.read_exact(&mut got)?;
    if got == *DATA {
        Ok(said)
    } else {
        Err(io::Error::other("the message is not what was sent"))
    }
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
