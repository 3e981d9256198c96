//! Where the cgroup hierarchies are mounted.

use std::fs;
use std::path::PathBuf;

use crate::{Error, Result};

/// The mounts of both versions of cgroups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupMounts {
    /// The first mount of cgroup2.
    pub v2: Option<PathBuf>,
    /// The controllers, or names, of the version 1 hierarchies that are mounted.
    pub v1: Vec<String>,
}

/// The cgroup mounts that this process sees.
///
/// # Errors
/// When `/proc/self/mountinfo` cannot be read.
pub fn cgroup_mounts() -> Result<CgroupMounts> {
    const MOUNTINFO: &str = "/proc/self/mountinfo";
    let text = fs::read_to_string(MOUNTINFO).map_err(Error::io("read", MOUNTINFO))?;
    Ok(mounts_in(&text))
}

/// Reads the text of a mountinfo file; proc_pid_mountinfo(5) describes the format.
fn mounts_in(mountinfo: &str) -> CgroupMounts {
    let mut mounts = CgroupMounts::default();
    for line in mountinfo.lines() {
        // The optional fields before " - " vary in number, so the two halves are split first.
        let Some((mount, filesystem)) = line.split_once(" - ") else {
            continue;
        };
        let fields: Vec<_> = filesystem.split(' ').collect();
        match fields[..] {
            ["cgroup2", ..] if mounts.v2.is_none() => {
                mounts.v2 = mount.split(' ').nth(4).map(unescape);
            }
            ["cgroup", _, options] => mounts.v1.push(controllers(options)),
            _ => {}
        }
    }
    mounts
}

/// The options of a version 1 hierarchy without those that every file system has.
fn controllers(options: &str) -> String {
    let own = |option: &&str| !["rw", "ro", "xattr", "clone_children"].contains(option);
    options.split(',').filter(own).collect::<Vec<_>>().join(",")
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> PathBuf {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(field.to_owned(), |text, (code, char)| {
        text.replace(code, char)
    })
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime - cgroup2 cgroup2 rw";

    #[test]
    fn a_hybrid_layout_has_both_versions() {
        let mounts = mounts_in(HYBRID);
        assert_eq!(mounts.v2, Some("/sys/fs/cgroup/uni fied".into()));
        assert_eq!(mounts.v1, ["cpu,cpuacct", "name=systemd"]);
    }

    #[test]
    fn a_unified_layout_has_one_mount() {
        let line = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        let mounts = mounts_in(line);
        assert_eq!(mounts.v2, Some("/sys/fs/cgroup".into()));
        assert!(mounts.v1.is_empty());
    }

    #[test]
    fn a_host_without_cgroups_has_none() {
        assert_eq!(
            mounts_in("22 27 0:21 / /proc rw - proc proc rw"),
            CgroupMounts::default()
        );
    }
}
