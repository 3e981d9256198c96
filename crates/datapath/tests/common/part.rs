//! Parts that another process plays: peers in another cgroup, and peers to be killed.
//!
//! The process is this test binary again, asked for the one ignored test at the end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;

use testbed::traffic::{accept, connect, listen, rr, stream};
use testbed::{Cgroup, ChildGuard, NetNs};

use super::Result;

const PART: &str = "BEELINE_PART";
const CGROUP: &str = "BEELINE_PART_CGROUP";

/// Message size of the parts that exchange messages.
pub const MESSAGE: usize = 777;

/// What the process does.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// Listens, tells where, answers the messages of one client.
    Serve(SocketAddr),
    /// Connects and exchanges so many messages.
    Call(SocketAddr, usize),
    /// Connects and sends the stream of this seed without end.
    Flood(SocketAddr, u64),
    /// Connects and reads nothing, without end.
    Idle(SocketAddr),
}

/// The process; killed with -9 when dropped.
pub struct Player {
    pub child: ChildGuard,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Player {
    /// Starts the part in a namespace; `cgroup` is where the process moves before it makes sockets.
    pub fn start(ns: &NetNs, cgroup: Option<&Cgroup>, part: Part) -> Result<Self> {
        let binary = std::env::current_exe()?;
        let text = match part {
            Part::Serve(addr) => format!("serve {addr} 0"),
            Part::Call(addr, count) => format!("call {addr} {count}"),
            Part::Flood(addr, seed) => format!("flood {addr} {seed}"),
            Part::Idle(addr) => format!("idle {addr} 0"),
        };
        let mut child = ns
            .command(binary.to_str().ok_or("the path of the binary")?)
            .args(["--exact", "common::part::play", "--ignored", "--nocapture"])
            .with(|command| {
                command.env(PART, text).stdout(Stdio::piped());
                if let Some(cgroup) = cgroup {
                    command.env(CGROUP, cgroup.path());
                }
            })
            .spawn()?;
        let out = child.child().stdout.take().ok_or("a pipe")?;
        let lines = Box::new(BufReader::new(out).lines().map_while(|line| line.ok()));
        Ok(Self { child, lines })
    }

    /// The rest of the next line that begins so.
    pub fn told(&mut self, word: &str) -> Result<String> {
        // libtest writes "test name ... " without a newline before.
        let found = self
            .lines
            .find_map(|line| Some(line.split_once(word)?.1.trim().to_owned()));
        found.ok_or_else(|| format!("the part ended without telling {word:?}").into())
    }

    /// Waits until it has ended well.
    pub fn ended(mut self) -> Result {
        self.told("part played").map(drop)
    }
}

#[test]
#[ignore = "a part of other tests, in a process of its own"]
fn play() {
    let Ok(part) = std::env::var(PART) else {
        return;
    };
    if let Ok(cgroup) = std::env::var(CGROUP) {
        fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("enter the cgroup");
    }
    let words: Vec<_> = part.split(' ').collect();
    let addr: SocketAddr = words[1].parse().expect("an address");
    let number: u64 = words[2].parse().expect("a number");
    act(words[0], addr, number).unwrap_or_else(|error| panic!("{part}: {error}"));
    println!("part played");
}

fn act(part: &str, addr: SocketAddr, number: u64) -> Result {
    match part {
        "serve" => {
            let (listener, addr) = listen(addr)?;
            println!("listens on {addr}");
            rr::serve(&accept(&listener)?, MESSAGE)?;
        }
        "call" => {
            rr::client(&connect(addr)?, MESSAGE, usize::try_from(number)?)?;
        }
        "flood" => {
            let sock = connect(addr)?;
            stream::send(&sock, number, u64::MAX, 20_000)?;
        }
        "idle" => {
            let sock: TcpStream = connect(addr)?;
            println!("connected");
            let mut nothing = String::new();
            // Standard input is empty, so this parks until the signal.
            while std::io::stdin().read_line(&mut nothing)? == 0 {
                std::thread::park();
            }
            drop(sock);
        }
        _ => return Err("an unknown part".into()),
    }
    Ok(())
}
