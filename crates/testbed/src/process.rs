//! External programs in a namespace, as guards.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::error::{Error, NEEDS_ROOT, Result, Tried};
use crate::netns::{JoinHandle, NetNs};
use crate::wait::wait_until;

/// How long [`NsCommand::output`] lets a program run.
pub const OUTPUT_DEADLINE: Duration = Duration::from_secs(30);

/// An external program to be run in a namespace; its input is empty unless [`NsCommand::input`] gives some, or
/// [`NsCommand::talking`] leaves it to the caller.
#[derive(Debug)]
pub struct NsCommand {
    ns: NetNs,
    program: String,
    command: Result<Command, String>,
    input: Vec<u8>,
    talks: bool,
}

impl NsCommand {
    pub(crate) fn new(ns: &NetNs, program: &str) -> Self {
        Self {
            ns: ns.clone(),
            program: program.to_owned(),
            command: command_for(program).ok_or_else(|| program.to_owned()),
            input: Vec::new(),
            talks: false,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Self {
        self.with(|command| {
            command.args(args);
        })
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(self, arg: impl AsRef<OsStr>) -> Self {
        self.args([arg])
    }

    /// Changes anything else: environment, directory, standard output and error of [`NsCommand::spawn`].
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Command)) -> Self {
        if let Ok(command) = &mut self.command {
            change(command);
        }
        self
    }

    /// What [`NsCommand::output`] gives the program on its standard input.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Leaves the program's standard input to the caller, as a pipe in [`ChildGuard::child`].
    #[must_use]
    pub fn talking(mut self) -> Self {
        self.talks = true;
        self
    }

    /// Starts the program. It is killed and reaped when the guard is dropped, and killed by the kernel when this
    /// process dies.
    ///
    /// # Errors
    /// [`Error::NoProgram`], or [`Error::Os`] when it cannot be started.
    pub fn spawn(mut self) -> Result<ChildGuard> {
        let mut command = self
            .command
            .map_err(|program| Error::NoProgram { program })?;
        let piped = self.talks || !self.input.is_empty();
        command.stdin(if piped { Stdio::piped() } else { Stdio::null() });
        let (started, child) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        // The parent-death signal is sent when the *thread* that started the program ends, so this one stays.
        let keeper = self.ns.spawn(move || {
            let _ = started.send(command.spawn());
            let _ = stopped.recv();
        })?;
        let program = self.program;
        let refused = || format!("start {program} in namespace {}", self.ns.name());
        let mut child = child
            .recv()
            .map_err(std::io::Error::other)
            .flatten()
            .tried(NEEDS_ROOT, refused)?;
        if !self.talks
            && let Some(mut stdin) = child.stdin.take()
        {
            let input = std::mem::take(&mut self.input);
            // On a thread, as the program may not read all of it before it writes. It sees a broken pipe as its end.
            thread::spawn(move || stdin.write_all(&input));
        }
        Ok(ChildGuard {
            program,
            child,
            stop: Some(stop),
            keeper: Some(keeper),
        })
    }

    /// Runs the program to its end and returns what it wrote, also when it failed.
    ///
    /// # Errors
    /// As [`NsCommand::spawn`], and [`Error::Timeout`] when it runs longer than [`OUTPUT_DEADLINE`]; then it was
    /// killed.
    pub fn output(self) -> Result<Output> {
        let piped = self.with(|command| {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        });
        let mut guard = piped.spawn()?;
        let (stdout, stderr) = (
            collect(guard.child.stdout.take()),
            collect(guard.child.stderr.take()),
        );
        let status = guard.wait(OUTPUT_DEADLINE)?;
        // A program that it left behind may hold the pipes open.
        let end_of_output = |_| Error::Timeout {
            what: format!("the end of the output of {}", guard.program),
            after: OUTPUT_DEADLINE,
        };
        Ok(Output {
            status,
            stdout: stdout
                .recv_timeout(OUTPUT_DEADLINE)
                .map_err(end_of_output)?,
            stderr: stderr
                .recv_timeout(OUTPUT_DEADLINE)
                .map_err(end_of_output)?,
        })
    }

    /// Runs the program to its end and returns its standard output.
    ///
    /// # Errors
    /// As [`NsCommand::output`], and [`Error::Program`] with its standard error when it failed.
    pub fn run(self) -> Result<String> {
        let (program, namespace) = (self.program.clone(), self.ns.name().to_owned());
        let output = self.output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Program {
            program,
            namespace,
            status: output.status,
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

/// Reads a pipe to its end on a thread of its own, so that a full pipe cannot stop the program.
fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, bytes) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut text);
        }
        let _ = sender.send(text);
    });
    bytes
}

/// Ends when its parent is not the process in `$0` any more, else becomes the program in its arguments.
const UNLESS_ORPHANED: &str = r#"[ "$PPID" = "$0" ] && exec "$@""#;

/// The command that starts `program` so that it dies with its parent.
///
/// std has no safe way to set the parent-death signal between fork and exec; `setpriv` of util-linux does it. A parent
/// that died before sends none, so a shell looks once more afterwards. Without setpriv only drop ends the program.
fn command_for(program: &str) -> Option<Command> {
    let program = find(program)?;
    let Some(setpriv) = find("setpriv") else {
        return Some(Command::new(program));
    };
    let mut command = Command::new(setpriv);
    command.args([
        "--pdeathsig",
        "KILL",
        "--",
        "/bin/sh",
        "-c",
        UNLESS_ORPHANED,
    ]);
    command.arg(std::process::id().to_string()).arg(program);
    Some(command)
}

/// Looks a program up in PATH and in the places of root's programs, which a user's PATH may lack.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Whether a process runs. One that has ended but was not reaped, as under a container's init that does not care, is
/// not alive.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and may hold some itself.
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// A running program; killed by its pid and reaped on drop.
#[derive(Debug)]
pub struct ChildGuard {
    program: String,
    child: Child,
    stop: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl ChildGuard {
    /// Its process id; valid until it has been waited for.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it still runs after `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let Self { program, child, .. } = self;
        wait_until(&format!("the end of {program}"), deadline, || {
            child.try_wait().transpose()
        })?
        .tried("", || format!("wait for {program}"))
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // Both fail only when it has been reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}
