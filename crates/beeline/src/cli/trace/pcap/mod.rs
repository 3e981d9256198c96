//! `beeline trace --pcap`: what connections send, as packets that tcpdump and Wireshark read.

mod conversations;
mod file;
mod packet;

use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use datapath::Maps;
use datapath::capture::{self, Capture, Captured, Lost};

use self::conversations::Conversations;
use self::file::File;
use super::follow;
use crate::cli::output;
use crate::control::{self, Capturing, Request};
use crate::instance::Instance;
use crate::observe::filter::Filter;

/// How long the end may go unnoticed.
const BEAT: Duration = Duration::from_millis(100);

/// Captures `snap` bytes of each message into a file until interrupted, or until the agent stops.
pub(super) fn run(instance: &Instance, path: &Path, snap: u32, filter: Filter) -> Result<()> {
    let maps = Maps::open(&instance.pins())?;
    let permit = Permit::ask(instance, snap)?;
    let mut taker = Taker {
        conversations: Conversations::new(instance, &maps, filter)?,
        file: File::create(path, snap)?,
    };
    let capture = Capture::open(&maps)?;
    while !permit.is_over() {
        let pieces = capture.poll(BEAT)?;
        taker.take(&maps, &pieces, Some(&capture))?;
    }
    let (rest, lost) = capture.finish()?;
    taker.take(&maps, &rest, None)?;
    permit.end(&maps)?;
    taker.tell(lost);
    Ok(())
}

/// Turns what is captured into packets.
struct Taker {
    conversations: Conversations,
    file: File,
}

impl Taker {
    fn take(
        &mut self,
        maps: &Maps,
        pieces: &[Captured],
        capture: Option<&Capture<'_>>,
    ) -> Result<()> {
        for (piece, data) in pieces {
            let conversation = self.conversations.of(maps, piece)?;
            if conversation.chosen {
                self.file.put(conversation, piece, data)?;
            } else if let Some(capture) = capture {
                capture.ignore(conversations::client_view(piece))?;
            }
        }
        self.file.flush()
    }

    fn tell(&self, lost: Lost) {
        eprintln!(
            "{} packets with {}",
            self.file.packets,
            output::bytes(self.file.bytes)
        );
        if lost.pieces > 0 {
            eprintln!(
                "({} parts of messages, {}, were lost for want of room)",
                lost.pieces,
                output::bytes(lost.bytes)
            );
        }
        if self.conversations.nameless > 0 {
            eprintln!(
                "({} connections not captured: whose they are could not be told)",
                self.conversations.nameless
            );
        }
    }
}

/// The agent lets programs capture as long as this lives.
struct Permit {
    agent: UnixStream,
    interrupted: Arc<AtomicBool>,
    withdrawn: Arc<AtomicBool>,
}

impl Permit {
    fn ask(instance: &Instance, snap: u32) -> Result<Self> {
        let mut answers = follow::ask(instance, Request::Capture { bytes: snap })?;
        match control::receive(&mut answers).context("cannot understand the agent")? {
            Some(Capturing::Begun) => {}
            Some(Capturing::Refused { why }) => bail!("cannot capture: {why}"),
            None => bail!("the agent hung up: is it of this version? (restart it)"),
        }
        let permit = Self {
            agent: answers.get_ref().try_clone()?,
            interrupted: Arc::default(),
            withdrawn: Arc::default(),
        };
        let interrupted = Arc::clone(&permit.interrupted);
        ctrlc::set_handler(move || interrupted.store(true, Ordering::Relaxed))
            .context("cannot handle signals")?;
        let withdrawn = Arc::clone(&permit.withdrawn);
        thread::spawn(move || wait_for_end(answers, &withdrawn));
        Ok(permit)
    }

    fn is_over(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed) || self.withdrawn.load(Ordering::Relaxed)
    }

    /// Whoever has no agent any more has to switch off itself.
    fn end(self, maps: &Maps) -> Result<()> {
        if self.withdrawn.load(Ordering::Relaxed) {
            eprintln!("the agent stopped");
            capture::set(maps, 0)?;
        }
        // It may be gone already.
        let _ = self.agent.shutdown(Shutdown::Both);
        Ok(())
    }
}

/// The agent says nothing more, so whatever comes is the end.
fn wait_for_end(mut answers: BufReader<UnixStream>, withdrawn: &AtomicBool) {
    let _ = io::copy(&mut answers, &mut io::sink());
    withdrawn.store(true, Ordering::Relaxed);
}
