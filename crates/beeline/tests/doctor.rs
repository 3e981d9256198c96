//! `beeline doctor` on the kernel that runs the tests; needs root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const BEELINE: &str = env!("CARGO_BIN_EXE_beeline");

fn doctor(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("doctor").args(args);
    command
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}

fn check<'a>(group: &'a Value, name: &str) -> &'a Value {
    let checks = group["checks"].as_array().expect("checks");
    checks
        .iter()
        .find(|check| check["name"] == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn root_learns_that_the_socket_path_can_run_here() {
    let output = doctor(BEELINE.as_ref(), &["--json"])
        .output()
        .expect("run doctor");
    let report = json(&output);
    assert!(output.status.success(), "{report:#}");
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let path = &report["socket_path"];
    assert_eq!(path["can_run"], true);
    for name in [
        "cgroup2",
        "program and map types",
        "programs load",
        "sockets can be listed",
        "a redirect",
    ] {
        assert_eq!(check(path, name)["status"], "ok", "{name}");
    }
    // Every kernel does one or the other, and the doctor must know which.
    let fionread = check(path, "FIONREAD")["status"]
        .as_str()
        .expect("a status");
    assert_eq!(fionread, "ok");
}

#[test]
fn people_get_a_verdict_in_the_last_line_and_no_colours_in_a_pipe() {
    let output = doctor(BEELINE.as_ref(), &[]).output().expect("run doctor");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.ends_with("The socket path can run.\n"), "{text}");
    assert!(text.starts_with("Host\n  ok  kernel "), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn a_user_is_told_what_root_would_have_to_try() {
    let program = PublicCopy::make();
    let output = doctor(&program.0.join("beeline"), &["--json"])
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("run doctor");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report = json(&output);
    assert_eq!(check(&report["host"], "capabilities")["status"], "missing");
    assert_eq!(report["socket_path"]["can_run"], false);
    let load = check(&report["socket_path"], "programs load");
    assert_eq!(load["found"], "not tried: needs root");
    let cause = report["socket_path"]["cause"].as_str().expect("a cause");
    assert!(
        cause.starts_with("capabilities: without CAP_DAC_OVERRIDE"),
        "{cause}"
    );
}

const NOBODY: u32 = 65_534;

/// The program where everybody may run it; where it was built may be closed to others.
struct PublicCopy(PathBuf);

impl PublicCopy {
    fn make() -> Self {
        let dir = std::env::temp_dir().join(format!("beeline-doctor-{}", std::process::id()));
        fs::create_dir(&dir).expect("make a directory");
        let copy = Self(dir);
        // By a process of its own: a program that another test starts while this one has the copy open for writing
        // would keep it open, and the kernel runs no file that is (ETXTBSY).
        let cp = Command::new("cp").arg(BEELINE).arg(&copy.0).status();
        assert!(cp.expect("cp starts").success(), "copy the program");
        for path in [&copy.0, &copy.0.join("beeline")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("open it");
        }
        copy
    }
}

impl Drop for PublicCopy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
