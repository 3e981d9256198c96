//! The rules for the host.

use super::*;

#[test]
fn without_btf_it_cannot_run() {
    stopped_by(
        &Facts {
            btf: Fact::Known(None),
            ..good()
        },
        "kernel types",
    );
}

#[test]
fn who_is_not_root_is_told_which_capabilities_lack_and_what_was_not_tried() {
    let facts = seen_by_a_user();
    stopped_by(&facts, "capabilities");
    let report = judge(&facts);
    let lacking = "without CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON";
    assert_eq!(named(&report, "capabilities").found, lacking);
    for name in ["programs load", "FIONREAD", "other programs", "fentry"] {
        let check = named(&report, name);
        assert_eq!(check.status, Status::NotTried);
        assert_eq!(check.found, "not tried: needs root");
        assert!(check.advice.is_some());
    }
}

#[test]
fn sys_admin_covers_bpf_and_perfmon_but_not_net_admin() {
    let held = Capabilities {
        bpf: false,
        perfmon: false,
        ..root()
    };
    let facts = |held| Facts {
        capabilities: Fact::Known(held),
        ..good()
    };
    assert!(judge(&facts(held)).can_run());
    stopped_by(
        &facts(Capabilities {
            net_admin: false,
            ..root()
        }),
        "capabilities",
    );
}

#[test]
fn capabilities_of_another_user_namespace_do_not_count() {
    stopped_by(
        &Facts {
            initial_user_namespace: Fact::Known(false),
            ..good()
        },
        "capabilities",
    );
}

#[test]
fn an_unmounted_bpffs_is_fine_for_who_may_mount_it() {
    let facts = Facts {
        bpffs_mounted: Fact::Known(false),
        ..good()
    };
    assert_eq!(named(&judge(&facts), "bpffs").status, Status::Ok);
    let held = Capabilities {
        sys_admin: false,
        ..root()
    };
    stopped_by(
        &Facts {
            capabilities: Fact::Known(held),
            ..facts
        },
        "bpffs",
    );
}

#[test]
fn lockdown_matters_only_where_it_hides_kernel_memory() {
    let facts = |mode: &str| Facts {
        lockdown: Fact::Known(Some(mode.into())),
        ..good()
    };
    assert!(judge(&facts("integrity")).can_run());
    stopped_by(&facts("confidentiality"), "lockdown");
}

#[test]
fn a_detach_that_would_not_see_every_thread_is_a_limit() {
    let namespace = PidNamespace {
        initial: false,
        sees_kernel: false,
    };
    limited_by(
        &Facts {
            pid_namespace: Fact::Known(namespace),
            ..good()
        },
        "pid namespace",
    );
    let facts = |files| Facts {
        thread_files: Fact::Known(files),
        ..good()
    };
    limited_by(
        &facts(ThreadFiles {
            syscall: Read::Absent,
            ..threads()
        }),
        "threads",
    );
    let hidden = judge(&facts(ThreadFiles {
        hidden: 3,
        ..threads()
    }));
    assert!(hidden.can_run());
}
