//! splice(2) from a socket does not see what is redirected, so programs that may call it are left
//! alone (invariant 2), and the others are not.

mod common;

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::part::{MESSAGE, Part, Player};
use common::{Bed, Result, SOON};
use datapath::abi::{Program, Reason, Verdict};
use datapath::programs::Programs;
use testbed::traffic::{self, accept, rr, write_all};
use testbed::{Cgroup, ChildGuard, NetNs, Node, kernel_test, wait_for};

/// Accepts one connection, or makes it, and writes to a file what it splices from it: at once, or
/// after a recv.
const SPLICER: &str = r#"
import os, socket, sys
if len(sys.argv) > 4:
    sock = socket.create_connection((sys.argv[1], int(sys.argv[4])))
else:
    listener = socket.create_server((sys.argv[1], 0))
    print(listener.getsockname()[1], flush=True)
    sock, _ = listener.accept()
first = sock.recv(5) if sys.argv[3] == "later" else b""
into, outof = os.pipe()
with open(sys.argv[2], "wb") as file:
    file.write(first)
    while n := os.splice(sock.fileno(), outof, 65536):
        file.write(os.read(into, n))
"#;

const SLEEPER: &str = "import time; time.sleep(60)";

/// No program is trusted.
fn nobody(_: &Path) -> bool {
    false
}

fn splicer(web: &NetNs, ip: &str, file: &Path, when: &str) -> Result<(ChildGuard, u16)> {
    use std::io::{BufRead, BufReader};
    let file = file.to_str().ok_or("a name")?;
    let mut child = web
        .command("python3")
        .args(["-c", SPLICER, ip, file, when])
        .with(|command| {
            command.stdout(std::process::Stdio::piped());
        })
        .spawn()?;
    let out = child.child().stdout.take().ok_or("a pipe")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    Ok((child, line.trim().parse()?))
}

/// A client of a server that splices, whose program was looked at when it listened.
fn spliced(cgroup: &Cgroup, when: &str, connect: fn(SocketAddr) -> Result<TcpStream>) -> Result {
    let bed = Bed::on(cgroup)?;
    let mut programs = Programs::load(&bed, nobody)?;
    let node = Node::new()?;
    let (web, client) = (node.pod("web")?, node.pod("client")?);
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("got");
    let (mut server, port) = splicer(&web, &web.ip().to_string(), &file, when)?;
    programs.poll(SOON)?;
    let mut sock = client.run(|| connect((web.ip(), port).into()))??;
    assert!(bed.waiting().is_empty());
    let sent: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    for piece in sent.chunks(10_000) {
        sock.set_nonblocking(false)?;
        sock.write_all(piece)?;
    }
    drop(sock);
    assert!(server.wait(SOON)?.success());
    assert!(fs::read(&file)? == sent, "what was spliced differs");
    bed.none_enrolled(&[(Reason::MaySplice, 1)])
}

kernel_test! {
    fn server_that_splices_is_left_alone(cgroup: &Cgroup) -> Result {
        spliced(cgroup, "at once", |to| Ok(traffic::connect(to)?))
    }

    /// Nor does it wait until its client does not block any more.
    fn server_that_splices_is_left_alone_by_a_client_that_blocks(cgroup: &Cgroup) -> Result {
        spliced(cgroup, "at once", |to| Ok(TcpStream::connect(to)?))
    }

    fn server_that_splices_later_is_left_alone(cgroup: &Cgroup) -> Result {
        spliced(cgroup, "later", |to| Ok(traffic::connect(to)?))
    }

    /// Nobody has looked at it when its first connection is made.
    fn client_that_splices_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let mut programs = Programs::load(&bed, nobody)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), 0))?;
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("got");
        let run = || -> Result<ChildGuard> {
            let (ip, port) = (web.ip().to_string(), addr.port().to_string());
            let args = ["-c", SPLICER, &ip, file.to_str().ok_or("a name")?, "at once", &port];
            Ok(client.command("python3").args(args).spawn()?)
        };
        // Its first connection makes it known.
        for reason in [Reason::UnknownProgram, Reason::MaySplice] {
            let mut splicer = run()?;
            let sock = accept(&listener)?;
            bed.wait_reason(reason, 1)?;
            programs.poll(Duration::from_secs(1))?;
            write_all(&sock, &[7; 100_000])?;
            drop(sock);
            assert!(splicer.wait(SOON)?.success());
            assert_eq!(fs::read(&file)?, [7; 100_000]);
        }
        bed.none_enrolled(&[(Reason::UnknownProgram, 1), (Reason::MaySplice, 1)])
    }

    fn program_that_nobody_looked_at_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let dir = tempfile::tempdir()?;
        let (server, port) = splicer(&web, &web.ip().to_string(), &dir.path().join("got"), "later")?;
        let sock = client.connect((web.ip(), port))?;
        bed.wait_reason(Reason::UnknownProgram, 1)?;
        drop((sock, server));
        bed.none_enrolled(&[(Reason::UnknownProgram, 1)])
    }

    fn python_splices_and_sleep_does_not(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let mut programs = Programs::load(&bed, nobody)?;
        let sleep = NetNs::current()?.command("sleep").args(["60"]).spawn()?;
        let python = NetNs::current()?.command("python3").args(["-c", SLEEPER]).spawn()?;
        let verdict = |programs: &Programs<'_>, pid| -> Result<Verdict> {
            let program = programs.of(pid)?.ok_or("it runs")?;
            Ok(bed.verdict(program)?)
        };
        wait_for("both programs", SOON, || {
            let name = |pid| fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            name(sleep.pid()).ends_with("sleep") && name(python.pid()).to_string_lossy().contains("python3")
        })?;
        programs.survey()?;
        assert_eq!(verdict(&programs, sleep.pid())?, Verdict::NeverSplices);
        assert_eq!(verdict(&programs, python.pid())?, Verdict::MaySplice);
        Ok(())
    }

    /// Whoever runs a program may know better than its files.
    fn trusted_program_never_splices(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let python = NetNs::current()?.command("python3").args(["-c", SLEEPER]).spawn()?;
        let is_python = |path: &Path| path.to_string_lossy().contains("python3");
        wait_for("the program", SOON, || {
            is_python(&fs::read_link(format!("/proc/{}/exe", python.pid())).unwrap_or_default())
        })?;
        let mut programs = Programs::load(&bed, is_python)?;
        programs.survey()?;
        let program = programs.of(python.pid())?.ok_or("it runs")?;
        assert_eq!(bed.verdict(program)?, Verdict::NeverSplices);
        Ok(())
    }

    /// What was said of it does not hold for what is in its place.
    fn program_that_was_written_anew_is_another(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let programs = Programs::load(&bed, nobody)?;
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("program");
        let look = || -> Result<Program> {
            let mut runs = Command::new(&file).arg("60").spawn()?;
            let found = programs.of(runs.id())?;
            runs.kill()?;
            runs.wait()?;
            Ok(found.ok_or("it runs")?)
        };
        let sleep = fs::read("/usr/bin/sleep")?;
        fs::copy("/usr/bin/sleep", &file)?;
        let before = look()?;
        // Whoever asks for the time of its file leaves a mark there.
        fs::metadata(&file)?;
        assert_eq!(look()?, before);
        // In place, so that it is the same inode; within a tick it is the same time as well.
        let written = || fs::write(&file, &sleep).is_ok() && look().is_ok_and(|after| after != before);
        wait_for("another time", SOON, written)?;
        let after = look()?;
        assert_eq!((after.inode, after.device), (before.inode, before.device));
        Ok(())
    }

    /// It is not said to splice.
    fn program_that_nobody_could_look_at_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let own = Programs::load(&bed, nobody)?.of(std::process::id())?.ok_or("it runs")?;
        let (listener, addr) = traffic::listen((Ipv4Addr::LOCALHOST, 0))?;
        bed.set_verdict(own, Verdict::Unknown)?;
        drop((traffic::connect(addr)?, accept(&listener)?));
        bed.none_enrolled(&[(Reason::UnknownProgram, 1)])
    }

    /// Either may accept, so that neither is taken for the server; both would fit.
    fn listener_that_two_programs_have_is_left_alone(cgroup: &Cgroup) -> Result {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), 0))?;
        let its = Stdio::from(listener.as_fd().try_clone_to_owned()?);
        let mut other = Command::new("sleep").arg("60").stdin(its).spawn()?;
        let bed = Bed::on(cgroup)?;
        let sleep = Programs::load(&bed, |_| true)?.of(other.id())?.ok_or("it runs")?;
        bed.set_verdict(sleep, Verdict::NeverSplices)?;
        let connected = client.connect(addr);
        other.kill()?;
        other.wait()?;
        drop((connected?, accept(&listener)?));
        bed.none_enrolled(&[(Reason::UnknownProgram, 1)])
    }

    fn listener_from_before_is_known(cgroup: &Cgroup) -> Result {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let any = SocketAddr::from((web.ip(), 0));
        let mut server = Player::start(&web, None, Part::Serve(any))?;
        let addr: SocketAddr = server.told("listens on")?.parse()?;
        let bed = Bed::on(cgroup)?;
        let sock: TcpStream = client.connect(addr)?;
        bed.wait_paired(1)?;
        rr::client(&sock, MESSAGE, 10)?;
        drop(sock);
        server.ended()?;
        bed.all_redirected(1, 2 * 10 * MESSAGE as u64)
    }
}
