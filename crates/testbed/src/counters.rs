//! What a namespace knows about its traffic: protocol counters and tracked connections.

use std::fs;

use crate::error::{Result, Tried};
use crate::netns::NetNs;

impl NetNs {
    /// The connections that conntrack knows in this namespace, a line each.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) when the kernel has no `/proc/net/nf_conntrack`.
    pub fn conntrack(&self) -> Result<String> {
        let file = "/proc/thread-self/net/nf_conntrack";
        let text = self.run(|| fs::read_to_string(file))?;
        text.tried("needs root and CONFIG_NF_CONNTRACK_PROCFS", || {
            format!("read {file} in {}", self.name())
        })
    }

    /// Whether somebody listens on a TCP port in this namespace; found without connecting.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) when /proc cannot be read.
    pub fn listens(&self, port: u16) -> Result<bool> {
        for file in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
            let text = self.run(|| fs::read_to_string(file))?;
            let text = text.tried("is /proc mounted?", || {
                format!("read {file} in {}", self.name())
            })?;
            if listens_in(&text, port) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A counter of the protocols in this namespace, for instance `TcpExt` `TCPFastOpenPassive`, `MPTcpExt`
    /// `MPCapableSYNRX` or `Tcp` `RetransSegs`; `None` when this kernel does not have it.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) when /proc cannot be read.
    pub fn counter(&self, group: &str, name: &str) -> Result<Option<u64>> {
        for file in [
            "/proc/thread-self/net/netstat",
            "/proc/thread-self/net/snmp",
        ] {
            let text = self.run(|| fs::read_to_string(file))?;
            let text = text.tried("is /proc mounted?", || {
                format!("read {file} in {}", self.name())
            })?;
            if let Some(value) = counter_in(&text, group, name) {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

/// The local address ends in the port, and state 0A is LISTEN (Documentation/networking/proc_net_tcp.rst, 6.18).
fn listens_in(text: &str, port: u16) -> bool {
    let end = format!(":{port:04X}");
    text.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&end)) && fields.nth(1) == Some("0A")
    })
}

/// Each group has a line of names and then a line of values.
fn counter_in(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|other| other == name)?;
    values.split(' ').nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listener_is_found_by_port_and_state() {
        let text = "  sl  local_address rem_address   st\n   0: 00000000:1F90 00000000:0000 0A 0\n";
        assert!(listens_in(text, 8080) && !listens_in(text, 80));
        assert!(!listens_in(&text.replace("0A", "06"), 8080));
    }

    #[test]
    fn counter_is_found_by_group_and_name() {
        let text = "TcpExt: A B\nTcpExt: 1 2\nMPTcpExt: B\nMPTcpExt: 3\n";
        assert_eq!(counter_in(text, "TcpExt", "B"), Some(2));
        assert_eq!(counter_in(text, "MPTcpExt", "B"), Some(3));
        assert_eq!(counter_in(text, "MPTcpExt", "A"), None);
    }
}
