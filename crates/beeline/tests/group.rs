//! Who may ask the agent for what: root for anything, a group for what changes nothing.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{Agent, Beeline, SOON, as_nobody, output_of, pair, text};
use tempfile::TempDir;
use testbed::{Cgroup, kernel_test, wait_for};

/// Every host has it, and nobody is in it.
const GROUP: &str = "daemon";

struct Bed {
    beeline: Beeline,
    _agent: Agent,
    _dir: TempDir,
}

impl Bed {
    fn new(cgroup: &Cgroup, config: &str) -> Self {
        let (beeline, dir) = (Beeline::new(cgroup), TempDir::new().unwrap());
        let file = dir.path().join("config.toml");
        fs::write(&file, config).unwrap();
        let _agent = beeline.agent_with(&["--config", file.to_str().unwrap()]);
        Self {
            beeline,
            _agent,
            _dir: dir,
        }
    }

    fn open(cgroup: &Cgroup) -> Self {
        Self::new(cgroup, &format!("[control]\ngroup = \"{GROUP}\"\n"))
    }

    fn dir(&self) -> PathBuf {
        Path::new("/run").join(&self.beeline.instance)
    }

    fn socket(&self) -> PathBuf {
        self.dir().join("control.sock")
    }

    /// Runs a command as a user who is nobody but a member of the group.
    fn member(&self, args: &[&str]) -> Output {
        let command = self.beeline.command(args);
        output_of(as_member(command.get_program().to_str().unwrap()).args(command.get_args()))
    }
}

fn as_member(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--groups", GROUP, program]);
    command
}

/// Mode, and ids of owner and group.
fn access(path: &Path) -> (u32, u32, u32) {
    let meta = fs::metadata(path).unwrap();
    (meta.mode() & 0o7777, meta.uid(), meta.gid())
}

kernel_test! {
    fn without_a_group_root_is_alone(cgroup: &Cgroup) {
        // As it is left behind by an agent that had one.
        drop(Bed::open(cgroup));
        let bed = Bed::new(cgroup, "");
        assert_eq!(access(&bed.dir()), (0o700, 0, 0));
        assert_eq!(access(&bed.socket()), (0o600, 0, 0));
        let said = text(&bed.member(&["explain", ":1", ":2"]));
        assert!(said.contains("Permission denied") && said.contains("control.group"), "{said}");
    }

    fn members_ask_what_happens_and_change_nothing(cgroup: &Cgroup) {
        let bed = Bed::open(cgroup);
        let (_, _, group) = access(&bed.socket());
        assert_ne!(group, 0);
        assert_eq!(access(&bed.socket()), (0o660, 0, group));
        assert_eq!(access(&bed.dir()), (0o710, 0, group));
        // Who opens it for reading can lock it.
        assert_eq!(access(&bed.dir().join("lock")).0, 0o600);
        for command in [&["explain", ":1", ":2"][..], &["trace", "--help"]] {
            let output = bed.member(command);
            assert!(output.status.success(), "{command:?}: {}", text(&output));
        }
        for command in [&["reload"][..], &["detach"], &["conns"]] {
            let output = bed.member(command);
            assert!(!output.status.success() && text(&output).contains("root"), "{}", text(&output));
        }
        let before = bed.beeline.status()["agent"]["pid"].clone();
        assert_eq!(ask(&bed, r#"{"command":"stop"}"#), "");
        let refused = ask(&bed, r#"{"command":"capture","bytes":1}"#);
        assert!(refused.contains("only root"), "{refused}");
        assert_eq!(bed.beeline.status()["agent"]["pid"], before);
        bed.beeline.ok(&["reload"]);
        let stranger = as_nobody(&mut bed.beeline.command(&["explain", ":1", ":2"]));
        assert!(!stranger.status.success(), "{}", text(&stranger));
    }

    fn members_follow_events(cgroup: &Cgroup) {
        let bed = Bed::open(cgroup);
        let command = bed.beeline.command(&["trace", "--json"]);
        let mut trace = as_member(command.get_program().to_str().unwrap())
            .args(command.get_args())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut events = BufReader::new(trace.stdout.take().expect("piped"));
        let follows = || bed.beeline.maps().settings().unwrap().tracing != 0;
        wait_for("the follower", SOON, follows).unwrap();
        drop(pair());
        events.read_line(&mut line).unwrap();
        trace.kill().unwrap();
        trace.wait().unwrap();
        assert!(line.contains("established") || line.contains("enrolled"), "{line}");
    }
}

/// What the agent answers a member.
fn ask(bed: &Bed, request: &str) -> String {
    const ASK: &str = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die $!; \
                       print $s \"$ARGV[1]\\n\"; $s->flush; print <$s>;";
    let socket = bed.socket();
    let output = output_of(as_member("perl").args(["-e", ASK]).arg(socket).arg(request));
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}
