//! Whether this kernel takes the programs and maps of the socket path: by loading them.

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Struct;
use libbpf_rs::{MapType, ProgramType};

use super::attempt::{Attempt, asked, attempt};
use crate::ends::Ends;
use crate::maps::Maps;
use crate::socket::{Options, SocketPath};
use crate::{Error, Result};

/// A kind of program or map that the kernel was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// The kernel's word for it.
    pub name: &'static str,
    /// Whether it has it.
    pub supported: bool,
}

/// The program and map types that the socket path is made of, each tried alone.
///
/// # Errors
/// When the kernel answers neither yes nor no.
pub fn features() -> Result<Vec<Feature>> {
    let programs = [
        ("sock_ops", ProgramType::SockOps),
        ("sk_msg", ProgramType::SkMsg),
    ]
    .map(|(name, kind)| (name, kind.is_supported()));
    let maps = [
        ("SOCKHASH", MapType::Sockhash),
        ("SK_STORAGE", MapType::SkStorage),
        ("RINGBUF", MapType::RingBuf),
    ]
    .map(|(name, kind)| (name, kind.is_supported()));
    programs
        .into_iter()
        .chain(maps)
        .map(|(name, answer)| {
            let supported = answer.map_err(Error::bpf("ask whether the kernel has", name))?;
            Ok(Feature { name, supported })
        })
        .collect()
}

/// How the kernel answered to the socket path's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketPathReport {
    /// Loading programs and maps, in the sizes that `run` uses by default.
    pub load: Attempt,
    /// Loading and running the program that reports enrolled sockets; `None` when there is nothing to
    /// run it over, as `load` was refused.
    pub iterate: Option<Attempt>,
}

/// Loads the socket path, attached to nothing, lists its sockets (there are none), and lets it go.
///
/// # Errors
/// When something else failed than the kernel's consent.
pub fn socket_path() -> Result<SocketPathReport> {
    Ok(match asked(|| SocketPath::object(Options::default()))? {
        Ok(object) => SocketPathReport {
            load: Attempt::Works,
            iterate: Some(list(&Maps::of(&object)?)?),
        },
        Err(refusal) => SocketPathReport {
            load: Attempt::Refused(refusal),
            iterate: None,
        },
    })
}

fn list(maps: &Maps) -> Result<Attempt> {
    attempt(|| Ends::load(maps)?.list(maps))
}

/// Whether this kernel counts the bytes that wait unread in a psock (`sk_psock.msg_tot_len`);
/// `None` when it has no BTF to look at.
///
/// # Errors
/// When its BTF cannot be read.
pub fn counts_unread() -> Result<Option<bool>> {
    if super::btf()?.is_none() {
        return Ok(None);
    }
    let btf = Btf::from_vmlinux().map_err(Error::bpf("read", "the kernel's BTF"))?;
    let psock = btf.type_by_name::<Struct<'_>>("sk_psock");
    let counts = psock.is_some_and(|psock| {
        psock
            .iter()
            .any(|member| member.name.is_some_and(|name| name == "msg_tot_len"))
    });
    Ok(Some(counts))
}
