//! The rules for the socket path.

use super::*;
use crate::selftest::{Consequence, Failed};

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
fn iterators_that_do_not_load_limit_or_stop_the_path() {
    let facts = |refused: &[Iterators]| Facts {
        iterators: Fact::Known(iterators_but(refused)),
        ..good()
    };
    limited_by(&facts(&[Iterators::Keepalive]), "iterators load");
    let facts = facts(&[Iterators::Adopt, Iterators::Release]);
    stopped_by(&facts, "iterators load");
    let report = judge(&facts);
    let check = named(&report, "iterators load");
    assert_eq!(check.found, "release, adopt: no");
    assert!(
        check
            .advice
            .as_ref()
            .is_some_and(|advice| advice.contains("detach"))
    );
}

#[test]
fn fionread_of_a_plain_sockmap_is_told() {
    let facts = |report| Facts {
        fionread: Fact::Known(report),
        ..good()
    };
    let other = FionreadReport::Other {
        waiting: 7,
        said: 3,
    };
    for (report, said) in [(FionreadReport::Zero, "says 0 "), (other, "says 3 ")] {
        let report = judge(&facts(report));
        assert!(report.can_run());
        let found = &named(&report, "FIONREAD").found;
        assert!(
            found.contains(said) && found.contains("one queue"),
            "{found}"
        );
    }
}

#[test]
fn fionread_that_does_not_count_what_was_redirected_stops_it() {
    let facts = |report| Facts {
        redirect: Fact::Known(RedirectReport::Delivered(report)),
        ..good()
    };
    stopped_by(&facts(FionreadReport::Zero), "a redirect");
    stopped_by(
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
        redirect: Fact::Known(RedirectReport::Refused(words)),
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
fn a_kernel_that_loses_a_redirected_message_must_not_run_it() {
    let lost = RedirectReport::NotDelivered("timed out".into());
    let facts = Facts {
        redirect: Fact::Known(lost),
        ..good()
    };
    stopped_by(&facts, "a redirect");
}

#[test]
fn a_namespace_without_loopback_stops_nothing() {
    let facts = Facts {
        redirect: Fact::Broken("cannot connect".into()),
        fionread: Fact::Broken("cannot connect".into()),
        ..good()
    };
    assert!(judge(&facts).can_run());
}

fn self_test(consequence: Consequence) -> Facts {
    let failed = Failed {
        check: "way back".into(),
        found: "not redirected again".into(),
        consequence,
        meaning: "the direction stays where it is".into(),
    };
    Facts {
        self_test: Fact::Known(crate::selftest::Report {
            milliseconds: 300,
            checks: 11,
            failures: vec![failed],
        }),
        ..good()
    }
}

#[test]
fn a_failed_check_of_the_self_test_stops_it_or_limits_it() {
    stopped_by(&self_test(Consequence::Stops), "way back");
    limited_by(&self_test(Consequence::Limits), "way back");
    let report = judge(&self_test(Consequence::Limits));
    assert_eq!(
        named(&report, "self-test").found,
        "10 of 11 checks as plain TCP, in 300 ms"
    );
}
