//! The systemd unit: the agent says when it serves, and gets on with the capabilities that it is left.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use beeline::agent::privileges::{TO_SERVE, TO_START};
use common::{Agent, Beeline, SOON, output_of};
use serde_json::json;
use tempfile::TempDir;
use testbed::{Cgroup, kernel_test};

const UNIT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../packaging/systemd/beeline.service"
);

/// The values of a setting that the unit has once.
fn unit(key: &str) -> String {
    let text = fs::read_to_string(UNIT).expect("the unit is there");
    let values = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values
        .unwrap_or_else(|| panic!("the unit has no {key}"))
        .into()
}

/// A program with the capabilities that the unit leaves.
fn confined(program: impl AsRef<OsStr>) -> Command {
    let left = unit("CapabilityBoundingSet").to_lowercase();
    let left = left.replace("cap_", "+").replace(' ', ",");
    let mut command = Command::new("setpriv");
    command
        .args(["--no-new-privs", "--inh-caps=-all"])
        .arg(format!("--bounding-set=-all,{left}"))
        .arg(program);
    command
}

kernel_test! {
    fn the_unit_leaves_what_the_agent_names(_cgroup: &Cgroup) {
        let named = TO_START.iter().chain(&TO_SERVE).map(ToString::to_string);
        assert_eq!(unit("CapabilityBoundingSet"), named.collect::<Vec<_>>().join(" "));
    }

    fn systemd_is_told_that_the_agent_serves(cgroup: &Cgroup) {
        assert_eq!(unit("Type"), "notify");
        let (beeline, dir) = (Beeline::new(cgroup), TempDir::new().unwrap());
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let mut command = beeline.command(&["run", "--cgroup", &beeline.cgroup]);
        let _agent = Agent::start(command.env("NOTIFY_SOCKET", &path));
        let mut message = [0; 64];
        let length = socket.recv(&mut message).expect("it tells in time");
        assert_eq!(&message[..length], b"READY=1\n");
        // Those who wait for it ask at once.
        beeline.ok(&["reload"]);
    }

    fn the_capabilities_of_the_unit_are_enough(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let dir = TempDir::new().unwrap();
        // Takes a capability, too.
        let config = dir.path().join("config.toml");
        fs::write(&config, "[control]\ngroup = \"daemon\"\n").unwrap();
        let config = config.to_str().unwrap();
        let run = beeline.command(&["run", "--cgroup", &beeline.cgroup, "--config", config]);
        let mut command = confined(run.get_program());
        command.args(run.get_args());
        let _agent = Agent::start(&mut command);
        let status = beeline.status();
        assert_eq!(status["on"], true);
        let kept = TO_SERVE.map(|one| one.to_string());
        assert_eq!(status["agent"]["capabilities"], json!(kept));
        beeline.ok(&["reload"]);
    }

    fn the_unit_does_not_hide_the_functions_of_the_kernel(_cgroup: &Cgroup) {
        let find = ["-m1", " ep_poll_callback$", "/proc/kallsyms"];
        let seen = |command: &mut Command| output_of(command.args(find)).stdout;
        let line = seen(&mut Command::new("grep"));
        assert!(!line.is_empty(), "every kernel has it");
        assert_eq!(seen(&mut confined("grep")), line);
    }
}
