//! What every path needs of the host.

use std::path::PathBuf;

use caps::Capability;
use datapath::pins::BPFFS;
use datapath::probe::{PidNamespace, TcpMemory};

use super::check;
use crate::cli::doctor::facts::{Facts, lacking, needed};
use crate::cli::doctor::report::Check;

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![
        kernel(facts),
        capabilities(facts),
        check("kernel types", &facts.btf, |btf| kernel_types(btf.as_ref())).required(),
    ];
    checks.extend(lockdown(facts));
    checks.extend([
        bpffs(facts).required(),
        check("pid namespace", &facts.pid_namespace, pid_namespace),
        check("TCP memory", &facts.tcp_memory, |limits| {
            tcp_memory(limits.as_ref())
        }),
    ]);
    checks
}

fn kernel(facts: &Facts) -> Check {
    check("kernel", &facts.cpus, |cpus| {
        let found = format!(
            "{}, {}, {cpus} possible CPUs",
            facts.kernel, facts.architecture
        );
        Check::ok("kernel", found)
    })
}

fn capabilities(facts: &Facts) -> Check {
    const NAME: &str = "capabilities";
    if facts.initial_user_namespace.known() == Some(&false) {
        let found = "held in a user namespace of its own, where BPF does not count them";
        let advice = "run it in the host's user namespace (Kubernetes: hostUsers: true)";
        return Check::missing(NAME, found, advice).required();
    }
    check(NAME, &facts.capabilities, |held| {
        let lacking = lacking(held);
        let names: Vec<_> = needed().map(|one| one.to_string()).collect();
        if lacking.is_empty() {
            return Check::ok(NAME, names.join(", "));
        }
        let found = format!("without {}", lacking.join(", "));
        let advice = format!("run as root, or with {}", names.join(", "));
        Check::missing(NAME, found, &advice)
    })
    .required()
}

fn kernel_types(btf: Option<&PathBuf>) -> Check {
    const NAME: &str = "kernel types";
    match btf {
        Some(path) => Check::ok(NAME, format!("BTF at {}", path.display())),
        None => Check::missing(
            NAME,
            "no BTF at /sys/kernel/btf/vmlinux",
            "run a kernel built with CONFIG_DEBUG_INFO_BTF=y, as those of Debian 11, \
             Ubuntu 20.10, RHEL 8.2 and later are",
        ),
    }
}

/// Only worth a line where the kernel has it.
fn lockdown(facts: &Facts) -> Option<Check> {
    const NAME: &str = "lockdown";
    let mode = facts.lockdown.known()?.as_deref()?;
    Some(match mode {
        "confidentiality" => Check::missing(
            NAME,
            "confidentiality: programs may not read kernel memory",
            "boot without lockdown=confidentiality; integrity is fine",
        ),
        other => Check::ok(NAME, other),
    })
}

fn bpffs(facts: &Facts) -> Check {
    const NAME: &str = "bpffs";
    let may_mount = facts
        .capabilities
        .known()
        .is_some_and(|held| held.contains(&Capability::CAP_SYS_ADMIN));
    check(NAME, &facts.bpffs_mounted, |mounted| {
        match (mounted, may_mount) {
            (true, _) => Check::ok(NAME, format!("mounted at {BPFFS}")),
            (false, true) => Check::ok(NAME, "not mounted: `beeline run` will mount it"),
            (false, false) => Check::missing(
                NAME,
                format!("not mounted at {BPFFS}"),
                "as root: mount -t bpf bpf /sys/fs/bpf",
            ),
        }
    })
}

fn pid_namespace(seen: &PidNamespace) -> Check {
    const NAME: &str = "pid namespace";
    if seen.initial && seen.sees_kernel {
        return Check::ok(NAME, "the host's: `beeline detach` sees every thread");
    }
    Check::degraded(
        NAME,
        "not the host's: `beeline detach` cannot see every thread that may be sending",
        "run `beeline detach` on the host, or in its pid namespace (Kubernetes: hostPID: true, \
         Docker: --pid=host)",
    )
}

fn tcp_memory(limits: Option<&TcpMemory>) -> Check {
    const NAME: &str = "TCP memory";
    let Some(limits) = limits else {
        return Check::ok(NAME, "not shown in this network namespace");
    };
    let TcpMemory {
        receive_max,
        pages_max,
    } = limits;
    Check::ok(
        NAME,
        format!("{receive_max} bytes a receive buffer, {pages_max} pages in all"),
    )
}
