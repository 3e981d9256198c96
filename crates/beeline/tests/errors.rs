//! What can be wrong, each with one clear message, a non-zero exit, and nothing left behind.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use common::{Beeline, as_nobody, text};
use testbed::{Cgroup, cgroup2_mount, kernel_test};

/// Runs `beeline run` in a mount namespace in which `change` was done first.
fn run_after(beeline: &Beeline, change: &str) -> String {
    let script = format!("{change} && exec \"$0\" \"$@\"");
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .arg(env!("CARGO_BIN_EXE_beeline"))
        .args([
            "--instance",
            &beeline.instance,
            "run",
            "--cgroup",
            &beeline.cgroup,
        ])
        .output()
        .expect("unshare (util-linux) starts");
    assert!(!output.status.success(), "{}", text(&output));
    text(&output)
}

fn config(beeline: &Beeline, content: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("{}.toml", beeline.instance));
    fs::write(&path, content).expect("the temporary directory is writable");
    path
}

kernel_test! {
    fn unknown_flags_and_commands(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        for (args, hint) in [
            (&["run", "--cgruop", "/x"][..], "--cgroup"),
            (&["statsu"], "status"),
            (&["detach", "--timeout", "soon"], "--timeout"),
            (&["detach", "--timeout"], "value"),
        ] {
            let output = beeline.run(args);
            assert_eq!(output.status.code(), Some(2), "{args:?}");
            assert!(text(&output).contains(hint), "{args:?}: {}", text(&output));
        }
    }

    fn names_that_are_none(_cgroup: &Cgroup) {
        let output = Command::new(env!("CARGO_BIN_EXE_beeline"))
            .args(["--instance", "../x", "status"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output).contains("characters"), "{}", text(&output));
    }

    fn no_root(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        for (args, hint) in [
            (&["run", "--cgroup", &beeline.cgroup][..], "sudo"),
            (&["demo"], "sudo"),
        ] {
            let output = as_nobody(&mut beeline.command(args));
            assert!(!output.status.success());
            assert!(text(&output).contains(hint), "{args:?}: {}", text(&output));
        }
        assert!(beeline.is_gone());
    }

    fn looking_without_root_says_that_root_is_needed(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        for args in [&["status"][..], &["conns"], &["trace"], &["detach"]] {
            let output = as_nobody(&mut beeline.command(args));
            assert!(!output.status.success());
            assert!(text(&output).contains("root"), "{args:?}: {}", text(&output));
        }
    }

    fn wrong_configurations(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let path = config(&beeline, "[socket]\nconnectoins = 5\n\nqueue_limit = \"4 bananas\"\n");
        let file = path.to_str().unwrap();
        let said = beeline.fails(&["run", "--config", file]);
        for hint in [format!("{file}:2:1"), format!("{file}:4:15"), "`connections`".into()] {
            assert!(said.contains(&hint), "{hint:?} is not in: {said}");
        }
        fs::remove_file(&path).unwrap();
        let said = beeline.fails(&["run", "--config", file]);
        assert!(said.contains(file), "{said}");
        assert_eq!(said.matches("No such file").count(), 1, "the cause is said once: {said}");
        assert!(beeline.is_gone());
    }

    fn cgroups_that_are_none(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let said = beeline.fails(&["run", "--cgroup", "/tmp"]);
        assert!(said.contains("not in the cgroup2 hierarchy"), "{said}");
        assert!(said.contains(cgroup2_mount().unwrap().to_str().unwrap()), "{said}");
        let said = beeline.fails(&["run", "--cgroup", "/nonexistent"]);
        assert!(said.contains("/nonexistent of --cgroup"), "{said}");
        assert!(!beeline.pins().dir().exists());
    }

    fn no_btf(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let said = run_after(&beeline, "mount -t tmpfs none /sys/kernel/btf");
        assert!(said.contains("CONFIG_DEBUG_INFO_BTF"), "{said}");
        assert!(beeline.is_gone());
    }

    fn no_cgroup2(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let mount = cgroup2_mount().unwrap();
        let said = run_after(&beeline, &format!("umount -l {}", mount.display()));
        assert!(said.contains("cgroup2"), "{said}");
        assert!(!beeline.pins().dir().exists());
    }

    fn tracing_without_an_agent(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        beeline.agent().kill();
        let said = beeline.fails(&["trace"]);
        assert!(said.contains("beeline run"), "{said}");
    }

    fn looking_at_nothing(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        assert!(beeline.fails(&["status"]).contains("off"));
        assert_eq!(beeline.status()["on"], false);
        assert!(beeline.fails(&["conns"]).contains("beeline run"));
        assert!(beeline.fails(&["trace"]).contains("beeline run"));
        assert!(beeline.is_gone());
    }
}
