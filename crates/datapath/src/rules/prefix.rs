//! Numbers and addresses as prefixes, which is how the kernel looks them up.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::abi::{Dimension, RuleRange};

/// Bits of the dimension, which come first in every key.
const DIMENSION_BITS: u32 = 32;

/// All answers whose first bits are these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// In network byte order, 0 behind the prefix.
    bits: u128,
    len: u32,
}

/// IPv4 addresses among those of IPv6.
const MAPPED: Prefix = Prefix {
    bits: 0xffff << 32,
    len: 96,
};

impl Prefix {
    /// Every dimension has these, so that one is always found, and IPv6 networks do not accept IPv4
    /// addresses.
    pub(super) const ROOTS: [Self; 2] = [Self { bits: 0, len: 0 }, MAPPED];

    /// A network; bits of the address behind the prefix do not count.
    ///
    /// # Panics
    /// When the prefix is longer than the address.
    #[must_use]
    pub fn network(address: IpAddr, len: u8) -> Self {
        let len = u32::from(len);
        match address {
            IpAddr::V4(ip) => {
                assert!(len <= 32, "32 bits at most");
                let bits = MAPPED.bits | u128::from(ip.to_bits());
                Self { bits, len: 128 }.shortened(MAPPED.len + len)
            }
            IpAddr::V6(ip) => Self {
                bits: ip.to_bits(),
                len: 128,
            }
            .shortened(len),
        }
    }

    /// A user.
    #[must_use]
    pub fn user(uid: u32) -> Self {
        let bits = u128::from(uid) << 96;
        Self { bits, len: 32 }
    }

    /// Port numbers, by as few prefixes as there can be.
    #[must_use]
    pub fn ports(range: RangeInclusive<u16>) -> Vec<Self> {
        let (mut from, to) = (u32::from(*range.start()), u32::from(*range.end()));
        let mut prefixes = Vec::new();
        while from <= to {
            let aligned = from.trailing_zeros().min(16);
            let fits = (0..=aligned)
                .rev()
                .find(|bits| from + (1 << bits) - 1 <= to);
            let bits = fits.expect("one number fits");
            prefixes.push(Self {
                bits: u128::from(from) << 112,
                len: 16 - bits,
            });
            from += 1 << bits;
        }
        prefixes
    }

    /// Whether all answers of `other` are of this one. None of IPv4 is of an IPv6 network.
    pub(super) fn covers(self, other: Self) -> bool {
        let mapped = |one: Self| one.len >= MAPPED.len && one.shortened(MAPPED.len) == MAPPED;
        self.len <= other.len && other.shortened(self.len) == self && mapped(self) == mapped(other)
    }

    pub(super) fn shortened(self, len: u32) -> Self {
        let len = len.min(self.len);
        let behind = u128::MAX.checked_shr(len).unwrap_or(0);
        let bits = self.bits & !behind;
        Self { bits, len }
    }

    pub(super) fn key(self, dimension: Dimension) -> RuleRange {
        let mut bits = [0; 4];
        for (word, bytes) in bits.iter_mut().zip(self.bits.to_be_bytes().chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().expect("four of them"));
        }
        RuleRange {
            prefix: DIMENSION_BITS + self.len,
            dimension: dimension as u32,
            bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ports_are_covered_exactly() {
        for range in [
            0..=0,
            0..=65535,
            1..=65535,
            80..=80,
            30000..=32767,
            5..=6,
            65535..=65535,
        ] {
            let prefixes = Prefix::ports(range.clone());
            for port in 0..=u16::MAX {
                let one = Prefix::ports(port..=port)[0];
                let covered = prefixes.iter().filter(|prefix| prefix.covers(one)).count();
                assert_eq!(
                    covered,
                    usize::from(range.contains(&port)),
                    "{port} of {range:?}"
                );
            }
        }
    }

    #[test]
    fn networks_of_one_family_do_not_cover_the_other() {
        let network = |ip: &str, len| Prefix::network(ip.parse().unwrap(), len);
        let (v4, v6) = (network("10.1.2.3", 32), network("fd00::1", 128));
        assert!(network("0.0.0.0", 0).covers(v4) && !network("0.0.0.0", 0).covers(v6));
        assert!(network("::", 0).covers(v6) && !network("::", 0).covers(v4));
        assert!(network("10.9.9.9", 8).covers(v4) && !network("11.0.0.0", 8).covers(v4));
        assert!(network("fd00::", 8).covers(v6) && !network("fc00::", 8).covers(v6));
    }
}
