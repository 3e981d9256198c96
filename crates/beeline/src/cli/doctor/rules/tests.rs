//! The rules over made-up hosts.

use datapath::probe::{
    AttachMode, Attached, Attempt, Capabilities, CgroupMounts, Feature, FionreadReport, Kind,
    PidNamespace, Program, Read, Refusal, SocketPathReport, TcpMemory, ThreadFiles, Tracing,
};

use super::super::facts::{Fact, Facts};
use super::super::report::{Check, PathReport, Report, Status};
use super::*;

/// A host on which nothing is wrong.
fn good() -> Facts {
    Facts {
        kernel: "6.18.0".into(),
        architecture: "x86_64",
        cpus: Fact::Known(2),
        tcp_memory: Fact::Known(Some(TcpMemory {
            receive_max: 6 << 20,
            pages_max: 1 << 19,
        })),
        btf: Fact::Known(Some("/sys/kernel/btf/vmlinux".into())),
        lockdown: Fact::Known(None),
        capabilities: Fact::Known(root()),
        initial_user_namespace: Fact::Known(true),
        bpffs_mounted: Fact::Known(true),
        pid_namespace: Fact::Known(PidNamespace {
            initial: true,
            sees_kernel: true,
        }),
        thread_files: Fact::Known(threads()),
        cgroups: Fact::Known(CgroupMounts {
            v2: Some("/sys/fs/cgroup".into()),
            v1: vec![],
        }),
        attached: Fact::Known(Some(Attached {
            ids: vec![],
            mode: AttachMode::Exclusive,
        })),
        programs: Fact::Known(Some(vec![])),
        features: Fact::Known(vec![Feature {
            name: "sk_msg",
            supported: true,
        }]),
        socket_path: Fact::Known(SocketPathReport {
            load: Attempt::Works,
            iterate: Some(Attempt::Works),
        }),
        counts_unread: Fact::Known(Some(true)),
        fionread: Fact::Known(FionreadReport::Counts),
        redirect: Fact::Known(FionreadReport::Counts),
        tracing: Fact::Known(Tracing {
            fentry: Attempt::Works,
            lsm: Attempt::Works,
            kprobe: Attempt::Works,
        }),
    }
}

/// The same host, seen by a user without any capability.
fn seen_by_a_user() -> Facts {
    const ROOT: &str = "root";
    Facts {
        capabilities: Fact::Known(Capabilities {
            bpf: false,
            net_admin: false,
            perfmon: false,
            sys_admin: false,
            sys_ptrace: false,
        }),
        attached: Fact::NotTried(ROOT),
        programs: Fact::NotTried(ROOT),
        features: Fact::NotTried(ROOT),
        socket_path: Fact::NotTried(ROOT),
        fionread: Fact::NotTried(ROOT),
        redirect: Fact::NotTried(ROOT),
        tracing: Fact::NotTried(ROOT),
        ..good()
    }
}

fn root() -> Capabilities {
    Capabilities {
        bpf: true,
        net_admin: true,
        perfmon: true,
        sys_admin: true,
        sys_ptrace: true,
    }
}

fn threads() -> ThreadFiles {
    ThreadFiles {
        syscall: Read::Yes,
        wchan: Read::Yes,
        threads: 100,
        hidden: 0,
        hidden_names: vec![],
    }
}

fn refusal(objection: &str) -> Attempt {
    Attempt::Refused(Refusal {
        error: "cannot load the socket path: EACCES".into(),
        objection: Some(objection.into()),
        permission: true,
    })
}

fn program(id: u32, name: &str) -> Program {
    Program {
        id,
        name: name.into(),
        kind: Kind::SockOps,
    }
}

fn socket_path(report: &Report) -> &PathReport {
    &report.paths[SOCKET_PATH]
}

fn all(report: &Report) -> impl Iterator<Item = &Check> {
    let paths = report.paths.values().flat_map(|path| &path.checks);
    report
        .host
        .checks
        .iter()
        .chain(paths)
        .chain(&report.optional.checks)
}

fn named<'a>(report: &'a Report, name: &str) -> &'a Check {
    all(report)
        .find(|check| check.name == name)
        .unwrap_or_else(|| panic!("no check {name}"))
}

/// The host of `facts` cannot run the socket path, for the check `name`, and is told what to do.
#[track_caller]
fn stopped_by(facts: &Facts, name: &str) {
    let report = judge(facts);
    assert_eq!(named(&report, name).status, Status::Missing);
    assert!(
        named(&report, name).advice.is_some(),
        "{name} has no advice"
    );
    assert!(!report.can_run());
    let cause = socket_path(&report).cause.as_deref().expect("a cause");
    assert!(cause.starts_with(&format!("{name}: ")), "{cause}");
}

/// The host of `facts` runs the socket path with a limit that `name` explains.
#[track_caller]
fn limited_by(facts: &Facts, name: &str) {
    let report = judge(facts);
    assert_eq!(named(&report, name).status, Status::Degraded);
    assert!(
        named(&report, name).advice.is_some(),
        "{name} has no advice"
    );
    assert!(report.can_run(), "{:?}", socket_path(&report).cause);
}

#[test]
fn a_good_host_runs_the_socket_path_and_hears_no_advice() {
    let report = judge(&good());
    assert!(report.can_run());
    assert_eq!(socket_path(&report).cause, None);
    for check in all(&report) {
        assert_eq!(
            (check.status, &check.advice),
            (Status::Ok, &None),
            "{}",
            check.name
        );
    }
}

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
fn without_cgroup2_it_cannot_run() {
    let mounts = CgroupMounts {
        v2: None,
        v1: vec!["cpu".into()],
    };
    let facts = Facts {
        cgroups: Fact::Known(mounts),
        attached: Fact::NotTried("a cgroup2 mount"),
        ..good()
    };
    stopped_by(&facts, "cgroup2");
}

#[test]
fn a_hybrid_layout_is_said_and_is_fine() {
    let mounts = CgroupMounts {
        v2: Some("/sys/fs/cgroup/unified".into()),
        v1: vec!["cpu".into(), "memory".into()],
    };
    let report = judge(&Facts {
        cgroups: Fact::Known(mounts),
        ..good()
    });
    let check = named(&report, "cgroup2");
    assert_eq!(check.status, Status::Ok);
    assert_eq!(
        check.found,
        "mounted at /sys/fs/cgroup/unified (hybrid: version 1 has cpu, memory)"
    );
    assert!(report.can_run());
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
fn a_missing_map_type_is_named() {
    let features = vec![
        Feature {
            name: "SOCKHASH",
            supported: true,
        },
        Feature {
            name: "RINGBUF",
            supported: false,
        },
    ];
    let facts = Facts {
        features: Fact::Known(features),
        ..good()
    };
    stopped_by(&facts, "program and map types");
    assert_eq!(
        named(&judge(&facts), "program and map types").found,
        "this kernel lacks RINGBUF"
    );
}

#[test]
fn the_words_of_the_verifier_are_passed_on() {
    let report = SocketPathReport {
        load: refusal("unknown func bpf_x#999"),
        iterate: None,
    };
    let facts = Facts {
        socket_path: Fact::Known(report),
        ..good()
    };
    stopped_by(&facts, "programs load");
    assert!(
        named(&judge(&facts), "programs load")
            .found
            .ends_with(": unknown func bpf_x#999")
    );
}

#[test]
fn sockets_that_cannot_be_listed_cannot_be_detached() {
    let report = SocketPathReport {
        load: Attempt::Works,
        iterate: Some(refusal("no")),
    };
    stopped_by(
        &Facts {
            socket_path: Fact::Known(report),
            ..good()
        },
        "sockets can be listed",
    );
}

#[test]
fn fionread_that_says_zero_is_a_limit() {
    let facts = |report| Facts {
        fionread: Fact::Known(report),
        ..good()
    };
    limited_by(&facts(FionreadReport::Zero), "FIONREAD");
    limited_by(
        &facts(FionreadReport::Other {
            waiting: 7,
            said: 3,
        }),
        "FIONREAD",
    );
}

#[test]
fn fionread_that_does_not_count_what_was_redirected_is_a_limit() {
    let facts = |report| Facts {
        redirect: Fact::Known(report),
        ..good()
    };
    limited_by(&facts(FionreadReport::Zero), "a redirect");
    limited_by(
        &facts(FionreadReport::Other {
            waiting: 7,
            said: 3,
        }),
        "a redirect",
    );
}

#[test]
fn a_kernel_that_takes_no_socket_into_a_map_cannot_run_it() {
    let Attempt::Refused(words) = refusal("EOPNOTSUPP") else {
        unreachable!()
    };
    let facts = Facts {
        redirect: Fact::Known(FionreadReport::NotTaken(words)),
        ..good()
    };
    stopped_by(&facts, "a redirect");
}

#[test]
fn readers_that_the_kernel_does_not_count_are_a_limit() {
    limited_by(
        &Facts {
            counts_unread: Fact::Known(Some(false)),
            ..good()
        },
        "unread bytes",
    );
}

#[test]
fn sock_ops_programs_of_others_are_named_and_ours_are_not_among_them() {
    let programs = vec![program(7, "cil_sockops"), program(8, "beeline_sock_op")];
    let facts = Facts {
        programs: Fact::Known(Some(programs)),
        ..good()
    };
    limited_by(&facts, "other programs");
    let report = judge(&facts);
    let found = &named(&report, "other programs").found;
    assert_eq!(
        found,
        "sock_ops 7 (cil_sockops); loaded of ours: sock_ops 8 (beeline_sock_op)"
    );
    let ours = vec![program(8, "beeline_sock_op")];
    let report = judge(&Facts {
        programs: Fact::Known(Some(ours)),
        ..good()
    });
    assert_eq!(named(&report, "other programs").status, Status::Ok);
}

#[test]
fn a_sock_ops_program_that_shares_the_root_cgroup_is_fine_and_one_that_does_not_is_not() {
    let facts = |mode| Facts {
        programs: Fact::Known(Some(vec![program(7, "cil_sockops")])),
        attached: Fact::Known(Some(Attached { ids: vec![7], mode })),
        ..good()
    };
    assert!(judge(&facts(AttachMode::Multi)).can_run());
    stopped_by(&facts(AttachMode::Exclusive), "root cgroup");
    stopped_by(&facts(AttachMode::Override), "root cgroup");
    assert!(
        named(&judge(&facts(AttachMode::Override)), "root cgroup")
            .found
            .contains("cil_sockops")
    );
}

#[test]
fn a_kernel_without_bpf_on_cgroups_cannot_run_it() {
    stopped_by(
        &Facts {
            attached: Fact::Known(None),
            ..good()
        },
        "root cgroup",
    );
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
    limited_by(
        &facts(ThreadFiles {
            wchan: Read::Blank,
            ..threads()
        }),
        "threads",
    );
    limited_by(
        &facts(ThreadFiles {
            hidden: 3,
            ..threads()
        }),
        "threads",
    );
}

#[test]
fn refused_kinds_of_programs_that_nothing_needs_stop_nothing() {
    let tracing = Tracing {
        fentry: refusal("no"),
        lsm: refusal("no"),
        kprobe: refusal("no"),
    };
    let report = judge(&Facts {
        tracing: Fact::Known(tracing),
        ..good()
    });
    assert!(report.can_run());
    let check = named(&report, "fentry");
    assert_eq!(check.status, Status::Refused);
    assert!(
        check
            .found
            .starts_with("refused (optional): nothing of the socket path needs it")
    );
}

#[test]
fn what_could_not_be_found_out_stops_only_where_it_is_required() {
    let broken = || Fact::Broken("cannot read /proc".into());
    let report = judge(&Facts {
        tcp_memory: broken(),
        ..good()
    });
    assert_eq!(named(&report, "TCP memory").status, Status::Unknown);
    assert!(report.can_run());
    assert!(
        !judge(&Facts {
            cgroups: Fact::Broken("cannot read".into()),
            ..good()
        })
        .can_run()
    );
}

#[test]
fn json_has_every_path_by_its_key() {
    let json = serde_json::to_value(judge(&seen_by_a_user())).expect("plain data");
    assert_eq!(json["kernel"], "6.18.0");
    assert_eq!(json["socket_path"]["can_run"], false);
    let first = &json["socket_path"]["checks"][0];
    assert_eq!(first["name"], "cgroup2");
    assert_eq!(first["status"], "ok");
    assert!(first["advice"].is_null());
    assert_eq!(json["optional"]["checks"][0]["status"], "not_tried");
}
