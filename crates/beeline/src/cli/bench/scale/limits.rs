//! How many connections this host can hold.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// Descriptors of a process that are not connections.
const OTHERS: u64 = 100;
/// More connections of one process have no ports left, as the range in `bed.rs` has some 45,000.
const PORTS: u64 = 40_000;
/// More processes of a side take too long to start.
const PROCESSES: usize = 64;
/// Kernel memory of a connection that is open, both ends and its entry in conntrack, with room.
const BYTES: u64 = 24 << 10;

/// Connections that one process can hold.
pub(super) fn each() -> usize {
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    usize::try_from(files.saturating_sub(OTHERS).clamp(1, PORTS)).unwrap_or(usize::MAX)
}

/// Why so many cannot be held, if so.
pub(in crate::cli::bench) fn obstacle(connections: usize) -> Option<String> {
    let (ends, each) = (2 * connections as u64, each());
    if connections.div_ceil(each) > PROCESSES {
        return Some(format!(
            "{PROCESSES} processes may have {} descriptors (ulimit -Hn)",
            each * PROCESSES
        ));
    }
    let files = number("/proc/sys/fs/file-max");
    if files.is_some_and(|most| most < 2 * ends) {
        return Some("they need more files than fs.file-max".into());
    }
    // Those of the turn before may still be there, closed.
    let tracked = number("/proc/sys/net/netfilter/nf_conntrack_max");
    if tracked.is_some_and(|most| most < ends) {
        return Some("they need more entries than net.netfilter.nf_conntrack_max".into());
    }
    let need = connections as u64 * BYTES;
    let free = meminfo(&["MemAvailable"]);
    (free < need).then(|| format!("they need about {} MiB of free memory", need >> 20))
}

/// Memory of the kernel that connections take and that is not given back under pressure, in bytes: slabs
/// and what is kept for each processor (Documentation/filesystems/proc.rst, 6.18).
pub(super) fn kernel_memory() -> u64 {
    meminfo(&["SUnreclaim", "Percpu"])
}

/// The sum of these lines of /proc/meminfo in bytes; a line that the kernel does not have is 0.
fn meminfo(names: &[&str]) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let kib = rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()?;
        names.contains(&name).then_some(kib * 1024)
    };
    text.lines().filter_map(value).sum()
}

fn number(file: &str) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_can_be_held_and_a_thousand_million_cannot() {
        assert_eq!(obstacle(10), None);
        assert!(obstacle(1_000_000_000).is_some());
    }

    #[test]
    fn memory_is_in_bytes() {
        assert!(meminfo(&["MemTotal"]) > 64 << 20);
        assert!(kernel_memory() > 1 << 20);
    }
}
