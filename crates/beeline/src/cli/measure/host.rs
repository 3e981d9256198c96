//! The machine that is measured.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use datapath::attach::attached_cgroup;
use datapath::pins::{BPFFS, Pins};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Which core each pod runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Cores {
    pub(in crate::cli) client: usize,
    pub(in crate::cli) server: usize,
}

impl Cores {
    /// The first core that this process may use, for both.
    pub(in crate::cli) fn first() -> Result<Self> {
        let first = allowed()?
            .first()
            .copied()
            .context("this process may not use any core")?;
        Ok(Self {
            client: first,
            server: first,
        })
    }

    /// The first two cores that this process may use, or the only one for both.
    pub(in crate::cli) fn first_two() -> Result<Self> {
        let first = Self::first()?;
        let second = allowed()?.get(1).copied();
        Ok(Self {
            server: second.unwrap_or(first.server),
            ..first
        })
    }

    /// The client's, for both.
    pub(in crate::cli) fn only_first(self) -> Self {
        Self {
            server: self.client,
            ..self
        }
    }

    /// Whether both pods run on one core.
    pub(in crate::cli) fn shared(self) -> bool {
        self.client == self.server
    }

    /// Each core once.
    pub(in crate::cli) fn list(self) -> Vec<usize> {
        if self.shared() {
            vec![self.client]
        } else {
            vec![self.client, self.server]
        }
    }
}

impl FromStr for Cores {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<_> = text.split(',').map(str::trim).collect();
        let (client, server) = match parts[..] {
            [one] => (one, one),
            [client, server] => (client, server),
            _ => bail!("one core or two, such as 0 or 0,1"),
        };
        Ok(Self {
            client: core(client)?,
            server: core(server)?,
        })
    }
}

fn core(text: &str) -> Result<usize> {
    let Ok(core) = text.parse() else {
        bail!("'{text}' is not the number of a core");
    };
    let allowed = allowed()?;
    if !allowed.contains(&core) {
        let allowed: Vec<_> = allowed.iter().map(usize::to_string).collect();
        bail!(
            "there is no core {core} that this process may use, only {}",
            allowed.join(", ")
        );
    }
    Ok(core)
}

/// The cores that this process may use.
fn allowed() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("cannot find out which cores may be used")?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|core| set.is_set(*core))
        .collect())
}

/// Keeps the calling thread, and threads that it makes later, on one core.
pub(in crate::cli) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot move a thread to core {core}"))
}

/// The kernel's release, as `uname -r`.
pub(in crate::cli) fn kernel() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().to_owned()
}

/// The processor's name; its architecture where the kernel knows no name.
pub(in crate::cli) fn cpu() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or(std::env::consts::ARCH, |(_, name)| name.trim())
        .to_owned()
}

/// How many cores the host has online.
pub(in crate::cli) fn online() -> Result<usize> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let cores = text.lines().filter(|line| {
        let number = line.strip_prefix("cpu").unwrap_or_default();
        number.starts_with(|c: char| c.is_ascii_digit())
    });
    Ok(cores.count())
}

/// The host's memory in bytes; 0 when the kernel does not tell.
pub(in crate::cli) fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| {
        let number = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?;
        number.parse::<u64>().ok()
    });
    total.unwrap_or(0) * 1024
}

/// Settings that TCP's speed depends on, as new namespaces get them.
pub(in crate::cli) fn sysctls() -> BTreeMap<&'static str, String> {
    let keys = [
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
        "net.ipv4.tcp_mem",
        "net.ipv4.tcp_congestion_control",
        "net.core.default_qdisc",
        "net.core.wmem_default",
    ];
    let value = |key: &'static str| {
        let text = fs::read_to_string(format!("/proc/sys/{}", key.replace('.', "/"))).ok()?;
        Some((key, text.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    keys.into_iter().filter_map(value).collect()
}

/// Lets this process have as many descriptors as it may: each connection takes two, and more when
/// it goes through proxies.
pub(in crate::cli) fn raise_descriptors() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")
}

/// Fails when a datapath is attached above `cgroup`: it would shorten the kernel's turns, too.
pub(in crate::cli) fn refuse_attached(cgroup: &Path) -> Result<()> {
    let above: Vec<u64> = cgroup
        .ancestors()
        .skip(1)
        .filter_map(|dir| Some(dir.metadata().ok()?.ino()))
        .collect();
    // A host without bpffs has no pins.
    for entry in fs::read_dir(BPFFS).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let attached = attached_cgroup(&Pins::of(&name))?;
        if attached.is_some_and(|id| above.contains(&id)) {
            bail!(
                "the datapath {name} is attached to the whole host and would shorten the kernel's \
                 turns, too; take it off first: beeline --instance {name} detach"
            );
        }
    }
    Ok(())
}
