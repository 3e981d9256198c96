//! Gathers what `datapath::probe` finds out, skipping what this process may not try.

use std::env::consts;
use std::fmt::Display;
use std::path::PathBuf;

use caps::{Capability, CapsHashSet};
use datapath::pins;
use datapath::probe::{
    self, Attached, Attempt, CgroupMounts, Feature, FionreadReport, Iterators, PidNamespace,
    Program, RedirectReport, SocketPathReport, TcpMemory, Tracing,
};

use crate::agent::privileges::{TO_SERVE, TO_START};
use crate::selftest::{self, Report};

/// One thing about the host.
#[derive(Debug, Clone)]
pub(super) enum Fact<T> {
    /// It was found out.
    Known(T),
    /// Finding out failed, for this reason.
    Broken(String),
    /// It was not tried, because that needs something.
    NotTried(&'static str),
}

impl<T> Fact<T> {
    fn of<E: Display>(found: Result<T, E>) -> Self {
        found.map_or_else(|error| Self::Broken(error.to_string()), Self::Known)
    }

    fn try_if<E: Display>(allowed: bool, probe: impl FnOnce() -> Result<T, E>) -> Self {
        if allowed {
            Self::of(probe())
        } else {
            Self::NotTried("root")
        }
    }

    /// What was found out, if anything.
    pub(super) fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            _ => None,
        }
    }
}

/// Everything that the rules look at.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) kernel: String,
    pub(super) architecture: &'static str,
    pub(super) cpus: Fact<usize>,
    pub(super) tcp_memory: Fact<Option<TcpMemory>>,
    pub(super) btf: Fact<Option<PathBuf>>,
    pub(super) lockdown: Fact<Option<String>>,
    pub(super) capabilities: Fact<CapsHashSet>,
    pub(super) initial_user_namespace: Fact<bool>,
    pub(super) bpffs_mounted: Fact<bool>,
    pub(super) pid_namespace: Fact<PidNamespace>,
    pub(super) cgroups: Fact<CgroupMounts>,
    /// sock_ops programs at the root of cgroup2; the inner `None`: no BPF on cgroups.
    pub(super) attached: Fact<Option<Attached>>,
    pub(super) programs: Fact<Option<Vec<Program>>>,
    pub(super) features: Fact<Vec<Feature>>,
    pub(super) socket_path: Fact<SocketPathReport>,
    pub(super) iterators: Fact<Vec<(Iterators, Attempt)>>,
    pub(super) counts_unread: Fact<Option<bool>>,
    /// With data that took the kernel path.
    pub(super) fionread: Fact<FionreadReport>,
    pub(super) redirect: Fact<RedirectReport>,
    pub(super) tracing: Fact<Tracing>,
    pub(super) self_test: Fact<Report>,
}

impl Facts {
    /// Tries everything that this process is allowed to try.
    pub(super) fn gather() -> Self {
        let capabilities = Fact::of(probe::capabilities());
        let initial_user_namespace = Fact::of(probe::initial_user_namespace());
        let may = allowed(&capabilities, &initial_user_namespace);
        // Before anything is loaded here: the list must not show our own attempts.
        let programs = Fact::try_if(may, probe::loaded);
        let cgroups = Fact::of(probe::cgroup_mounts());
        let socket_path = Fact::try_if(may, probe::socket_path);
        let iterators = Fact::try_if(may, probe::iterators);
        Self {
            kernel: probe::kernel_release(),
            architecture: consts::ARCH,
            cpus: Fact::of(probe::cpus()),
            tcp_memory: Fact::of(probe::tcp_memory()),
            btf: Fact::of(probe::btf()),
            lockdown: Fact::of(probe::lockdown()),
            bpffs_mounted: Fact::of(pins::bpffs_mounted()),
            pid_namespace: Fact::of(probe::pid_namespace()),
            attached: attached(may, &cgroups),
            features: Fact::try_if(may, probe::features),
            counts_unread: Fact::of(probe::counts_unread()),
            fionread: Fact::try_if(may, probe::fionread),
            redirect: Fact::try_if(may, probe::redirect),
            tracing: Fact::try_if(may, probe::tracing),
            self_test: self_test(may, &cgroups, refused(&socket_path, &iterators)),
            socket_path,
            iterators,
            capabilities,
            initial_user_namespace,
            programs,
            cgroups,
        }
    }
}

/// Whether trying BPF tells of the kernel, and not of this process.
fn allowed(capabilities: &Fact<CapsHashSet>, initial: &Fact<bool>) -> bool {
    capabilities
        .known()
        .is_some_and(|held| lacking(held).is_empty())
        && initial.known() != Some(&false)
}

/// The capabilities that an agent needs. `CAP_CHOWN` is for a group that may ask it.
pub(super) fn needed() -> impl Iterator<Item = Capability> {
    let all = TO_START.into_iter().chain(TO_SERVE);
    all.filter(|one| *one != Capability::CAP_CHOWN)
}

/// Those of them that a process does not hold.
pub(super) fn lacking(held: &CapsHashSet) -> Vec<String> {
    let lacking = needed().filter(|one| !held.contains(one));
    lacking.map(|one| one.to_string()).collect()
}

fn attached(may: bool, cgroups: &Fact<CgroupMounts>) -> Fact<Option<Attached>> {
    match cgroups.known().and_then(|mounts| mounts.v2.as_deref()) {
        Some(root) => Fact::try_if(may, || probe::sock_ops_of(root)),
        None => Fact::NotTried("a cgroup2 mount"),
    }
}

/// Whether the kernel refuses what the self-test loads.
fn refused(path: &Fact<SocketPathReport>, iterators: &Fact<Vec<(Iterators, Attempt)>>) -> bool {
    let of_programs = |(one, attempt): &(Iterators, Attempt)| {
        *one == Iterators::Programs && *attempt != Attempt::Works
    };
    path.known()
        .is_some_and(|report| report.load != Attempt::Works)
        || iterators
            .known()
            .is_some_and(|tried| tried.iter().any(of_programs))
}

fn self_test(may: bool, cgroups: &Fact<CgroupMounts>, refused: bool) -> Fact<Report> {
    match cgroups.known().and_then(|mounts| mounts.v2.as_ref()) {
        _ if refused => Fact::NotTried("programs that load"),
        // The causes say what to do.
        Some(_) => Fact::try_if(may, || {
            selftest::run().map_err(|error| format!("{error:#}"))
        }),
        None => Fact::NotTried("a cgroup2 mount"),
    }
}
