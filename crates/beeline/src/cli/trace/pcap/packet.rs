//! Packets as TCP would have sent them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};
use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder};

/// Most bytes of data in one, whatever its headers: the length of an IPv4 packet has 16 bits.
pub(super) const MOST_DATA: usize = u16::MAX as usize - 60;

/// Routers would count down from it.
const HOPS: u8 = 64;

/// Nothing is known of the real one, which does not hold redirected data back.
const WINDOW: u16 = u16::MAX;

/// A part of one direction's stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment<'a> {
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// Of the first byte.
    pub sequence: u32,
    /// The next byte expected from the other end.
    pub acknowledged: u32,
    /// The message ends with it.
    pub push: bool,
    pub data: &'a [u8],
    /// Bytes behind `data` that were sent, and not captured; at most [`MOST_DATA`] with it.
    pub cut: usize,
}

impl Segment<'_> {
    /// The packet's length, and its bytes as far as captured. Of one that was cut the checksum is not that of its data.
    pub(super) fn packet(&self) -> Result<(u32, Vec<u8>)> {
        let builder = PacketBuilder::ip(self.headers()?)
            .tcp(self.from.port(), self.to.port(), self.sequence, WINDOW)
            .ack(self.acknowledged);
        let builder = if self.push { builder.psh() } else { builder };
        let mut whole = self.data.to_vec();
        whole.resize(self.data.len() + self.cut, 0);
        let mut packet = Vec::with_capacity(builder.size(whole.len()));
        builder
            .write(&mut packet, &whole)
            .context("cannot make a packet")?;
        let length = u32::try_from(packet.len()).context("the packet is too long")?;
        packet.truncate(packet.len() - self.cut);
        Ok((length, packet))
    }

    fn headers(&self) -> Result<IpHeaders> {
        if let (IpAddr::V4(from), IpAddr::V4(to)) = (self.from.ip(), self.to.ip()) {
            let header = Ipv4Header::new(0, HOPS, IpNumber::TCP, from.octets(), to.octets())?;
            return Ok(IpHeaders::Ipv4(header, Default::default()));
        }
        let header = Ipv6Header {
            next_header: IpNumber::TCP,
            hop_limit: HOPS,
            source: v6(self.from.ip()).octets(),
            destination: v6(self.to.ip()).octets(),
            ..Ipv6Header::default()
        };
        Ok(IpHeaders::Ipv6(header, Default::default()))
    }
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};

    use super::*;

    fn segment<'a>(from: &str, to: &str, data: &'a [u8], cut: usize) -> Segment<'a> {
        Segment {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            sequence: u32::MAX,
            acknowledged: 7,
            push: true,
            data,
            cut,
        }
    }

    #[test]
    fn a_packet_is_what_was_sent_with_right_checksums() {
        for (from, to) in [
            ("10.0.0.1:4000", "10.0.0.2:80"),
            ("[fd00::1]:4000", "[fd00::2]:80"),
        ] {
            let (length, bytes) = segment(from, to, b"hello", 0).packet().unwrap();
            assert_eq!(length as usize, bytes.len());
            let sliced = SlicedPacket::from_ip(&bytes).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
                panic!("no TCP");
            };
            assert_eq!((tcp.source_port(), tcp.destination_port()), (4000, 80));
            assert_eq!(
                (tcp.sequence_number(), tcp.acknowledgment_number()),
                (u32::MAX, 7)
            );
            assert!(tcp.ack() && tcp.psh() && !tcp.syn() && !tcp.fin() && !tcp.rst());
            assert_eq!(tcp.payload(), b"hello");
        }
    }

    #[test]
    fn the_longest_fits_and_what_is_cut_counts() {
        let whole = segment("10.0.0.1:4000", "10.0.0.2:80", &[0; MOST_DATA], 0);
        assert_eq!(whole.packet().unwrap().0 as usize, 40 + MOST_DATA);
        let (length, bytes) = segment("10.0.0.1:1", "10.0.0.2:2", b"he", 98)
            .packet()
            .unwrap();
        assert_eq!((length, bytes.len()), (140, 42));
    }
}
