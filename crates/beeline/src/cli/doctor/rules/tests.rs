//! The rules over made-up hosts.

mod host;
mod socket;

use caps::CapsHashSet;
use datapath::probe::{
    AttachMode, Attached, Attempt, CgroupMounts, Feature, FionreadReport, Iterators, Kind,
    PidNamespace, Program, RedirectReport, Refusal, SocketPathReport, TcpMemory, Tracing,
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
        capabilities: Fact::Known(caps::all()),
        initial_user_namespace: Fact::Known(true),
        bpffs_mounted: Fact::Known(true),
        pid_namespace: Fact::Known(PidNamespace {
            initial: true,
            sees_kernel: true,
        }),
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
        iterators: Fact::Known(iterators_but(&[])),
        counts_unread: Fact::Known(Some(true)),
        fionread: Fact::Known(FionreadReport::Counts),
        redirect: Fact::Known(RedirectReport::Delivered(FionreadReport::Counts)),
        tracing: Fact::Known(Tracing {
            fentry: Attempt::Works,
            lsm: Attempt::Works,
            kprobe: Attempt::Works,
        }),
        self_test: Fact::Known(crate::selftest::Report {
            milliseconds: 300,
            checks: 11,
            failures: vec![],
        }),
    }
}

/// The same host, seen by a user without any capability.
fn seen_by_a_user() -> Facts {
    const ROOT: &str = "root";
    Facts {
        capabilities: Fact::Known(CapsHashSet::new()),
        attached: Fact::NotTried(ROOT),
        programs: Fact::NotTried(ROOT),
        features: Fact::NotTried(ROOT),
        socket_path: Fact::NotTried(ROOT),
        iterators: Fact::NotTried(ROOT),
        fionread: Fact::NotTried(ROOT),
        redirect: Fact::NotTried(ROOT),
        self_test: Fact::NotTried(ROOT),
        tracing: Fact::NotTried(ROOT),
        ..good()
    }
}

/// All iterators load but these.
fn iterators_but(refused: &[Iterators]) -> Vec<(Iterators, Attempt)> {
    let attempt = |one| match refused.contains(&one) {
        true => refusal("no"),
        false => Attempt::Works,
    };
    Iterators::ALL.map(|one| (one, attempt(one))).to_vec()
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
    let without = [
        (
            "fentry",
            "programs that splice unexpectedly are not noticed",
        ),
        ("LSM", "nothing of the socket path needs it"),
    ];
    for (name, without) in without {
        let check = named(&report, name);
        assert_eq!(check.status, Status::Refused);
        let expected = format!("refused (optional): {without}");
        assert!(check.found.starts_with(&expected), "{}", check.found);
    }
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
