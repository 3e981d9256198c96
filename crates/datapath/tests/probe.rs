//! The probe on the kernel that runs the tests; needs root.

use datapath::probe::{self, Attempt, FionreadReport, RedirectReport};

#[test]
fn the_socket_path_loads_and_lists_here() {
    let report = probe::socket_path().expect("probe");
    assert_eq!(report.load, Attempt::Works);
    assert_eq!(report.iterate, Some(Attempt::Works));
    let features = probe::features().expect("probe");
    assert!(
        features.iter().all(|feature| feature.supported),
        "{features:?}"
    );
}

#[test]
fn fionread_of_a_socket_in_a_map_is_right_or_zero() {
    let report = probe::fionread().expect("probe");
    assert!(
        matches!(report, FionreadReport::Counts | FionreadReport::Zero),
        "{report:?}"
    );
}

#[test]
fn a_redirected_message_arrives() {
    let report = probe::redirect().expect("probe");
    assert!(matches!(report, RedirectReport::Delivered(_)), "{report:?}");
}

#[test]
fn what_was_loaded_is_listed_while_it_lives() {
    use datapath::socket::{Options, SocketPath};
    let path = SocketPath::load(Options::default()).expect("load");
    let ours = |program: &probe::Program| program.is_beeline();
    let listed = probe::loaded()
        .expect("probe")
        .expect("root may list programs");
    assert!(
        listed.iter().filter(|program| ours(program)).count() >= 2,
        "{listed:?}"
    );
    drop(path);
}

#[test]
fn the_root_cgroup_tells_its_programs() {
    let mounts = probe::cgroup_mounts().expect("probe");
    let root = mounts.v2.expect("this host has cgroup2");
    assert!(probe::sock_ops_of(&root).expect("probe").is_some());
}

#[test]
fn a_refusal_comes_with_words() {
    let tracing = probe::tracing().expect("probe");
    for attempt in [&tracing.fentry, &tracing.lsm, &tracing.kprobe] {
        if let Attempt::Refused(refusal) = attempt {
            assert!(refusal.error.starts_with("cannot "), "{refusal:?}");
            assert!(refusal.objection.is_some(), "{refusal:?}");
        }
    }
    println!("{tracing:#?}");
}

#[test]
fn threads_and_host_tell_of_themselves() {
    println!("{:?}", probe::pid_namespace().expect("probe"));
    println!("{:?}", probe::capabilities().expect("probe"));
    println!("{:?}", probe::tcp_memory().expect("probe"));
    println!("{:?}", probe::lockdown().expect("probe"));
    println!("{:?}", probe::counts_unread().expect("probe"));
    println!("{:?}", probe::initial_user_namespace().expect("probe"));
    println!("{:?}", probe::fionread().expect("probe"));
    assert!(probe::cpus().expect("probe") > 0);
    assert!(!probe::kernel_release().is_empty());
}
