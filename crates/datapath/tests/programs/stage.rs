//! Where programs play: three pods, a directory, servers with logs; and both paths.

use std::fmt::Debug;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use datapath::abi::{Reason, Totals};
use datapath::adopt::Adopter;
use datapath::programs::Programs;
use datapath::socket::Options;
use testbed::traffic::pattern::Pattern;
use testbed::{Cgroup, ChildGuard, NetNs, Node, Pod, wait_for};

use crate::common::{Bed, Result, SOON, Sums, expect_connections, expect_reasons};

/// The Debian packages of the programs.
const PACKAGES: [(&str, &str); 12] = [
    ("iperf3", "iperf3"),
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("wrk", "wrk"),
    ("curl", "curl"),
    ("redis-cli", "redis-tools"),
    ("ssh-keygen", "openssh-client"),
    ("scp", "openssh-client"),
    ("java", "default-jdk-headless"),
    ("node", "nodejs"),
];

fn package(error: testbed::Error) -> String {
    if let testbed::Error::NoProgram { program } = &error {
        let found = PACKAGES.iter().find(|(name, _)| name == program);
        if let Some((_, package)) = found {
            return format!("{error}: apt-get install {package}");
        }
    }
    error.to_string()
}

/// Bytes of a connection without a body: requests and answers of a few hundred.
const LITTLE: u64 = 4096;

/// Runs the program that follows as a user without rights: some servers refuse to be root.
pub const AS_NOBODY: [&str; 6] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--pdeathsig=KILL",
    "--",
];

/// Pods for a server, what stands between, and a client.
pub struct Stage {
    _node: Node,
    pub server: Pod,
    pub proxy: Pod,
    pub client: Pod,
    dir: tempfile::TempDir,
}

impl Stage {
    pub fn new() -> Result<Self> {
        let node = Node::new()?;
        let dir = tempfile::Builder::new().prefix("beeline-").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            server: node.pod("server")?,
            proxy: node.pod("proxy")?,
            client: node.pod("client")?,
            _node: node,
            dir,
        })
    }

    /// The path of a file in the stage's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same as text, for command lines.
    pub fn arg(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file; returns its path as text.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<String> {
        fs::write(self.path(name), content)?;
        Ok(self.arg(name))
    }

    /// Writes a file of so many bytes that do not repeat, and returns them.
    pub fn fill(&self, name: &str, len: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len)?];
        Pattern::new(len).fill(&mut bytes);
        self.write(name, &bytes)?;
        Ok(bytes)
    }

    /// A directory that belongs to the user of [`AS_NOBODY`]; its path as text.
    pub fn nobodys(&self, name: &str) -> Result<String> {
        fs::create_dir(self.path(name))?;
        chown(self.path(name), Some(65_534), Some(65_534))?;
        Ok(self.arg(name))
    }

    /// Starts a server and waits until somebody listens on the port.
    pub fn serve(&self, ns: &NetNs, port: u16, command: &[&str]) -> Result<Server> {
        let log = self.path(&format!("log-{port}"));
        let (out, err) = (
            File::create(&log)?,
            File::options().append(true).open(&log)?,
        );
        let name = program_of(command);
        let started = ns.command(command[0]).args(&command[1..]).with(|command| {
            command.current_dir(self.dir.path()).stdout(out).stderr(err);
        });
        let child = started.spawn().map_err(package)?;
        let server = Server { child, log, name };
        let listens = || listens(ns, port).unwrap_or(false);
        wait_for(&format!("{} on port {port}", server.name), SOON, listens)
            .map_err(|error| format!("{error}: {}", server.log()))?;
        Ok(server)
    }

    /// Runs a program to its end, which has to be a success, and returns its standard output.
    pub fn run(&self, ns: &NetNs, command: &[&str]) -> Result<String> {
        let started = ns.command(command[0]).args(&command[1..]).with(|command| {
            command.current_dir(self.dir.path());
        });
        Ok(started.run().map_err(package)?)
    }

    /// As [`Stage::run`], for programs that take longer than commands may. Their output goes to a file,
    /// whose text is returned also when they fail.
    pub fn run_long(&self, ns: &NetNs, deadline: Duration, command: &[&str]) -> Result<String> {
        let log = self.path(&format!("log-{}", program_of(command)));
        let (out, err) = (
            File::create(&log)?,
            File::options().append(true).open(&log)?,
        );
        let started = ns.command(command[0]).args(&command[1..]).with(|command| {
            command.current_dir(self.dir.path()).stdout(out).stderr(err);
        });
        let ended = started.spawn().map_err(package)?.wait(deadline);
        let said = fs::read_to_string(log)?;
        ended.map_err(|error| format!("{error}: {}", last_lines(&said)))?;
        Ok(said)
    }
}

/// Looked up, as a connection of our own would be counted.
fn listens(ns: &NetNs, port: u16) -> Result<bool> {
    let (local, listen) = (format!(":{port:04X} "), " 0A ");
    let text = ns.run(|| {
        let of = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        Ok::<_, std::io::Error>(of("tcp")? + &of("tcp6")?)
    })??;
    Ok(text
        .lines()
        .any(|line| line.contains(&local) && line.contains(listen)))
}

/// The end of a long text, for messages.
fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// The name of what a command line runs in the end.
fn program_of(command: &[&str]) -> String {
    let own = command.iter().position(|word| *word == "--");
    let program = command[own.map_or(0, |at| at + 1)];
    let file = Path::new(program).file_name().unwrap_or_default();
    file.to_string_lossy().into_owned()
}

/// A running server; what it says goes to a file.
pub struct Server {
    child: ChildGuard,
    log: PathBuf,
    name: String,
}

impl Server {
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string())
    }

    /// Asks it to stop, as an init system does, and returns what it had said.
    pub fn end(mut self) -> Result<String> {
        let said = self.log();
        let pid = rustix::process::Pid::from_child(self.child.child());
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.child.wait(SOON)?;
        Ok(said)
    }

    /// As [`Server::end`]; it had nothing to complain about.
    pub fn end_content(self) -> Result {
        let name = self.name.clone();
        let said = self.end()?;
        let complaints = [
            "error",
            "alert",
            "warn",
            "fatal",
            "panic",
            "exception",
            "traceback",
        ];
        let lower = said.to_lowercase();
        assert!(
            !complaints.iter().any(|word| lower.contains(word)),
            "{name}: {said}"
        );
        Ok(())
    }
}

/// Plays a scenario without Beeline and then with it. What it tells has to be the same, and afterwards
/// all maps have to be empty; returns the sums of the second time.
pub fn on_both_paths<T: PartialEq + Debug>(
    cgroup: &Cgroup,
    scenario: impl Fn(&Stage) -> Result<T>,
) -> Result<Totals> {
    let (plain, beeline, totals) = play_twice(cgroup, scenario)?;
    assert_eq!(beeline, plain, "what it tells with Beeline and without");
    Ok(totals)
}

/// As [`on_both_paths`], and returns what the scenario told without Beeline and with it.
pub fn play_twice<T>(
    cgroup: &Cgroup,
    scenario: impl Fn(&Stage) -> Result<T>,
) -> Result<(T, T, Totals)> {
    println!("over the kernel path");
    let plain = scenario(&Stage::new()?).map_err(|error| format!("kernel path: {error}"))?;
    let bed = Bed::with(cgroup, Options::default())?;
    println!("with Beeline");
    // Until its connections are over: without its links the end of a stream would never arrive.
    let stage = Stage::new()?;
    let beeline = watched(&bed, || scenario(&stage))
        .map_err(|error| format!("with Beeline: {error}; {}", state(&bed)))?;
    Ok((plain, beeline, bed.emptied()?))
}

/// Programs that may splice as far as their files tell, and do not in these tests.
fn is_trusted(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    ["java", "node", "python3"]
        .iter()
        .any(|trusted| name.starts_with(trusted))
}

/// Meanwhile looks at the programs that connect and listen, and for connections that do not block
/// any more, as the agent does.
pub fn watched<T>(bed: &Bed, scenario: impl FnOnce() -> Result<T>) -> Result<T> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| -> Result {
            let (mut programs, adopter) = (Programs::load(bed, is_trusted)?, Adopter::load(bed)?);
            while !stop.load(Ordering::Relaxed) {
                programs.poll(Duration::from_millis(20))?;
                adopter.look()?;
            }
            Ok(())
        });
        let done = scenario();
        stop.store(true, Ordering::Relaxed);
        watch.join().expect("the watch panicked")?;
        done
    })
}

/// The sums, and what is enrolled at the moment, for messages.
fn state(bed: &Bed) -> String {
    let ends = bed.ends().map_or_else(
        |error| error.to_string(),
        |ends| ends.iter().map(|end| format!("\n  {end:?}")).collect(),
    );
    bed.totals()
        .map_or_else(|e| e.to_string(), |t| Sums(&t).to_string())
        + &ends
}

/// Something was redirected.
#[track_caller]
pub fn expect_redirected(totals: &Totals, at_least: u64) {
    assert!(
        totals.closed_redirected_bytes >= at_least,
        "{}",
        Sums(totals)
    );
}

/// All was left alone for this reason, or because nobody had looked at a program that had just started;
/// but for so many `others`, which have nothing to do with it and carry little.
#[track_caller]
pub fn expect_left_alone(totals: &Totals, why: Reason, others: u64) {
    // Of the others, one may begin before its peer is enrolled.
    let reasons = [why, Reason::UnknownProgram, Reason::PeerLate];
    expect_connections(totals, others);
    expect_reasons(
        totals,
        &reasons.map(|reason| (reason, totals.count(reason))),
    );
    assert!(totals.count(why) > 0, "{}", Sums(totals));
    let bytes = totals.closed_redirected_bytes + totals.closed_kernel_bytes;
    assert!(bytes <= LITTLE * others, "{}", Sums(totals));
}

/// The text of a program of ours, from the directory `sources`.
macro_rules! source {
    ($name:literal) => {
        include_str!(concat!("sources/", $name))
    };
}
pub(crate) use source;

/// Compiles a Go program and returns its path.
pub fn go(stage: &Stage, name: &str, text: &str) -> Result<String> {
    let (file, out) = (
        stage.write(name, text)?,
        stage.arg(name.trim_end_matches(".go")),
    );
    let cache = format!("GOCACHE={}/go", env!("CARGO_TARGET_TMPDIR"));
    let env = [
        "env",
        "CGO_ENABLED=0",
        "GO111MODULE=off",
        "GOFLAGS=",
        &cache,
    ];
    let build = ["go", "build", "-o", &out, &file];
    let said = stage.run_long(
        &stage.client,
        Duration::from_secs(90),
        &[&env[..], &build].concat(),
    )?;
    assert!(stage.path(name.trim_end_matches(".go")).exists(), "{said}");
    Ok(out)
}

#[test]
fn missing_program_is_named_with_its_package() {
    let error = testbed::Error::NoProgram {
        program: "redis-benchmark".into(),
    };
    assert!(package(error).ends_with("apt-get install redis-tools"));
}
