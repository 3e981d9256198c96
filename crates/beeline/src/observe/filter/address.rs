//! Addresses to look for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// One socket's address, one host's, or a network's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Address and port.
    Socket(SocketAddr),
    /// Every port of the addresses whose first bits, as many as said, are these.
    Network(IpAddr, u8),
}

/// Why a string is no address to look for.
#[derive(Debug, thiserror::Error)]
#[error(
    "it needs an address, a network or an address with port, as fd00::1, 10.0.0.0/8, 10.0.0.1:80 or [fd00::1]:80"
)]
pub struct BadAddress;

impl Address {
    /// Whether it is this address or contains it.
    #[must_use]
    pub fn has(&self, addr: SocketAddr) -> bool {
        match (*self, addr.ip()) {
            (Self::Socket(own), _) => own == addr,
            (Self::Network(IpAddr::V4(own), len), IpAddr::V4(ip)) => {
                (own.to_bits() ^ ip.to_bits())
                    .checked_shr(32 - u32::from(len))
                    .unwrap_or(0)
                    == 0
            }
            (Self::Network(IpAddr::V6(own), len), IpAddr::V6(ip)) => {
                (own.to_bits() ^ ip.to_bits())
                    .checked_shr(128 - u32::from(len))
                    .unwrap_or(0)
                    == 0
            }
            _ => false,
        }
    }
}

/// Bits of an address.
fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        if let Ok(addr) = text.parse() {
            return Ok(Self::Socket(addr));
        }
        let (ip, len) = text.split_once('/').unzip();
        let ip: IpAddr = ip.unwrap_or(text).parse().map_err(|_| BadAddress)?;
        let len = len.map_or(Ok(bits(ip)), str::parse);
        let len = len.ok().filter(|len| *len <= bits(ip));
        Ok(Self::Network(ip, len.ok_or(BadAddress)?))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(addr) => addr.fmt(f),
            Self::Network(ip, len) if *len == bits(*ip) => ip.fmt(f),
            Self::Network(ip, len) => write!(f, "{ip}/{len}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(filter: &str, addr: &str) -> bool {
        let filter: Address = filter.parse().unwrap();
        filter.has(addr.parse().unwrap())
    }

    #[test]
    fn networks_contain_what_shares_their_first_bits() {
        assert!(has("10.0.0.0/8", "10.255.1.2:80"));
        assert!(!has("10.0.0.0/8", "11.0.0.1:80"));
        assert!(has("0.0.0.0/0", "192.0.2.1:80") && has("::/0", "[fd00::1]:80"));
        assert!(!has("0.0.0.0/0", "[fd00::1]:80"));
        assert!(has("fd00::1", "[fd00::1]:1") && !has("fd00::1", "[fd00::2]:1"));
    }

    #[test]
    fn a_port_narrows_to_one_socket() {
        assert!(has("10.0.0.1:80", "10.0.0.1:80") && !has("10.0.0.1:80", "10.0.0.1:81"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "nginx",
            "10.0.0",
            "10.0.0.1/33",
            "10.0.0.1/x",
            "::/129",
            "80",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
        for same in ["10.0.0.0/8", "fd00::1", "[fd00::1]:80"] {
            assert_eq!(same.parse::<Address>().unwrap().to_string(), same);
        }
    }
}
