//! One line of `beeline trace`.

use std::net::SocketAddr;

use datapath::abi::{self, EventKind, Reason};
use serde::{Deserialize, Serialize};

/// Something that happened to one end of a connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// What happened.
    pub event: String,
    /// Why, for those that stay on or go to the kernel path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// This end's address.
    pub local: SocketAddr,
    /// The peer's address as this end sees it.
    pub remote: SocketAddr,
    /// Which end it is; unknown for what was never enrolled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// The kernel's name of the socket.
    pub cookie: u64,
    /// Bytes that this end sent past the stack.
    pub redirected_bytes: u64,
    /// Events that this reader missed just before this one.
    pub dropped: u64,
}

impl From<&abi::Event> for Event {
    fn from(event: &abi::Event) -> Self {
        let (local, remote) = event.endpoints.addrs();
        let kind = EventKind::from_raw(event.kind);
        let reason = Reason::from_raw(event.reason).filter(|reason| *reason != Reason::None);
        let enrolled = event.own.snd_nxt != 0 || event.own.rcv_nxt != 0;
        let role = if event.is_client == 0 {
            "server"
        } else {
            "client"
        };
        Self {
            at_ns: event.at_ns,
            event: kind.map_or("unknown", EventKind::name).into(),
            reason: reason.map(|reason| reason.name().into()),
            local,
            remote,
            role: enrolled.then(|| role.into()),
            netns: event.netns,
            cookie: event.cookie,
            redirected_bytes: event.bytes,
            dropped: 0,
        }
    }
}
