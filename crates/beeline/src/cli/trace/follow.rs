//! The events of an agent, until it stops or the user does.

use std::io::{self, BufReader, ErrorKind};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::control::{self, Request};
use crate::instance::Instance;
use crate::observe::event::Event;

/// Events that may wait to be printed; more wait with the agent, which counts those it drops.
const BACKLOG: usize = 256;

/// What comes next.
pub(super) enum Next {
    Event(Box<Event>),
    /// Nothing, for as long as was waited.
    Quiet,
    Interrupted,
    AgentStopped,
}

/// Events on their way.
pub(super) struct Following(Receiver<io::Result<Next>>);

impl Following {
    /// Waits for an event, but not for ever.
    pub(super) fn wait(&self, time: Duration) -> Result<Next> {
        match self.0.recv_timeout(time) {
            Ok(next) => next.context("the agent hung up"),
            Err(RecvTimeoutError::Timeout) => Ok(Next::Quiet),
            Err(RecvTimeoutError::Disconnected) => Ok(Next::AgentStopped),
        }
    }
}

/// Asks the agent for events; an interrupt ends them.
pub(super) fn start(instance: &Instance) -> Result<Following> {
    let events = ask(instance, Request::Trace)?;
    let (sender, receiver) = mpsc::sync_channel(BACKLOG);
    let on_signal = sender.clone();
    // Nobody receives any more: it is ending already.
    let handler = move || on_signal.send(Ok(Next::Interrupted)).unwrap_or_default();
    ctrlc::set_handler(handler).context("cannot handle signals")?;
    thread::spawn(move || read(events, &sender));
    Ok(Following(receiver))
}

/// Sends a request to the agent.
pub(super) fn ask(instance: &Instance, request: Request) -> Result<BufReader<UnixStream>> {
    control::ask(instance, request).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            anyhow!("tracing needs the agent, and none runs: start it with `beeline run`")
        }
        _ => anyhow!(error).context(format!(
            "cannot ask the agent at {} (only root may, and the group that control.group names)",
            instance.control_socket().display()
        )),
    })
}

fn read(mut events: BufReader<UnixStream>, to: &SyncSender<io::Result<Next>>) {
    loop {
        let next = match control::receive(&mut events) {
            Ok(Some(event)) => Ok(Next::Event(Box::new(event))),
            Ok(None) => Ok(Next::AgentStopped),
            Err(error) => Err(error),
        };
        let last = !matches!(next, Ok(Next::Event(_)));
        if to.send(next).is_err() || last {
            return;
        }
    }
}
