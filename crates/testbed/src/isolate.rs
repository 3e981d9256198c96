//! Kernel tests: each body in a process of its own, with a deadline and a fresh cgroup.

use std::env;
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, geteuid, getppid};

use crate::cgroup::Cgroup;
use crate::error::{Error, Result, Tried};
use crate::wait::wait_until;

/// How long a kernel test may take unless it has a `#[deadline(seconds)]`.
pub const DEADLINE_SECS: u64 = 120;

/// Seconds that each kernel test may take, instead of its own deadline: for who expects it to fail.
const DEADLINE: &str = "BEELINE_TEST_DEADLINE";

/// Set in the child of a kernel test: `<pid of the parent>:<name of the test>`.
const CHILD: &str = "BEELINE_KERNEL_TEST";

/// The prefix of the cgroups that kernel tests run in.
pub const TEST_CGROUP: &str = "beeline-test";

/// Makes `#[test]` functions whose bodies run as root in a process and a cgroup2 of their own.
///
/// The process and all it started are killed after a deadline (120 s, or `#[deadline(seconds)]`), and when the test
/// runner dies. What it printed is shown when the test fails. The body may take the cgroup it runs in, and may return
/// a `Result`. Works alike under `cargo test` and cargo-nextest; tests may run in parallel.
///
/// ```no_run
/// testbed::kernel_test! {
///     #[deadline(30)]
///     fn pods_reach_each_other(cgroup: &testbed::Cgroup) -> testbed::Result<()> {
///         let node = testbed::Node::new()?;
///         node.pod("a")?;
///         assert!(cgroup.path().exists());
///         Ok(())
///     }
///
///     fn nothing_needed() {
///         assert_eq!(1 + 1, 2);
///     }
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! kernel_test {
    (@attr $old:expr, [$($attr:tt)*] #[deadline($secs:expr)] $($rest:tt)*) => {
        $crate::kernel_test! { @attr $secs, [$($attr)*] $($rest)* }
    };
    (@attr $secs:expr, [$($attr:tt)*] #$any:tt $($rest:tt)*) => {
        $crate::kernel_test! { @attr $secs, [$($attr)* #$any] $($rest)* }
    };
    (@attr $secs:expr, $attr:tt fn $name:ident() $($rest:tt)*) => {
        $crate::kernel_test! { @attr $secs, $attr fn $name(_: &$crate::Cgroup) $($rest)* }
    };
    (@attr $secs:expr, [$($attr:tt)*]
     fn $name:ident($cgroup:tt : $kind:ty) $(-> $outcome:ty)? $body:block $($rest:tt)*) => {
        $($attr)*
        #[test]
        fn $name() {
            fn body($cgroup: $kind) $(-> $outcome)? $body
            let deadline = ::std::time::Duration::from_secs($secs);
            let name = concat!(module_path!(), "::", stringify!($name));
            $crate::isolate::kernel_test(name, deadline, body);
        }
        $crate::kernel_test! { $($rest)* }
    };
    () => {};
    ($($rest:tt)+) => {
        $crate::kernel_test! { @attr $crate::isolate::DEADLINE_SECS, [] $($rest)+ }
    };
}

/// What the body of a kernel test may return.
pub trait Outcome {
    /// Panics when the body failed.
    fn check(self);
}

impl Outcome for () {
    fn check(self) {}
}

impl<E: Display> Outcome for std::result::Result<(), E> {
    fn check(self) {
        if let Err(err) = self {
            panic!("{err}");
        }
    }
}

/// The function behind [`kernel_test!`](crate::kernel_test): runs `body` in a child process, which is this test
/// binary asked for this one test, or, in that child, runs it.
///
/// # Panics
/// When the test failed or was not over in time.
pub fn kernel_test<O: Outcome>(
    path: &str,
    deadline: Duration,
    body: impl FnOnce(&Cgroup) -> O + Send,
) {
    assert!(
        geteuid().is_root(),
        "kernel tests need root: run them with sudo, or in a VM"
    );
    // libtest names tests by their path without the crate.
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    match env::var(CHILD)
        .ok()
        .as_deref()
        .and_then(|value| value.split_once(':'))
    {
        Some((parent, test)) if test == name => in_child(name, parent, body),
        _ => in_parent(name, deadline),
    }
}

/// The line by which the child proves that the test ran: libtest is content when a name matches nothing.
fn proof(name: &str) -> String {
    format!("kernel test {name} passed")
}

fn in_child<O: Outcome>(name: &str, parent: &str, body: impl FnOnce(&Cgroup) -> O + Send) {
    set_pdeathsig(Signal::SIGKILL).expect("cannot ask for a signal when the parent dies");
    // It may have died before we asked.
    assert_eq!(getppid().to_string(), parent, "the test runner is gone");
    thread::scope(|scope| {
        let run = || {
            let cgroup = Cgroup::create(TEST_CGROUP).unwrap_or_else(|err| panic!("{err}"));
            cgroup.enter().unwrap_or_else(|err| panic!("{err}"));
            body(&cgroup).check();
        };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn_scoped(scope, run);
        let ended = thread.expect("cannot start a thread").join();
        ended.unwrap_or_else(|panic| resume_unwind(panic));
    });
    println!("{}", proof(name));
}

fn in_parent(name: &str, deadline: Duration) {
    let binary = env::current_exe().expect("cannot find the test binary");
    let mut command = Command::new(binary);
    command.args([
        "--exact",
        name,
        "--nocapture",
        "--include-ignored",
        "--test-threads=1",
    ]);
    command.env(CHILD, format!("{}:{name}", process::id()));
    let deadline = env::var(DEADLINE).map_or(deadline, |seconds| {
        let seconds = seconds.parse();
        Duration::from_secs(seconds.unwrap_or_else(|_| panic!("{DEADLINE} is not a number")))
    });
    let ended = run(&mut command, deadline).unwrap_or_else(|err| panic!("{err}"));
    // libtest shows it when the test fails.
    print!("{}", ended.output);
    match ended.status {
        None => panic!("{name} was killed: not over after {deadline:?}"),
        Some(status) if !status.success() => panic!("{name} failed: {status}"),
        Some(_) => assert!(
            ended.output.contains(&proof(name)),
            "{name} was not found in the test binary"
        ),
    }
}

/// How a child process ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; `None` when it was killed because its time was over.
    pub status: Option<ExitStatus>,
    /// What it wrote on standard output and standard error, in order.
    pub output: String,
}

/// Runs a program in a process group of its own; when it ends or its time is over, the whole group is killed and
/// cgroups that it made for kernel tests are removed.
///
/// # Errors
/// [`Error::Os`] when it cannot be started.
pub fn run(command: &mut Command, deadline: Duration) -> Result<Ended> {
    let program = format!("{}", command.get_program().display());
    // A file, not pipes: whoever keeps it open cannot keep us waiting.
    let mut output = File::from(
        memfd_create("output", MFdFlags::MFD_CLOEXEC).tried("", || "make a file".into())?,
    );
    let copy = || {
        output
            .try_clone()
            .tried("", || "copy a descriptor".to_owned())
            .map(Stdio::from)
    };
    command
        .stdin(Stdio::null())
        .stdout(copy()?)
        .stderr(copy()?)
        .process_group(0);
    let mut child = command.spawn().tried("", || format!("start {program}"))?;
    let in_time = end_of(&child, deadline);
    // Until it is reaped, its pid and with it the number of its group cannot belong to anybody else.
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    let status = child.wait().tried("", || format!("wait for {program}"))?;
    Cgroup::clear(TEST_CGROUP, child.id());
    let mut text = Vec::new();
    output
        .rewind()
        .and_then(|()| output.read_to_end(&mut text))
        .tried("", || "read the output".into())?;
    Ok(Ended {
        status: in_time.then_some(status),
        output: String::from_utf8_lossy(&text).into_owned(),
    })
}

/// Waits for the end of a child without reaping it; false when its time is over first.
fn end_of(child: &Child, deadline: Duration) -> bool {
    let pid = Pid::from_raw(child.id().cast_signed());
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let ended = || {
        waitid(Id::Pid(pid), flags)
            .is_ok_and(|status| status != WaitStatus::StillAlive)
            .then_some(())
    };
    !matches!(
        wait_until("the end of a child", deadline, ended),
        Err(Error::Timeout { .. })
    )
}
