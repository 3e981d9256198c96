//! Programs that are loaded already, of Beeline and of others.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::{ProgramType, libbpf_sys};

use crate::{Error, Result};

/// A kind of program that the socket path shares sockets with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// On cgroups, called at points of a TCP connection's life.
    SockOps,
    /// On sockmaps, called for messages that are sent.
    SkMsg,
}

impl Kind {
    /// The kernel's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SockOps => "sock_ops",
            Self::SkMsg => "sk_msg",
        }
    }
}

/// A program in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its number, as `bpftool prog show id` takes it.
    pub id: u32,
    /// The first 15 characters of its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
}

impl Program {
    /// Whether it has the name of one of the socket path's programs.
    #[must_use]
    pub fn is_beeline(&self) -> bool {
        // include/uapi/linux/bpf.h: BPF_OBJ_NAME_LEN is 16, with the NUL.
        const KEPT: usize = 15;
        ["beeline_sock_ops", "beeline_sk_msg"]
            .iter()
            .any(|name| self.name == name[..name.len().min(KEPT)])
    }
}

/// Every sock_ops and sk_msg program in the kernel; `None` when the process may not list programs
/// (it needs CAP_SYS_ADMIN).
///
/// # Errors
/// When the kernel cannot be asked.
pub fn loaded() -> Result<Option<Vec<Program>>> {
    if !may_list()? {
        return Ok(None);
    }
    let known = |info: libbpf_rs::query::ProgramInfo| {
        let kind = match info.ty {
            ProgramType::SockOps => Kind::SockOps,
            ProgramType::SkMsg => Kind::SkMsg,
            _ => return None,
        };
        let name = info.name.to_string_lossy().into_owned();
        Some(Program {
            id: info.id,
            name,
            kind,
        })
    };
    Ok(Some(ProgInfoIter::default().filter_map(known).collect()))
}

/// The iterator ends quietly where the kernel refuses it, so that is asked first.
fn may_list() -> Result<bool> {
    let mut id = 0;
    // SAFETY: writes one number, which lives on the stack.
    let code = unsafe { libbpf_sys::bpf_prog_get_next_id(0, &raw mut id) };
    match -code {
        0 | libc::ENOENT => Ok(true),
        libc::EPERM => Ok(false),
        errno => Err(refused("list", "BPF programs", errno)),
    }
}

/// How programs on a cgroup share it (include/uapi/linux/bpf.h, `BPF_F_ALLOW_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachMode {
    /// No other program, here or below.
    Exclusive,
    /// No other program here; one below replaces it.
    Override,
    /// As many as come.
    Multi,
}

/// What is attached to a cgroup itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Numbers of the programs.
    pub ids: Vec<u32>,
    /// How they share the cgroup; means nothing without programs.
    pub mode: AttachMode,
}

/// The sock_ops programs on `cgroup`; `None` when this kernel has no BPF on cgroups
/// (CONFIG_CGROUP_BPF).
///
/// # Errors
/// When the cgroup cannot be opened, or the process may not ask (it needs CAP_NET_ADMIN).
pub fn sock_ops_of(cgroup: &Path) -> Result<Option<Attached>> {
    const ROOM: usize = 64; // kernel/bpf/cgroup.c: BPF_CGROUP_MAX_PROGS
    let dir = File::open(cgroup).map_err(Error::io("open the cgroup", cgroup))?;
    let mut ids = [0; ROOM];
    let mut count = ROOM as u32;
    let mut flags = 0;
    // SAFETY: `ids` has room for `count` numbers; all three live on the stack.
    let code = unsafe {
        libbpf_sys::bpf_prog_query(
            dir.as_raw_fd(),
            libbpf_sys::BPF_CGROUP_SOCK_OPS,
            0,
            &raw mut flags,
            ids.as_mut_ptr(),
            &raw mut count,
        )
    };
    match -code {
        0 => Ok(Some(Attached {
            ids: ids[..(count as usize).min(ROOM)].to_vec(),
            mode: mode(flags),
        })),
        libc::EINVAL => Ok(None),
        errno => Err(refused(
            "ask for the programs of",
            &cgroup.display().to_string(),
            errno,
        )),
    }
}

fn mode(flags: u32) -> AttachMode {
    match flags {
        _ if flags & libbpf_sys::BPF_F_ALLOW_MULTI != 0 => AttachMode::Multi,
        _ if flags & libbpf_sys::BPF_F_ALLOW_OVERRIDE != 0 => AttachMode::Override,
        _ => AttachMode::Exclusive,
    }
}

fn refused(action: &'static str, what: &str, errno: i32) -> Error {
    Error::bpf(action, what)(io::Error::from_raw_os_error(errno).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_programs_are_known_by_the_name_the_kernel_keeps() {
        let named = |name: &str| Program {
            id: 1,
            name: name.into(),
            kind: Kind::SockOps,
        };
        assert!(named("beeline_sock_op").is_beeline());
        assert!(named("beeline_sk_msg").is_beeline());
        assert!(!named("beeline").is_beeline());
        assert!(!named("cil_sock_ops").is_beeline());
    }
}
