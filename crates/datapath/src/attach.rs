//! Attachments as owned guards.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use libbpf_rs::query::{LinkInfo, LinkTypeInfo};
use libbpf_rs::{Link, ProgramMut};

use crate::pins::Pins;
use crate::{Error, Result};

/// Attaches a program to a cgroup. Dropping the link detaches, unless it is pinned.
pub(crate) fn to_cgroup(program: &ProgramMut<'_>, cgroup: &Path) -> Result<Link> {
    let dir = File::open(cgroup).map_err(Error::io("open the cgroup", cgroup))?;
    let name = program.name().to_string_lossy().into_owned();
    program.attach_cgroup(dir.as_raw_fd()).map_err(Error::bpf(
        "attach",
        format!("{name} to {}", cgroup.display()),
    ))
}

/// Attaches to a cgroup and pins, or replaces the program of the attachment that is pinned already:
/// the kernel swaps it between two calls, so that no handshake is missed.
pub(crate) fn to_cgroup_pinned(
    program: &ProgramMut<'_>,
    cgroup: &Path,
    path: &Path,
) -> Result<Link> {
    let name = || path.display().to_string();
    if path.exists() {
        let mut link = Link::open(path).map_err(Error::bpf("open", name()))?;
        if is_on(&link, cgroup)? {
            link.update_prog(program)
                .map_err(Error::bpf("replace the program of", name()))?;
            return Ok(link);
        }
        let other = to_cgroup(program, cgroup)?;
        link.unpin().map_err(Error::bpf("unpin", name()))?;
        return pin(other, path);
    }
    pin(to_cgroup(program, cgroup)?, path)
}

fn pin(mut link: Link, path: &Path) -> Result<Link> {
    link.pin(path)
        .map_err(Error::bpf("pin the link at", path.display().to_string()))?;
    Ok(link)
}

fn is_on(link: &Link, cgroup: &Path) -> Result<bool> {
    let info = link.info().map_err(Error::bpf("ask", "the pinned link"))?;
    let LinkTypeInfo::Cgroup(found) = info.info else {
        return Ok(false);
    };
    // The inode number of a cgroup2 directory is the cgroup's id (kernfs).
    Ok(cgroup
        .metadata()
        .is_ok_and(|dir| dir.ino() == found.cgroup_id))
}

/// The id of the cgroup that the pinned attachment is on; `None` without an attachment.
///
/// # Errors
/// When the pin exists but the kernel does not tell.
pub fn attached_cgroup(pins: &Pins) -> Result<Option<u64>> {
    Ok(match pinned_link(pins)?.map(|info| info.info) {
        Some(LinkTypeInfo::Cgroup(found)) => Some(found.cgroup_id),
        _ => None,
    })
}

/// The id of the sock_ops program that runs; `None` without an attachment.
///
/// # Errors
/// When the pin exists but the kernel does not tell.
pub fn attached_program(pins: &Pins) -> Result<Option<u32>> {
    Ok(pinned_link(pins)?.map(|info| info.prog_id))
}

fn pinned_link(pins: &Pins) -> Result<Option<LinkInfo>> {
    if !pins.link().exists() {
        return Ok(None);
    }
    let link = Link::open(pins.link()).map_err(Error::bpf("open", "the pinned link"))?;
    link.info()
        .map(Some)
        .map_err(Error::bpf("ask", "the pinned link"))
}
