//! The agent tries itself before it attaches to anyone, says what it found, and leaves nothing.

mod common;

use std::fs;
use std::process::Stdio;

use common::{Beeline, SOON, text};
use serde_json::Value;
use testbed::{Cgroup, cgroup2_mount, kernel_test, wait_for};

/// What a kernel may do in one way or the other.
const DIFFERS: [&str; 1] = ["splice"];

/// Cgroups of self-tests, of this process and all others.
fn cgroups() -> Vec<String> {
    let mount = cgroup2_mount().expect("cgroup2 is mounted");
    let names = fs::read_dir(mount).expect("it can be read").flatten();
    let names = names.map(|dir| dir.file_name().to_string_lossy().into_owned());
    names
        .filter(|name| name.starts_with("beeline-selftest"))
        .collect()
}

fn expect_good(report: &Value) {
    assert_eq!(report["checks"], 13, "{report}");
    for failed in report["failures"].as_array().expect("a list") {
        let name = failed["check"].as_str().expect("a name");
        assert!(DIFFERS.contains(&name), "{failed}");
        assert_eq!(failed["consequence"], "limits", "{failed}");
    }
}

kernel_test! {
    fn status_and_the_log_say_what_it_found(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let agent = beeline.agent();
        assert!(agent.said.contains("checks as plain TCP"), "{}", agent.said);
        let report = &beeline.status()["self_test"];
        expect_good(report);
        for failed in report["failures"].as_array().unwrap() {
            let found = failed["found"].as_str().unwrap();
            assert!(agent.said.contains(found) && beeline.ok(&["status"]).contains(found), "{failed}");
        }
        agent.kill();
        expect_good(&beeline.status()["self_test"]);
        beeline.ok(&["detach"]);
        assert!(beeline.is_gone());
    }

    /// Killed at any moment, it leaves at most an empty cgroup, which the next one removes.
    fn nothing_is_left_when_it_is_killed(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let mut child = beeline
            .command(&["self-test"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let own = format!("beeline-selftest-{}-", child.id());
        let left = || cgroups().iter().any(|name| name.starts_with(&own));
        wait_for("its cgroup", SOON, left).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        wait_for("the next one to remove it", SOON, || {
            let output = beeline.run(&["self-test"]);
            assert!(output.status.success(), "{}", text(&output));
            !left()
        }).unwrap();
    }
}
