//! Processor time of everything that takes part in a measurement.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Reads what the processes of a cgroup, and the kernel's softirq threads, have used. Softirqs run
/// in whatever process they interrupt, or in `ksoftirqd/N` when there are many of them.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Cpu {
    cgroup: Arc<Path>,
    /// `/proc/<pid>/schedstat` of ksoftirqd of each core.
    softirqs: Arc<[PathBuf]>,
}

impl Cpu {
    /// Of the processes in `cgroup`.
    pub(in crate::cli) fn of(cgroup: &Path) -> Self {
        Self {
            cgroup: cgroup.join("cpu.stat").into(),
            softirqs: ksoftirqd().into(),
        }
    }

    /// Time used so far.
    ///
    /// # Errors
    /// When the cgroup is gone.
    pub(in crate::cli) fn used(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(&self.cgroup)?;
        let usage = usage_in(&stat).ok_or(io::ErrorKind::InvalidData)?;
        let threads = self.softirqs.iter();
        let softirqs = threads.filter_map(|file| run_time(&fs::read_to_string(file).ok()?));
        Ok(usage + softirqs.sum::<Duration>())
    }
}

/// `usage_usec` of a cgroup's `cpu.stat` (Documentation/admin-guide/cgroup-v2.rst, 6.18).
fn usage_in(stat: &str) -> Option<Duration> {
    let usage = stat
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "));
    Some(Duration::from_micros(usage?.parse().ok()?))
}

/// The first number of `schedstat`: nanoseconds on a processor (Documentation/scheduler/sched-stats.rst, 6.18).
fn run_time(schedstat: &str) -> Option<Duration> {
    let nanos = schedstat.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

/// Not found where /proc shows no kernel threads, as in a process namespace of its own.
fn ksoftirqd() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|dir| {
            let name = fs::read_to_string(dir.join("comm")).unwrap_or_default();
            name.starts_with("ksoftirqd/")
        })
        .map(|dir| dir.join("schedstat"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_their_units() {
        let stat = "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n";
        assert_eq!(usage_in(stat), Some(Duration::from_micros(1500)));
        assert_eq!(run_time("2500 7 3\n"), Some(Duration::from_nanos(2500)));
        assert_eq!((usage_in(""), run_time("")), (None, None));
    }
}
