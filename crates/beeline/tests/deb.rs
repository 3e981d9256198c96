//! The Debian package: what is in it, and installing, upgrading and removing it under live connections.
//!
//! `make test-deb` runs it, since it takes dpkg-dev.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use common::load::Load;
use common::machine::Machine;
use common::{Agent, SOON, output_of, pair, text};
use serde_json::Value;
use tempfile::TempDir;
use testbed::traffic::stream;
use testbed::{Cgroup, kernel_test, wait_for};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// What makes the service start at boot.
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/beeline.service";

/// Runs a program that has to succeed, and returns its output.
fn ok(program: &str, args: &[&str]) -> String {
    let output = output_of(Command::new(program).args(args));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        text(&output)
    );
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

/// Packages the program under test as some version.
fn package(dir: &Path, version: &str) -> PathBuf {
    let dir = dir.to_str().expect("a plain path");
    let said = ok(
        &format!("{ROOT}/scripts/deb"),
        &[env!("CARGO_BIN_EXE_beeline"), dir, version],
    );
    said.trim().into()
}

/// Makes a package look like one of another map layout.
fn of_another_layout(package: &Path) {
    let tree = package.with_extension("tree");
    let (package, tree) = (package.to_str().unwrap(), tree.to_str().unwrap());
    ok("dpkg-deb", &["-R", package, tree]);
    ok(
        "sed",
        &[
            "-i",
            "s/^layout=.*/layout=another/",
            &format!("{tree}/DEBIAN/preinst"),
        ],
    );
    ok("dpkg-deb", &["--root-owner-group", "-b", tree, package]);
}

fn name(package: &Path) -> String {
    format!("/mnt/{}", package.file_name().unwrap().to_str().unwrap())
}

/// Has the agent leave the rest of the host alone.
fn cover(machine: &Machine, cgroup: &Cgroup) {
    let cgroup = cgroup.path().display();
    let settings = format!("cgroup = \"{cgroup}\"\n\n[http]\nlisten = \"off\"\n");
    machine.write("/etc/beeline/conf.d/50-test.toml", &settings);
}

/// The service's command, on a machine without systemd.
fn agent(machine: &Machine) -> Agent {
    Agent::start(&mut machine.command(&["beeline", "run"]))
}

fn status(machine: &Machine) -> Value {
    // Fails when it is off.
    let output = output_of(&mut machine.command(&["beeline", "status", "--json"]));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
}

#[test]
#[ignore = "make test-deb"]
fn the_package_has_what_belongs_to_it() {
    let dir = TempDir::new().unwrap();
    let package = package(dir.path(), "0.1.0~test");
    let package = package.to_str().unwrap();
    let content = ok("dpkg-deb", &["-c", package]);
    for file in [
        "./usr/bin/beeline",
        "./usr/lib/systemd/system/beeline.service",
        "./etc/beeline/config.toml",
        "./etc/beeline/conf.d/",
        "./usr/share/man/man1/beeline.1.gz",
        "./usr/share/man/man1/beeline-config-show.1.gz",
        "./usr/share/bash-completion/completions/beeline",
        "./usr/share/zsh/vendor-completions/_beeline",
        "./usr/share/fish/vendor_completions.d/beeline.fish",
        "./usr/share/doc/beeline/copyright",
    ] {
        assert!(
            content
                .lines()
                .any(|line| line.ends_with(&format!(" {file}"))),
            "{file} is not in\n{content}"
        );
    }
    assert!(
        content.lines().all(|line| line.contains(" root/root ")),
        "{content}"
    );
    assert!(
        !content.contains("self-test"),
        "hidden commands have no manual"
    );
    let control = ok("dpkg-deb", &["-I", package]);
    for line in [
        "Package: beeline",
        "Version: 0.1.0~test",
        "Depends: libc6",
        "conffiles",
        "prerm",
    ] {
        assert!(control.contains(line), "{line} is not in\n{control}");
    }
}

kernel_test! {
    #[deadline(300)]
    #[ignore = "make test-deb"]
    fn installing_upgrading_and_removing_break_no_connection(cgroup: &Cgroup) {
        let dir = TempDir::new().unwrap();
        let versions = ["0.1.0~1", "0.1.0~2", "0.1.0~3"];
        let [first, second, third] = versions.map(|version| package(dir.path(), version));
        of_another_layout(&third);
        let machine = Machine::new(dir.path());

        machine.ok(&["dpkg", "-i", &name(&first)]);
        assert!(machine.has(ENABLED));
        cover(&machine, cgroup);
        assert!(machine.ok(&["beeline", "config", "show"]).contains("50-test.toml:1"));
        let old = agent(&machine);
        let load = Load::start();
        assert_eq!(status(&machine)["work"]["connections"], 4);

        // The agent of the old version goes on until it is replaced.
        machine.ok(&["dpkg", "-i", &name(&second)]);
        load.moves(10 << 20);
        assert_eq!(status(&machine)["agent"]["pid"], old.pid());
        assert!(old.terminate());
        let new = agent(&machine);
        assert!(new.said.contains("took over"), "{}", new.said);
        load.moves(10 << 20);
        assert_eq!(status(&machine)["work"]["connections"], 4);
        assert_eq!(status(&machine)["work"]["kernel_bytes"], 0);

        // What a new version cannot take over, the old one takes off before it goes.
        let said = machine.ok(&["dpkg", "-i", &name(&third)]);
        assert!(said.contains("map layout changes"), "{said}");
        assert!(!machine.has("/sys/fs/bpf/beeline"));
        load.moves(10 << 20);
        load.finish();
        drop(new);

        let last = agent(&machine);
        let load = Load::start();
        assert_eq!(status(&machine)["work"]["connections"], 4);
        machine.ok(&["dpkg", "-r", "beeline"]);
        assert!(!machine.has("/sys/fs/bpf/beeline") && !machine.has("/run/beeline"), "it is detached");
        assert!(!machine.has("/usr/bin/beeline") && machine.has("/etc/beeline/config.toml"));
        load.moves(10 << 20);
        load.finish();
        drop(last);
        machine.ok(&["dpkg", "-P", "beeline"]);
        assert!(!machine.has("/etc/beeline/config.toml"));
        assert!(!machine.has(ENABLED));
    }

    #[deadline(300)]
    #[ignore = "make test-deb"]
    fn a_reader_that_does_not_read_holds_up_the_removal_and_loses_nothing(cgroup: &Cgroup) {
        const BYTES: u64 = 300_000;
        let dir = TempDir::new().unwrap();
        let only = package(dir.path(), "0.1.0~1");
        let machine = Machine::new(dir.path());
        machine.ok(&["dpkg", "-i", &name(&only)]);
        cover(&machine, cgroup);
        let agent = agent(&machine);
        let (client, server) = pair();
        stream::send(&client, 3, BYTES, 1000).unwrap();
        let redirected = || status(&machine)["work"]["redirected_bytes"] == BYTES;
        wait_for("the redirect", SOON, redirected).unwrap();

        let said = machine.fails(&["dpkg", "-r", "beeline"]);
        assert!(said.contains("has not read") && said.contains("not removed"), "{said}");
        assert_eq!(status(&machine)["mode"], "detaching", "nothing takes it back");

        let reader = thread::spawn(move || stream::verify(&server, 3, 1 << 16).unwrap());
        machine.ok(&["dpkg", "-r", "beeline"]);
        assert!(!machine.has("/sys/fs/bpf/beeline") && !machine.has("/usr/bin/beeline"));
        stream::finish(&client).unwrap();
        assert_eq!(reader.join().unwrap(), BYTES);
        drop(agent);
    }
}
