//! Segments of a connection that its own TCP would not send just so.

use std::net::{SocketAddr, TcpStream};

use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use testbed::NetNs;

use super::Result;

/// Sends as if one end of a connection over IPv4 did.
pub struct Forger {
    raw: Socket,
    from: SocketAddr,
    to: SocketAddr,
}

impl Forger {
    /// `end` is in the namespace `ns`.
    pub fn of(ns: &NetNs, end: &TcpStream) -> Result<Self> {
        let with_headers = Some(Protocol::from(libc::IPPROTO_RAW));
        Ok(Self {
            raw: ns.run(|| Socket::new(Domain::IPV4, Type::RAW, with_headers))??,
            from: end.local_addr()?,
            to: end.peer_addr()?,
        })
    }

    /// `seq` is the number of the first byte of `data`, `ack` that of the byte that this end expects.
    pub fn send(&self, seq: u32, ack: u32, data: &[u8]) -> Result {
        const TIME_TO_LIVE: u8 = 64;
        let (SocketAddr::V4(from), SocketAddr::V4(to)) = (self.from, self.to) else {
            return Err("only IPv4 is known here".into());
        };
        let mut packet = Vec::new();
        PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), TIME_TO_LIVE)
            .tcp(from.port(), to.port(), seq, u16::MAX)
            .ack(ack)
            .write(&mut packet, data)?;
        // The port of a raw socket's address is not looked at.
        let sent = self.raw.send_to(&packet, &SockAddr::from(self.to))?;
        assert_eq!(sent, packet.len());
        Ok(())
    }
}
