//! What the programs of the socket path cost on this host, as the kernel counts it.

use std::collections::HashMap;
use std::os::fd::{FromRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions, ProgramInfo};
use libbpf_rs::{MapCore, libbpf_sys};

use crate::error::{Error, Result};
use crate::maps::Maps;

/// One loaded program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// Its name, of which the kernel keeps 15 bytes.
    pub name: String,
    /// Instructions that the verifier looked at, on all paths through it.
    pub verified: u32,
    /// Bytes of machine code.
    pub code: usize,
    /// How often it ran while it was watched.
    pub runs: u64,
    /// How long all these runs took.
    pub took: Duration,
}

/// Watches the programs that use these maps, those of sockets that are enrolled since an earlier version
/// included. The kernel counts for so long only (`BPF_ENABLE_STATS`, Linux 5.8), which costs each run of any BPF
/// program on the host some ten nanoseconds.
///
/// # Errors
/// When the kernel refuses, for want of root for example.
pub fn watch(maps: &Maps, time: Duration) -> Result<Vec<Cost>> {
    let _counting = enable_stats()?;
    let before: HashMap<_, _> = programs(maps)?
        .map(|info| (info.id, (info.run_cnt, info.run_time_ns)))
        .collect();
    thread::sleep(time);
    Ok(programs(maps)?
        .map(|info| {
            let (runs, took) = before.get(&info.id).copied().unwrap_or_default();
            Cost {
                name: info.name.to_string_lossy().into_owned(),
                verified: info.verified_insns,
                code: info.jited_prog_insns.len(),
                runs: info.run_cnt - runs,
                took: Duration::from_nanos(info.run_time_ns - took),
            }
        })
        .collect())
}

/// The iterators of user space use the maps as well, for as long as a call takes.
fn programs(maps: &Maps) -> Result<impl Iterator<Item = ProgramInfo> + use<>> {
    let ids = ["ends", "expected"].map(|name| {
        let map = maps.get(name).info().map_err(Error::bpf("ask", name))?;
        Ok(map.info.id)
    });
    let ids = ids.into_iter().collect::<Result<Vec<_>>>()?;
    let asked = ProgInfoQueryOptions::default()
        .include_map_ids(true)
        .include_jited_prog_insns(true);
    let uses = move |info: &ProgramInfo| info.map_ids.iter().any(|id| ids.contains(id));
    Ok(ProgInfoIter::with_query_opts(asked).filter(uses))
}

/// The kernel counts until this is closed.
fn enable_stats() -> Result<OwnedFd> {
    // SAFETY: takes a number, and returns a descriptor of our own or an error.
    let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
    if fd < 0 {
        let error = std::io::Error::from_raw_os_error(-fd);
        return Err(Error::io(
            "have the kernel count runs of programs, by",
            "bpf(2)",
        )(error));
    }
    // SAFETY: it was just made, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
