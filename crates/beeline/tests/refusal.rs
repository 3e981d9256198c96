//! Kernels on which the socket path must not start: `run` says why, and leaves everything as it was. Only
//! `make test-kernels` has such kernels.

mod common;

use std::fs;
use std::process::{Command, Output};

use common::{Beeline, text};
use datapath::probe;
use serde_json::Value;
use testbed::{Cgroup, cgroup2_mount, kernel_test};

/// What `doctor` finds; it has to find that the path cannot run.
fn doctor(beeline: &Beeline) -> Value {
    let output = beeline.run(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["socket_path"]["can_run"], false, "{report:#}");
    report
}

/// Whether a check of the report stops the path.
fn stops(report: &Value, name: &str) -> bool {
    let checks = report["socket_path"]["checks"].as_array().expect("checks");
    checks
        .iter()
        .any(|check| check["name"] == name && check["status"] == "missing")
}

/// The failure that stopped the last start, as `status` tells it.
fn obstacle(beeline: &Beeline) -> Value {
    let status = beeline.status();
    assert_eq!(status["on"], false, "{status:#}");
    let failures = status["self_test"]["failures"].as_array().cloned();
    let stopping = |failed: &Value| failed["consequence"] == "stops";
    let found = failures.unwrap_or_default().into_iter().find(stopping);
    found.unwrap_or_else(|| panic!("no failure that stops: {status:#}"))
}

fn word<'a>(failed: &'a Value, of: &str) -> &'a str {
    failed[of].as_str().expect("a string")
}

/// What is mounted, what is attached to the cgroup or loaded, and what cgroups there are.
fn host(cgroup: &Cgroup) -> (String, Vec<u32>, usize, Vec<String>) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let attached = probe::sock_ops_of(cgroup.path()).unwrap().unwrap().ids;
    let loaded = probe::loaded().unwrap().unwrap().len();
    let cgroups = fs::read_dir(cgroup2_mount().unwrap()).unwrap();
    let names = cgroups.map(|dir| dir.unwrap().file_name().to_string_lossy().into_owned());
    let mut own: Vec<_> = names
        .filter(|name| name.starts_with("beeline-selftest"))
        .collect();
    own.sort();
    (mounts, attached, loaded, own)
}

/// `run`, which has to refuse; and the failure that stopped it, as `status` tells it.
fn refused(beeline: &Beeline, log: &str) -> (Output, Value) {
    let output = beeline.run(&["run", "--cgroup", &beeline.cgroup, "--log", log]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    (output, obstacle(beeline))
}

/// The kernel is asked before a bpffs is mounted for the pins.
fn mounts_no_bpffs(beeline: &Beeline) {
    let script = "umount /sys/fs/bpf && ! \"$0\" \"$@\" && ! grep -q '^[^ ]* /sys/fs/bpf ' /proc/self/mounts";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(env!("CARGO_BIN_EXE_beeline"))
        .args([
            "--instance",
            &beeline.instance,
            "run",
            "--cgroup",
            &beeline.cgroup,
        ])
        .output()
        .expect("unshare starts");
    assert!(output.status.success(), "{}", text(&output));
}

kernel_test! {
    /// One test, since it looks at the whole host.
    #[ignore = "for a kernel on which the socket path must not start"]
    fn run_refuses_says_why_and_leaves_nothing(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let report = doctor(&beeline);
        let before = host(cgroup);
        for log in ["human", "json"] {
            let (output, failed) = refused(&beeline, log);
            let (said, seen) = (text(&output), text(&beeline.run(&["status"])));
            for of in ["check", "found", "meaning"] {
                assert!(said.contains(word(&failed, of)), "{failed} is not in {said}");
                assert!(seen.contains(word(&failed, of)), "{failed} is not in {seen}");
            }
            let check = word(&failed, "check");
            let named = |name| check == "load" && stops(&report, name);
            let in_doctor = stops(&report, check) || named("programs load") || named("iterators load");
            assert!(in_doctor, "{check}: {report:#}");
            assert_eq!(host(cgroup), before);
            assert!(!beeline.pins().dir().exists());
        }
        mounts_no_bpffs(&beeline);
        assert_eq!(host(cgroup), before);
        assert!(beeline.fails(&["conns"]).contains("beeline run"));
    }
}
