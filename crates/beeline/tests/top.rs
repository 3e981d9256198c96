//! `beeline top` on a terminal shows what the test itself sends, and gives the terminal back.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;

use common::{Beeline, SOON, pair};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use testbed::traffic::{self, stream};
use testbed::{Cgroup, kernel_test, wait_for};

const ROWS: u16 = 24;
const COLUMNS: u16 = 80;

/// A running `beeline top` on a terminal of its own.
struct Top {
    child: Child,
    keys: File,
    /// Its other side, as the program has it.
    tty: OwnedFd,
    /// What a terminal would show.
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Top {
    fn start(beeline: &Beeline, args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let tty = open(
            ptsname(&master, Vec::new()).unwrap(),
            OFlags::RDWR | OFlags::NOCTTY,
            Mode::empty(),
        )
        .unwrap();
        let size = Winsize {
            ws_row: ROWS,
            ws_col: COLUMNS,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&tty, size).unwrap();
        // In a session of its own, so that the terminal is the one it finds at /dev/tty.
        let child = Command::new("setsid")
            .args(["--ctty", "--wait", env!("CARGO_BIN_EXE_beeline")])
            .args([
                "--instance",
                &beeline.instance,
                "top",
                "--interval",
                "200ms",
            ])
            .args(args)
            .env("TERM", "xterm-256color")
            .stdin(tty.try_clone().unwrap())
            .stdout(tty.try_clone().unwrap())
            .stderr(tty.try_clone().unwrap())
            .spawn()
            .expect("setsid (util-linux) starts");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)));
        let keys = File::from(master);
        let (output, shown) = (keys.try_clone().unwrap(), screen.clone());
        thread::spawn(move || show(output, &shown));
        Self {
            child,
            keys,
            tty,
            screen,
        }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Waits until all of it is on the screen at once.
    fn shows(&self, parts: &[&str]) {
        let there = || parts.iter().all(|part| self.text().contains(part));
        wait_for("the screen", SOON, there)
            .unwrap_or_else(|_| panic!("no {parts:?} in:\n{}", self.text()));
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    fn is_screen(&self) -> bool {
        self.screen.lock().unwrap().screen().alternate_screen()
    }

    /// Waits for its end, and looks at what it leaves of the terminal.
    fn ends(&mut self) -> bool {
        let child = &mut self.child;
        wait_for("its end", SOON, || child.try_wait().unwrap().is_some()).unwrap();
        let modes = tcgetattr(&self.tty).unwrap().local_modes;
        assert!(
            modes.contains(LocalModes::ECHO | LocalModes::ICANON),
            "{modes:?}"
        );
        wait_for("the screen to be left", SOON, || !self.is_screen()).unwrap();
        assert!(!self.screen.lock().unwrap().screen().hide_cursor());
        self.child.wait().unwrap().success()
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn show(mut output: File, screen: &Mutex<vt100::Parser>) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = output.read(&mut bytes) {
        screen.lock().unwrap().process(&bytes[..count]);
    }
}

fn port(sock: &TcpStream) -> String {
    format!(":{}", sock.local_addr().unwrap().port())
}

/// Sends and receives until the screen shows it.
fn exchange(top: &Top, client: &TcpStream, server: &TcpStream, parts: &[&str]) {
    let shown = || {
        // Larger than what leaves the maps as a small write.
        stream::send(client, 1, 10_000, 10_000).unwrap();
        traffic::read_all(server, &mut [0; 10_000]).unwrap();
        parts.iter().all(|part| top.text().contains(part))
    };
    wait_for("the rates", SOON, shown)
        .unwrap_or_else(|_| panic!("no {parts:?} in:\n{}", top.text()));
}

kernel_test! {
    fn top_shows_a_redirected_connection_and_opens_it(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let (client, server) = pair();
        let (silent, _server) = pair();
        let mut top = Top::start(&beeline, &["--sort", "bytes"]);
        top.shows(&["on, 2 connections, by bytes", &port(&client), &port(&silent), "start"]);
        assert!(top.is_screen());
        exchange(&top, &client, &server, &["socket/start", "iB/s"]);
        top.press("\r");
        top.shows(&["path socket/start", &format!("127.0.0.1{}, and the peer as", port(&client)), "redirected in"]);
        top.press("\t");
        top.shows(&["sent by the client", "redirected_message", "9.77 KiB on average", "16 KiB", "####", "nothing was counted"]);
        top.press("\x1b");
        top.shows(&["CLIENT"]);
        top.press("\t");
        top.shows(&["CONNS"]);
        top.press("/path:start\r");
        top.shows(&["1 of them listed", "filter: path:start"]);
        top.press("?");
        top.shows(&["any key goes on"]);
        top.press("x");
        top.shows(&["CLIENT"]);
        top.press("q");
        assert!(top.ends());
    }

    fn top_gives_the_terminal_back_when_interrupted(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let mut top = Top::start(&beeline, &[]);
        top.shows(&["no connections are enrolled"]);
        assert!(top.is_screen());
        top.press("\x03");
        assert!(top.ends());
        let mut top = Top::start(&beeline, &[]);
        top.shows(&["no connections are enrolled"]);
        kill_process(Pid::from_raw(child_of(top.child.id())).unwrap(), Signal::TERM).unwrap();
        assert!(top.ends());
    }

    fn top_gives_the_terminal_back_and_says_why_when_the_datapath_goes(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let mut top = Top::start(&beeline, &[]);
        top.shows(&["no connections are enrolled"]);
        beeline.ok(&["detach"]);
        assert!(!top.ends());
        top.shows(&["Beeline was detached"]);
    }

    fn top_without_a_terminal_or_a_datapath_says_what_to_do(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        assert!(beeline.fails(&["top"]).contains("beeline conns"));
        let mut top = Top::start(&beeline, &[]);
        assert!(!top.ends());
        top.shows(&["beeline run"]);
    }
}

/// The one that setsid waits for; itself, if it did not have to fork.
fn child_of(pid: u32) -> i32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let first = children
        .unwrap_or_default()
        .split_whitespace()
        .next()
        .map(str::to_owned);
    first.map_or(pid.cast_signed(), |child| {
        child.parse().expect("a process id")
    })
}
