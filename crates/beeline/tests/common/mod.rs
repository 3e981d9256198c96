//! The program under test: its own instance, its own cgroup, gone when the test is over.

#![allow(dead_code)]

pub mod bed;
pub mod browser;
pub mod load;
pub mod machine;
pub mod podman;
pub mod running;
pub mod trace;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use datapath::Maps;
use datapath::pins::{BPFFS, Pins};
use serde_json::Value;
use testbed::{Cgroup, traffic, wait_for};

/// Long enough for anything that happens at all.
pub const SOON: Duration = Duration::from_secs(20);

/// A connection over loopback: the client's and the server's end, which never block. TCP does not gather
/// what they write: Beeline leaves a stream of small writes to it.
pub fn pair() -> (TcpStream, TcpStream) {
    let (listener, addr) = traffic::listen(([127, 0, 0, 1], 0)).unwrap();
    let client = traffic::connect(addr).unwrap();
    let server = traffic::accept(&listener).unwrap();
    for sock in [&client, &server] {
        sock.set_nodelay(true).unwrap();
    }
    (client, server)
}

/// A message each way.
pub fn talk((client, server): &(TcpStream, TcpStream)) {
    for (from, to) in [(client, server), (server, client)] {
        traffic::write_all(from, b"hello").unwrap();
        traffic::read_all(to, &mut [0; 5]).unwrap();
    }
}

/// Names of test instances: this, the process id, a word.
const PREFIX: &str = "blt";

/// An instance of Beeline over one cgroup.
pub struct Beeline {
    pub instance: String,
    pub cgroup: String,
}

impl Beeline {
    /// Nothing is loaded yet.
    pub fn new(cgroup: &Cgroup) -> Self {
        sweep();
        let instance = format!("{PREFIX}-{}", std::process::id());
        Self {
            instance,
            cgroup: cgroup.path().display().to_string(),
        }
    }

    /// A command of this instance, not started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beeline"));
        command.args(["--instance", &self.instance]).args(args);
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program starts")
    }

    /// Runs a command that has to succeed, and returns what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "beeline {args:?} failed: {}",
            text(&output)
        );
        String::from_utf8(output.stdout).expect("output is UTF-8")
    }

    /// Runs a command that has to fail, and returns what it complained.
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            !output.status.success(),
            "beeline {args:?} succeeded: {}",
            text(&output)
        );
        text(&output)
    }

    /// Runs a command that has to succeed, and parses its JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let out = self.ok(args);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"))
    }

    /// What `conns` shows of connections to this client's server, whose port no other listener has: connections to
    /// different servers may have one port of the client's in common.
    pub fn conns_of(&self, client: &TcpStream) -> Vec<Value> {
        let port = client.peer_addr().unwrap().port().to_string();
        let conns = self.json(&["conns", "--json", "--port", &port]);
        conns.as_array().unwrap().clone()
    }

    /// `status --json`, also when off.
    pub fn status(&self) -> Value {
        let output = self.run(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
    }

    /// Starts an agent over the cgroup and waits until it serves.
    pub fn agent(&self) -> Agent {
        self.agent_with(&[])
    }

    /// As [`Beeline::agent`], with further arguments of `beeline run`.
    pub fn agent_with(&self, args: &[&str]) -> Agent {
        let mut command = self.command(&["run", "--cgroup", &self.cgroup]);
        command.args(args);
        let agent = Agent::start(&mut command);
        let control = Path::new("/run").join(&self.instance).join("control.sock");
        // Its file is there before it listens.
        let listens = || UnixStream::connect(&control).is_ok();
        wait_for("the control socket", SOON, listens).expect("the agent serves");
        agent
    }

    /// As [`Beeline::agent`], with an address for metrics and the page.
    pub fn agent_at(&self, listen: &str) -> Agent {
        let config = std::env::temp_dir().join(format!("{}.toml", self.instance));
        fs::write(&config, format!("[http]\nlisten = \"{listen}\"")).unwrap();
        let agent = self.agent_with(&["--config", config.to_str().unwrap()]);
        fs::remove_file(config).unwrap();
        agent
    }

    /// The pinned maps.
    pub fn maps(&self) -> Maps {
        Maps::open(&self.pins()).expect("the datapath is loaded")
    }

    pub fn pins(&self) -> Pins {
        Pins::of(&self.instance)
    }

    /// Whether anything of the instance is left on the host.
    pub fn is_gone(&self) -> bool {
        !self.pins().dir().exists() && !Path::new("/run").join(&self.instance).exists()
    }
}

impl Drop for Beeline {
    fn drop(&mut self) {
        let _ = self.run(&["detach", "--timeout", "2s"]);
        remove(&self.instance);
    }
}

/// A running agent; killed when dropped.
pub struct Agent {
    child: Child,
    /// What it printed before it served.
    pub said: String,
}

impl Agent {
    /// Starts one, and waits until it says that it serves.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut said = String::new();
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        while !said.contains("serving") {
            if lines.read_line(&mut said).expect("output is UTF-8") == 0 {
                let mut complaint = String::new();
                child
                    .stderr
                    .take()
                    .expect("piped")
                    .read_to_string(&mut complaint)
                    .unwrap();
                panic!("the agent did not come up: {said}{complaint}");
            }
        }
        Agent { child, said }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop as an init system does, and waits. `true`: it said that it succeeded.
    pub fn terminate(mut self) -> bool {
        self.signal(rustix::process::Signal::TERM);
        self.child
            .wait()
            .expect("a child can be waited for")
            .success()
    }

    /// Kills it, and returns its log.
    pub fn log(mut self) -> String {
        self.child.kill().expect("a child can be killed");
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().expect("piped");
        stderr.read_to_string(&mut log).expect("the log is UTF-8");
        log
    }

    /// Gives it no chance to clean up.
    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a child can be signalled");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a file and leaves it open: an agent that watches it waits for it to be complete.
pub fn write_unnoticed(path: &Path, text: &str) {
    let mut file = File::create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    std::mem::forget(file);
}

/// Both streams, for messages.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs a command to its end.
pub fn output_of(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

/// Runs a command as a user without any rights.
pub fn as_nobody(command: &mut Command) -> Output {
    command
        .uid(65_534)
        .gid(65_534)
        .output()
        .expect("the program starts")
}

/// Removes what killed test runs left.
fn sweep() {
    let Ok(entries) = fs::read_dir(BPFFS) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix('-'));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&name);
        }
    }
}

fn remove(instance: &str) {
    let _ = Pins::of(instance).remove();
    let _ = fs::remove_dir_all(Path::new("/run").join(instance));
}
