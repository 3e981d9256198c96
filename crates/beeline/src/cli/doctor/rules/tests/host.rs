//! The rules for the host.

use caps::Capability;

use super::*;
use crate::cli::doctor::facts::needed;

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
    let lacking = "without CAP_DAC_OVERRIDE, CAP_NET_ADMIN, CAP_DAC_READ_SEARCH, CAP_SYSLOG, \
                   CAP_SYS_ADMIN, CAP_SYS_PTRACE";
    assert_eq!(named(&report, "capabilities").found, lacking);
    for name in ["programs load", "FIONREAD", "other programs", "fentry"] {
        let check = named(&report, name);
        assert_eq!(check.status, Status::NotTried);
        assert_eq!(check.found, "not tried: needs root");
        assert!(check.advice.is_some());
    }
}

#[test]
fn each_capability_of_the_agent_is_needed_but_for_that_of_a_group() {
    for one in caps::all() {
        let mut held = caps::all();
        held.remove(&one);
        let facts = Facts {
            capabilities: Fact::Known(held),
            ..good()
        };
        match needed().any(|needed| needed == one) {
            true => stopped_by(&facts, "capabilities"),
            false => assert!(judge(&facts).can_run(), "{one}"),
        }
    }
    assert_eq!(needed().count(), 6);
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
    let mut held = caps::all();
    held.remove(&Capability::CAP_SYS_ADMIN);
    let facts = Facts {
        capabilities: Fact::Known(held),
        ..facts
    };
    assert_eq!(named(&judge(&facts), "bpffs").status, Status::Missing);
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
}
